//! libpq's password file, by libpq's [rules].
//!
//! [rules]: https://www.postgresql.org/docs/current/libpq-pgpass.html

use std::{fs, io, path::Path};

use super::Host;
use crate::net::{Error, Secret, read_file};

/// Longest file that is read: ten thousand logins have a tenth of it.
const LONGEST: u64 = 8 << 20;

/// The password for this login; `None`: no such file, or no such line.
///
/// # Errors
/// The file cannot be read, or others can read it too.
pub(super) fn lookup(
    path: &Path,
    host: &Host,
    database: &str,
    user: &str,
) -> Result<Option<Secret>, Error> {
    let refuse = |why: String| Error::File { path: path.to_owned(), why };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        // `~/.pgpass` is looked for whether it is there or not.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    if others_may_read(&about) {
        return Err(refuse("others may read it; its mode must be 0600 or less".to_owned()));
    }
    let text = read_file(path, LONGEST).map_err(|error| refuse(error.to_string()))?;
    match find(&text, host, database, user) {
        None => Ok(None),
        Some(password) => match String::from_utf8(password) {
            Ok(password) => Ok(Some(Secret::new(password))),
            Err(_) => Err(refuse("the password in it is not UTF-8".to_owned())),
        },
    }
}

#[cfg(unix)]
fn others_may_read(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    about.permissions().mode() & 0o077 != 0
}

/// The password of the first line that fits.
fn find(text: &[u8], host: &Host, database: &str, user: &str) -> Option<Vec<u8>> {
    let (names, port) = match host {
        Host::Tcp(name, port) => (vec![name.clone()], port),
        // libpq takes `localhost` for its default folder only; which one that is depends on how it
        // was built, so here it stands for every socket.
        Host::Unix(folder, port) => {
            (vec!["localhost".to_owned(), folder.display().to_string()], port)
        }
    };
    let port = port.to_string();
    text.split(|&byte| byte == b'\n')
        .find_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b"#") {
                return None;
            }
            let rest = names.iter().find_map(|name| field(line, name))?;
            let rest = field(rest, &port)?;
            let rest = field(rest, database)?;
            let password = unescape(field(rest, user)?);
            // As libpq: an empty password is none, and the lines after it are not asked.
            Some(password)
        })
        .filter(|password| !password.is_empty())
}

/// What follows the first field of `line`, if that field is `*` or, unescaped, `wanted`.
fn field<'a>(line: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut wanted = wanted.as_bytes();
    let mut line = line;
    loop {
        let (&first, mut rest) = line.split_first()?;
        if first == b':' && wanted.is_empty() {
            return Some(rest);
        }
        let mut found = first;
        if first == b'\\' {
            let (&escaped, after) = rest.split_first()?;
            (found, rest) = (escaped, after);
        }
        let (&next, others) = wanted.split_first()?;
        if found != next {
            return None;
        }
        (line, wanted) = (rest, others);
    }
}

/// The last field: up to a colon that is not escaped.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(bytes.next().unwrap_or(b'\\')),
            _ => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str, host: &str, database: &str, user: &str) -> Option<String> {
        let host = match host.strip_prefix("unix:") {
            Some(folder) => Host::Unix(folder.into(), 5432),
            None => Host::Tcp(host.to_owned(), 5432),
        };
        find(text.as_bytes(), &host, database, user)
            .map(|password| String::from_utf8(password).unwrap())
    }

    #[test]
    fn takes_the_first_line_that_fits() {
        let text = "# comment:5432:db:me:no\nother:5432:db:me:no\nh:5432:db:me:yes\n*:*:*:*:late";
        assert_eq!(password(text, "h", "db", "me").as_deref(), Some("yes"));
        assert_eq!(password(text, "x", "db", "me").as_deref(), Some("late"));
        assert_eq!(password("h:5433:db:me:no", "h", "db", "me"), None);
        assert_eq!(password("h:5432:db:me2:no\r\n", "h", "db", "me"), None);
        assert_eq!(password("h:5432:db:m:no", "h", "db", "me"), None);
    }

    #[test]
    fn undoes_escapes_in_every_field() {
        let text = r"fe80\:\:1:5432:a\\b:m\:e:p\:w\\d:rest";
        assert_eq!(password(text, "fe80::1", r"a\b", "m:e").as_deref(), Some(r"p:w\d"));
    }

    #[test]
    fn keeps_spaces_and_drops_the_line_end() {
        assert_eq!(password("*:*:*:*: a b \r\n", "h", "d", "u").as_deref(), Some(" a b "));
    }

    #[test]
    fn calls_a_socket_localhost_or_by_its_folder() {
        for line in ["localhost:5432:*:*:s", "/run/pg:5432:*:*:s", "*:*:*:*:s"] {
            assert_eq!(password(line, "unix:/run/pg", "d", "u").as_deref(), Some("s"), "{line}");
        }
        assert_eq!(password("/tmp:5432:*:*:s", "unix:/run/pg", "d", "u"), None);
    }

    #[test]
    fn takes_an_empty_password_for_none() {
        assert_eq!(password("h:5432:*:*:\n*:*:*:*:late", "h", "d", "u"), None);
    }

    #[test]
    fn refuses_a_file_that_others_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("pgsluice-{}-pgpass", std::process::id()));
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        let host = Host::Tcp("h".into(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = lookup(&path, &host, "d", "u");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let taken = lookup(&path, &host, "d", "u");
        fs::remove_file(&path).unwrap();
        assert!(refused.unwrap_err().to_string().contains("0600"));
        assert_eq!(taken.unwrap().unwrap().reveal(), "secret");
        assert!(lookup(&path, &host, "d", "u").unwrap().is_none());
    }

    proptest::proptest! {
        #[test]
        fn takes_any_bytes_without_a_panic(text: Vec<u8>, name: String) {
            let _ = find(&text, &Host::Tcp(name.clone(), 1), &name, &name);
        }
    }
}
