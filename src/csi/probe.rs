//! The caller's side of Identity.Probe, for the exec probes of Kubernetes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Status;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::Endpoint;

use super::proto::v1::ProbeRequest;
use super::proto::v1::identity_client::IdentityClient;

/// What is missing for readiness. CSI's answer has no room for words, so they travel beside it.
const MISSING: &str = "csi-udisk-missing-bin";

/// How a driver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// Alive, and waiting for this.
    NotReady(String),
}

/// Why it is not known how the driver is.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no driver answers on {}: {cause}", .path.display())]
    Unreachable { path: PathBuf, cause: String },
    #[error("the driver on {} did not answer within {} s", .path.display(), .limit.as_secs())]
    Silent { path: PathBuf, limit: Duration },
    #[error("the driver on {} answered: {status}", .path.display())]
    Refused { path: PathBuf, status: Box<Status> },
}

pub(super) fn attach_missing(metadata: &mut MetadataMap, missing: &str) {
    metadata.insert_bin(MISSING, BinaryMetadataValue::from_bytes(missing.as_bytes()));
}

fn read_missing(metadata: &MetadataMap) -> String {
    let bytes = metadata.get_bin(MISSING).and_then(|value| value.to_bytes().ok());
    bytes.map_or_else(
        || "it does not say for what".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

/// Asks the driver that serves on `path`.
pub async fn probe(path: &Path, limit: Duration) -> Result<Health, ProbeError> {
    let silent = |_| ProbeError::Silent { path: path.to_owned(), limit };
    tokio::time::timeout(limit, ask(path)).await.map_err(silent)?
}

async fn ask(path: &Path) -> Result<Health, ProbeError> {
    let unreachable = |cause: tonic::transport::Error| {
        // The outermost text is only "transport error".
        let mut deepest: &dyn std::error::Error = &cause;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        ProbeError::Unreachable { path: path.to_owned(), cause: deepest.to_string() }
    };
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).map_err(unreachable)?;
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
    let answer =
        answer.map_err(|status| ProbeError::Refused { path: path.to_owned(), status: Box::new(status) })?;
    // CSI: a driver that does not say is ready.
    Ok(match answer.get_ref().ready {
        Some(true) | None => Health::Ready,
        Some(false) => Health::NotReady(read_missing(answer.metadata())),
    })
}
