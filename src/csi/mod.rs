//! The protocol edge: gRPC in, use cases out. It validates requests and maps errors, and holds no policy.

mod authority;
pub mod capability;
pub mod connection;
pub mod controller;
pub mod deadline;
pub mod gate;
pub mod identity;
pub mod node;
pub mod operation;
pub mod probe;
pub mod proto;
pub mod registration;
pub mod server;
pub mod socket;
pub mod status;
pub mod trace;
