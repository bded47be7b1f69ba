//! Compares what a cluster wants with what the account has: volumes that disagree, and disks that nobody refers to.
//!
//! Everything here is a pure function of complete readings. Reading, asking and deleting are done by who calls it.

pub mod cluster;
pub mod finding;
mod judge;
pub mod names;
pub mod orphans;
pub mod report;
mod table;
pub mod volumes;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
