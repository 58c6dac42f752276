//! Published tables of which PostgreSQL refuses updates or deletes: by what they are known by, a row
//! could not be found again, or what is published of them leaves that out.
//!
//! It refuses them to the application, whoever streams, so they are warned of at start.
//! Reference: `CheckCmdReplicaIdentity` in `src/backend/executor/execReplication.c`.

use tokio_postgres::{Client, Row};

use super::{Error, Table, command::quoted};
use crate::pg::catalog::{self, Server, field};

/// A warning for each such table, with the SQL that mends it.
pub(super) async fn warnings(
    client: &Client,
    server: &Server,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let what = "the replica identities of published tables";
    let rows = client.query(IDENTITIES, &[&names]).await.map_err(catalog::Error::asking(what))?;
    let mut warnings = rows.iter().map(none).collect::<Result<Vec<_>, _>>()?;
    if server.major() >= COLUMN_LISTS {
        let what = "the columns and rows that are published";
        let rows = client.query(PARTS, &[&names]).await.map_err(catalog::Error::asking(what))?;
        for row in &rows {
            warnings.extend(Part::read(row)?.warning());
        }
    }
    if let Some(more @ 1..) = warnings.len().checked_sub(MOST_WARNINGS) {
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("… and of {more} more tables"));
    }
    Ok(warnings)
}

/// A database of thousands of tables without keys must not fill the log at every reconnect.
const MOST_WARNINGS: usize = 20;

/// The first version with column lists and row filters.
const COLUMN_LISTS: u32 = 15;

/// A table without an identity.
fn none(row: &Row) -> Result<String, Error> {
    let what = "the replica identity of a table";
    let table = Table { namespace: field(row, 0, what)?, name: field(row, 1, what)? };
    let refused = refused(field(row, 3, what)?, field(row, 4, what)?);
    let why = match field::<&str>(row, 2, what)? {
        "d" => "it has no primary key to tell rows by",
        "i" => "the index of its replica identity is gone",
        _ => "its replica identity is NOTHING",
    };
    Ok(format!(
        "PostgreSQL refuses {refused} of table {:?} while it is published, as {why}: \
         ALTER TABLE {} REPLICA IDENTITY FULL;",
        table.qualified(),
        table.sql(),
    ))
}

const fn refused(updates: bool, deletes: bool) -> &'static str {
    match (updates, deletes) {
        (true, false) => "updates",
        (false, true) => "deletes",
        _ => "updates and deletes",
    }
}

/// A table with an identity, of which a publication sends some columns or rows only.
struct Part {
    table: Table,
    full: bool,
    publication: String,
    refused: &'static str,
    /// As it stands in the publication: the table or, of a partition, what it is published as.
    published: Table,
    columns: Option<Vec<String>>,
    identity: Vec<String>,
    /// Columns that the row filter looks at, and the filter.
    filtered: Vec<String>,
    filter: Option<String>,
}

impl Part {
    fn read(row: &Row) -> Result<Self, Error> {
        let what = "what is published of a table";
        let list = |index| field::<Option<Vec<String>>>(row, index, what);
        Ok(Self {
            table: Table { namespace: field(row, 0, what)?, name: field(row, 1, what)? },
            full: field(row, 2, what)?,
            publication: field(row, 3, what)?,
            refused: refused(field(row, 4, what)?, field(row, 5, what)?),
            published: Table { namespace: field(row, 6, what)?, name: field(row, 7, what)? },
            columns: list(8)?,
            identity: list(9)?.unwrap_or_default(),
            filtered: list(10)?.unwrap_or_default(),
            filter: field(row, 11, what)?,
        })
    }

    /// Why PostgreSQL refuses, and what mends it.
    fn warning(&self) -> Option<String> {
        let Self { table, publication, refused, .. } = self;
        let lacking = |wanted: &[String], in_: &[String]| -> Vec<String> {
            wanted.iter().filter(|name| !in_.contains(name)).cloned().collect()
        };
        let left_out = match &self.columns {
            Some(columns) if !self.full => lacking(&self.identity, columns),
            _ => Vec::new(),
        };
        // FULL is every column, so a filter may look at any; but then there may be no list.
        let foreign = if self.full { Vec::new() } else { lacking(&self.filtered, &self.identity) };
        let make_full = format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.sql());
        let (why, sql) = if !foreign.is_empty() {
            let why =
                format!("filters rows by {}, outside of its replica identity", list(&foreign));
            let unlisted = self.columns.as_ref().map(|_| self.published_again(None) + " ");
            (why, unlisted.unwrap_or_default() + &make_full)
        } else if !left_out.is_empty() {
            let why = format!("leaves out {} of its replica identity", list(&left_out));
            let columns: Vec<_> =
                self.columns.iter().flatten().chain(&left_out).map(|name| quoted(name)).collect();
            (why, self.published_again(Some(&columns.join(", "))))
        } else if self.full && self.columns.is_some() {
            let why = "sends some of its columns only, and its replica identity is FULL".to_owned();
            (why, self.published_again(None))
        } else {
            return None;
        };
        Some(format!(
            "PostgreSQL refuses {refused} of table {:?}, as publication {publication:?} {why}: {sql}",
            table.qualified(),
        ))
    }

    /// With other columns, in one transaction, so that no row goes by unseen.
    fn published_again(&self, columns: Option<&str>) -> String {
        let (publication, table) = (quoted(&self.publication), self.published.sql());
        let columns = columns.map(|columns| format!(" ({columns})")).unwrap_or_default();
        let filter =
            self.filter.as_ref().map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
        format!(
            "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {table}; \
             ALTER PUBLICATION {publication} ADD TABLE {table}{columns}{filter}; COMMIT;"
        )
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}

// PostgreSQL looks at the table that holds the row, so a partitioned one is taken apart. See
// `CheckCmdReplicaIdentity`, and `RelationGetIndexList` for which indexes count.
const IDENTITIES: &str = "
SELECT n.nspname::text, c.relname::text, c.relreplident::text,
       bool_or(p.pubupdate), bool_or(p.pubdelete)
FROM pg_publication p
JOIN pg_publication_tables pt ON pt.pubname = p.pubname
JOIN pg_namespace rn ON rn.nspname = pt.schemaname
JOIN pg_class r ON r.relnamespace = rn.oid AND r.relname = pt.tablename
CROSS JOIN LATERAL (
    SELECT r.oid WHERE r.relkind <> 'p'
    UNION ALL
    SELECT tree.relid::oid FROM pg_partition_tree(r.oid) tree WHERE tree.isleaf AND r.relkind = 'p'
) leaf(oid)
JOIN pg_class c ON c.oid = leaf.oid AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = ANY ($1::text[]) AND (p.pubupdate OR p.pubdelete) AND c.relreplident <> 'f'
  AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                              WHEN 'i' THEN i.indisreplident ELSE false END)
GROUP BY 1, 2, 3
ORDER BY 1, 2";

// A partition has the list and filter of what it is published as, by the columns' names. Of a filter
// the columns are known by its tree alone: those that it depends on are mixed with the list's.
const PARTS: &str = "
SELECT n.nspname::text, c.relname::text, c.relreplident = 'f', p.pubname::text,
       p.pubupdate, p.pubdelete, rn.nspname::text, r.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.n)
        FROM unnest(pr.prattrs::int2[]) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum),
       identity.names,
       (SELECT array_agg(DISTINCT a.attname::text)
        FROM regexp_matches(pr.prqual::text, ':varattno ([0-9]+)', 'g') found(number)
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = found.number[1]::int2),
       pg_get_expr(pr.prqual, pr.prrelid)
FROM pg_publication p
JOIN pg_publication_rel pr ON pr.prpubid = p.oid AND (pr.prattrs IS NOT NULL OR pr.prqual IS NOT NULL)
JOIN pg_class r ON r.oid = pr.prrelid
JOIN pg_namespace rn ON rn.oid = r.relnamespace
CROSS JOIN LATERAL (
    SELECT r.oid WHERE r.relkind <> 'p'
    UNION ALL
    SELECT tree.relid::oid FROM pg_partition_tree(r.oid) tree
    WHERE tree.isleaf AND r.relkind = 'p' AND p.pubviaroot
) leaf(oid)
JOIN pg_class c ON c.oid = leaf.oid AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY k.n) AS names
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.n <= i.indnkeyatts
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                              WHEN 'i' THEN i.indisreplident ELSE false END
) identity ON true
WHERE p.pubname = ANY ($1::text[]) AND (p.pubupdate OR p.pubdelete) AND NOT p.puballtables
  AND (c.relreplident = 'f' OR identity.names IS NOT NULL)
ORDER BY 1, 2, 4";
