//! csi-udisk gives Kubernetes pods UCloud UDisk block volumes through CSI.
//!
//! # Bird's-eye view
//!
//! ```text
//! kubelet ──▶ csi::node ──────▶ node (plan → act) ──▶ node::linux (mount, probe, mkfs, sysfs, ioctl)
//! sidecars ─▶ csi::controller ─▶ controller (use cases) ──▶ trait cloud::Cloud ──▶ ucloud (HTTP client)
//!                 │                                                                   └──▶ sandbox (simulated)
//!                 └─ csi::operation: detached, single-flight tasks; csi::status: errors → gRPC codes
//! ```
//!
//! Imports go one way: protocol edge ([`csi`]) → use cases ([`controller`], [`node`]) → values ([`volume`]),
//! with the cloud client ([`ucloud`]) behind the trait in [`cloud`] and the Linux edge below [`node`].
//!
//! # Invariants
//!
//! 1. [`volume`] is pure: no I/O, no async. Only [`ucloud`] knows RetCodes. Only [`csi`] knows `tonic::Status`.
//!    Only `node::linux` calls the kernel or starts processes. There is no global state.
//! 2. A mutating RPC runs as a task of its own that owns its locks and outlives the caller; a retry joins it.
//!    An answer is a promise: nothing that contradicts it is sent afterwards.
//! 3. No mutating RPC answers `Internal`, `Unknown` or `DataLoss`. "It may have happened" is `Aborted`,
//!    `Unavailable` or `DeadlineExceeded`; only "it certainly did not happen" is final.
//! 4. Nothing is formatted that was not proven blank; nothing is mounted that was not proven to be the right disk.
//! 5. Every blocking call on the host is bounded; a hung disk costs one volume, not the plugin.
//! 6. The cloud's own state is the truth. Memory only saves calls; a restart at any point loses nothing.
//! 7. Secrets and signatures never reach a log, an error or a `Debug` print.

pub mod cloud;
pub mod config;
pub mod controller;
pub mod csi;
#[cfg(feature = "kube")]
pub mod inventory;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod limit;
pub mod node;
pub mod progress;
pub mod readiness;
pub mod run;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod shutdown;
pub mod telemetry;
pub mod ucloud;
pub mod volume;
