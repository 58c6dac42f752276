//! What the server says went wrong.

use std::fmt;

/// How messages quote values, in the languages that PostgreSQL speaks.
const QUOTES: [char; 9] = ['"', '\'', '«', '»', '“', '„', '‘', '「', '`'];

/// An `ErrorResponse` or `NoticeResponse`, without the fields that can hold a row's values.
///
/// `where` and the internal query are dropped, and so is the detail of the classes where it shows
/// a row ("Failing row contains …"). Messages of class 22 quote the value that they refuse
/// (`invalid input syntax for type integer: "…"`): they end before it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerError {
    /// ERROR, FATAL, PANIC; WARNING, NOTICE … for a notice. In English, whatever `lc_messages` is.
    pub severity: String,
    /// Five characters of the manual's appendix A.
    pub sqlstate: String,
    /// Primary message.
    pub message: String,
    /// Detail, where it holds no row.
    pub detail: Option<String>,
    /// Hint.
    pub hint: Option<String>,
    /// Name of the schema, if the error is about one.
    pub schema: Option<String>,
    /// Name of the table.
    pub table: Option<String>,
    /// Name of the column.
    pub column: Option<String>,
    /// Function in the server's source that raised it, in no language.
    pub routine: Option<String>,
}

impl ServerError {
    /// Reads the body of a message `E` or `N`. Never fails: what is broken is left out.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|&byte| byte == 0) {
            let Some((&code, text)) = field.split_first() else { break };
            let text = String::from_utf8_lossy(text).into_owned();
            match code {
                // `V` is `S` untranslated, and comes after it.
                b'S' | b'V' => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b's' => error.schema = Some(text),
                b't' => error.table = Some(text),
                b'c' => error.column = Some(text),
                b'R' => error.routine = Some(text),
                _ => {}
            }
        }
        error.without_values()
    }

    /// Whether the server ends the connection with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    fn without_values(mut self) -> Self {
        let class = self.sqlstate.get(..2).unwrap_or_default();
        if matches!(class, "20" | "21" | "22" | "23" | "44") {
            self.detail = None;
        }
        // These two quote the name of an encoding, and bytes that are no character.
        if class == "22"
            && !matches!(self.sqlstate.as_str(), "22021" | "22P05")
            && let Some(quote) = self.message.find(QUOTES)
        {
            self.message.truncate(quote);
            self.message.push('…');
        }
        self
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        use tokio_postgres::error::Severity;
        let severity = match error.parsed_severity() {
            Some(Severity::Panic) => "PANIC",
            Some(Severity::Fatal) => "FATAL",
            Some(Severity::Error) => "ERROR",
            Some(Severity::Warning) => "WARNING",
            Some(Severity::Notice) => "NOTICE",
            Some(Severity::Debug) => "DEBUG",
            Some(Severity::Info) => "INFO",
            Some(Severity::Log) => "LOG",
            None => error.severity(),
        };
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        Self {
            severity: severity.to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: own(error.detail()),
            hint: own(error.hint()),
            schema: own(error.schema()),
            table: own(error.table()),
            column: own(error.column()),
            routine: own(error.routine()),
        }
        .without_values()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[&str]) -> ServerError {
        let mut body = fields.join("\0").into_bytes();
        body.extend([0, 0]);
        ServerError::parse(&body)
    }

    #[test]
    fn keeps_what_helps() {
        let error = parse(&[
            "SFEHLER",
            "VERROR",
            "C55006",
            "Mreplication slot \"s\" is active for PID 7",
            "Ddetail",
            "Hhint",
            "Wsecret",
            "qsecret",
            "Fslot.c",
            "L5",
        ]);
        assert_eq!(error.severity, "ERROR");
        assert_eq!(
            error.to_string(),
            "replication slot \"s\" is active for PID 7 (SQLSTATE 55006); detail; hint: hint"
        );
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn shows_no_value_of_a_row() {
        let cast =
            parse(&["C22P02", "Minvalid input syntax for type integer: \"secret\"", "Dsecret"]);
        assert_eq!(cast.to_string(), "invalid input syntax for type integer: … (SQLSTATE 22P02)");
        let check = parse(&["C23514", "Mviolates \"c\"", "DFailing row contains (secret)."]);
        assert_eq!(check.to_string(), "violates \"c\" (SQLSTATE 23514)");
        let bytes = parse(&["C22021", "Minvalid byte sequence for encoding \"UTF8\": 0xff"]);
        assert!(bytes.message.ends_with("\"UTF8\": 0xff"));
    }

    #[test]
    fn takes_every_cut() {
        let body = b"SERROR\0C57P01\0Mbye\0\0";
        for cut in 0..body.len() {
            let _ = ServerError::parse(&body[..cut]);
        }
        assert_eq!(ServerError::parse(b""), ServerError::default());
    }
}
