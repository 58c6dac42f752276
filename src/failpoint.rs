//! Places on a row's path where a test may end the process as a power cut would: `FAILPOINT=produced:3`
//! ends it when it comes by [`hit`]`("produced")` for the third time.
//!
//! Compiled in only with the feature `failpoints`, which no released binary has; else nothing is left
//! of them. `tests/once/failpoints.rs` finds them in the source and dies at each.

/// The process is at this place.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) const fn hit(_name: &str) {}

/// The process is at this place. Ends it if the environment says so.
///
/// # Panics
/// `FAILPOINT` is not a name and a number.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("FAILPOINT").ok()?;
        let parsed = text.split_once(':').and_then(|(name, turn)| Some((name, turn.parse().ok()?)));
        let (name, turn) = parsed.unwrap_or_else(|| panic!("FAILPOINT={text}: not NAME:NUMBER"));
        Some((name.to_owned(), turn))
    });
    if let Some((_, turn)) = wanted.as_ref().filter(|(wanted, _)| wanted == name)
        && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == *turn
    {
        std::process::abort(); // nothing is flushed, closed or dropped
    }
}
