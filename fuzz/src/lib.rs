//! What must hold for any disk and any list of mounts: plain functions of bytes, which panic where it does not.
//!
//! The fuzz targets give them their inputs, and so do the property tests of the driver, which run everywhere.

pub mod blank;
pub mod image;
pub mod input;
pub mod mountinfo;
pub mod note;
pub mod probe;
