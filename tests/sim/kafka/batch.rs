//! A batch of small records, as another program than ours may send it.

/// Of an id and epoch; `header`: what each has as its `id`.
pub fn batch(
    (id, epoch): (i64, i16),
    sequence: i32,
    count: u32,
    transactional: bool,
    header: Option<&[u8]>,
) -> Vec<u8> {
    let now = pgsluice::sim::unix().as_millis() as i64;
    let mut out = Vec::new();
    out.extend([0; 12]);
    out.extend((-1_i32).to_be_bytes());
    out.push(2);
    out.extend([0; 4]);
    out.extend((if transactional { 0x10_i16 } else { 0 }).to_be_bytes());
    out.extend((count as i32 - 1).to_be_bytes());
    out.extend(now.to_be_bytes());
    out.extend(now.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend((count as i32).to_be_bytes());
    for at in 0..count as u8 {
        let mut record = vec![0, 0, 2 * at, 1, 2, b'x'];
        match header {
            Some(value) => {
                record.extend([2, 4, b'i', b'd', 2 * value.len() as u8]);
                record.extend(value);
            }
            None => record.push(0),
        }
        out.push(2 * record.len() as u8); // one byte each: up to 63
        out.extend(record);
    }
    seal(&mut out);
    out
}

/// Its length and checksum.
pub fn seal(out: &mut [u8]) {
    let length = i32::try_from(out.len() - 12).unwrap();
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&checksum.to_be_bytes());
}
