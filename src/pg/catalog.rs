//! What the catalog says of a server, and of a table that a Relation message names.
//!
//! Ordinary SQL, which a role with `REPLICATION LOGIN` and no other right may ask: not one privilege
//! on any table is needed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio_postgres::{Client, Row, error::SqlState, types::FromSql};

use crate::{
    lsn::Lsn,
    retry::{Disposition, Exit},
    schema::PgType,
};

/// A question to the catalog got no answer.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL did not answer when asked for {what}")]
pub struct Error {
    /// What was asked for.
    pub what: &'static str,
    /// What it answered instead.
    pub source: tokio_postgres::Error,
}

impl Error {
    /// For `map_err`: names what was asked for.
    pub fn asking(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self { what, source }
    }

    /// A lost connection or a busy server heals; a refusal does not.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        let Some(state) = self.source.code() else { return Disposition::Retry };
        match state.code().get(..2) {
            _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => Disposition::Halt(Exit::Permission),
            Some("28") => Disposition::Halt(Exit::Permission),
            // A function, a column or a database that is not there: no PostgreSQL that we know.
            Some("0A" | "3D" | "3F" | "42") => Disposition::Halt(Exit::Unavailable),
            _ => Disposition::Retry,
        }
    }
}

/// One PostgreSQL server, as it described itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// `server_version_num`, as in 170010.
    pub version_num: u32,
    /// `wal_level`. A standby shows its own, which may differ from its primary's.
    pub wal_level: String,
    /// From `pg_control_system()`: the same on a primary and its standbys.
    pub system_identifier: u64,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The timeline that it writes to, or as a standby last took a restart point on. What
    /// `IDENTIFY_SYSTEM` says on a replication connection is newer on a standby.
    pub timeline: u32,
    /// `wal_sender_timeout` of this session; zero: there is none. A walsender may be given its own.
    pub wal_sender_timeout: Duration,
    /// Database of this session.
    pub database: String,
    /// Role of this session.
    pub role: String,
}

impl Server {
    /// Asks for all of it in one query.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let what = "its version and settings";
        let row = client.query_one(SERVER, &[]).await.map_err(Error::asking(what))?;
        let number = |index| field::<i64>(&row, index, what);
        Ok(Self {
            version_num: u32::try_from(number(0)?).unwrap_or(0),
            wal_level: field(&row, 1, what)?,
            // A bigint holds the 64 bits of an unsigned number.
            system_identifier: number(2)?.cast_unsigned(),
            in_recovery: field(&row, 3, what)?,
            timeline: u32::try_from(number(4)?).unwrap_or(0),
            wal_sender_timeout: Duration::from_millis(number(5)?.unsigned_abs()),
            database: field(&row, 6, what)?,
            role: field(&row, 7, what)?,
        })
    }

    /// The number that people know a version by: 14 to 18.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.version_num / 10_000
    }
}

// The checkpoint's timeline is the old one until a promotion's first checkpoint is done; the name
// of a WAL file, whose first eight digits are a timeline, a standby does not tell.
const SERVER: &str = "
SELECT current_setting('server_version_num')::bigint,
       current_setting('wal_level'),
       s.system_identifier,
       pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery()
            THEN greatest(c.timeline_id, r.min_recovery_end_timeline)::bigint
            ELSE ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint
       END,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
       current_database()::text,
       current_user::text
FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r";

/// What a Relation message leaves open.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RelationFacts {
    /// Names of the primary key's columns in the key's order; empty: it has no primary key; `None`:
    /// there is no such table any more.
    pub primary_key: Option<Vec<String>>,
    /// Each type that was asked for.
    pub types: HashMap<u32, PgType>,
    /// Those that exist no more, and so are taken for text.
    pub gone: Vec<u32>,
}

/// Where the server's WAL ends that it may send; `None` on a standby.
pub async fn wal_end(client: &Client) -> Result<Option<Lsn>, Error> {
    let sql = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END";
    let what = "the end of its WAL";
    let row = client.query_one(sql, &[]).await.map_err(Error::asking(what))?;
    let text: Option<String> = row.try_get(0).map_err(Error::asking(what))?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Looks up the table `oid` and the types of its columns, in at most two queries.
///
/// The catalog is read as it is now, which may be long after the row was written.
pub async fn relation_facts(
    client: &Client,
    oid: u32,
    types: &[u32],
) -> Result<RelationFacts, Error> {
    let what = "the primary key of a table";
    let rows = client.query(PRIMARY_KEY, &[&oid]).await.map_err(Error::asking(what))?;
    let mut facts = RelationFacts::default();
    for row in &rows {
        let key = facts.primary_key.get_or_insert_default();
        key.extend(field::<Option<String>>(row, 0, what)?);
    }
    let unknown: HashSet<u32> =
        types.iter().copied().filter(|oid| PgType::builtin(*oid).is_none()).collect();
    let catalog = Types::read(client, unknown.into_iter().collect()).await?;
    for oid in types {
        if PgType::builtin(*oid).is_none() && !catalog.0.contains_key(oid) {
            facts.gone.push(*oid);
        }
        facts.types.insert(*oid, catalog.resolve(*oid, 0));
    }
    Ok(facts)
}

// One row with NULL for a table without a primary key, none for no table.
const PRIMARY_KEY: &str = "
SELECT a.attname::text
FROM pg_class c
LEFT JOIN (pg_index i
           CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum)
       ON i.indrelid = c.oid AND i.indisprimary AND k.n <= i.indnkeyatts
WHERE c.oid = $1
ORDER BY k.n";

/// What a type is made of.
enum Made {
    /// A domain over a type.
    Domain(u32),
    /// An array of a type, with the delimiter that `array_out` writes.
    Array(u32, u8),
    /// Anything else is text to us.
    Other,
}

/// Rows of `pg_type`, with all that they are made of.
struct Types(HashMap<u32, Made>);

impl Types {
    async fn read(client: &Client, oids: Vec<u32>) -> Result<Self, Error> {
        if oids.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let what = "the types of a table's columns";
        let rows = client.query(TYPES, &[&oids]).await.map_err(Error::asking(what))?;
        let mut types = HashMap::new();
        for row in &rows {
            let element = field::<u32>(row, 2, what)?;
            let made = match field::<u32>(row, 1, what)? {
                0 if element == 0 => Made::Other,
                0 => Made::Array(element, field::<i8>(row, 3, what)?.cast_unsigned()),
                base => Made::Domain(base),
            };
            types.insert(field(row, 0, what)?, made);
        }
        Ok(Self(types))
    }

    /// As `json_categorize_type` does: a domain is its base, an array asks the same of its elements.
    fn resolve(&self, oid: u32, depth: u32) -> PgType {
        if let Some(builtin) = PgType::builtin(oid) {
            return builtin;
        }
        match self.0.get(&oid) {
            Some(Made::Domain(base)) if depth < DEEPEST => self.resolve(*base, depth + 1),
            Some(Made::Array(element, delimiter)) if depth < DEEPEST => PgType::Array {
                element: Arc::new(self.resolve(*element, depth + 1)),
                delimiter: *delimiter,
            },
            Some(Made::Domain(_) | Made::Array(..) | Made::Other) | None => PgType::Text,
        }
    }
}

/// Domains over arrays of domains …: nobody nests so deep, and a loop in the catalog must end.
const DEEPEST: u32 = 32;

// An array is what `array_out` prints: `name` and `point` have elements too, but no braces. The
// delimiter is the element's, as `array_out` takes it. UNION, not UNION ALL, ends a loop.
const TYPES: &str = "
WITH RECURSIVE t(oid, base, element) AS (
    SELECT t.oid, t.typbasetype,
           CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0 END
    FROM pg_type t WHERE t.oid = ANY ($1)
  UNION
    SELECT t.oid, t.typbasetype,
           CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0 END
    FROM t AS outer_type JOIN pg_type t ON t.oid IN (outer_type.base, outer_type.element)
)
SELECT t.oid, t.base, t.element::oid, coalesce(e.typdelim, ',')
FROM t LEFT JOIN pg_type e ON e.oid = t.element";

/// A column of an answer. A wrong type is a server that is none that we know, never a panic.
pub(super) fn field<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    what: &'static str,
) -> Result<T, Error> {
    row.try_get(index).map_err(Error::asking(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_made_of_itself_is_text_in_the_end() {
        let types = Types(HashMap::from([(20_000, Made::Domain(20_000))]));
        assert_eq!(types.resolve(20_000, 0), PgType::Text);
    }

    #[test]
    fn a_domain_is_its_base_and_an_array_asks_its_elements() {
        let types = Types(HashMap::from([
            (20_000, Made::Domain(23)),
            (20_001, Made::Array(20_000, b',')),
            (20_002, Made::Domain(20_001)),
            (20_003, Made::Array(20_002, b';')),
        ]));
        let inner = PgType::Array { element: Arc::new(PgType::Integer), delimiter: b',' };
        assert_eq!(types.resolve(20_002, 0), inner);
        let outer = PgType::Array { element: Arc::new(inner), delimiter: b';' };
        assert_eq!(types.resolve(20_003, 0), outer);
        assert_eq!(types.resolve(20_004, 0), PgType::Text);
    }
}
