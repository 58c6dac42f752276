//! One value: its type and PostgreSQL's text of it, to a JSON token. The hottest function here.
//!
//! The rules are those of `datum_to_json` in `src/backend/utils/adt/json.c`, which prints a value's
//! text output as it stands, quoted, or changed a little, by the type's category. Of the text
//! itself nothing is taken for granted: what is written is always JSON, but for a json value,
//! which PostgreSQL has checked.

use crate::schema::PgType;

use super::{Numeric, array, escape};

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
        out.extend_from_slice(text);
        Ok(())
    } else {
        escape::quoted(text, out)
    }
}

/// `IsValidJsonNumber`: `-? (0 | [1-9][0-9]*) (\.[0-9]+)? ([eE][+-]?[0-9]+)?`
fn is_number(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let rest = match rest.strip_prefix(b"0") {
        Some(rest) => rest,
        None => match digits(rest) {
            Some(rest) => rest,
            None => return false,
        },
    };
    if rest.is_empty() {
        return true;
    }
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => match digits(fraction) {
            Some(rest) => rest,
            None => return false,
        },
        None => rest,
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
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { None } else { text.get(count..) }
}

/// `date time[offset][ BC]` with a `T` for the first space, and an offset of hours alone made whole
/// by `minutes`: the session is in UTC, whose offset PostgreSQL prints as `+00` in the style ISO
/// and as `+00:00` in JSON. The infinities have no space.
fn timestamp(text: &[u8], minutes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some((date, rest)) = at_space(text) else { return escape::quoted(text, out) };
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (clock, era) = at_space(rest).unwrap_or((rest, b""));
    out.push(b'"');
    escape::body(date, out)?;
    out.push(b'T');
    escape::body(clock, out)?;
    if let [.., b'+' | b'-', tens, ones] = clock
        && tens.is_ascii_digit()
        && ones.is_ascii_digit()
    {
        out.extend_from_slice(minutes);
    }
    escape::body(era, out)?;
    out.push(b'"');
    Ok(())
}

/// What is before the first space, and the rest with it.
fn at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.iter().position(|byte| *byte == b' ')?)
}
