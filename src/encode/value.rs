//! One value: its type and PostgreSQL's text of it, to a JSON token. The hottest function here.
//!
//! The rules are those of `datum_to_json` in `src/backend/utils/adt/json.c`, which prints a value's
//! text output as it stands, quoted, or changed a little, by the type's category. Of the text
//! itself nothing is taken for granted: what is written is always JSON, but for a json value,
//! which PostgreSQL has checked.

use crate::schema::PgType;

use super::{Numeric, array, escape, put::put};

/// A value that is not what its type prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8, which an SQL_ASCII database does not look after.
    #[error("is not UTF-8")]
    NotUtf8,
    /// Not as `array_out` prints one.
    #[error("is no array as PostgreSQL prints one")]
    Array,
    /// Neither `t` nor `f`.
    #[error("is no boolean")]
    Bool,
    /// Empty, which no json is.
    #[error("is no json")]
    Json,
}

/// Appends the JSON token of one value. On an error, part of it may have been appended.
///
/// # Errors
/// What is wrong with the text.
pub fn write(
    kind: &PgType,
    numeric: Numeric,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match kind {
        PgType::Integer | PgType::Float => number(text, out),
        PgType::Text | PgType::Date => escape::quoted(text, out),
        PgType::Numeric => match numeric {
            Numeric::String => escape::quoted(text, out),
            Numeric::Number => number(text, out),
        },
        PgType::Bool => boolean(text, out),
        PgType::Timestamp => timestamp(text, b"", out),
        PgType::TimestampTz => timestamp(text, b":00", out),
        PgType::Json => json(text, out),
        PgType::Array { element, delimiter } => {
            array::write(element, *delimiter, numeric, text, out)
        }
    }
}

fn boolean(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match text {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return Err(Malformed::Bool),
    }
    Ok(())
}

fn json(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::Json);
    }
    std::str::from_utf8(text).map_err(|_| Malformed::NotUtf8)?;
    out.extend_from_slice(text);
    Ok(())
}

/// As it stands if it is a number to JSON; NaN and the infinities are strings.
fn number(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_number(text) {
        put(text, out);
        Ok(())
    } else {
        escape::quoted(text, out)
    }
}

/// `IsValidJsonNumber`: `-? (0 | [1-9][0-9]*) (\.[0-9]+)? ([eE][+-]?[0-9]+)?`
fn is_number(text: &[u8]) -> bool {
    let ([b'-', rest @ ..] | rest) = text;
    let rest = match rest {
        [b'0', rest @ ..] => rest,
        _ => match digits(rest) {
            Some(rest) => rest,
            None => return false,
        },
    };
    if rest.is_empty() {
        return true;
    }
    let rest = match rest {
        [b'.', fraction @ ..] => match digits(fraction) {
            Some(rest) => rest,
            None => return false,
        },
        _ => rest,
    };
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            digits(exponent).is_some_and(<[u8]>::is_empty)
        }
        _ => false,
    }
}

/// What follows at least one digit.
fn digits(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    while let [b'0'..=b'9', after @ ..] = rest {
        rest = after;
    }
    (rest.len() < text.len()).then_some(rest)
}

/// `date time[offset][ BC]` with a `T` for the first space, and an offset of hours alone made whole
/// by `minutes`: the session is in UTC, whose offset PostgreSQL prints as `+00` in the style ISO
/// and as `+00:00` in JSON. The infinities have no space.
///
/// Years of four digits after Christ, which is nearly all, are written as text and patched.
fn timestamp(text: &[u8], minutes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if text.get(DATE) != Some(&b' ') || matches!(text, [.., b'B', b'C']) {
        return any_timestamp(text, minutes, out);
    }
    let start = out.len();
    escape::quoted(text, out)?;
    if let Some(space) = out.get_mut(start + 1 + DATE).filter(|byte| **byte == b' ') {
        *space = b'T';
    }
    if ends_with_hours(text) && !minutes.is_empty() {
        out.pop();
        out.extend_from_slice(minutes);
        out.push(b'"');
    }
    Ok(())
}

/// The length of `2026-11-23`.
const DATE: usize = 10;

fn any_timestamp(text: &[u8], minutes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some((date, rest)) = at_space(text) else { return escape::quoted(text, out) };
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (clock, era) = at_space(rest).unwrap_or((rest, b""));
    out.push(b'"');
    escape::body(date, out)?;
    out.push(b'T');
    escape::body(clock, out)?;
    if ends_with_hours(clock) {
        out.extend_from_slice(minutes);
    }
    escape::body(era, out)?;
    out.push(b'"');
    Ok(())
}

/// Whether an offset of hours alone stands at the end: `+00`.
fn ends_with_hours(text: &[u8]) -> bool {
    matches!(text, [.., b'+' | b'-', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// What is before the first space, and the rest with it.
fn at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.iter().position(|byte| *byte == b' ')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(kind: PgType, text: &str) -> Result<String, Malformed> {
        let mut out = Vec::new();
        write(&kind, Numeric::Number, text.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn numbers_stand_as_they_are_and_what_is_none_is_quoted() {
        for number in ["0", "-0", "42", "-32768", "0.10", "1e+20", "1.5e-07", "-1E5", "10"] {
            assert_eq!(json(PgType::Float, number).as_deref(), Ok(number));
        }
        for other in
            ["NaN", "Infinity", "-Infinity", "", "-", "01", "1.", ".5", "1e", "1e+", "+1", "1x"]
        {
            assert_eq!(json(PgType::Numeric, other), Ok(format!("\"{other}\"")));
        }
    }

    #[test]
    fn timestamps_are_iso_8601_in_every_era() {
        for (text, plain, zoned) in [
            ("2026-11-23 10:00:00.5+00", "2026-11-23T10:00:00.5+00", "2026-11-23T10:00:00.5+00:00"),
            ("2026-11-23 10:00:00+05:30", "2026-11-23T10:00:00+05:30", "2026-11-23T10:00:00+05:30"),
            ("12026-11-23 10:00:00+00", "12026-11-23T10:00:00+00", "12026-11-23T10:00:00+00:00"),
            (
                "0044-03-15 10:00:00+00 BC",
                "0044-03-15T10:00:00+00 BC",
                "0044-03-15T10:00:00+00:00 BC",
            ),
            ("-infinity", "-infinity", "-infinity"),
            ("2026-11-23", "2026-11-23", "2026-11-23"),
        ] {
            assert_eq!(json(PgType::Timestamp, text), Ok(format!("\"{plain}\"")));
            assert_eq!(json(PgType::TimestampTz, text), Ok(format!("\"{zoned}\"")));
        }
    }

    #[test]
    fn what_is_no_timestamp_is_json_all_the_same() {
        let odd = json(PgType::TimestampTz, "\"345678901 +00");
        assert_eq!(odd.as_deref(), Ok(r#""\"345678901 +00:00""#));
    }

    #[test]
    fn json_stands_byte_for_byte() {
        assert_eq!(json(PgType::Json, "{\"a\":\n 1}").as_deref(), Ok("{\"a\":\n 1}"));
        assert_eq!(json(PgType::Json, ""), Err(Malformed::Json));
    }

    #[test]
    fn a_boolean_is_t_or_f() {
        assert_eq!(json(PgType::Bool, "t").as_deref(), Ok("true"));
        assert_eq!(json(PgType::Bool, "f").as_deref(), Ok("false"));
        assert_eq!(json(PgType::Bool, "true"), Err(Malformed::Bool));
    }
}
