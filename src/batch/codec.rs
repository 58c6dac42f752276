//! Compresses the records of a batch, all together.
//!
//! Snappy is one raw block, as librdkafka writes it. The Java client writes the framing of its own
//! library instead, and reads both; so do brokers, who open every compressed batch to check it. LZ4
//! is the standard frame with independent blocks: Java refuses dependent ones.
//!
//! Nothing is compressed by zstd, which is only read ([`log`](super::log)): its C library is not
//! ours to link, and the one encoder in pure Rust (ruzstd 0.9.1, level "fastest") did 30–47 MB/s of
//! JSON rows for 2.5–4.0 to 1, where gzip's level 1 did 110–170 MB/s for 2.3–4.2, and the C library
//! 200–280 MB/s for 3.0–5.5.

use std::io::{Read as _, Write as _};

use super::record_batch::{ATTRIBUTES, CODEC_BITS, HEADER, put, set_length};

/// How the records are compressed; the number is the one in the batch's attributes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// Level 6, the Java client's default: 2.9–4.9 to 1, at 25 MB/s.
    Gzip = 1,
    /// The fastest: 1.9–3.1 to 1, at 330–540 MB/s.
    Snappy = 2,
    /// 1.9–3.3 to 1, at about 330 MB/s.
    Lz4 = 3,
}

/// The same batch with its records compressed, not sealed. A copy of it as it is, where the result
/// would not be smaller.
#[must_use]
pub fn compress(batch: &[u8], codec: Codec) -> Vec<u8> {
    compressed(batch, codec)
        .filter(|smaller| smaller.len() < batch.len())
        .unwrap_or_else(|| batch.to_vec())
}

fn compressed(batch: &[u8], codec: Codec) -> Option<Vec<u8>> {
    let (header, records) = batch.split_at_checked(HEADER)?;
    let mut out = Vec::with_capacity(HEADER + records.len() / 2);
    out.extend_from_slice(header);
    match codec {
        Codec::None => return None,
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(6));
            encoder.write_all(records).ok()?;
            out = encoder.finish().ok()?;
        }
        Codec::Snappy => {
            out.resize(HEADER + snap::raw::max_compress_len(records.len()), 0);
            let room = out.get_mut(HEADER..)?;
            let length = snap::raw::Encoder::new().compress(records, room).ok()?;
            out.truncate(HEADER + length);
        }
        Codec::Lz4 => {
            let frame = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
            encoder.write_all(records).ok()?;
            out = encoder.finish().ok()?;
        }
    }
    let attributes = *header.get(ATTRIBUTES + 1)?;
    put(&mut out, ATTRIBUTES + 1, [attributes & !CODEC_BITS | codec as u8]);
    set_length(&mut out);
    Some(out)
}

/// The same batch with its records as they were, not sealed. `None` if it is damaged or of a codec
/// that is not ours. Only for batches of our own making: what it says of its size is believed.
#[must_use]
pub fn decompress(batch: &[u8]) -> Option<Vec<u8>> {
    let (header, records) = batch.split_at_checked(HEADER)?;
    let attributes = *header.get(ATTRIBUTES + 1)?;
    let mut out = header.to_vec();
    match attributes & CODEC_BITS {
        0 => out.extend_from_slice(records),
        1 => drop(flate2::read::GzDecoder::new(records).read_to_end(&mut out).ok()?),
        2 => out.extend(snap::raw::Decoder::new().decompress_vec(records).ok()?),
        3 => drop(lz4_flex::frame::FrameDecoder::new(records).read_to_end(&mut out).ok()?),
        _ => return None,
    }
    put(&mut out, ATTRIBUTES + 1, [attributes & !CODEC_BITS]);
    set_length(&mut out);
    Some(out)
}
