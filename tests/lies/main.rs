//! An API whose answers lie: damaged, foreign, contradictory, slow, or somebody else's. The driver must say so, and
//! never take them for "it is gone", "it is done" or "there is none".

#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod client;
mod driver;
mod lie;

use std::io::Write as _;

/// Past the test's own capture of its output: the number is part of what the test shows.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "lies, {text}");
}
