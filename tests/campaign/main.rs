//! The controller under faults: every changing call, every request that it sends, every way in which that request can go
//! wrong, and a process that lives on or dies there. The cloud is simulated and its truth is known; time is virtual.
//!
//! What must hold at the end of each cell is in `judge`.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod call;
mod cell;
mod events;
mod fault;
mod grid;
mod judge;
mod process;
mod random;
mod world;

use std::io::Write as _;

/// Whether there is time for everything.
fn long_run() -> bool {
    std::env::var_os("CSI_UDISK_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Past the test's own capture of its output: the numbers are part of what the test shows.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "campaign, {text}");
}
