//! NodeGetVolumeHealth.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{NodeService, key, volume};
use crate::csi::deadline::answer_by;
use crate::csi::operation::{NoAnswer, Operation};
use crate::csi::proto::v1;
use crate::csi::status::node::{NodeError as _, unanswered_health};
use crate::node::{HealthRequest, Problem, RunningChange, Severity};
use crate::volume::DiskId;

/// Longer than the node gives a disk to answer.
const TIME: Duration = Duration::from_secs(10);
/// Kubelet's patience with a volume that is being staged.
const LONG: Duration = Duration::from_secs(120);

impl NodeService {
    pub(super) async fn health(
        &self,
        request: Request<v1::NodeGetVolumeHealthRequest>,
    ) -> Result<Response<v1::NodeGetVolumeHealthResponse>, Status> {
        let answer_by = answer_by(&request).min(Instant::now() + TIME);
        let request = request.into_inner();
        let volume = volume(&request.volume_id)?;
        let path = |path: &str| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
        let health = HealthRequest {
            volume: volume.clone(),
            staging_path: path(&request.staging_target_path),
            publish_path: path(&request.volume_publish_path),
            running: self.running_change(&volume),
        };
        let operation = Operation {
            key: format!("health of {volume} at {:?}", (&health.staging_path, &health.publish_path)),
            fingerprint: String::new(),
            what: format!("NodeGetVolumeHealth of {volume}"),
        };
        let (node, id) = (self.node.clone(), volume.clone());
        let problems = self
            .queries
            .run(operation, answer_by, |_| async move {
                node.health(health).await.map_err(|error| error.status(&id))
            })
            .await
            .map_err(|reason| unanswered_health(&volume, &reason))??;
        Ok(Response::new(v1::NodeGetVolumeHealthResponse { volume_health: Some(wire(&volume, problems)) }))
    }

    fn running_change(&self, volume: &DiskId) -> Option<RunningChange> {
        match self.operations.holder(&key(volume))? {
            NoAnswer::Busy { what, age, phase } => {
                let mut words = format!("{what} has been running for {} s", age.as_secs());
                if !phase.is_empty() {
                    let _ = write!(words, ": {phase}");
                }
                Some(RunningChange { words, is_long: age >= LONG })
            }
            NoAnswer::StillRunning { .. }
            | NoAnswer::Panicked { .. }
            | NoAnswer::Abandoned { .. }
            | NoAnswer::Stopping { .. } => None,
        }
    }
}

fn wire(volume: &DiskId, problems: Vec<Problem>) -> v1::VolumeHealth {
    use v1::VolumeHealthErrorType as Type;
    let entry = |problem: Problem| v1::volume_health::VolumeHealthEntry {
        status: match problem.severity {
            Severity::Degraded => Type::Degraded,
            Severity::Inaccessible => Type::Inaccessible,
        }
        .into(),
        reason: problem.reason.word().to_owned(),
        message: problem.words,
    };
    v1::VolumeHealth {
        volume_id: volume.to_string(),
        health_statuses: problems.into_iter().map(entry).collect(),
    }
}
