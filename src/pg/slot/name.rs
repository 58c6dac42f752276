//! Names that PostgreSQL would refuse, or worse, cut short in silence.

use super::Error;

/// `NAMEDATALEN` - 1: PostgreSQL cuts a longer identifier off without an error.
const LONGEST: usize = 63;

/// As `ReplicationSlotValidateName` has it.
pub(super) fn check_slot(name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let good = (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain);
    refuse_unless(
        good,
        "replication slot",
        name,
        "it takes 1 to 63 lower-case letters, digits and underscores",
    )
}

pub(super) fn check_publication(name: &str) -> Result<(), Error> {
    let good = (1..=LONGEST).contains(&name.len()) && !name.contains('\0');
    refuse_unless(good, "publication", name, "it takes 1 to 63 bytes")
}

pub(super) fn check_operation(name: &str) -> Result<(), Error> {
    let good = ["insert", "update", "delete", "truncate"].contains(&name);
    refuse_unless(good, "operation", name, "there are insert, update, delete and truncate")
}

fn refuse_unless(
    good: bool,
    what: &'static str,
    name: &str,
    why: &'static str,
) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Name { what, name: name.to_owned(), why }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_what_postgresql_takes() {
        for name in ["a", "cdc_slot", "1", &"x".repeat(63)] {
            assert!(check_slot(name).is_ok(), "{name}");
        }
        for name in ["", "A", "a-b", "a b", "ä", "a\"", &"x".repeat(64)] {
            assert!(check_slot(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_publication_that_would_be_cut_short_is_refused() {
        assert!(check_publication(&"ä".repeat(31)).is_ok());
        for name in ["", "a\0", &"ä".repeat(32)] {
            assert!(check_publication(name).is_err(), "{name}");
        }
        assert!(check_operation("upsert").is_err());
    }
}
