//! Where records go.

pub mod kafka;
pub mod partition;
