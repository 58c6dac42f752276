//! The only place that knows PostgreSQL: from a socket to changes.

pub mod connect;
pub mod slot;
pub mod sqlstate;
pub mod stream;
