//! Since when disks have been in a state that should pass.
//!
//! The cloud sometimes leaves a disk Attaching or Detaching for ever. Each call that waits for it ends with its own time,
//! and the next one begins anew; only here is known for how long it has been so altogether.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Disk, DiskStatus};
use crate::volume::DiskId;

/// A disk that nobody has asked for in this time is forgotten. Sidecars ask again within minutes.
const MEMORY: Duration = Duration::from_secs(900);

#[derive(Debug)]
struct Spell {
    status: DiskStatus,
    since: Instant,
    seen: Instant,
    said: bool,
}

#[derive(Debug)]
pub(super) struct Spells {
    limit: Duration,
    table: Mutex<HashMap<DiskId, Spell>>,
}

impl Spells {
    /// `limit`: longer than a state lasts that passes.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, table: Mutex::default() }
    }

    /// Notes what a read shows. The answer is for how long the disk has been seen so, if that is too long.
    pub(super) fn note(&self, id: &DiskId, disk: Option<&Disk>) -> Option<Duration> {
        let now = Instant::now();
        let mut table = self.table();
        table.retain(|_, spell| now.duration_since(spell.seen) <= MEMORY);
        let Some(disk) = disk.filter(|disk| passes_soon(&disk.status)) else {
            table.remove(id);
            return None;
        };
        let status = &disk.status;
        let begin = || Spell { status: status.clone(), since: now, seen: now, said: false };
        let spell = table.entry(id.clone()).or_insert_with(begin);
        if spell.status != *status {
            *spell = begin();
        }
        spell.seen = now;
        let lasts = now.duration_since(spell.since);
        if lasts <= self.limit {
            return None;
        }
        if !std::mem::replace(&mut spell.said, true) {
            tracing::warn!(disk = %id, ?status, host = ?disk.host, ?lasts, "the UDisk is stuck");
        }
        Some(lasts)
    }

    /// How many disks are stuck now.
    pub(super) fn stuck(&self) -> usize {
        let stuck = |spell: &&Spell| {
            spell.seen.duration_since(spell.since) > self.limit && spell.seen.elapsed() <= MEMORY
        };
        self.table().values().filter(stuck).count()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<DiskId, Spell>> {
        // Every step leaves the table whole, so a poisoned lock holds no broken state.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a disk is in this state for seconds only. Cloning and restoring take as long as there is data.
fn passes_soon(status: &DiskStatus) -> bool {
    match status {
        DiskStatus::Initializing | DiskStatus::Attaching | DiskStatus::Detaching => true,
        DiskStatus::Available
        | DiskStatus::InUse
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::RestoreFailed
        | DiskStatus::Failed
        | DiskStatus::Other(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake::disk;

    #[tokio::test(start_paused = true)]
    async fn a_state_counts_from_when_it_was_first_seen_and_as_long_as_it_is_asked_for() {
        let spells = Spells::new(Duration::from_secs(180));
        let id = DiskId::parse("bs-1").unwrap();
        let (attaching, detaching) =
            (disk("bs-1", DiskStatus::Attaching), disk("bs-1", DiskStatus::Detaching));
        assert_eq!(spells.note(&id, Some(&attaching)), None);
        tokio::time::advance(Duration::from_secs(181)).await;
        assert_eq!(spells.stuck(), 0, "nobody has seen it since");
        assert_eq!(spells.note(&id, Some(&attaching)), Some(Duration::from_secs(181)));
        assert_eq!(spells.stuck(), 1);
        // Another state is another spell.
        assert_eq!(spells.note(&id, Some(&detaching)), None);
        assert_eq!(spells.stuck(), 0);
        tokio::time::advance(Duration::from_secs(400)).await;
        assert_eq!(spells.note(&id, Some(&detaching)), Some(Duration::from_secs(400)));
        tokio::time::advance(Duration::from_secs(901)).await;
        assert_eq!(spells.stuck(), 0, "nobody asks any more");
        assert_eq!(spells.note(&id, Some(&detaching)), None);
        tokio::time::advance(Duration::from_secs(181)).await;
        assert!(spells.note(&id, Some(&detaching)).is_some());
        assert_eq!(spells.note(&id, Some(&disk("bs-1", DiskStatus::Available))), None);
        assert_eq!(spells.stuck(), 0);
        // A large disk may be cloned for an hour.
        let cloning = disk("bs-1", DiskStatus::Cloning);
        assert_eq!(spells.note(&id, Some(&cloning)), None);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(spells.note(&id, Some(&cloning)), None);
    }
}
