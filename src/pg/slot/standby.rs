//! What a slot on a standby needs besides itself, and what its creation waits for.
//!
//! The primary knows nothing of such a slot. It keeps the catalog rows that the slot may need only
//! because the standby tells it to, and only while it hears of it, or by the physical slot that the
//! standby streams through; else it removes them, and the standby invalidates the slot
//! (`rows_removed`).
//!
//! Source: <https://www.postgresql.org/docs/current/logicaldecoding-explanation.html>

use std::{convert::Infallible, pin::pin, time::Duration};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, error::SqlState};

use super::command::quoted;
use crate::{
    net,
    pg::{
        catalog::{self, field},
        connect::{self, Sql, TargetSession},
    },
};

/// What a person should know of the standby's settings.
pub(super) async fn warnings(client: &Client, slot: &str) -> Result<Vec<String>, catalog::Error> {
    let what = "its settings as a standby";
    let row = client.query_one(SETTINGS, &[]).await.map_err(catalog::Error::asking(what))?;
    let (feedback, physical): (bool, bool) = (field(&row, 0, what)?, field(&row, 1, what)?);
    let mut warnings = Vec::new();
    if !feedback {
        warnings.push(format!(
            "this server is a standby with hot_standby_feedback off: its primary may remove catalog rows \
             that replication slot {slot:?} needs, and then the slot is lost (rows_removed). On the \
             standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf();"
        ));
    }
    if !physical {
        warnings.push(format!(
            "this server is a standby without primary_slot_name: while it is not connected, its primary \
             may remove catalog rows that replication slot {slot:?} needs, and then the slot is lost \
             (rows_removed). On the primary: SELECT pg_create_physical_replication_slot('standby'); on \
             the standby: ALTER SYSTEM SET primary_slot_name = 'standby'; SELECT pg_reload_conf();"
        ));
    }
    Ok(warnings)
}

// Feedback is sent as often as the receiver's status, and never if that is 0.
const SETTINGS: &str = "
SELECT current_setting('hot_standby_feedback') = 'on'
       AND (SELECT setting <> '0' FROM pg_settings WHERE name = 'wal_receiver_status_interval'),
       current_setting('primary_slot_name') <> ''";

/// A slot that is there, or a record that comes by itself, needs none of this.
const FIRST: Duration = Duration::from_millis(500);
/// A slot needs several records where transactions are open.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs the creation of a slot on a standby. It waits for a record of the running transactions, which
/// only the primary writes: that is asked for, again and again, if the primary is among the hosts.
pub async fn with_snapshots<T>(options: &connect::Options, creation: impl Future<Output = T>) -> T {
    let mut creation = pin!(creation);
    // Both may be dropped at any time: what was asked for then was asked for in vain.
    select! {
        biased;
        made = &mut creation => made,
        never = ask(options) => match never {},
    }
}

async fn ask(options: &connect::Options) -> Infallible {
    let options = connect::Options { target: TargetSession::Primary, ..options.clone() };
    let (mut sql, mut said) = (None, None);
    sleep(FIRST).await;
    loop {
        let word = match once(&options, &mut sql).await {
            Ok(word) => word,
            Err(error) => {
                sql = None;
                Word::Away(error.to_string())
            }
        };
        // What is said once is not said again while it stays so.
        if said.as_ref() != Some(&word) {
            word.say(&options.user);
            said = Some(word);
        }
        sleep(AGAIN).await;
    }
}

/// What came of it.
#[derive(Debug, Eq, PartialEq)]
enum Word {
    Asked,
    MayNot,
    Away(String),
}

impl Word {
    fn say(&self, role: &str) {
        match self {
            Self::Asked => tracing::info!(
                "the slot is being made on a standby: its primary was asked to log which transactions \
                 are open, and is asked again until the slot is made"
            ),
            Self::MayNot => tracing::warn!(
                "the slot that is being made on a standby waits until its primary logs which \
                 transactions are open, and role {role:?} may not ask for that: on the primary, SELECT \
                 pg_log_standby_snapshot(); or GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO \
                 {};",
                quoted(role)
            ),
            Self::Away(error) => tracing::info!(
                "the slot that is being made on a standby waits until its primary logs which \
                 transactions are open, and no primary of postgres.url could be asked for that: \
                 {error}"
            ),
        }
    }
}

async fn once(options: &connect::Options, sql: &mut Option<Sql>) -> Result<Word, connect::Error> {
    if sql.as_ref().is_none_or(|sql| sql.is_closed()) {
        *sql = Some(connect::sql_at_any(options).await?);
    }
    let Some(sql) = sql else { return Ok(Word::MayNot) }; // it was opened
    let after = options.tcp.connect_timeout;
    match timeout(after, sql.simple_query("SELECT pg_log_standby_snapshot()")).await {
        Ok(Ok(_)) => Ok(Word::Asked),
        Ok(Err(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Ok(Word::MayNot)
        }
        Ok(Err(error)) => Err(sql.judge(error)),
        Err(_) => Err(net::Error::Timeout { to: "the primary".to_owned(), after }.into()),
    }
}
