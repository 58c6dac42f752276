//! The only place that knows PostgreSQL: from a socket to changes.

pub mod catalog;
pub mod connect;
pub mod slot;
pub mod stream;
pub mod timeline;
