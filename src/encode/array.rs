//! PostgreSQL's text of an array to a JSON array, in one pass.
//!
//! `{1,NULL,"a \"b\""}`, nested for more dimensions, with `[0:1]=` in front if a lower bound is not
//! 1, which JSON has no place for. Written by `array_out` in `src/backend/utils/adt/arrayfuncs.c`.

use crate::schema::PgType;

use super::{Malformed, Numeric, escape, value};

/// Appends the array. On an error, part of it may have been appended.
pub(super) fn write(
    element: &PgType,
    delimiter: u8,
    numeric: Numeric,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let elements = Elements { kind: element, delimiter, numeric };
    if delimiter == b' ' { elements.vector(text, out) } else { elements.array(text, out) }
}

/// `MAXDIM`: PostgreSQL makes no array of more dimensions.
const MAX_DIMENSIONS: usize = 6;

/// What may come next.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    /// An element or a `{`: after a delimiter.
    Item,
    /// Or a `}`: after a `{`.
    ItemOrEnd,
    /// A delimiter or a `}`: after an element or a `}`.
    DelimiterOrEnd,
}

struct Elements<'a> {
    kind: &'a PgType,
    delimiter: u8,
    numeric: Numeric,
}

impl Elements<'_> {
    fn array(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut rest = without_bounds(text)?;
        let mut depth = 0_usize;
        let mut next = Next::Item;
        while let Some((byte, tail)) = rest.split_first() {
            match (*byte, next) {
                (b'{', Next::Item | Next::ItemOrEnd) if depth < MAX_DIMENSIONS => {
                    depth += 1;
                    out.push(b'[');
                    (rest, next) = (tail, Next::ItemOrEnd);
                }
                (b'}', Next::DelimiterOrEnd | Next::ItemOrEnd) if depth > 0 => {
                    depth -= 1;
                    out.push(b']');
                    if depth == 0 {
                        return if tail.is_empty() { Ok(()) } else { Err(Malformed::Array) };
                    }
                    (rest, next) = (tail, Next::DelimiterOrEnd);
                }
                (byte, Next::DelimiterOrEnd) if byte == self.delimiter => {
                    out.push(b',');
                    (rest, next) = (tail, Next::Item);
                }
                (b'"', Next::Item | Next::ItemOrEnd) if depth > 0 => {
                    (rest, next) = (self.quoted(tail, out)?, Next::DelimiterOrEnd);
                }
                (_, Next::Item | Next::ItemOrEnd) if depth > 0 => {
                    (rest, next) = (self.plain(rest, out)?, Next::DelimiterOrEnd);
                }
                _ => return Err(Malformed::Array),
            }
        }
        Err(Malformed::Array)
    }

    /// An element without quotes; returns what follows it.
    fn plain<'t>(&self, text: &'t [u8], out: &mut Vec<u8>) -> Result<&'t [u8], Malformed> {
        let ends =
            |byte: &u8| *byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\');
        let (element, rest) = split_where(text, ends).ok_or(Malformed::Array)?;
        if element.is_empty() {
            return Err(Malformed::Array);
        }
        if element.eq_ignore_ascii_case(b"NULL") {
            out.extend_from_slice(b"null");
        } else {
            value::write(self.kind, self.numeric, element, out)?;
        }
        Ok(rest)
    }

    /// An element after its opening quote; returns what follows the closing one.
    fn quoted<'t>(&self, text: &'t [u8], out: &mut Vec<u8>) -> Result<&'t [u8], Malformed> {
        let (element, rest) = split_where(text, is_mark).ok_or(Malformed::Array)?;
        if let Some(rest) = rest.strip_prefix(b"\"") {
            value::write(self.kind, self.numeric, element, out)?;
            return Ok(rest);
        }
        match self.kind {
            PgType::Text => {
                out.push(b'"');
                let rest = unescaped(text, |piece| escape::body(piece, out))?;
                out.push(b'"');
                Ok(rest)
            }
            PgType::Json => {
                let start = out.len();
                let rest = unescaped(text, |piece| {
                    out.extend_from_slice(piece);
                    Ok(())
                })?;
                let json = out.get(start..).unwrap_or_default();
                std::str::from_utf8(json).map_err(|_| Malformed::NotUtf8)?;
                Ok(rest)
            }
            // No other type prints a backslash but an array whose elements are a domain over one.
            kind => {
                let mut element = Vec::new();
                let rest = unescaped(text, |piece| {
                    element.extend_from_slice(piece);
                    Ok(())
                })?;
                value::write(kind, self.numeric, &element, out)?;
                Ok(rest)
            }
        }
    }

    /// `int2vector` and `oidvector`: elements with a space between.
    fn vector(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.push(b'[');
        for (at, element) in text.split(|byte| *byte == b' ').enumerate() {
            if element.is_empty() && text.is_empty() {
                break;
            }
            if at > 0 {
                out.push(b',');
            }
            value::write(self.kind, self.numeric, element, out)?;
        }
        out.push(b']');
        Ok(())
    }
}

/// What follows `[1:2][-3:4]=`, if that stands in front.
fn without_bounds(text: &[u8]) -> Result<&[u8], Malformed> {
    if !text.starts_with(b"[") {
        return Ok(text);
    }
    let bound = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b']' | b':' | b'-');
    let (_, rest) = split_where(text, |byte| !bound(byte)).ok_or(Malformed::Array)?;
    rest.strip_prefix(b"=").ok_or(Malformed::Array)
}

/// What ends a run inside quotes.
fn is_mark(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

fn split_where(text: &[u8], mark: impl Fn(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.iter().position(mark)?)
}

/// Hands on an element piece by piece without its backslashes; returns what follows its quote.
fn unescaped<'t>(
    text: &'t [u8],
    mut piece: impl FnMut(&'t [u8]) -> Result<(), Malformed>,
) -> Result<&'t [u8], Malformed> {
    let mut from = text;
    let mut literal = 0; // 1 after a backslash: the byte that follows stands for itself
    loop {
        let marks = from.get(literal..).ok_or(Malformed::Array)?;
        let at = marks.iter().position(is_mark).ok_or(Malformed::Array)? + literal;
        let (run, rest) = from.split_at_checked(at).ok_or(Malformed::Array)?;
        piece(run)?;
        let (mark, tail) = rest.split_first().ok_or(Malformed::Array)?;
        if *mark == b'"' {
            return Ok(tail);
        }
        (from, literal) = (tail, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(array: &str) -> Result<String, Malformed> {
        of(&PgType::Text, b',', array)
    }

    fn of(kind: &PgType, delimiter: u8, array: &str) -> Result<String, Malformed> {
        let mut out = Vec::new();
        write(kind, delimiter, Numeric::String, array.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn reads_every_form_that_postgresql_prints() {
        for (array, json) in [
            ("{}", "[]"),
            ("{a}", r#"["a"]"#),
            ("{a,NULL,\"NULL\",\"\"}", r#"["a",null,"NULL",""]"#),
            (r#"{"a\"b","c\\d","\\","\""}"#, r#"["a\"b","c\\d","\\","\""]"#),
            ("{\"a,b\",\"{}\",\"\n\"}", r#"["a,b","{}","\n"]"#),
            ("{{a,b},{c,NULL}}", r#"[["a","b"],["c",null]]"#),
            ("[0:1]={a,b}", r#"["a","b"]"#),
            ("[-1:0][5:5]={{a},{b}}", r#"[["a"],["b"]]"#),
        ] {
            assert_eq!(text(array).as_deref(), Ok(json), "{array}");
        }
        assert_eq!(of(&PgType::Text, b';', "{(1,1);(2,2)}").as_deref(), Ok(r#"["(1,1)","(2,2)"]"#));
    }

    #[test]
    fn elements_are_written_by_their_type() {
        let integers = PgType::Array { element: PgType::Integer.into(), delimiter: b',' };
        for (kind, array, json) in [
            (PgType::Integer, "{1,-2,NULL}", "[1,-2,null]"),
            (PgType::Float, "{1e+20,NaN}", r#"[1e+20,"NaN"]"#),
            (PgType::Bool, "{t,f}", "[true,false]"),
            (PgType::Json, r#"{"{\"a\": [1,\"\\\\\"]}",1}"#, r#"[{"a": [1,"\\"]},1]"#),
            (PgType::Timestamp, r#"{"2024-01-01 00:00:00"}"#, r#"["2024-01-01T00:00:00"]"#),
            (integers, r#"{"{1,2}","{}"}"#, "[[1,2],[]]"),
        ] {
            assert_eq!(of(&kind, b',', array).as_deref(), Ok(json), "{array}");
        }
        let texts = PgType::Array { element: PgType::Text.into(), delimiter: b',' };
        assert_eq!(of(&texts, b',', r#"{"{\"a b\"}"}"#).as_deref(), Ok(r#"[["a b"]]"#));
    }

    #[test]
    fn vectors_have_no_braces() {
        assert_eq!(of(&PgType::Integer, b' ', "1 2").as_deref(), Ok("[1,2]"));
        assert_eq!(of(&PgType::Text, b' ', "1").as_deref(), Ok(r#"["1"]"#));
        assert_eq!(of(&PgType::Text, b' ', "").as_deref(), Ok("[]"));
    }

    #[test]
    fn what_is_no_array_is_an_error() {
        for bad in [
            "",
            "a",
            "{",
            "}",
            "{a",
            "{a}}",
            "{a}b",
            "{,}",
            "{a,}",
            "{,a}",
            "{a,,b}",
            "{{a}",
            "{\"a}",
            "{\"a\\",
            "{\"a\\\"}",
            "{\"a\"b}",
            "{a\"b}",
            "{a{b}",
            "{a}{b}",
            "[0:1]",
            "[0:1]=",
            "[0:1]{a}",
            "[x]={a}",
            "{a\\b}",
            "{{{{{{{a}}}}}}}",
        ] {
            assert_eq!(text(bad), Err(Malformed::Array), "{bad}");
        }
    }

    #[test]
    fn a_cut_array_is_an_error() {
        let whole = r#"[0:1][1:2]={{"a\"b",NULL},{c,"é"}}"#;
        for cut in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
            assert_eq!(text(&whole[..cut]), Err(Malformed::Array), "{cut}");
        }
        assert!(text(whole).is_ok());
    }
}
