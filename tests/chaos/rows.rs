//! The four tables, and what a row of each looks like on its way: by two numbers all of a row is known.

use crate::support::{Kafka, Postgres};

/// What differs between tables.
pub struct Table {
    /// Of the table; the topic's is `chaos.` before it.
    pub name: &'static str,
    /// Of its topic.
    pub partitions: u32,
    /// Has the identity FULL: a delete shows all of the old row.
    pub full: bool,
    /// Its primary key is two columns.
    pub composite: bool,
}

const fn table(name: &'static str, partitions: u32, full: bool, composite: bool) -> Table {
    Table { name, partitions, full, composite }
}

/// By their place they are known everywhere.
pub const TABLES: [Table; 4] = [
    table("a", 3, false, false),
    table("b", 1, false, false),
    table("c", 2, true, false),
    table("d", 4, false, true),
];

impl Table {
    /// Where its rows go.
    pub fn topic(&self) -> String {
        format!("chaos.{}", self.name)
    }

    /// The columns of the primary key.
    pub fn key_columns(&self) -> &'static str {
        if self.composite { "id, part" } else { "id" }
    }

    /// SQL for the key of row `n`, which may be SQL too.
    pub fn key_of(&self, n: &str) -> String {
        if self.composite { format!("({n}) / 4, 'p' || ({n}) % 4") } else { n.to_owned() }
    }

    /// The record's key for row `n`.
    pub fn key(&self, n: u64) -> String {
        if self.composite { self.key_value(n) } else { n.to_string() }
    }

    /// The record's value: the row of this number, or its key alone.
    pub fn value(&self, n: u64, seq: Option<u64>) -> String {
        let key = self.key_value(n);
        let Some(seq) = seq else { return key };
        let pad = format!("{seq}-{}", "x".repeat(pad_length(seq)));
        format!(r#"{},"seq":{seq},"pad":"{pad}"}}"#, key.trim_end_matches('}'))
    }

    fn key_value(&self, n: u64) -> String {
        if self.composite {
            format!(r#"{{"id":{},"part":"p{}"}}"#, n / 4, n % 4)
        } else {
            format!(r#"{{"id":{n}}}"#)
        }
    }
}

/// Now and then so long that PostgreSQL stores it apart.
fn pad_length(seq: u64) -> usize {
    usize::try_from(if seq.is_multiple_of(97) { 5000 } else { 10 + seq % 90 }).unwrap_or(0)
}

/// Makes the database, its tables, slots and topics; returns the database's URL.
pub fn create(postgres: &Postgres, kafka: &Kafka) -> String {
    let url = postgres.database("chaos");
    let run = |sql: &str| postgres.sql_in("chaos", sql);
    run(
        "create function pad(bigint) returns text language sql immutable as $$
           select $1 || '-' || repeat('x', case when $1 % 97 = 0 then 5000 else 10 + $1 % 90 end::int)
         $$",
    );
    for table in &TABLES {
        let (name, key) = (table.name, table.key_columns());
        let part = if table.composite { "part text," } else { "" };
        run(&format!(
            "create table {name}(id int, {part} seq bigint not null, pad text not null, primary key ({key}))"
        ));
        if table.full {
            run(&format!("alter table {name} replica identity full"));
        }
        kafka.topic(&table.topic(), table.partitions);
    }
    run("create publication p for table a, b, c, d");
    for slot in ["chaos", "reference"] {
        run(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    }
    url
}
