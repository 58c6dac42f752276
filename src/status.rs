//! What the process is doing, as `/status` shows it.
//!
//! Plain data: the loop sends a new one when something changed and at least every few seconds, and
//! the admin thread shows the last. Times are milliseconds since 1970, and come in as arguments.

mod slot;

use serde::{Serialize, Serializer};

pub use self::slot::{Heartbeat, OldestTransaction, SlotHealth, Standby};
use crate::lsn::Lsn;

/// A loop that sent nothing for so long hangs: it turns once a second also when it only waits.
const SILENT_MS: i64 = 60_000;

/// What the process is at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Rows flow, or would if there were any.
    Streaming,
    /// On the way to it, or back to it.
    #[default]
    Connecting,
    /// Another instance has the slot; this one takes over when it lets go.
    Passive,
    /// Asked to stop, and finishing what was begun.
    Draining,
}

impl Role {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Connecting => "connecting",
            Self::Passive => "passive",
            Self::Draining => "draining",
        }
    }
}

/// How far a stage has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reach {
    /// Everything before it is done.
    #[serde(serialize_with = "as_text")]
    pub lsn: Lsn,
    /// From there to the end of the server's WAL, as last heard.
    pub lag_bytes: u64,
}

/// An error, and when it was met.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Trouble {
    /// The error with its causes; never a row's value or a secret.
    pub text: String,
    /// When.
    pub at_ms: i64,
}

/// Another instance, which streams; what of it our role may see.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Active {
    /// PostgreSQL's process.
    pub pid: i32,
    /// Its application name.
    pub application_name: Option<String>,
    /// Its client's address.
    pub address: Option<String>,
    /// Since when it streams, in UTC.
    pub since: Option<String>,
}

/// A snapshot of it all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// What it is at.
    pub role: Role,
    /// Why it is not streaming.
    pub reason: Option<String>,
    /// Since when it has this role.
    pub since_ms: i64,
    /// The program's version.
    pub version: &'static str,
    /// When the process began.
    pub started_ms: i64,
    /// When the loop last turned. What is waited for with a deadline, such as a server that is away,
    /// does not stop it.
    pub progress_ms: i64,
    /// Who streams, while this one is passive.
    pub active: Option<Active>,
    /// Replication slot.
    pub slot: String,
    /// Publications.
    pub publications: Vec<String>,
    /// The server's, once connected; as text, for it is over what JSON numbers hold.
    pub system_identifier: Option<String>,
    /// The server's timeline.
    pub timeline: Option<u32>,
    /// Read from the walsender.
    pub received: Reach,
    /// Acknowledged by Kafka, and everything before it.
    pub stored: Reach,
    /// Told to PostgreSQL.
    pub confirmed: Reach,
    /// Age of the oldest commit that is not stored; 0 if there is none.
    pub lag_seconds: f64,
    /// The slot, as it was last looked at.
    pub slot_health: Option<SlotHealth>,
    /// The other hosts, as they were last asked, while this instance streams.
    pub standbys: Vec<Standby>,
    /// Our heartbeats through it, once there was one.
    pub heartbeat: Option<Heartbeat>,
    /// What Kafka has now, if it takes no records.
    pub kafka_trouble: Option<String>,
    /// The last error, also if it is over.
    pub last_error: Option<Trouble>,
}

impl Status {
    /// While it is passive: whether it could take over now.
    #[must_use]
    pub fn could_take_over(&self) -> Option<bool> {
        (self.role == Role::Passive).then(|| self.ready().is_ok())
    }

    /// Whether it streams, or waits and could take over: the role and who streams, or why not.
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn ready(&self) -> Result<String, String> {
        if let Some(trouble) = &self.kafka_trouble {
            return Err(format!("kafka: {trouble}"));
        }
        match self.role {
            Role::Streaming => Ok(self.role.as_str().to_owned()),
            Role::Passive => Ok(match &self.reason {
                Some(reason) => format!("{}: {reason}", self.role.as_str()),
                None => self.role.as_str().to_owned(),
            }),
            Role::Connecting | Role::Draining => Err(match &self.reason {
                Some(reason) => format!("{}: {reason}", self.role.as_str()),
                None => self.role.as_str().to_owned(),
            }),
        }
    }

    /// It in one line, for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        let role = self.role.as_str();
        match (self.role, &self.reason, &self.kafka_trouble) {
            (Role::Streaming, _, trouble) => {
                let what = trouble.as_ref().map(|trouble| format!("; Kafka: {trouble}"));
                let behind = self.behind();
                format!("{role} from slot {}: {behind}{}", self.slot, what.unwrap_or_default())
            }
            (Role::Draining, _, Some(trouble)) => {
                format!("{role}: {}; Kafka: {trouble}", self.behind())
            }
            (Role::Draining, ..) => format!("{role}: {}", self.behind()),
            (Role::Connecting | Role::Passive, Some(reason), _) => format!("{role}: {reason}"),
            (Role::Connecting | Role::Passive, None, _) => role.to_owned(),
        }
    }

    fn behind(&self) -> String {
        let (seconds, bytes) = (self.lag_seconds.round(), self.stored.lag_bytes);
        if seconds > 0.0 || bytes > 0 {
            format!("{seconds} s and {bytes} bytes behind")
        } else {
            "all is stored".to_owned()
        }
    }

    /// Whether the loop turns. A server that is away is no reason to be killed.
    ///
    /// # Errors
    /// For how long it has not, for a person.
    pub fn alive(&self, now_ms: i64) -> Result<(), String> {
        let silent = now_ms.saturating_sub(self.progress_ms);
        match self.role {
            Role::Streaming | Role::Draining if silent > SILENT_MS => {
                Err(format!("{}: nothing moved for {} s", self.role.as_str(), silent / 1000))
            }
            // Connecting has deadlines of its own, and some are long: a slot waits for transactions.
            Role::Streaming | Role::Draining | Role::Connecting | Role::Passive => Ok(()),
        }
    }
}

fn as_text<S: Serializer>(lsn: &Lsn, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_it_streams_or_could_take_over() {
        let mut status = Status::default();
        assert_eq!(status.ready(), Err("connecting".into()));
        status.reason = Some("no such host".into());
        assert_eq!(status.ready(), Err("connecting: no such host".into()));
        status.role = Role::Passive;
        assert_eq!(status.ready(), Ok("passive: no such host".into()));
        status.role = Role::Streaming;
        assert_eq!(status.ready(), Ok("streaming".into()));
        status.kafka_trouble = Some("no broker answers".into());
        assert_eq!(status.ready(), Err("kafka: no broker answers".into()));
        assert_eq!(status.could_take_over(), None);
        status.role = Role::Passive;
        assert_eq!(status.could_take_over(), Some(false));
    }

    #[test]
    fn is_alive_while_the_loop_turns_or_a_server_is_away() {
        let mut status = Status { progress_ms: 1000, ..Status::default() };
        assert_eq!(status.alive(1_000_000), Ok(()));
        status.role = Role::Streaming;
        assert_eq!(status.alive(61_000), Ok(()));
        assert_eq!(status.alive(62_000), Err("streaming: nothing moved for 61 s".into()));
        assert_eq!(status.alive(0), Ok(())); // the clock was set back
    }

    #[test]
    fn says_in_one_line_what_it_is_at_and_what_it_waits_for() {
        let mut status = Status { slot: "s".into(), ..Status::default() };
        assert_eq!(status.sentence(), "connecting");
        status.reason = Some("no such host".into());
        assert_eq!(status.sentence(), "connecting: no such host");
        status.role = Role::Streaming;
        assert_eq!(status.sentence(), "streaming from slot s: all is stored");
        (status.lag_seconds, status.stored.lag_bytes) = (12.3, 4567);
        status.kafka_trouble = Some("no broker answers".into());
        let behind = "12 s and 4567 bytes behind; Kafka: no broker answers";
        assert_eq!(status.sentence(), format!("streaming from slot s: {behind}"));
        status.role = Role::Draining;
        assert_eq!(status.sentence(), format!("draining: {behind}"));
    }

    #[test]
    fn positions_are_shown_as_postgresql_writes_them() {
        let stored = Reach { lsn: Lsn::new(0x16_B374_D848), lag_bytes: 12 };
        let json = serde_json::to_value(Status { stored, ..Status::default() }).unwrap();
        assert_eq!(json["stored"]["lsn"], "16/B374D848");
        assert_eq!(json["stored"]["lag_bytes"], 12);
        assert_eq!(json["role"], "connecting");
    }
}
