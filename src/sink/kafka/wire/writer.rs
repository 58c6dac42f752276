//! Writes the body of one request.

use std::time::Duration;

/// Appends the fields of a request to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    flexible: bool,
    overflow: bool,
}

impl<'a> Writer<'a> {
    /// To the end of `buffer`; `flexible`: with compact lengths and tagged fields (KIP-482).
    #[must_use]
    pub const fn new(buffer: &'a mut Vec<u8>, flexible: bool) -> Self {
        Self { buffer, flexible, overflow: false }
    }

    /// Whether a length did not fit into its field: then nothing of this may be sent.
    #[must_use]
    pub const fn overflowed(&self) -> bool {
        self.overflow
    }

    /// INT8.
    pub fn i8(&mut self, value: i8) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// BOOLEAN.
    pub fn bool(&mut self, value: bool) {
        self.i8(value.into());
    }

    /// INT16.
    pub fn i16(&mut self, value: i16) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// INT32.
    pub fn i32(&mut self, value: i32) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// INT64.
    pub fn i64(&mut self, value: i64) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// INT32 of milliseconds, or as many as fit.
    pub fn millis(&mut self, duration: Duration) {
        self.i32(duration.as_millis().try_into().unwrap_or(i32::MAX));
    }

    /// A UUID of zeroes: none.
    pub fn no_uuid(&mut self) {
        self.buffer.extend_from_slice(&[0; 16]);
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    /// A length in its compact form: plus one, with 0 for null.
    fn compact(&mut self, length: Option<usize>) {
        let value = length.map_or(Some(0), |length| u32::try_from(length).ok()?.checked_add(1));
        self.overflow |= value.is_none();
        self.varint(value.unwrap_or(0));
    }

    fn long(&mut self, length: Option<usize>) {
        if self.flexible {
            return self.compact(length);
        }
        let value = length.map_or(Some(-1), |length| i32::try_from(length).ok());
        self.overflow |= value.is_none();
        self.i32(value.unwrap_or(-1));
    }

    /// NULLABLE_STRING or COMPACT_NULLABLE_STRING.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        let length = text.map(str::len);
        if self.flexible {
            self.compact(length);
        } else {
            let value = length.map_or(Some(-1), |length| i16::try_from(length).ok());
            self.overflow |= value.is_none();
            self.i16(value.unwrap_or(-1));
        }
        self.buffer.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    /// STRING or COMPACT_STRING.
    pub fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// BYTES or COMPACT_BYTES.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.long(Some(bytes.len()));
        self.buffer.extend_from_slice(bytes);
    }

    /// ARRAY or COMPACT_ARRAY: its length; the elements follow.
    pub fn array(&mut self, count: usize) {
        self.long(Some(count));
    }

    /// NULLABLE_ARRAY or COMPACT_NULLABLE_ARRAY: null.
    pub fn null_array(&mut self) {
        self.long(None);
    }

    /// No tagged fields.
    pub fn tags(&mut self) {
        if self.flexible {
            self.buffer.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_can_be_read(text: String, bytes: Vec<u8>, count in 0..4_usize, flexible: bool) {
            let mut buffer = Vec::new();
            let mut writer = Writer::new(&mut buffer, flexible);
            writer.string(&text);
            writer.nullable_string(None);
            writer.bytes(&bytes);
            writer.array(count);
            for _ in 0..count {
                writer.i64(i64::MIN);
            }
            writer.tags();
            proptest::prop_assert!(!writer.overflowed());
            let mut reader = Reader::new(&buffer, flexible);
            proptest::prop_assert_eq!(reader.string(), Ok(text.as_str()));
            proptest::prop_assert_eq!(reader.nullable_string(), Ok(None));
            proptest::prop_assert_eq!(reader.bytes(), Ok(bytes.as_slice()));
            proptest::prop_assert_eq!(reader.list(8, Reader::i64), Ok(vec![i64::MIN; count]));
            proptest::prop_assert_eq!(reader.tags(), Ok(()));
            proptest::prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_text_too_long_for_its_length_is_not_sent() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, false);
        writer.string(&"x".repeat(40_000));
        assert!(writer.overflowed());
    }
}
