//! What stands inside CopyData: WAL and keepalives one way, status updates the other.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html>, `START_REPLICATION`.

use super::{pgoutput::DecodeError, reader::Reader};
use crate::lsn::Lsn;

/// One message of the walsender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CopyData<'a> {
    /// `w`.
    XLogData(XLogData<'a>),
    /// `k`.
    Keepalive(Keepalive),
}

/// A message of the output plugin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct XLogData<'a> {
    /// Where it stands in the WAL.
    pub start: Lsn,
    /// For logical replication the same as `start`.
    pub end: Lsn,
    /// The server's clock, microseconds since 2000-01-01.
    pub clock: i64,
    /// The plugin's bytes.
    pub body: &'a [u8],
}

/// Sign of life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Up to here everything was sent.
    pub end: Lsn,
    /// The server's clock, microseconds since 2000-01-01.
    pub clock: i64,
    /// Whether it wants to hear from us at once.
    pub reply: bool,
}

/// Reads the body of a CopyData message.
///
/// # Errors
/// It is cut short, or of a kind that the protocol does not have.
pub fn decode(body: &[u8]) -> Result<CopyData<'_>, DecodeError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        b'w' => {
            let (start, end, clock) = (r.lsn()?, r.lsn()?, r.i64()?);
            Ok(CopyData::XLogData(XLogData { start, end, clock, body: r.rest() }))
        }
        b'k' => {
            let keepalive = Keepalive { end: r.lsn()?, clock: r.i64()?, reply: r.u8()? != 0 };
            r.finish()?;
            Ok(CopyData::Keepalive(keepalive))
        }
        tag => Err(DecodeError::UnknownTag { what: "copy data", tag }),
    }
}

/// Standby status update: how far we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StandbyStatus {
    /// Received.
    pub written: Lsn,
    /// Stored: the slot moves here.
    pub flushed: Lsn,
    /// Our clock, microseconds since 2000-01-01.
    pub clock: i64,
    /// Whether the server is to answer at once.
    pub reply: bool,
}

impl StandbyStatus {
    /// Appends the whole message, CopyData header included.
    pub fn write(&self, out: &mut Vec<u8>) {
        const BODY: u32 = 1 + 8 + 8 + 8 + 8 + 1;
        out.push(b'd');
        out.extend_from_slice(&(4 + BODY).to_be_bytes());
        out.push(b'r');
        for lsn in [self.written, self.flushed, self.flushed] {
            out.extend_from_slice(&lsn.get().to_be_bytes());
        }
        out.extend_from_slice(&self.clock.to_be_bytes());
        out.push(u8::from(self.reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_every_cut_of_a_keepalive() {
        let good = [b"k".as_slice(), &[0; 8], &[0; 8], &[1]].concat();
        assert!(matches!(decode(&good), Ok(CopyData::Keepalive(Keepalive { reply: true, .. }))));
        for end in 0..good.len() {
            assert!(decode(&good[..end]).is_err(), "accepted a cut at {end}");
        }
        assert!(decode(&[good, vec![0]].concat()).is_err());
    }

    #[test]
    fn rejects_wal_data_without_its_header() {
        let good = [b"w".as_slice(), &[0; 24]].concat();
        assert!(decode(&good).is_ok());
        for end in 0..good.len() {
            assert!(decode(&good[..end]).is_err(), "accepted a cut at {end}");
        }
    }

    #[test]
    fn a_status_is_as_long_as_it_says() {
        let mut out = Vec::new();
        let status =
            StandbyStatus { written: Lsn::new(3), flushed: Lsn::new(2), clock: 1, reply: true };
        status.write(&mut out);
        let length = u32::from_be_bytes([out[1], out[2], out[3], out[4]]);
        assert_eq!(out.len(), length as usize + 1);
        assert_eq!(&out[5..14], b"r\0\0\0\0\0\0\0\x03");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
