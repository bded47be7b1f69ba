//! The protocol edge: gRPC in, use cases out. It validates requests and maps errors, and holds no policy.

pub mod operation;
pub mod proto;
pub mod status;
