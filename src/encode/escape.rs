//! Text as a JSON string, exactly as PostgreSQL's `escape_json` writes it.
//!
//! It escapes the quote, the backslash and what is below a space, the latter by `\b \f \n \r \t`
//! or in lower-case hex. All else stands as it is: DEL, `U+2028`, every character of UTF-8.

use super::{Malformed, put::put};

/// Appends `"text"`.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'"');
    body(text, out)?;
    out.push(b'"');
    Ok(())
}

/// The same for what is known to be UTF-8.
pub(super) fn quoted_str(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends `text` escaped, without quotes.
pub(super) fn body(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let ascii = escaped(text, out);
    if ascii || std::str::from_utf8(text).is_ok() { Ok(()) } else { Err(Malformed::NotUtf8) }
}

/// Copies run by run, and says whether all of it was ASCII.
fn escaped(mut rest: &[u8], out: &mut Vec<u8>) -> bool {
    let mut ascii = true;
    loop {
        let (at, plain) = run(rest);
        ascii &= plain;
        let Some((copied, after)) = rest.split_at_checked(at) else { return ascii };
        put(copied, out);
        let Some((byte, tail)) = after.split_first() else { return ascii };
        one(*byte, out);
        rest = tail;
    }
}

/// The length of the run at the front that needs no escape, and whether it is ASCII: 32 bytes a
/// step, which the compiler turns into vector instructions, then eight, then one.
#[inline]
fn run(text: &[u8]) -> (usize, bool) {
    let mut rest = text;
    let mut seen = 0_u64;
    while let Some((block, tail)) = rest.split_first_chunk::<32>() {
        let (words, _) = block.as_chunks::<8>();
        let mut stops = 0;
        let mut all = 0;
        for word in words {
            let word = u64::from_le_bytes(*word);
            stops |= special(word);
            all |= word;
        }
        if stops != 0 {
            break;
        }
        seen |= all;
        rest = tail;
    }
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        if let Some(at) = first_special(word) {
            return (text.len() - rest.len() + at, (seen | below(word, at)) & HIGH == 0);
        }
        seen |= word;
        rest = tail;
    }
    // The last bytes with those before them, which were seen already, or byte by byte.
    if let (false, Some(chunk)) = (rest.is_empty(), text.last_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        return match first_special(word) {
            Some(at) => (text.len() - 8 + at, (seen | below(word, at)) & HIGH == 0),
            None => (text.len(), (seen | word) & HIGH == 0),
        };
    }
    let mut ascii = seen & HIGH == 0;
    let done = text.len() - rest.len();
    for (at, byte) in rest.iter().enumerate() {
        if stop(*byte) {
            return (done + at, ascii);
        }
        ascii &= byte.is_ascii();
    }
    (text.len(), ascii)
}

/// Which byte of `word`, the first being the lowest, is the first that needs an escape.
#[inline]
const fn first_special(word: u64) -> Option<usize> {
    match special(word) {
        0 => None,
        found => Some(found.trailing_zeros() as usize / 8),
    }
}

/// The bytes of `word` before the one at `at`, which is below 8.
#[inline]
const fn below(word: u64, at: usize) -> u64 {
    word & !(u64::MAX << (at * 8))
}

/// Whether this byte needs an escape.
const fn stop(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// The high bit of the first byte that needs an escape, and perhaps of some above it: a borrow can
/// only go upwards. 0 if there is none.
#[inline]
const fn special(word: u64) -> u64 {
    // With its second bit turned a quote (0x22) is a space (0x20), and what is below a space stays so.
    let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * (b' ' + 1) as u64);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGH
}

#[cold]
fn one(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0C => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = b"0123456789abcdef".get(usize::from(byte & 15)).copied();
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[b'0' + (byte >> 4), digit.unwrap_or(b'0')]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        quoted(text, &mut out).unwrap();
        out
    }

    #[test]
    fn escapes_what_postgresql_does_and_nothing_else() {
        assert_eq!(
            written("\u{1}\u{8}\u{c}\n\r\t\u{1f} \"\\/\u{7f}\u{80}\u{2028}é😀".as_bytes()),
            "\"\\u0001\\b\\f\\n\\r\\t\\u001f \\\"\\\\/\u{7f}\u{80}\u{2028}é😀\"".as_bytes()
        );
        assert_eq!(written(b""), b"\"\"");
    }

    #[test]
    fn finds_a_special_byte_at_every_place() {
        for byte in 0..=127_u8 {
            for at in 0..75 {
                let mut text = [b'x'; 75];
                text[at] = byte;
                let json = written(&text);
                let back: String = serde_json::from_slice(&json).unwrap();
                assert_eq!(back.as_bytes(), text, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_an_error_wherever_it_stands() {
        for at in 0..75 {
            let mut text = [b'"'; 75];
            text[at] = 0xFF;
            assert_eq!(quoted(&text, &mut Vec::new()), Err(Malformed::NotUtf8), "{at}");
            let mut text = [b'x'; 75];
            text[at] = 0xC3;
            assert_eq!(quoted(&text, &mut Vec::new()), Err(Malformed::NotUtf8), "{at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back_as_it_was(text: String) {
            let back: String = serde_json::from_slice(&written(text.as_bytes())).unwrap();
            proptest::prop_assert_eq!(back, text);
        }

        #[test]
        fn any_bytes_are_text_or_an_error(bytes: Vec<u8>) {
            let fine = quoted(&bytes, &mut Vec::new()).is_ok();
            proptest::prop_assert_eq!(fine, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
