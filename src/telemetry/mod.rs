//! What the process tells about itself.

pub mod admin;
pub mod level;
pub mod log;
pub mod metrics;
mod visitors;
