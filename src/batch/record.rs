//! Writes one record at the end of a batch.
//!
//! ```text
//! length varint │ attributes 0 │ timestamp delta varlong │ offset delta varint
//!   │ key length varint, key │ value length varint, value │ headers varint
//!   │ per header: name length varint, name, value length varint, value
//! ```
//! Lengths stand before what they measure and are as wide as their value. They are left as wide as
//! the last record's were, which is nearly always right; if not, what follows is moved. The bytes
//! are those of the Java client, whatever was guessed.
//!
//! See <https://kafka.apache.org/documentation/#record>.

/// How wide the lengths of the last record were: the next one's are likely as wide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    length: usize,
    value: usize,
}

impl Default for Widths {
    /// A narrow row: both lengths between 64 and 8191.
    fn default() -> Self {
        Self { length: 2, value: 2 }
    }
}

/// Which part comes next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Next {
    Key,
    Value,
    Headers,
    Header,
}

/// Takes the parts of one record in their order: key, value, headers.
///
/// What is left out is null, or no headers.
#[derive(Debug)]
pub struct RecordWriter<'a> {
    out: &'a mut Vec<u8>,
    widths: &'a mut Widths,
    /// Where the record, and where what its length counts, begins.
    start: usize,
    body: usize,
    next: Next,
    /// Headers announced and not yet written.
    headers: usize,
}

impl<'a> RecordWriter<'a> {
    pub(super) fn begin(
        out: &'a mut Vec<u8>,
        widths: &'a mut Widths,
        timestamp_delta: i64,
        offset_delta: u32,
    ) -> Self {
        let start = out.len();
        let body = start + widths.length;
        out.resize(body, 0);
        out.push(0); // attributes: none is defined
        put_varint(out, timestamp_delta);
        put_varint(out, i64::from(offset_delta));
        Self { out, widths, start, body, next: Next::Key, headers: 0 }
    }

    /// The key; `None` is a null key. First.
    pub fn key(&mut self, key: Option<&[u8]>) {
        debug_assert_eq!(self.next, Next::Key, "the key comes first, and once");
        put_nullable(self.out, key);
        self.next = Next::Value;
    }

    /// The value: `f` appends it to the batch itself. It must only append.
    ///
    /// # Errors
    /// What `f` says; the batch forgets the record then.
    pub fn value_with<E>(
        &mut self,
        f: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reach(Next::Value);
        self.widths.value = put_measured(self.out, self.widths.value, f)?;
        self.next = Next::Headers;
        Ok(())
    }

    /// A null value.
    pub fn null_value(&mut self) {
        self.reach(Next::Value);
        put_nullable(self.out, None);
        self.next = Next::Headers;
    }

    /// How many headers follow.
    pub fn headers(&mut self, count: usize) {
        self.reach(Next::Headers);
        put_length(self.out, count);
        self.headers = count;
        self.next = Next::Header;
    }

    /// One header: `f` appends its value. As often as [`headers`](Self::headers) said.
    pub fn header_with(&mut self, name: &str, f: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.next == Next::Header && self.headers > 0, "more headers than said");
        self.headers = self.headers.saturating_sub(1);
        put_length(self.out, name.len());
        self.out.extend_from_slice(name.as_bytes());
        // An id, the longest usual one, has 51 bytes: one byte of length up to 63.
        let written = put_measured(self.out, 1, |out| {
            f(out);
            Ok::<_, std::convert::Infallible>(())
        });
        debug_assert!(written.is_ok(), "infallible");
    }

    pub(super) fn finish(mut self) {
        self.reach(Next::Header);
        debug_assert_eq!(self.headers, 0, "fewer headers than said");
        self.widths.length = measure(self.out, self.start, self.body);
    }

    /// Writes what was left out before `part`.
    fn reach(&mut self, part: Next) {
        if self.next < Next::Value && part >= Next::Value {
            put_nullable(self.out, None);
            self.next = Next::Value;
        }
        if self.next < Next::Headers && part >= Next::Headers {
            put_nullable(self.out, None);
            self.next = Next::Headers;
        }
        if self.next < Next::Header && part >= Next::Header {
            put_length(self.out, 0);
            self.next = Next::Header;
        }
        debug_assert!(self.next == part, "the parts of a record come in order, and once");
    }
}

/// Appends what `f` writes behind its length; gives the width that the length took.
fn put_measured<E>(
    out: &mut Vec<u8>,
    width: usize,
    f: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<usize, E> {
    let start = out.len();
    let body = start + width;
    out.resize(body, 0);
    f(out)?;
    Ok(measure(out, start, body))
}

/// Puts the length of everything from `body` on between `start` and `body`, and moves it if the gap
/// has the wrong width. Gives the right width.
fn measure(out: &mut Vec<u8>, start: usize, body: usize) -> usize {
    let length = out.len().saturating_sub(body);
    let width = varint_width(length as i64);
    if width != body - start {
        let end = out.len();
        out.resize(end.max(start + width + length), 0);
        out.copy_within(body..end, start + width);
        out.truncate(start + width + length);
    }
    put_varint_at(out.get_mut(start..start + width).unwrap_or_default(), zigzag(length as i64));
    width
}

/// Fills `place`, which is as wide as the number.
fn put_varint_at(place: &mut [u8], number: u64) {
    match place {
        // Nearly every length is one of these, four a record: no loop for them.
        [only] => *only = number as u8,
        [low, high] => (*low, *high) = (number as u8 | 0x80, (number >> 7) as u8),
        _ => {
            let Some((last, before)) = place.split_last_mut() else { return };
            let mut rest = number;
            for byte in before {
                *byte = rest as u8 | 0x80;
                rest >>= 7;
            }
            *last = rest as u8;
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // No Vec is longer than i64::MAX; and the batcher refuses what is over Kafka's i32.
    put_varint(out, length as i64);
}

/// Zigzag, seven bits a byte, least first. The same bytes for Kafka's varint (i32) and varlong.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes a varint or varlong off the front.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    None
}

pub(super) const fn varint_width(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
