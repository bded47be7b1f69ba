//! The real binary, judged from outside: a simulated cloud, a controller and two nodes in processes of their
//! own, driven over their sockets as kubelet and the sidecars would.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod bad_input;
mod calls;
mod csi;
mod handover;
mod legacy;
mod life;
mod list;
mod propagation;
mod rehearsal;
mod restart_needed;
mod secrets;
mod world;
