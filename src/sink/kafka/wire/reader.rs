//! A cursor over the body of one response. It cannot panic, over-read or over-allocate.
//!
//! The broker's counts are untrusted: [`Reader::array`] refuses one that the bytes left cannot hold,
//! so what is reserved for it is never more than what has been received.

use std::time::Duration;

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("it ends {missing} bytes too early")]
    Short {
        /// What a field needed more.
        missing: usize,
    },
    /// It goes on after its last field.
    #[error("it has {0} bytes more than it should")]
    Leftover(usize),
    /// A list's length cannot be true.
    #[error("a list of {count} does not fit into the {left} bytes that are left")]
    Count {
        /// As the broker says.
        count: i64,
        /// Bytes after it.
        left: usize,
    },
    /// A variable-length number does not end.
    #[error("a number is longer than 32 bits")]
    Varint,
    /// Null where there must be something.
    #[error("a field that must be there is null")]
    Null,
    /// Text in another encoding.
    #[error("a text is no UTF-8")]
    Utf8,
    /// A number out of its range.
    #[error("{what} is {value}")]
    Value {
        /// Which number.
        what: &'static str,
        /// As the broker says.
        value: i64,
    },
}

/// A cursor over the fields of a response.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Over `bytes`; `flexible`: with compact lengths and tagged fields (KIP-482).
    #[must_use]
    pub const fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { bytes, flexible }
    }

    fn take(&mut self, wanted: usize) -> Result<&'a [u8], Malformed> {
        let Some((head, tail)) = self.bytes.split_at_checked(wanted) else {
            return Err(Malformed::Short { missing: wanted - self.bytes.len() });
        };
        self.bytes = tail;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((head, tail)) = self.bytes.split_first_chunk() else {
            return Err(Malformed::Short { missing: N - self.bytes.len() });
        };
        self.bytes = tail;
        Ok(*head)
    }

    /// INT8.
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// BOOLEAN: anything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.i8()? != 0)
    }

    /// INT16.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// INT32.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// INT64.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// INT32 of milliseconds; a negative one is none.
    pub fn millis(&mut self) -> Result<Duration, Malformed> {
        Ok(Duration::from_millis(self.i32()?.try_into().unwrap_or(0)))
    }

    /// UUID; all zero means that there is none.
    pub fn uuid(&mut self) -> Result<Option<[u8; 16]>, Malformed> {
        let id = self.fixed()?;
        Ok((id != [0; 16]).then_some(id))
    }

    /// UNSIGNED_VARINT, of 32 bits as in Kafka.
    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(Malformed::Varint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// A length that was written plus one, with 0 for null.
    fn compact(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn signed(&self, length: i64) -> Result<Option<usize>, Malformed> {
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length)
                .map(Some)
                .map_err(|_| Malformed::Count { count: length, left: self.bytes.len() }),
        }
    }

    /// NULLABLE_STRING or COMPACT_NULLABLE_STRING.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let length = if self.flexible {
            self.compact()?
        } else {
            let length = self.i16()?;
            self.signed(length.into())?
        };
        let Some(length) = length else { return Ok(None) };
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| Malformed::Utf8)
    }

    /// STRING or COMPACT_STRING.
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        self.nullable_string()?.ok_or(Malformed::Null)
    }

    /// NULLABLE_BYTES or COMPACT_NULLABLE_BYTES, as records are too.
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = if self.flexible {
            self.compact()?
        } else {
            let length = self.i32()?;
            self.signed(length.into())?
        };
        length.map(|length| self.take(length)).transpose()
    }

    /// BYTES or COMPACT_BYTES.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.nullable_bytes()?.ok_or(Malformed::Null)
    }

    /// ARRAY or COMPACT_ARRAY, with null as empty: how many elements follow, of at least `smallest`
    /// bytes each.
    pub fn array(&mut self, smallest: usize) -> Result<usize, Malformed> {
        let count = if self.flexible {
            self.compact()?
        } else {
            let count = self.i32()?;
            self.signed(count.into())?
        };
        let count = count.unwrap_or(0);
        let left = self.bytes.len();
        if count.checked_mul(smallest.max(1)).is_none_or(|bytes| bytes > left) {
            return Err(Malformed::Count { count: count.try_into().unwrap_or(i64::MAX), left });
        }
        Ok(count)
    }

    /// Every element of an array, by `element`.
    pub fn list<T>(
        &mut self,
        smallest: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.array(smallest)?;
        // An element may be larger in memory than on the wire: what is reserved stays within what came.
        let mut list = Vec::with_capacity(count.min(self.bytes.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// Tagged fields: none is known here, so all are passed over.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let length = self.varint()?;
                self.take(length as usize)?;
            }
        }
        Ok(())
    }

    /// That nothing is left.
    pub const fn finish(&self) -> Result<(), Malformed> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(Malformed::Leftover(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_count_that_the_bytes_left_cannot_hold() {
        let huge = i32::MAX.to_be_bytes();
        let error = Malformed::Count { count: i64::from(i32::MAX), left: 0 };
        assert_eq!(Reader::new(&huge, false).array(1), Err(error));
        let mut compact = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true);
        let error = Malformed::Count { count: i64::from(u32::MAX) - 1, left: 0 };
        assert_eq!(compact.array(1), Err(error));
    }

    #[test]
    fn refuses_a_negative_length_other_than_null() {
        let mut reader = Reader::new(&[0xff, 0xfe], false);
        assert_eq!(reader.nullable_string(), Err(Malformed::Count { count: -2, left: 0 }));
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string(), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xff], false).string(), Err(Malformed::Null));
    }

    #[test]
    fn reads_varints_of_32_bits_and_none_longer() {
        let all = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Reader::new(&all, true).varint(), Ok(u32::MAX));
        let over = [0xff, 0xff, 0xff, 0xff, 0x1f];
        assert_eq!(Reader::new(&over, true).varint(), Err(Malformed::Varint));
        let endless = [0x80; 6];
        assert_eq!(Reader::new(&endless, true).varint(), Err(Malformed::Varint));
    }

    #[test]
    fn passes_over_tagged_fields_that_it_does_not_know() {
        let mut reader = Reader::new(&[2, 7, 3, 1, 2, 3, 9, 0, 0xab], true);
        assert_eq!(reader.tags(), Ok(()));
        assert_eq!(reader.finish(), Err(Malformed::Leftover(1)));
    }
}
