//! `SO_RCVLOWAT`: how many bytes must have arrived before the kernel wakes the reader.
//!
//! The walsender sends one small segment a row. Waking for each costs three times the CPU of waking
//! once for a hundred of them. The default is a measured one (rows of 120 bytes in transactions of
//! 10 000, loopback): at 24 KiB the kernel's part of a row costs a fifth less than at 12; at 96 and
//! more the receive buffer is full before so much is there, and the timer of `tcp` wakes us.
#![allow(unsafe_code)] // Neither std nor socket2 offers this option.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

/// Sets `SO_RCVLOWAT`. When it is lowered, Linux looks again and wakes for what is there already.
pub(super) fn set(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes.max(1)).unwrap_or(libc::c_int::MAX);
    let size = mem::size_of_val(&value);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads
    // `size` bytes of `value`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
