//! Short texts, copied without a call to memcpy.
//!
//! A row is a dozen of them, and what a call costs does not shrink with the text: musl's takes
//! longer to begin than eight bytes take to copy.

/// Appends `text`: as two blocks of a size that the compiler knows, which overlap.
#[inline]
pub(super) fn put(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        0..4 => text.iter().for_each(|byte| out.push(*byte)),
        4..8 => twice::<4>(text, out),
        8..16 => twice::<8>(text, out),
        16..=32 => twice::<16>(text, out),
        _ => out.extend_from_slice(text),
    }
}

#[inline]
fn twice<const N: usize>(text: &[u8], out: &mut Vec<u8>) {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else {
        return;
    };
    let end = out.len() + text.len();
    out.extend_from_slice(first);
    out.truncate(end - N);
    out.extend_from_slice(last);
}

/// A text that is put once a row: kept in a block, of which what is too much is cut off.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// Its beginning.
    block: [u8; BLOCK],
    text: Box<[u8]>,
}

/// Nearly every column's name, with its quotes, is shorter.
const BLOCK: usize = 32;

impl Fixed {
    pub(super) fn new(text: Vec<u8>) -> Self {
        let mut block = [0; BLOCK];
        block.iter_mut().zip(&text).for_each(|(to, from)| *to = *from);
        Self { block, text: text.into() }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    #[inline]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let length = self.text.len();
        if length > BLOCK {
            return out.extend_from_slice(&self.text);
        }
        let end = out.len() + length;
        out.extend_from_slice(&self.block);
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length() {
        let text: Vec<u8> = (1..=40).collect();
        for length in 0..=text.len() {
            let mut out = b"before".to_vec();
            put(&text[..length], &mut out);
            assert_eq!(out, [b"before", &text[..length]].concat());
            let mut out = b"before".to_vec();
            Fixed::new(text[..length].to_vec()).put(&mut out);
            assert_eq!(out, [b"before", &text[..length]].concat());
        }
    }
}
