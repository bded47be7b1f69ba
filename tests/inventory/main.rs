//! `csi-udisk volumes` and `csi-udisk orphans` as an operator runs them: the real binary, a simulated cloud, and a double
//! of the Kubernetes API, both over HTTP on loopback.

#![cfg(all(feature = "kube", feature = "sandbox"))]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod access;
mod api;
mod deletion;
mod orphans;
mod trouble;
mod volumes;
mod world;
