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

use crate::varint;

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
    Nothing,
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
        // Attributes: none is defined.
        match (widths.length, varint::zigzag(timestamp_delta), offset_delta) {
            // Nearly every record: two bytes of length, a delta below 64 ms, an offset below 8192.
            (2, delta @ ..0x80, 64..0x2000) => {
                let [low, high] = [offset_delta << 1 | 0x80, offset_delta >> 6].map(|n| n as u8);
                out.extend_from_slice(&[0, 0, 0, delta as u8, low, high]);
            }
            _ => {
                leave(out, widths.length);
                out.push(0);
                varint::put(out, timestamp_delta);
                varint::put(out, offset_delta.into());
            }
        }
        Self { out, widths, start, body, next: Next::Key }
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

    /// The headers, `count` of them, as [`varint`](crate::varint) and bytes: of each the length of its
    /// name, its name, the length of its value, its value. Last.
    pub fn headers(&mut self, count: usize, block: &[u8]) {
        self.reach(Next::Headers);
        put_length(self.out, count);
        self.out.extend_from_slice(block);
        self.next = Next::Nothing;
    }

    pub(super) fn finish(mut self) {
        self.reach(Next::Nothing);
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
        if self.next < Next::Nothing && part >= Next::Nothing {
            put_length(self.out, 0);
            self.next = Next::Nothing;
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
    leave(out, width);
    f(out)?;
    Ok(measure(out, start, body))
}

/// Room for a length.
#[inline]
fn leave(out: &mut Vec<u8>, width: usize) {
    match width {
        1 => out.push(0),
        2 => out.extend_from_slice(&[0; 2]),
        _ => out.resize(out.len() + width, 0),
    }
}

/// Puts the length of everything from `body` on between `start` and `body`, and moves it if the gap
/// has the wrong width. Gives the right width.
#[inline]
fn measure(out: &mut Vec<u8>, start: usize, body: usize) -> usize {
    let length = out.len().saturating_sub(body);
    let number = varint::zigzag(length as i64);
    match out.get_mut(start..body) {
        // Nearly every length is one of these, two a record: no loop for them.
        Some([only]) if number < 1 << 7 => *only = number as u8,
        Some([low, high]) if (1 << 7..1 << 14).contains(&number) => {
            (*low, *high) = (number as u8 | 0x80, (number >> 7) as u8);
        }
        _ => return measure_anew(out, start, body, length),
    }
    body - start
}

#[cold]
fn measure_anew(out: &mut Vec<u8>, start: usize, body: usize, length: usize) -> usize {
    let width = varint::width(length as i64);
    if width != body - start {
        let end = out.len();
        out.resize(end.max(start + width + length), 0);
        out.copy_within(body..end, start + width);
        out.truncate(start + width + length);
    }
    let mut rest = varint::zigzag(length as i64);
    if let Some((last, before)) = out.get_mut(start..start + width).and_then(<[u8]>::split_last_mut)
    {
        for byte in before {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        *last = rest as u8;
    }
    width
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // No Vec is longer than i64::MAX; and the batcher refuses what is over Kafka's i32.
    varint::put(out, length as i64);
}
