//! The publications: whether they are there, what they hold, and what PostgreSQL will refuse.

use tokio_postgres::{Client, Row, error::SqlState};

use super::{
    Error, PublicationOptions, Table,
    command::{literal, quoted},
    identity, name,
};
use crate::pg::catalog::{self, Server, field};

/// The publications of a stream, as they are now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Published {
    /// Every table whose changes are sent, under the name that they are sent by: a partitioned
    /// table's own with `publish_via_partition_root`, else its partitions'. Sorted.
    pub tables: Vec<Table>,
    /// Whether one of them is FOR ALL TABLES.
    pub all_tables: bool,
    /// Whether one of them sends truncates.
    pub truncates: bool,
    /// Whether the first one was made just now.
    pub created: bool,
    /// What a person should know, with the SQL that mends it.
    pub warnings: Vec<String>,
}

/// Finds the publications, makes the first one if it is missing and `options` say so, and checks
/// them. `mapped` are tables (`schema.table`, not quoted) of which changes are expected.
///
/// `slot_exists`: whether the slot is there already. A publication made now would be younger, and
/// PostgreSQL reads a slot only with older ones, so then none is made.
pub async fn prepare(
    client: &Client,
    server: &Server,
    options: &PublicationOptions,
    mapped: &[String],
    slot_exists: bool,
) -> Result<Published, Error> {
    for publication in &options.names {
        name::check_publication(publication)?;
    }
    let mut kinds = Kinds::read(client, &options.names).await?;
    let mut published = Published::default();
    for (index, name) in options.names.iter().enumerate() {
        if kinds.names.contains(name) {
            continue;
        }
        let sql = create_sql(client, name, options).await?;
        if index == 0 && options.create && !slot_exists && !server.in_recovery {
            create(client, server, name, &sql).await?;
            published.created = true;
            continue;
        }
        let (name, database) = (name.clone(), server.database.clone());
        let standby = server.in_recovery;
        return Err(Error::PublicationMissing { name, database, sql, slot_exists, standby });
    }
    if published.created {
        kinds = Kinds::read(client, &options.names).await?;
    }
    published.tables = tables(client, &options.names).await?;
    published.all_tables = kinds.all_tables;
    published.truncates = kinds.truncates;
    if published.tables.is_empty() && !kinds.all_tables {
        let first = options.names.first().map_or("", String::as_str);
        published.warnings.push(format!(
            "there is no table in {}, so nothing will be streamed: ALTER PUBLICATION {} ADD TABLE …;",
            list(&options.names),
            quoted(first),
        ));
    }
    let absent = absent(client, &options.names, &published.tables, mapped).await?;
    report_absent(absent, &kinds, &mut published.warnings)?;
    published.warnings.extend(identity::warnings(client, server, &options.names).await?);
    Ok(published)
}

/// What the publications say of themselves.
#[derive(Default)]
struct Kinds {
    names: Vec<String>,
    all_tables: bool,
    truncates: bool,
    /// Schemas that are published as a whole (15+).
    schemas: Vec<String>,
}

impl Kinds {
    async fn read(client: &Client, names: &[String]) -> Result<Self, Error> {
        let what = "its publications";
        let rows = client.query(KINDS, &[&names]).await.map_err(catalog::Error::asking(what))?;
        let mut kinds = Self::default();
        for row in &rows {
            kinds.names.push(field(row, 0, what)?);
            kinds.all_tables |= field::<bool>(row, 1, what)?;
            kinds.truncates |= field::<bool>(row, 2, what)?;
        }
        // The catalog of published schemas is younger than 14.
        let exists = "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL";
        let row = client.query_one(exists, &[]).await.map_err(catalog::Error::asking(what))?;
        if field(&row, 0, what)? {
            let rows =
                client.query(SCHEMAS, &[&names]).await.map_err(catalog::Error::asking(what))?;
            for row in &rows {
                kinds.schemas.push(field(row, 0, what)?);
            }
        }
        Ok(kinds)
    }
}

const KINDS: &str = "
SELECT pubname::text, puballtables, pubtruncate
FROM pg_publication WHERE pubname = ANY ($1::text[])";

const SCHEMAS: &str = "
SELECT DISTINCT s.nspname::text
FROM pg_publication p
JOIN pg_publication_namespace n ON n.pnpubid = p.oid
JOIN pg_namespace s ON s.oid = n.pnnspid
WHERE p.pubname = ANY ($1::text[])";

async fn tables(client: &Client, names: &[String]) -> Result<Vec<Table>, Error> {
    let what = "the tables of its publications";
    let rows = client.query(TABLES, &[&names]).await.map_err(catalog::Error::asking(what))?;
    rows.iter()
        .map(|row| Ok(Table { namespace: field(row, 0, what)?, name: field(row, 1, what)? }))
        .collect()
}

const TABLES: &str = "
SELECT DISTINCT schemaname::text, tablename::text
FROM pg_publication_tables WHERE pubname = ANY ($1::text[])
ORDER BY 1, 2";

/// `CREATE PUBLICATION` as the options have it, with every name quoted.
async fn create_sql(
    client: &Client,
    name: &str,
    options: &PublicationOptions,
) -> Result<String, Error> {
    let mut quoted_tables = Vec::new();
    if options.create && !options.tables.is_empty() {
        let found = lookup(client, &options.tables).await?;
        let missing: Vec<_> = options
            .tables
            .iter()
            .filter(|table| !found.iter().any(|found| found.table.qualified() == **table))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Error::NoSuchTable { name: name.to_owned(), tables: missing.join(", ") });
        }
        quoted_tables = found.iter().map(|found| found.table.sql()).collect();
    }
    let what = match (options.create, quoted_tables.is_empty()) {
        (false, _) => "FOR TABLE …".to_owned(),
        (true, true) => "FOR ALL TABLES".to_owned(),
        (true, false) => format!("FOR TABLE {}", quoted_tables.join(", ")),
    };
    let mut with = Vec::new();
    if options.create && !options.operations.is_empty() {
        for operation in &options.operations {
            name::check_operation(operation)?;
        }
        with.push(format!("publish = {}", literal(&options.operations.join(", "))));
    }
    if options.create && options.via_partition_root {
        with.push("publish_via_partition_root = true".to_owned());
    }
    let with = if with.is_empty() { String::new() } else { format!(" WITH ({})", with.join(", ")) };
    Ok(format!("CREATE PUBLICATION {} {what}{with};", quoted(name)))
}

async fn create(client: &Client, server: &Server, name: &str, sql: &str) -> Result<(), Error> {
    let Err(source) = client.batch_execute(sql).await else {
        tracing::info!(publication = name, sql, "made the publication");
        return Ok(());
    };
    match source.code() {
        // Somebody else was quicker; what they made is used as it is.
        Some(code) if *code == SqlState::DUPLICATE_OBJECT => Ok(()),
        // The second: `default_transaction_read_only` of the role.
        Some(code)
            if [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::READ_ONLY_SQL_TRANSACTION]
                .contains(code) =>
        {
            Err(Error::may_not(&server.role, format!("publication {name:?}"), sql, &source))
        }
        _ => Err(catalog::Error { what: "a new publication", source }.into()),
    }
}

/// A table that is there, published or not.
struct Found {
    table: Table,
    partitioned: bool,
}

async fn lookup(client: &Client, qualified: &[String]) -> Result<Vec<Found>, Error> {
    let what = "the tables that are configured";
    let rows = client.query(LOOKUP, &[&qualified]).await.map_err(catalog::Error::asking(what))?;
    let found = |row: &Row| -> Result<Found, Error> {
        let table = Table { namespace: field(row, 0, what)?, name: field(row, 1, what)? };
        Ok(Found { table, partitioned: field(row, 2, what)? })
    };
    rows.iter().map(found).collect()
}

// Compared as a whole, so that a dot in a name needs no quotes.
const LOOKUP: &str = "
SELECT n.nspname::text, c.relname::text, c.relkind = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p')
ORDER BY 1, 2";

/// A mapped table that is not published.
struct Absent {
    qualified: String,
    sentence: String,
}

async fn absent(
    client: &Client,
    names: &[String],
    published: &[Table],
    mapped: &[String],
) -> Result<Vec<Absent>, Error> {
    let absent: Vec<String> = mapped
        .iter()
        .filter(|table| !published.iter().any(|there| there.qualified() == **table))
        .cloned()
        .collect();
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let found = lookup(client, &absent).await?;
    let publication = quoted(names.first().map_or("", String::as_str));
    let sentence = |qualified: &String| {
        let Some(found) = found.iter().find(|found| found.table.qualified() == *qualified) else {
            return format!("table {qualified:?} does not exist");
        };
        let via_root = if found.partitioned {
            " under its own name (if its partitions are: ALTER PUBLICATION … SET \
             (publish_via_partition_root = true), or map the partitions)"
        } else {
            ""
        };
        let sql = format!("ALTER PUBLICATION {publication} ADD TABLE {};", found.table.sql());
        format!("table {qualified:?} is not published{via_root}: {sql}")
    };
    let absent = absent
        .iter()
        .map(|qualified| Absent { qualified: qualified.clone(), sentence: sentence(qualified) });
    Ok(absent.collect())
}

/// A table that is not there yet may still come where a whole schema or everything is published.
fn report_absent(
    absent: Vec<Absent>,
    kinds: &Kinds,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let mut refused = Vec::new();
    for Absent { qualified, sentence } in absent {
        let in_schema = |schema: &String| {
            qualified.strip_prefix(schema.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        if kinds.all_tables || kinds.schemas.iter().any(in_schema) {
            warnings.push(sentence);
        } else {
            refused.push(sentence);
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::NotPublished { tables: refused }) }
}

/// `publication "a"`, or `publications "a", "b"`.
fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("publication{} {}", if quoted.len() == 1 { "" } else { "s" }, quoted.join(", "))
}
