//! The binary: all of it is in the library.

use std::process::ExitCode;

/// musl's allocator costs a third of the rate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pgsluice::cli::main()
}
