//! What the last attempts to make volumes usable failed on, for whoever asks how the volumes are.
//!
//! It is told, never acted upon; a driver that was started anew knows nothing and loses nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::volume::DiskId;

/// More volumes than a host can have; the oldest is forgotten first.
const MOST: usize = 64;

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Such as `NodeStageVolume`.
    pub(super) operation: &'static str,
    pub(super) words: String,
    pub(super) when: Instant,
}

/// The last failure of each volume that is not usable. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Arc<Mutex<HashMap<DiskId, Failure>>>);

impl Failures {
    /// Notes how an attempt ended: a success takes away what failed before.
    pub(super) fn note<T, E: fmt::Display>(
        &self,
        volume: &DiskId,
        operation: &'static str,
        outcome: &Result<T, E>,
    ) {
        match outcome {
            Ok(_) => self.forget(volume),
            Err(error) => {
                let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                failures.remove(volume);
                if failures.len() >= MOST {
                    let oldest = failures.iter().min_by_key(|(_, failure)| failure.when);
                    if let Some(oldest) = oldest.map(|(volume, _)| volume.clone()) {
                        failures.remove(&oldest);
                    }
                }
                let failure = Failure { operation, words: error.to_string(), when: Instant::now() };
                failures.insert(volume.clone(), failure);
            }
        }
    }

    /// The volume is not wanted here any more.
    pub(super) fn forget(&self, volume: &DiskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(volume);
    }

    pub(super) fn of(&self, volume: &DiskId) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(volume).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_kept_until_a_success_and_the_oldest_goes_first() {
        let failures = Failures::default();
        let volume = |n: usize| DiskId::parse(&format!("bs-{n}")).unwrap();
        for n in 0..MOST {
            failures.note(&volume(n), "NodeStageVolume", &Err::<(), _>("first"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        failures.note(&volume(0), "NodePublishVolume", &Err::<(), _>("second"));
        let failure = failures.of(&volume(0)).unwrap();
        assert_eq!((failure.operation, failure.words.as_str()), ("NodePublishVolume", "second"));
        failures.note(&volume(MOST), "NodeStageVolume", &Err::<(), _>("one too many"));
        assert_eq!(failures.of(&volume(1)), None);
        assert!(failures.of(&volume(0)).is_some() && failures.of(&volume(MOST)).is_some());
        failures.note(&volume(0), "NodeStageVolume", &Ok::<(), &str>(()));
        assert_eq!(failures.of(&volume(0)), None);
    }
}
