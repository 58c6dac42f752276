//! The frame reader and what stands inside CopyData. `usual size (1) │ bytes a read (1) │ stream`.
//!
//! However the stream is cut into reads, the frames are the same, and are the bytes that came.

#![no_main]

use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use pgsluice::{
    lsn::Lsn,
    pg::{
        connect::ServerError,
        copy_data::{self, CopyData},
        frame::FrameBuf,
        timeline::Timelines,
    },
};

const LIMIT: u32 = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let [usual, step, stream @ ..] = input else { return };
    let whole = frames(FrameBuf::new(stream, 0, LIMIT), &[], 1);
    let step = usize::from(*step).max(1);
    let cut = frames(FrameBuf::new(&[], usize::from(*usual), LIMIT), stream, step);
    assert!(whole == cut, "the frames depend on the reads");
    let bytes: Vec<u8> = whole.iter().flat_map(|(tag, body)| again(*tag, body)).collect();
    assert!(stream.starts_with(&bytes), "the frames are not what came");
    for (tag, body) in &whole {
        open(*tag, body);
    }
});

/// All frames up to the first that is impossible.
fn frames(mut buf: FrameBuf, stream: &[u8], step: usize) -> Vec<(u8, Vec<u8>)> {
    let (mut got, mut reads) = (Vec::new(), stream.chunks(step));
    loop {
        let pending = buf.pending();
        match buf.take() {
            Ok(Some(frame)) => {
                assert_eq!(
                    frame.body.len() + 5,
                    pending - {
                        got.push((frame.tag, frame.body.to_vec()));
                        buf.pending()
                    }
                );
                continue;
            }
            Ok(None) => assert!(buf.whole().is_ok_and(|head| head.is_none())),
            Err(_) => return got,
        }
        let Some(mut read) = reads.next() else { return got };
        while !read.is_empty() {
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(count)) = buf.poll_fill(&mut context, &mut read) else {
                panic!("bytes at hand were not read")
            };
            assert!(count > 0, "no room was made");
        }
    }
}

fn again(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("it is below the limit");
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn open(tag: u8, body: &[u8]) {
    match tag {
        b'd' => match copy_data::decode(body) {
            Ok(CopyData::XLogData(wal)) => assert_eq!(wal.body.len() + 25, body.len()),
            Ok(CopyData::Keepalive(_)) => assert_eq!(body.len(), 18),
            Err(_) => {}
        },
        b'E' | b'N' => {
            let error = ServerError::parse(body);
            assert!(error.message.len() <= 3 * body.len() + 64);
            let _ = (error.is_fatal(), error.to_string());
        }
        // The column of a row that is a history file.
        b'D' => {
            let Ok(timelines) = Timelines::parse(u32::MAX, body) else { return };
            assert!(timelines.switches().is_sorted());
            let before = timelines.of(Lsn::ZERO.next());
            assert!(before <= timelines.of(Lsn::new(u64::MAX)));
        }
        _ => {}
    }
}
