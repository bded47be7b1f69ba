//! Whether a volume can be used on this host, and what keeps it from that. Changes nothing.
//!
//! The disk itself is asked, in limited time and on threads of their own. Who asks about a disk that hangs is told so
//! at once; a second call is not sent after the first.

use std::path::{Path, PathBuf};

use tracing::Instrument as _;

use super::Node;
use super::linux::error::HostError;
use super::linux::mountinfo::{Mounts, as_listed};
use super::linux::staged::PathState;
use super::linux::sysfs::BlockDevice;
use super::linux::{Host, PROBE_LIMIT, StuckCalls};
use super::paths;
use super::verdict::{self, Problem, Reason};
use crate::volume::DiskId;

/// Which volume, and where it is or was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRequest {
    pub volume: DiskId,
    pub staging_path: Option<PathBuf>,
    pub publish_path: Option<PathBuf>,
    /// The change of this volume that runs now, in words.
    pub running: Option<RunningChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningChange {
    pub words: String,
    /// Whether it takes longer than a volume's way to its pod does.
    pub is_long: bool,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error(
        "it is not known on this host: no path of it was named, no disk here carries its mark, and it has not failed here"
    )]
    Unknown,
    #[error("all threads for looking after volumes are taken by disks that do not answer")]
    NoThread,
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Node {
    /// Looks after a volume. No problems means that it is well as far as this host can see.
    pub async fn health(&self, request: HealthRequest) -> Result<Vec<Problem>, HealthError> {
        let this = self.acting_for(&request.volume, "NodeGetVolumeHealth");
        if let Some(stuck) = this.host.stuck_of(&request.volume) {
            return Ok(vec![hung(&stuck)]);
        }
        let nowhere = request.staging_path.is_none() && request.publish_path.is_none();
        let marked = if nowhere { this.host.marked(&request.volume).await? } else { Vec::new() };
        let (host, asked) = (this.host.clone(), request.clone());
        let probe = async move { host.probes.clone().run(move || look(&host, &asked, &marked)).await };
        // Detached: what is too late still takes itself off the list.
        let probe = tokio::spawn(probe.in_current_span());
        // A little longer than the call may take, so that the list knows.
        let seen = match tokio::time::timeout(PROBE_LIMIT + PROBE_LIMIT / 10, probe).await {
            Ok(Ok(seen)) => seen?,
            // The panic is in the log.
            Ok(Err(_)) | Err(_) => match this.host.stuck_of(&request.volume) {
                Some(stuck) => return Ok(vec![hung(&stuck)]),
                None => return Err(HealthError::NoThread),
            },
        };
        let failed = this.failures.of(&request.volume);
        let mut problems = seen.problems;
        if seen.missing.is_empty() && !nowhere {
            // All is where it is wanted, so what failed before was done.
            return Ok(verdict::without_repeats(problems));
        }
        let running = request.running.as_ref();
        if let Some(failure) = failed {
            let mut words = format!(
                "{} failed {} s ago: {}",
                failure.operation,
                failure.when.elapsed().as_secs(),
                failure.words
            );
            if let Some(running) = running {
                words.push_str(&format!(". It is tried again: {}", running.words));
            }
            problems.push(Problem::inaccessible(Reason::MountFailed, words));
        } else if !nowhere && running.is_none_or(|running| running.is_long) {
            let missing: Vec<_> = seen.missing.iter().map(|path| path.display().to_string()).collect();
            let mut words = format!("nothing of the volume is mounted at {}", missing.join(" and "));
            if let Some(running) = running {
                words.push_str(&format!("; {}", running.words));
            }
            problems.push(Problem::inaccessible(Reason::NotMounted, words));
        } else if nowhere && !seen.found {
            return Err(HealthError::Unknown);
        }
        Ok(verdict::without_repeats(problems))
    }
}

fn hung(stuck: &StuckCalls) -> Problem {
    let words = format!(
        "a call to the kernel for {} has not come back for {} s: the disk hangs, or is very slow. Look at it in the cloud's \
         console; only when it answers, or leaves this host, can the volume be unmounted",
        stuck.operation.unwrap_or("this volume"),
        stuck.since.elapsed().as_secs()
    );
    Problem::inaccessible(Reason::Hung, words)
}

/// What was seen of a volume.
#[derive(Debug, Default)]
struct Seen {
    /// Whether it is mounted anywhere, or its disk is here.
    found: bool,
    problems: Vec<Problem>,
    /// The paths that were named and do not have it.
    missing: Vec<PathBuf>,
}

/// Blocking, for as long as the disk does not answer.
fn look(host: &Host, request: &HealthRequest, marked: &[BlockDevice]) -> Result<Seen, HostError> {
    let mounts = Mounts::read()?;
    let mut seen = Seen::default();
    // The staging path first: what is bound from it may be read-only, and tells less.
    for path in [&request.staging_path, &request.publish_path].into_iter().flatten() {
        let directory = seen.look_at(host, &mounts, &as_listed(path))?;
        let file = seen.look_at(host, &mounts, &as_listed(&paths::block_file(path, &request.volume)))?;
        if !directory && !file {
            seen.missing.push(path.clone());
        }
    }
    if request.staging_path.is_none() && request.publish_path.is_none() {
        seen.found = !marked.is_empty();
        for mount in mounts.iter() {
            // A raw block volume is staged at a file that is named after it; others carry its mark.
            let is_named = mount.mount_point.file_name().is_some_and(|name| name == request.volume.as_str());
            let is_marked = || marked.iter().any(|disk| host.backing(mount).device() == Some(disk.number));
            if is_named || is_marked() {
                seen.look_at(host, &mounts, &mount.mount_point)?;
            }
        }
    }
    Ok(seen)
}

impl Seen {
    /// Returns whether a disk is mounted at `path`, alive or not.
    fn look_at(&mut self, host: &Host, mounts: &Mounts, path: &Path) -> Result<bool, HostError> {
        match host.state_at(mounts, path)? {
            PathState::Live { mount, backing, device } => {
                let vitals = host.vitals(&mount, backing, &device);
                self.problems.extend(verdict::judge(&mount, &device.name, &vitals));
            }
            PathState::Dead(mount) => {
                let words = format!(
                    "the disk {} that is mounted at {} has left this host; delete the pods that use it, so that it is \
                     attached and mounted anew",
                    mount.source.display(),
                    path.display()
                );
                self.problems.push(Problem::inaccessible(Reason::DeviceGone, words));
            }
            PathState::Unmounted | PathState::Foreign(_) => return Ok(false),
        }
        self.found = true;
        Ok(true)
    }
}
