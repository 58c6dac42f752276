//! `postgres.url`: a libpq URI or a key=value string, taken apart into libpq's parameters.
//!
//! Messages name parameters and places, never the text itself: a password may be anywhere in it.
//! See <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>.

/// A parameter's name, as libpq calls it, and its value.
pub(super) type Parameter = (String, String);

/// Takes it apart; what comes later wins, as with libpq.
///
/// # Errors
/// Why it is neither, to be read behind the key.
pub(super) fn parse(text: &str) -> Result<Vec<Parameter>, String> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|start| text.strip_prefix(start));
    match rest {
        Some(rest) => uri(rest),
        None if text.contains("://") && !text.contains('=') => {
            Err("begins with neither postgres:// nor postgresql://".into())
        }
        None => pairs(text),
    }
}

fn uri(rest: &str) -> Result<Vec<Parameter>, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, servers) = server.rsplit_once('@').map_or((None, server), |(l, s)| (Some(l), s));
    let mut all = Vec::new();
    let mut add = |name: &str, text: &str| -> Result<(), String> {
        if !text.is_empty() {
            all.push((name.to_owned(), decode(text, name)?));
        }
        Ok(())
    };
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        add("user", user)?;
        add("password", password)?;
    }
    let (hosts, ports) = hosts(servers)?;
    add("host", &hosts)?;
    add("port", &ports)?;
    add("dbname", database)?;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("has a query parameter without a \"=\"")?;
        let name = decode(name, "a parameter's name")?;
        let value = decode(value, &name)?;
        match (name.as_str(), value.as_str()) {
            // libpq takes JDBC's word for it.
            ("ssl", "true") => all.push(("sslmode".into(), "require".into())),
            _ => all.push((name, value)),
        }
    }
    Ok(all)
}

/// `a:1,[::1]:2,c` → `a,::1,c` and `1,2,`; no ports if none is given.
fn hosts(servers: &str) -> Result<(String, String), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in servers.split(',') {
        let (host, rest) = match server.strip_prefix('[') {
            Some(address) => address.split_once(']').ok_or("has a \"[\" without a \"]\"")?,
            None => {
                server.find(':').and_then(|at| server.split_at_checked(at)).unwrap_or((server, ""))
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port,
            None if rest.is_empty() => "",
            None => return Err("has something between a \"]\" and the port".into()),
        };
        if port.contains(':') {
            return Err("has two \":\" in one host; an IPv6 address stands in [ ]".into());
        }
        hosts.push(host);
        ports.push(port);
    }
    let none = |list: &[&str]| list.iter().all(|part| part.is_empty());
    let join = |list: &[&str]| if none(list) { String::new() } else { list.join(",") };
    Ok((join(&hosts), join(&ports)))
}

fn decode(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(format!(
                "has a \"%\" without two hexadecimal digits in {what}; a % itself is %25"
            ));
        };
        match u8::try_from(high * 16 + low) {
            Ok(0) | Err(_) => return Err(format!("has a %00 in {what}")),
            Ok(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("is not UTF-8 in {what}"))
}

/// `name = value name='it''s \'quoted\''`.
fn pairs(text: &str) -> Result<Vec<Parameter>, String> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let name = rest.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default();
        let place = text.len() - rest.len() + 1;
        let behind = rest.strip_prefix(name).unwrap_or_default().trim_start();
        let Some(value) = behind.strip_prefix('=') else {
            return Err(format!("has no \"=\" behind the name at character {place}"));
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("has no parameter's name at character {place}"));
        }
        let (value, behind) = value_of(value.trim_start(), name)?;
        all.push((name.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(all)
}

fn value_of<'a>(text: &'a str, name: &str) -> Result<(String, &'a str), String> {
    let quoted = text.strip_prefix('\'');
    let mut chars = quoted.unwrap_or(text).chars();
    let mut value = String::new();
    loop {
        let here = chars.as_str();
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\'') if quoted.is_some() => return Ok((value, chars.as_str())),
            None if quoted.is_some() => {
                return Err(format!("has a quote in {name} that is not closed"));
            }
            None => return Ok((value, "")),
            Some(c) if quoted.is_none() && c.is_whitespace() => return Ok((value, here)),
            Some(c) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> String {
        let parts = parse(text).unwrap();
        parts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn takes_a_uri_apart_as_libpq_does() {
        for (text, parts) in [
            ("postgres://u@h:5433/db", "user=u host=h port=5433 dbname=db"),
            ("postgresql://", ""),
            ("postgresql:///db", "dbname=db"),
            ("postgres://u:p%40s%3A@h", "user=u password=p@s: host=h"),
            ("postgres://u:p@ss@h", "user=u password=p@ss host=h"),
            ("postgres://a:1,b,[::1]:3/d", "host=a,b,::1 port=1,,3 dbname=d"),
            ("postgres://%2Fvar%2Frun/db", "host=/var/run dbname=db"),
            ("postgres:///db?host=/tmp&port=6", "dbname=db host=/tmp port=6"),
            ("postgres://h/d?ssl=true", "host=h dbname=d sslmode=require"),
            ("postgres://h/d%20e?options=-c%20a%3Db", "host=h dbname=d e options=-c a=b"),
        ] {
            assert_eq!(all(text), parts, "{text}");
        }
    }

    #[test]
    fn takes_a_key_value_string_apart_as_libpq_does() {
        for (text, parts) in [
            ("host=h port = 5433  user=u", "host=h port=5433 user=u"),
            (r"password='a b\'c\\' dbname=d", r"password=a b'c\ dbname=d"),
            (r"password=a\ b dbname=''", "password=a b dbname="),
            ("", ""),
        ] {
            assert_eq!(all(text), parts, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_without_repeating_it() {
        for text in [
            "postgres://u:geheim%@h",
            "postgres://u:geheim%zz@h",
            "postgres://u:geheim@h?x",
            "postgres://u:geheim@[::1",
            "postgres://u:geheim@a:1:2",
            "password=geheim geheim",
            "password='geheim",
            "mysql://geheim@h",
            "geheim",
            "user=u ge%heim=1",
        ] {
            let why = parse(text).unwrap_err();
            assert!(!why.contains("heim"), "{text}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, uri: bool) {
            let _ = parse(&if uri { format!("postgres://{text}") } else { text });
        }

        #[test]
        fn keeps_any_password(password in "[^\\x00]{1,20}") {
            let encoded: String = password.bytes().map(|b| format!("%{b:02x}")).collect();
            let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
            let wanted = ("password".to_owned(), password);
            for text in [format!("postgres://u:{encoded}@h"), format!("password='{quoted}'")] {
                let parts = parse(&text).unwrap();
                proptest::prop_assert!(parts.contains(&wanted));
            }
        }
    }
}
