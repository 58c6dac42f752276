//! What the server says of a publication that is younger than the slot's position.
//!
//! pgoutput looks a publication up as of the WAL that it decodes. 14 to 17 end the stream with an
//! error at every attempt; 18 only warns, and **skips the rows in silence**: a client that goes on
//! and confirms loses them for good.
//!
//! Nothing at start can tell: the catalog knows the transaction that last touched a publication, an
//! `ALTER` as well, but not where in the WAL it committed. So the stream has to ask this of every
//! error and every notice, and no role may hide the notice (`client_min_messages=warning`).

use super::Error;

/// What matters of an ErrorResponse or a NoticeResponse.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// `C`: SQLSTATE.
    pub code: &'a str,
    /// `M`: the primary message, in the language of `lc_messages`, which a client cannot choose.
    pub message: &'a str,
    /// `R`: the function in the server's source, in no language.
    pub routine: Option<&'a str>,
}

/// [`Error::PublicationTooYoung`], if that is what `report` means while `publications` are streamed.
#[must_use]
pub fn publication_too_young(report: &Report<'_>, publications: &[String]) -> Option<Error> {
    let routine = report.routine.unwrap_or("");
    let young = match report.code {
        // A slot that is missing has this code too, in `ReplicationSlotAcquire`.
        UNDEFINED_OBJECT => {
            routine == "get_publication_oid"
                || report.message.starts_with("publication \"")
                    && report.message.ends_with("\" does not exist")
        }
        OBJECT_NOT_IN_PREREQUISITE_STATE => {
            routine == "LoadPublications"
                || report.message.starts_with("skipped loading publication")
        }
        _ => false,
    };
    young.then(|| Error::PublicationTooYoung { name: name(report.message, publications) })
}

const UNDEFINED_OBJECT: &str = "42704";
const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";

/// Which of our publications the message names: in quotes, which differ by language.
fn name(message: &str, publications: &[String]) -> String {
    let named = |name: &&String| {
        message.match_indices(name.as_str()).any(|(at, name)| {
            let before = message.get(..at).and_then(|text| text.chars().next_back());
            let after = message.get(at + name.len()..).and_then(|text| text.chars().next());
            let edge = |char: Option<char>| char.is_some_and(|c| !c.is_alphanumeric() && c != ' ');
            edge(before) && edge(after)
        })
    };
    let longest = publications.iter().filter(named).max_by_key(|name| name.len());
    longest.or_else(|| publications.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn young(code: &str, message: &str, routine: Option<&str>) -> Option<String> {
        let publications = ["p".to_owned(), "pub".to_owned()];
        match publication_too_young(&Report { code, message, routine }, &publications) {
            Some(Error::PublicationTooYoung { name }) => Some(name),
            _ => None,
        }
    }

    #[test]
    fn knows_what_14_to_17_and_what_18_say() {
        let error = "publication \"pub\" does not exist";
        assert_eq!(young("42704", error, Some("get_publication_oid")).unwrap(), "pub");
        assert_eq!(young("42704", error, None).unwrap(), "pub");
        let warning = "skipped loading publication \"p\"";
        assert_eq!(young("55000", warning, Some("LoadPublications")).unwrap(), "p");
        assert_eq!(young("55000", warning, None).unwrap(), "p");
    }

    #[test]
    fn knows_it_in_any_language() {
        let error = "Publikation »pub« existiert nicht";
        assert_eq!(young("42704", error, Some("get_publication_oid")).unwrap(), "pub");
    }

    #[test]
    fn a_slot_that_is_missing_or_in_no_state_to_be_read_is_another_matter() {
        let missing = "replication slot \"pub\" does not exist";
        assert_eq!(young("42704", missing, Some("ReplicationSlotAcquire")), None);
        assert_eq!(young("42704", missing, None), None);
        let lost = "cannot read from logical replication slot \"pub\"";
        assert_eq!(young("55000", lost, Some("CreateDecodingContext")), None);
    }
}
