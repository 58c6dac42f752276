//! What each of Kafka's error codes means to us: one table.
//!
//! What may heal is retried in order; what comes back at every attempt halts. A code that cannot be
//! an answer to what we ask, or that is newer than the table, is waited out and said: stopping for
//! something unknown would end a service that may be about to recover, skipping would lose records.
//! Names and numbers are those of `org.apache.kafka.common.protocol.Errors` in Kafka 4.4.

use std::fmt;

use Verdict::{Doubt, Halt, Refresh, Split, Stored, Wait};

use crate::retry::{Disposition, Exit};

/// What to do about one answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is done.
    Stored,
    /// Do the same again after a pause, before anything later.
    Wait,
    /// The same, but ask for metadata first: another broker may have to be asked.
    Refresh,
    /// Send less at once.
    Split,
    /// The broker does not go on with our sequence, or with us: only reading the topic tells what is
    /// stored.
    Doubt,
    /// Only a person can mend it, so.
    Halt(Exit, &'static str),
}

impl Verdict {
    /// What a supervisor does, once no other way is left.
    #[must_use]
    pub const fn disposition(self) -> Disposition {
        match self {
            Stored | Wait | Refresh | Split | Doubt => Disposition::Retry,
            Halt(exit, _) => Disposition::Halt(exit),
        }
    }
}

/// What to do about a partition's code in the answer to a Produce.
#[must_use]
pub fn produce(code: i16) -> Verdict {
    find(code).map_or(Wait, |row| row.produce)
}

/// What to do about the code in the answer to any other request.
#[must_use]
pub fn request(code: i16) -> Verdict {
    find(code).map_or(Wait, |row| row.request)
}

/// A code's name, for a metric's label.
#[must_use]
pub fn name(code: i16) -> &'static str {
    find(code).map_or("unknown", |row| row.name)
}

/// A code, shown by its name and number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Named(pub i16);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match find(self.0) {
            Some(row) => write!(f, "{} ({})", row.name, row.code),
            None => write!(f, "error code {}, which is newer than this program", self.0),
        }
    }
}

/// `CreateTopics`: there is one of that name.
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
/// The code that says nothing is wrong.
pub const NONE: i16 = 0;
/// No such topic, or no such partition, as far as this broker knows.
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// Another broker leads the partition.
pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// `min.insync.replicas` was not met before anything was appended.
pub const NOT_ENOUGH_REPLICAS: i16 = 19;
/// Another broker is the controller.
pub const NOT_CONTROLLER: i16 = 41;
/// An ACL is missing.
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// An ACL on the transactional id is missing.
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
/// The transaction is not in a state for this.
pub const INVALID_TXN_STATE: i16 = 48;
/// The last transaction is not over yet.
pub const CONCURRENT_TRANSACTIONS: i16 = 51;
/// Another partition of the request is the reason.
pub const OPERATION_NOT_ATTEMPTED: i16 = 55;
/// A note is longer than the broker takes.
pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
/// A transaction that commits the offset is not over yet.
pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;

/// Whether a right is missing: on a topic, a group, the cluster or a transactional id.
#[must_use]
pub const fn is_right(code: i16) -> bool {
    matches!(code, 29 | 30 | 31 | 53)
}

/// The log does not begin there yet, or not any more.
pub const OFFSET_OUT_OF_RANGE: i16 = 1;

/// Whether a code says that somebody else writes under our transactional id, or that it is ours no
/// more: 47, 49, 90.
#[must_use]
pub const fn is_fence(code: i16) -> bool {
    matches!(code, 47 | 49 | 90)
}

/// An ACL on the cluster itself is missing.
pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;

// In these texts `{user}`, `{operation}`, `{topic}`, `{transactional_id}` and `{group}` are replaced by those of the request.
const TOPIC_NAME: Verdict = Halt(Exit::Config, "give the table another topic");
const BUG: Verdict = Halt(Exit::Software, "this should not happen: please report it");
const TOPIC_ACL: Verdict = Halt(
    Exit::Permission,
    "allow it: kafka-acls.sh --add --allow-principal User:{user} --operation {operation} --topic {topic}",
);
const CLUSTER_ACL: Verdict = Halt(
    Exit::Permission,
    "allow it: kafka-acls.sh --add --allow-principal User:{user} --operation {operation} --cluster",
);
// Write and Read are all that any request about them needs, as they imply Describe.
const TRANSACTIONAL_ACL: Verdict = Halt(
    Exit::Permission,
    "allow it: kafka-acls.sh --add --allow-principal User:{user} --operation Write --transactional-id {transactional_id}",
);
const GROUP_ACL: Verdict = Halt(
    Exit::Permission,
    "allow it: kafka-acls.sh --add --allow-principal User:{user} --operation Read --group {group}",
);
const TIMESTAMP: Verdict = Halt(
    Exit::Data,
    "widen the topic's message.timestamp.before.max.ms and .after.max.ms, or send the time of sending",
);
const TRANSACTION_TIMEOUT: Verdict = Halt(
    Exit::Config,
    "kafka.transaction.max_time and kafka.request_timeout together are over the broker's transaction.max.timeout.ms: lower them, or raise it",
);
const MECHANISM: Verdict =
    Halt(Exit::Permission, "set kafka.sasl.mechanism to one that the listener offers");
const LOGIN_FIRST: Verdict =
    Halt(Exit::Permission, "the listener wants a login: set kafka.sasl, or use another port");
const LOGIN: Verdict = Halt(Exit::Permission, "check kafka.sasl's user, password and mechanism");
const VERSION: Verdict =
    Halt(Exit::Unavailable, "use a broker of Kafka 2.1 or newer, or one that is compatible");
const CREATION: Verdict =
    Halt(Exit::Config, "correct topic.partitions, topic.replication_factor or topic.config");
const FORMAT: Verdict =
    Halt(Exit::Unavailable, "set the topic's message.format.version to 0.11 or newer");
const POLICY: Verdict =
    Halt(Exit::Permission, "a policy of the cluster forbids it: ask who keeps the cluster");
const COMPRESSION: Verdict =
    Halt(Exit::Config, "set kafka.compression to one that the brokers of the topic take");
const RECORD: Verdict = Halt(
    Exit::Data,
    "the broker does not take such a record, as a compacted topic does not take one without a key",
);

struct Row {
    code: i16,
    name: &'static str,
    produce: Verdict,
    request: Verdict,
}

const fn row(code: i16, name: &'static str, produce: Verdict, request: Verdict) -> Row {
    Row { code, name, produce, request }
}

/// Without gaps, so that a code is found by its place.
fn find(code: i16) -> Option<&'static Row> {
    TABLE.get(usize::try_from(i32::from(code) + 1).ok()?)
}

//   code, name, in an answer to a Produce, in any other answer
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(-1, "UNKNOWN_SERVER_ERROR", Wait, Wait),
    row(0, "NONE", Stored, Stored),
    row(1, "OFFSET_OUT_OF_RANGE", Wait, Wait),
    row(2, "CORRUPT_MESSAGE", Wait, Wait),
    row(3, "UNKNOWN_TOPIC_OR_PARTITION", Refresh, Refresh),
    row(4, "INVALID_FETCH_SIZE", Wait, Wait),
    row(5, "LEADER_NOT_AVAILABLE", Refresh, Refresh),
    row(6, "NOT_LEADER_OR_FOLLOWER", Refresh, Refresh),
    row(7, "REQUEST_TIMED_OUT", Wait, Wait),
    row(8, "BROKER_NOT_AVAILABLE", Refresh, Refresh),
    row(9, "REPLICA_NOT_AVAILABLE", Refresh, Refresh),
    row(10, "MESSAGE_TOO_LARGE", Split, Wait),
    row(11, "STALE_CONTROLLER_EPOCH", Refresh, Refresh),
    row(12, "OFFSET_METADATA_TOO_LARGE", Wait, Wait),
    row(13, "NETWORK_EXCEPTION", Refresh, Wait),
    row(14, "COORDINATOR_LOAD_IN_PROGRESS", Wait, Wait),
    row(15, "COORDINATOR_NOT_AVAILABLE", Wait, Refresh),
    row(16, "NOT_COORDINATOR", Refresh, Refresh),
    row(17, "INVALID_TOPIC_EXCEPTION", TOPIC_NAME, TOPIC_NAME),
    row(18, "RECORD_LIST_TOO_LARGE", Split, Wait),
    row(19, "NOT_ENOUGH_REPLICAS", Wait, Wait),
    row(20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Wait, Wait),
    row(21, "INVALID_REQUIRED_ACKS", BUG, BUG),
    row(22, "ILLEGAL_GENERATION", Wait, Wait),
    row(23, "INCONSISTENT_GROUP_PROTOCOL", Wait, Wait),
    row(24, "INVALID_GROUP_ID", Wait, Wait),
    row(25, "UNKNOWN_MEMBER_ID", Wait, Wait),
    row(26, "INVALID_SESSION_TIMEOUT", Wait, Wait),
    row(27, "REBALANCE_IN_PROGRESS", Wait, Wait),
    row(28, "INVALID_COMMIT_OFFSET_SIZE", Wait, Wait),
    row(29, "TOPIC_AUTHORIZATION_FAILED", TOPIC_ACL, TOPIC_ACL),
    row(30, "GROUP_AUTHORIZATION_FAILED", Wait, GROUP_ACL),
    row(31, "CLUSTER_AUTHORIZATION_FAILED", CLUSTER_ACL, CLUSTER_ACL),
    row(32, "INVALID_TIMESTAMP", TIMESTAMP, Wait),
    row(33, "UNSUPPORTED_SASL_MECHANISM", MECHANISM, MECHANISM),
    row(34, "ILLEGAL_SASL_STATE", LOGIN_FIRST, LOGIN_FIRST),
    row(35, "UNSUPPORTED_VERSION", VERSION, VERSION),
    row(36, "TOPIC_ALREADY_EXISTS", Wait, Stored),
    row(37, "INVALID_PARTITIONS", Wait, CREATION),
    row(38, "INVALID_REPLICATION_FACTOR", Wait, CREATION),
    row(39, "INVALID_REPLICA_ASSIGNMENT", Wait, CREATION),
    row(40, "INVALID_CONFIG", Wait, CREATION),
    row(41, "NOT_CONTROLLER", Refresh, Refresh),
    row(42, "INVALID_REQUEST", BUG, BUG),
    row(43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", FORMAT, Wait),
    row(44, "POLICY_VIOLATION", POLICY, POLICY),
    row(45, "OUT_OF_ORDER_SEQUENCE_NUMBER", Doubt, Wait),
    row(46, "DUPLICATE_SEQUENCE_NUMBER", Doubt, Wait),
    row(47, "INVALID_PRODUCER_EPOCH", Doubt, Wait),
    row(48, "INVALID_TXN_STATE", Doubt, Wait),
    row(49, "INVALID_PRODUCER_ID_MAPPING", Doubt, Wait),
    row(50, "INVALID_TRANSACTION_TIMEOUT", Wait, TRANSACTION_TIMEOUT),
    row(51, "CONCURRENT_TRANSACTIONS", Wait, Wait),
    row(52, "TRANSACTION_COORDINATOR_FENCED", Wait, Wait),
    row(53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", TRANSACTIONAL_ACL, TRANSACTIONAL_ACL),
    row(54, "SECURITY_DISABLED", BUG, BUG),
    row(55, "OPERATION_NOT_ATTEMPTED", Wait, Wait),
    row(56, "KAFKA_STORAGE_ERROR", Refresh, Wait),
    row(57, "LOG_DIR_NOT_FOUND", Refresh, Wait),
    row(58, "SASL_AUTHENTICATION_FAILED", LOGIN, LOGIN),
    row(59, "UNKNOWN_PRODUCER_ID", Doubt, Wait),
    row(60, "REASSIGNMENT_IN_PROGRESS", Wait, Wait),
    row(61, "DELEGATION_TOKEN_AUTH_DISABLED", LOGIN, LOGIN),
    row(62, "DELEGATION_TOKEN_NOT_FOUND", LOGIN, LOGIN),
    row(63, "DELEGATION_TOKEN_OWNER_MISMATCH", LOGIN, LOGIN),
    row(64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", LOGIN, LOGIN),
    row(65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", LOGIN, LOGIN),
    row(66, "DELEGATION_TOKEN_EXPIRED", LOGIN, LOGIN),
    row(67, "INVALID_PRINCIPAL_TYPE", Wait, Wait),
    row(68, "NON_EMPTY_GROUP", Wait, Wait),
    row(69, "GROUP_ID_NOT_FOUND", Wait, Wait),
    row(70, "FETCH_SESSION_ID_NOT_FOUND", Wait, Wait),
    row(71, "INVALID_FETCH_SESSION_EPOCH", Wait, Wait),
    row(72, "LISTENER_NOT_FOUND", Refresh, Refresh),
    row(73, "TOPIC_DELETION_DISABLED", Wait, Wait),
    row(74, "FENCED_LEADER_EPOCH", Refresh, Refresh),
    row(75, "UNKNOWN_LEADER_EPOCH", Refresh, Refresh),
    row(76, "UNSUPPORTED_COMPRESSION_TYPE", COMPRESSION, Wait),
    row(77, "STALE_BROKER_EPOCH", Refresh, Refresh),
    row(78, "OFFSET_NOT_AVAILABLE", Wait, Wait),
    row(79, "MEMBER_ID_REQUIRED", Wait, Wait),
    row(80, "PREFERRED_LEADER_NOT_AVAILABLE", Wait, Wait),
    row(81, "GROUP_MAX_SIZE_REACHED", Wait, Wait),
    row(82, "FENCED_INSTANCE_ID", Wait, Wait),
    row(83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", Refresh, Refresh),
    row(84, "ELECTION_NOT_NEEDED", Wait, Wait),
    row(85, "NO_REASSIGNMENT_IN_PROGRESS", Wait, Wait),
    row(86, "GROUP_SUBSCRIBED_TO_TOPIC", Wait, Wait),
    row(87, "INVALID_RECORD", RECORD, Wait),
    row(88, "UNSTABLE_OFFSET_COMMIT", Wait, Wait),
    row(89, "THROTTLING_QUOTA_EXCEEDED", Wait, Wait),
    row(90, "PRODUCER_FENCED", Doubt, Wait),
    row(91, "RESOURCE_NOT_FOUND", Wait, Wait),
    row(92, "DUPLICATE_RESOURCE", Wait, Wait),
    row(93, "UNACCEPTABLE_CREDENTIAL", Wait, Wait),
    row(94, "INCONSISTENT_VOTER_SET", Wait, Wait),
    row(95, "INVALID_UPDATE_VERSION", Wait, Wait),
    row(96, "FEATURE_UPDATE_FAILED", Wait, Wait),
    row(97, "PRINCIPAL_DESERIALIZATION_FAILURE", Wait, Wait),
    row(98, "SNAPSHOT_NOT_FOUND", Wait, Wait),
    row(99, "POSITION_OUT_OF_RANGE", Wait, Wait),
    row(100, "UNKNOWN_TOPIC_ID", Refresh, Refresh),
    row(101, "DUPLICATE_BROKER_REGISTRATION", Wait, Wait),
    row(102, "BROKER_ID_NOT_REGISTERED", Wait, Wait),
    row(103, "INCONSISTENT_TOPIC_ID", Refresh, Refresh),
    row(104, "INCONSISTENT_CLUSTER_ID", Wait, Wait),
    row(105, "TRANSACTIONAL_ID_NOT_FOUND", Wait, Wait),
    row(106, "FETCH_SESSION_TOPIC_ID_ERROR", Wait, Wait),
    row(107, "INELIGIBLE_REPLICA", Refresh, Refresh),
    row(108, "NEW_LEADER_ELECTED", Refresh, Refresh),
    row(109, "OFFSET_MOVED_TO_TIERED_STORAGE", Wait, Wait),
    row(110, "FENCED_MEMBER_EPOCH", Wait, Wait),
    row(111, "UNRELEASED_INSTANCE_ID", Wait, Wait),
    row(112, "UNSUPPORTED_ASSIGNOR", Wait, Wait),
    row(113, "STALE_MEMBER_EPOCH", Wait, Wait),
    row(114, "MISMATCHED_ENDPOINT_TYPE", Wait, Wait),
    row(115, "UNSUPPORTED_ENDPOINT_TYPE", Wait, Wait),
    row(116, "UNKNOWN_CONTROLLER_ID", Wait, Refresh),
    row(117, "UNKNOWN_SUBSCRIPTION_ID", Wait, Wait),
    row(118, "TELEMETRY_TOO_LARGE", Wait, Wait),
    row(119, "INVALID_REGISTRATION", Wait, Wait),
    row(120, "TRANSACTION_ABORTABLE", Doubt, Wait),
    row(121, "INVALID_RECORD_STATE", Wait, Wait),
    row(122, "SHARE_SESSION_NOT_FOUND", Wait, Wait),
    row(123, "INVALID_SHARE_SESSION_EPOCH", Wait, Wait),
    row(124, "FENCED_STATE_EPOCH", Wait, Wait),
    row(125, "INVALID_VOTER_KEY", Wait, Wait),
    row(126, "DUPLICATE_VOTER", Wait, Wait),
    row(127, "VOTER_NOT_FOUND", Wait, Wait),
    row(128, "INVALID_REGULAR_EXPRESSION", Wait, Wait),
    row(129, "REBOOTSTRAP_REQUIRED", Refresh, Refresh),
    row(130, "STREAMS_INVALID_TOPOLOGY", Wait, Wait),
    row(131, "STREAMS_INVALID_TOPOLOGY_EPOCH", Wait, Wait),
    row(132, "STREAMS_TOPOLOGY_FENCED", Wait, Wait),
    row(133, "SHARE_SESSION_LIMIT_REACHED", Wait, Wait),
    row(134, "GROUP_DELETION_FAILED", Wait, Wait),
    row(135, "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED", Wait, Wait),
    row(136, "CONTROLLER_ID_NOT_REGISTERED", Wait, Wait),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_its_place() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(usize::try_from(row.code + 1).unwrap(), place, "{}", row.name);
        }
        assert_eq!(TABLE.len(), 138);
    }

    #[test]
    fn only_success_counts_as_stored() {
        for code in i16::MIN..=i16::MAX {
            assert_eq!(produce(code) == Stored, code == NONE, "{code}");
        }
    }

    #[test]
    fn what_may_be_stored_or_may_heal_is_never_given_up() {
        for code in [-1, 2, 3, 5, 6, 7, 13, 19, 20, 56, 60, 72, 74, 75, 89, 4711, -2, i16::MIN] {
            assert!(matches!(produce(code), Wait | Refresh), "{code}");
            assert_eq!(produce(code).disposition(), Disposition::Retry, "{code}");
        }
    }

    #[test]
    fn rights_and_logins_halt_with_77() {
        assert_eq!(request(30).disposition(), Disposition::Halt(Exit::Permission));
        for code in [29, 31, 33, 34, 53, 58, 66] {
            assert_eq!(produce(code).disposition(), Disposition::Halt(Exit::Permission), "{code}");
            assert_eq!(request(code).disposition(), Disposition::Halt(Exit::Permission), "{code}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_transaction_is_left_to_who_began_it() {
        for code in [14, 15, 16, 47, 48, 49, 51, 52, 88, 90, 105, 120] {
            assert_eq!(request(code).disposition(), Disposition::Retry, "{code}");
        }
        // Unless the broker takes no transaction as long as ours.
        assert_eq!(request(50).disposition(), Disposition::Halt(Exit::Config));
    }

    #[test]
    fn says_what_it_does_not_know() {
        assert_eq!(Named(6).to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(Named(999).to_string(), "error code 999, which is newer than this program");
    }
}
