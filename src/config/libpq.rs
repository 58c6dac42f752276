//! libpq's parameters, variables and service file, in the words of our own keys.
//!
//! See <https://www.postgresql.org/docs/current/libpq-envars.html>.

use std::{io, path::PathBuf};

use crate::net::read_text;

/// Longest service file: a thousand services have a tenth of it.
const LONGEST: u64 = 1 << 20;

/// Variables that fill what the file leaves open, and the parameter that each stands for.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
];

/// Parameters that are the same as a key but for the unit.
const SAME: &[(&str, &str, &str)] = &[
    ("host", "postgres.host", ""),
    ("hostaddr", "postgres.host", ""),
    ("port", "postgres.port", ""),
    ("user", "postgres.user", ""),
    ("dbname", "postgres.database", ""),
    ("password", "postgres.password", ""),
    ("passfile", "postgres.passfile", ""),
    ("service", "postgres.service", ""),
    ("sslmode", "postgres.sslmode", ""),
    ("sslrootcert", "postgres.sslrootcert", ""),
    ("sslcert", "postgres.sslcert", ""),
    ("sslkey", "postgres.sslkey", ""),
    ("channel_binding", "postgres.channel_binding", ""),
    ("target_session_attrs", "postgres.target_session_attrs", ""),
    ("connect_timeout", "postgres.connect_timeout", "s"),
    ("application_name", "postgres.application_name", ""),
    ("fallback_application_name", "postgres.application_name", ""),
    ("options", "postgres.options", ""),
    ("keepalives_idle", "postgres.keepalive", "s"),
    ("tcp_user_timeout", "postgres.user_timeout", "ms"),
];

/// Parameters whose harmless values are taken, as they ask for what is done anyway.
const ANYWAY: &[(&str, &[&str])] = &[
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("keepalives", &["1"]),
    ("load_balance_hosts", &["disable"]),
    ("replication", &["database"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
];

/// Parameters that libpq knows and that have no counterpart here.
const NOT_HERE: &[&str] = &[
    "gsslib",
    "gssdelegation",
    "keepalives_count",
    "keepalives_interval",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
];

/// The key and value that a parameter stands for; `None` if it asks for what is done anyway.
///
/// # Errors
/// Why it cannot be had, to be read behind the key. Does not show the value.
pub(super) fn translate(name: &str, value: &str) -> Result<Option<(&'static str, String)>, String> {
    if let Some((_, key, unit)) = SAME.iter().find(|(known, ..)| *known == name) {
        return Ok(Some((key, format!("{value}{unit}"))));
    }
    if let Some((_, taken)) = ANYWAY.iter().find(|(known, _)| *known == name) {
        let why = || {
            format!("asks for a {name} other than {}, which is not supported", taken.join(" or "))
        };
        return if taken.contains(&value) { Ok(None) } else { Err(why()) };
    }
    if NOT_HERE.contains(&name) {
        return Err(format!("has the parameter {name}, which is not supported here"));
    }
    let names: Vec<_> = SAME.iter().map(|(known, ..)| *known).collect();
    let near = super::problem::meant_word(name, &names);
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(format!("has the parameter {}, which libpq does not know{near}", super::kind::quoted(name)))
}

/// The parameters of one section of the service file, and the file's path.
///
/// # Errors
/// Why there are none, to be read behind `postgres.service`.
pub(super) fn service(
    name: &str,
    files: &[PathBuf],
) -> Result<(PathBuf, Vec<super::url::Parameter>), String> {
    let mut unreadable = String::new();
    for path in files {
        let text = match read_text(path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                unreadable.push_str(&format!("; {} cannot be read: {error}", path.display()));
                continue;
            }
        };
        if let Some(parameters) = section(&text, name) {
            let parameters = parameters.map_err(|line| {
                format!("cannot be used: line {line} of {} is no name=value", path.display())
            })?;
            return Ok((path.clone(), parameters));
        }
    }
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    Err(format!(
        "is {}, a section found in no readable service file ({}){unreadable}",
        super::kind::quoted(name),
        files.join(", ")
    ))
}

fn section(text: &str, name: &str) -> Option<Result<Vec<super::url::Parameter>, usize>> {
    let header = format!("[{name}]");
    let mut lines = text.lines().map(str::trim).enumerate().skip_while(|(_, line)| *line != header);
    lines.next()?;
    let body = lines.take_while(|(_, line)| !line.starts_with('['));
    let settings = body.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let pair = |(at, line): (usize, &str)| {
        let (name, value) = line.split_once('=').ok_or(at + 1)?;
        Ok((name.trim().to_owned(), value.to_owned()))
    };
    Some(settings.map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_section_of_a_service_file() {
        let text = "# x\n[a]\nhost=h\n\n[b]\n host=i\n#port=1\nport=2\n[c]\noops\n";
        let pairs = |all: &[(&str, &str)]| {
            Some(Ok(all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()))
        };
        assert_eq!(section(text, "a"), pairs(&[("host", "h")]));
        assert_eq!(section(text, "b"), pairs(&[("host", "i"), ("port", "2")]));
        assert_eq!(section(text, "c"), Some(Err(10)));
        assert_eq!(section(text, "d"), None);
    }

    #[test]
    fn every_parameter_stands_for_a_key_that_exists() {
        for (name, key, _) in SAME {
            assert!(super::super::table::find(key).is_some(), "{name}");
        }
        for (variable, name) in VARIABLES {
            assert!(SAME.iter().any(|(known, ..)| known == name), "{variable}");
        }
    }

    #[test]
    fn names_a_parameter_that_is_not_known() {
        assert!(translate("pgbouncer", "true").unwrap_err().contains("pgbouncer"));
        assert!(translate("sslmod", "x").unwrap_err().contains("did you mean sslmode?"));
        assert!(translate("sslcrl", "x").unwrap_err().contains("not supported"));
        assert_eq!(translate("gssencmode", "disable"), Ok(None));
        assert_eq!(
            translate("connect_timeout", "3"),
            Ok(Some(("postgres.connect_timeout", "3s".into())))
        );
    }
}
