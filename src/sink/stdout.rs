//! A line a record, for people and for `jq`.

use std::io::{self, Write};

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Look {
    /// One JSON object.
    Json,
    /// Words, for a terminal.
    Text,
    /// Words in colours.
    Colour,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Line<'a, H> {
    /// Name and value of each header.
    pub headers: H,
    /// The key, as JSON.
    pub key: Option<&'a [u8]>,
    /// The value: JSON if it is a row, else any bytes.
    pub value: Option<&'a [u8]>,
    /// Whether it is a row.
    pub row: bool,
}

impl<'a, H: Iterator<Item = (&'static str, &'a [u8])>> Line<'a, H> {
    /// Writes it, with its newline.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        match look {
            Look::Json => self.json(out),
            Look::Text => self.words(false, out),
            Look::Colour => self.words(true, out),
        }
    }

    fn json(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"{")?;
        for (name, value) in self.headers {
            write!(out, "\"{name}\":")?;
            match name {
                // These two are JSON already, or a number.
                "unchanged" | "xid" => out.write_all(value)?,
                _ => string(value, out)?,
            }
            out.write_all(b",")?;
        }
        out.write_all(b"\"key\":")?;
        out.write_all(self.key.unwrap_or(b"null"))?;
        out.write_all(b",\"value\":")?;
        match self.value {
            None => out.write_all(b"null")?,
            Some(value) if self.row => one_line(value, out)?,
            Some(value) => string(value, out)?,
        }
        out.write_all(b"}\n")
    }

    fn words(self, colours: bool, out: &mut dyn Write) -> io::Result<()> {
        let paint = |code: &'static str| if colours { code } else { "" };
        let (mut op, mut rest) = ("", Vec::new());
        for (name, value) in self.headers {
            let value = String::from_utf8_lossy(value);
            match name {
                "op" => op = word(&value),
                "table" | "prefix" => rest.insert(0, value.into_owned()),
                "ts" => {}
                _ => rest.push(format!("{name}={value}")),
            }
        }
        let colour = match op {
            "INSERT" => "\x1b[32m",
            "UPDATE" => "\x1b[33m",
            "DELETE" | "TRUNCATE" => "\x1b[31m",
            _ => "\x1b[36m",
        };
        write!(out, "{}{op:<8}{}", paint(colour), paint("\x1b[0m"))?;
        let mut rest = rest.into_iter();
        if let Some(table) = rest.next() {
            write!(out, " {}{table}{}", paint("\x1b[1m"), paint("\x1b[0m"))?;
        }
        if let Some(value) = self.value {
            out.write_all(b" ")?;
            one_line(value, out)?;
        }
        let rest: Vec<_> = rest.collect();
        writeln!(out, " {}{}{}", paint("\x1b[2m"), rest.join(" "), paint("\x1b[0m"))
    }
}

/// What a letter stands for.
fn word(letter: &str) -> &'static str {
    match letter {
        "c" => "INSERT",
        "u" => "UPDATE",
        "d" => "DELETE",
        "r" => "READ",
        "t" => "TRUNCATE",
        "m" => "MESSAGE",
        _ => "?",
    }
}

/// Bytes as a JSON string; what is no UTF-8 is shown as U+FFFD.
fn string(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(out, &String::from_utf8_lossy(bytes)).map_err(io::Error::from)
}

/// JSON that a column brought may hold newlines between its tokens, where a space is as good.
/// Other control characters, which could drive a terminal, are shown as U+FFFD.
fn one_line(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    for run in bytes.split_inclusive(|byte| byte.is_ascii_control()) {
        match run.split_last() {
            Some((last, head)) if last.is_ascii_control() => {
                out.write_all(head)?;
                let blank = matches!(last, b'\n' | b'\r' | b'\t');
                out.write_all(if blank { b" " } else { "\u{fffd}".as_bytes() })?;
            }
            _ => out.write_all(run)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(look: Look, value: Option<&[u8]>, row: bool) -> String {
        let headers: [(&'static str, &[u8]); 3] =
            [("op", b"c"), ("table", b"public.users"), ("xid", b"7")];
        let mut out = Vec::new();
        Line { headers: headers.into_iter(), key: Some(b"{\"id\":1}"), value, row }
            .write(look, &mut out)
            .expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_row_is_one_json_object_on_one_line() {
        let line = shown(Look::Json, Some(b"{\"id\":1,\n\"j\":{\n}}"), true);
        assert_eq!(line.lines().count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(parsed["value"]["id"], 1);
        assert_eq!(parsed["key"]["id"], 1);
        assert_eq!(parsed["xid"], 7);
    }

    #[test]
    fn a_message_may_be_any_bytes() {
        let line = shown(Look::Json, Some(b"\xff\"\n"), false);
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(parsed["value"], "\u{fffd}\"\n");
    }

    #[test]
    fn text_has_no_colours_and_drives_no_terminal() {
        let line = shown(Look::Text, Some(b"\x1b[2Jhi"), false);
        assert!(!line.contains('\x1b'), "{line:?}");
        assert!(line.starts_with("INSERT   public.users "), "{line:?}");
    }
}
