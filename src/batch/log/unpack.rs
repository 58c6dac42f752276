//! Opens what somebody else compressed, up to a limit.
//!
//! A broker keeps a batch as it came, or in the codec of its own `compression.type`: so here are all
//! of Kafka's, zstd with them, and Snappy in the framing of Java's library besides the raw block.
//!
//! **Invariant.** A few bytes may claim or make any number of them: what is opened takes a few times
//! `limit` at most, and a few MiB at most where a codec's own blocks are larger than that.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

/// What Java's Snappy library writes first: then two versions (4 and 4), then for each block its
/// length (4) and a raw block.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_VERSIONS: usize = 8;

/// What a zstd frame begins with, and the bit of its fifth byte that says that a window is not what
/// the sixth is about: RFC 8878, 3.1.1.1.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const SINGLE_SEGMENT: u8 = 0x20;
/// No block of zstd has more: RFC 8878, 3.1.1.2.4.
const ZSTD_BLOCK: usize = 128 << 10;

/// Why the bytes stay closed.
#[derive(Debug)]
pub(super) enum Refused {
    /// They would be more than the limit.
    TooLarge,
    /// By a codec that Kafka does not have.
    Unknown,
    /// They are not what the codec says.
    Damaged(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

/// The bytes as they were; `codec` is the number in the batch's attributes.
pub(super) fn unpack(codec: u8, bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, Refused> {
    let mut out = Vec::new();
    match codec {
        0 => return Ok(Cow::Borrowed(bytes)),
        1 => read(flate2::bufread::MultiGzDecoder::new(bytes), limit, &mut out)?,
        2 if bytes.starts_with(XERIAL) => xerial(bytes, limit, &mut out)?,
        2 => snappy(bytes, limit, &mut out)?,
        3 => read(lz4_flex::frame::FrameDecoder::new(bytes), limit, &mut out)?,
        4 => {
            let mut rest = bytes;
            while !rest.is_empty() {
                zstd(&mut rest, limit, &mut out)?;
            }
        }
        _ => return Err(Refused::Unknown),
    }
    Ok(Cow::Owned(out))
}

fn read(source: impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    // No address space holds u64::MAX bytes.
    source.take((limit as u64).saturating_add(1)).read_to_end(out)?;
    if out.len() > limit { Err(Refused::TooLarge) } else { Ok(()) }
}

/// One raw block.
fn snappy(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    let start = out.len();
    if length > limit - start.min(limit) {
        return Err(Refused::TooLarge);
    }
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, room).map_err(io::Error::other)?;
    Ok(())
}

fn xerial(mut rest: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    while !rest.is_empty() {
        // Streams of it may stand one after the other, each with its beginning.
        if let Some(after) = rest.strip_prefix(XERIAL) {
            rest = after.get(XERIAL_VERSIONS..).ok_or_else(cut)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        snappy(block, limit, out)?;
        rest = after;
    }
    Ok(())
}

/// One frame, off the front of `rest`.
///
/// The decoder keeps a window of what it made, which the frame may want as large as it likes (the
/// highest levels want 128 MiB). One just over the limit does as well: what does not fit into it is
/// over the limit.
fn zstd(rest: &mut &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, after) = rest.split_first_chunk::<6>().ok_or_else(cut)?;
    if !head.starts_with(ZSTD) {
        return Err(io::Error::other("no frame of zstd").into());
    }
    let most = window_over(limit.max(ZSTD_BLOCK));
    let mut head = *head;
    let [.., flags, window] = &mut head;
    let single = *flags & SINGLE_SEGMENT != 0;
    if !single {
        *window = most.min(*window);
    }
    let window = *window;
    let mut source = head.as_slice().chain(after);
    // New for each frame: one that is used again sets its whole window aside at once.
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(window_of(most));
    match decoder.init(&mut source) {
        Ok(()) => {}
        Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(Refused::TooLarge),
        Err(error) => return Err(io::Error::other(error).into()),
    }
    let window = if single { decoder.content_size() } else { window_of(window) };
    while !decoder.is_finished() {
        let one = BlockDecodingStrategy::UptoBlocks(1);
        decoder.decode_blocks(&mut source, one).map_err(io::Error::other)?;
        // It gives what is beyond the window, and at the end all.
        let ready = decoder.can_collect() as u64;
        let kept = if ready > 0 && !decoder.is_finished() { window } else { 0 };
        if (out.len() as u64).saturating_add(ready).saturating_add(kept) > limit as u64 {
            return Err(Refused::TooLarge);
        }
        decoder.collect_to_writer(&mut *out)?;
    }
    *rest = source.into_inner().1;
    Ok(())
}

/// The window that a frame's byte for it means, in bytes: five bits of exponent, three of mantissa.
const fn window_of(byte: u8) -> u64 {
    (8 + (byte & 7) as u64) << (7 + (byte >> 3) as u64)
}

/// The byte of the smallest window that holds `bytes`.
fn window_over(bytes: usize) -> u8 {
    (0..u8::MAX).find(|byte| window_of(*byte) >= bytes as u64).unwrap_or(u8::MAX - 1)
}
