//! The only place that knows PostgreSQL: from a socket to changes.

pub mod catalog;
pub mod connect;
pub mod copy_data;
pub mod frame;
pub mod lock;
pub mod pgoutput;
mod reader;
pub mod relations;
pub mod session;
pub mod slot;
pub mod sqlstate;
pub mod stream;
pub mod timeline;
pub mod which;
pub mod witness;
