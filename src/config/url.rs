//! libpq's connection strings: a URI, or `key=value` pairs.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>

/// Our keys and their values as text. Hosts and ports are lists with commas.
pub(super) type Parts = Vec<(&'static str, String)>;

/// Reads either form. An error never repeats the string, which may hold a password.
pub(super) fn parse(text: &str) -> Result<Parts, String> {
    let rest = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) => uri(rest),
        None if text.contains("://") => Err("is no postgres:// URI".into()),
        None => pairs(text),
    }
}

/// What libpq calls a parameter, by our key; `Err`: it is known, and not supported.
pub(super) fn parameter(name: &str, value: &str) -> Result<Option<(&'static str, String)>, String> {
    let key = match name {
        "host" | "hostaddr" => "postgres.host",
        "port" => "postgres.port",
        "user" => "postgres.user",
        "password" => "postgres.password",
        "dbname" => "postgres.database",
        "passfile" => "postgres.passfile",
        "service" => "postgres.service",
        "sslmode" => "postgres.sslmode",
        "sslrootcert" => "postgres.sslrootcert",
        "sslcert" => "postgres.sslcert",
        "sslkey" => "postgres.sslkey",
        "channel_binding" => "postgres.channel_binding",
        "target_session_attrs" => "postgres.target_session_attrs",
        "application_name" => "postgres.application_name",
        "options" => "postgres.options",
        "connect_timeout" => return seconds("postgres.connect_timeout", name, value),
        "keepalives_idle" => return seconds("postgres.keepalive", name, value),
        "tcp_user_timeout" => return Ok(Some(("postgres.user_timeout", format!("{value}ms")))),
        // Ours anyway, or without a meaning here.
        "fallback_application_name"
        | "client_encoding"
        | "keepalives"
        | "replication"
        | "sslcompression"
        | "gssencmode"
        | "sslsni" => return Ok(None),
        _ => return Err(format!("has the parameter {name:?}, which pgsluice does not know")),
    };
    if name == "sslmode" && matches!(value, "prefer" | "allow") {
        return Err(format!(
            "has sslmode={value}, which falls back to plain text; take disable, require, \
             verify-ca or verify-full"
        ));
    }
    Ok(Some((key, value.to_owned())))
}

fn seconds(
    key: &'static str,
    name: &str,
    value: &str,
) -> Result<Option<(&'static str, String)>, String> {
    match value.parse::<u32>() {
        Ok(0) => Ok(None), // libpq: wait for ever, which we never do
        Ok(seconds) => Ok(Some((key, format!("{seconds}s")))),
        Err(_) => Err(format!("has a {name} that is no number of seconds")),
    }
}

/// `[user[:password]@][host[:port],…][/dbname][?name=value&…]`
fn uri(rest: &str) -> Result<Parts, String> {
    let mut parts = Parts::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    if let Some(login) = login {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if !user.is_empty() {
            parts.push(("postgres.user", decode(user)?));
        }
        if let Some(password) = password {
            parts.push(("postgres.password", decode(password)?));
        }
    }
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = host_and_port(host)?;
        names.push(decode(name)?);
        ports.push(port.to_owned());
    }
    if names.iter().any(|name| !name.is_empty()) {
        parts.push(("postgres.host", names.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        let ports: Vec<_> =
            ports.iter().map(|port| if port.is_empty() { "5432" } else { port }).collect();
        parts.push(("postgres.port", ports.join(",")));
    }
    if !database.is_empty() {
        parts.push(("postgres.database", decode(database)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| "has a parameter without a value behind the \"?\"".to_owned())?;
        add(&mut parts, &decode(name)?, &decode(value)?)?;
    }
    Ok(parts)
}

/// `host`, `host:port`, `[::1]:port`.
fn host_and_port(host: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) =
            rest.split_once(']').ok_or_else(|| "has a \"[\" without its \"]\"".to_owned())?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((name, port)),
            None if port.is_empty() => Ok((name, "")),
            None => Err("has something between \"]\" and the port".into()),
        };
    }
    Ok(host.rsplit_once(':').unwrap_or((host, "")))
}

/// A parameter that was given already must not come again.
fn add(parts: &mut Parts, name: &str, value: &str) -> Result<(), String> {
    if let Some((key, value)) = parameter(name, value)? {
        // `hostaddr` is where `host` is, and wins over the name.
        if name != "hostaddr" && parts.iter().any(|(known, _)| *known == key) {
            return Err(format!("says {name} twice"));
        }
        parts.retain(|(known, _)| *known != key);
        parts.push((key, value));
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err("has a \"%\" that is not followed by two hexadecimal digits".into());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or(0));
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("has an encoded part that is no text".into()),
    }
}

/// `name = 'value' …`, with backslashes in and out of quotes.
fn pairs(text: &str) -> Result<Parts, String> {
    let mut parts = Parts::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest
            .split_once('=')
            .ok_or_else(|| "has a name without \"=\" (a URI begins with postgres://)".to_owned())?;
        let mut chars = behind.trim_start().chars();
        let mut value = String::new();
        let quoted = chars.as_str().starts_with('\'');
        if quoted {
            chars.next();
        }
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err("has a quote that does not end".into()),
                None => break,
            }
        }
        add(&mut parts, name.trim(), &value)?;
        rest = chars.as_str().trim_start();
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, key: &str) -> Option<String> {
        let parts = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        parts.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    #[test]
    fn reads_a_uri() {
        let url =
            "postgres://us%40er:p%3Aw%2F@a:1,[::1]:2,c/d%20b?sslmode=require&connect_timeout=3";
        assert_eq!(part(url, "postgres.user").unwrap(), "us@er");
        assert_eq!(part(url, "postgres.password").unwrap(), "p:w/");
        assert_eq!(part(url, "postgres.host").unwrap(), "a,::1,c");
        assert_eq!(part(url, "postgres.port").unwrap(), "1,2,5432");
        assert_eq!(part(url, "postgres.database").unwrap(), "d b");
        assert_eq!(part(url, "postgres.sslmode").unwrap(), "require");
        assert_eq!(part(url, "postgres.connect_timeout").unwrap(), "3s");
        let socket = "postgresql://u@%2Frun%2Fpg/d";
        assert_eq!(part(socket, "postgres.host").unwrap(), "/run/pg");
        assert_eq!(part("postgres:///d?host=/run/pg&user=u", "postgres.host").unwrap(), "/run/pg");
    }

    #[test]
    fn reads_pairs() {
        let text = r"host = /tmp user='a \'b' password=x\ y dbname=''";
        assert_eq!(part(text, "postgres.host").unwrap(), "/tmp");
        assert_eq!(part(text, "postgres.user").unwrap(), "a 'b");
        assert_eq!(part(text, "postgres.password").unwrap(), "x y");
        assert_eq!(part(text, "postgres.database").unwrap(), "");
    }

    #[test]
    fn says_what_is_wrong_and_repeats_no_password() {
        for (text, why) in [
            ("mysql://x:secret@y", "no postgres://"),
            ("postgres://x:secret@y?sslmode=prefer", "plain text"),
            ("postgres://x:secret@y?wibble=1", "wibble"),
            ("postgres://x:secret%zz@y", "hexadecimal"),
            ("host=a password='secret", "does not end"),
            ("secret", "without \"=\""),
            ("host=a host=b password=secret", "twice"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
