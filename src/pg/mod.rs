//! The only place that knows PostgreSQL: from a socket to changes.

pub mod connect;
pub mod copy_data;
pub mod frame;
pub mod pgoutput;
mod reader;
pub mod slot;
pub mod stream;
