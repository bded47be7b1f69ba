//! The names of disks that this process is making or just made.
//!
//! CreateUDisk has no token that would make a repetition harmless, names are not unique, and a listing may lag
//! behind. So a name whose create ended without an answer is not sent again until complete listings have not
//! shown it for the settling time, and a name whose disk is known is looked up by that disk's id.
//!
//! The memory only protects against a second disk. It ends when the disk is deleted, after a while, and with the
//! process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::CloudError;
use crate::volume::DiskId;

/// For how long the id of a made disk is kept. A listing that lags longer is broken beyond this driver's help.
const MADE_MEMORY: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Names {
    settle: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<String, Memory>,
    /// The disks that were deleted lately, by their names.
    deleted: HashMap<String, (DiskId, Instant)>,
}

#[derive(Debug, Clone)]
enum Memory {
    /// A create was sent at this time, and whether it made a disk is not known.
    Sent { at: Instant, why: Option<CloudError> },
    /// The cloud gave this id to the name, or showed it so.
    Made { id: DiskId, at: Instant, handed_out: bool, seen: bool },
}

/// What is known of a name that a listing does not show.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// Nothing: the name may be sent.
    Nothing,
    /// A disk was made and has this id.
    Made(DiskId),
    /// A create may have made a disk that is not listed yet; for so long nothing may be sent.
    Unsettled { since: Duration, wait: Duration, why: Option<CloudError> },
}

impl Names {
    pub(super) fn new(settle: Duration) -> Self {
        Self { settle, table: Mutex::default() }
    }

    /// Notes that a create is about to be sent. Noted before, so that a fault in between leaves its trace.
    pub(super) fn sending(&self, name: &str) {
        let mut table = self.lock();
        self.prune(&mut table);
        table.names.insert(name.to_owned(), Memory::Sent { at: Instant::now(), why: None });
    }

    /// Notes that the create ended without an answer, and why. It may have been received as late as now.
    pub(super) fn unanswered(&self, name: &str, why: Option<CloudError>) {
        self.lock().names.insert(name.to_owned(), Memory::Sent { at: Instant::now(), why });
    }

    pub(super) fn made(&self, name: &str, id: &DiskId) {
        let made = Memory::Made { id: id.clone(), at: Instant::now(), handed_out: false, seen: false };
        self.lock().names.insert(name.to_owned(), made);
    }

    /// Forgets the name: the create certainly made nothing, or what it made is gone.
    pub(super) fn forget(&self, name: &str) {
        self.lock().names.remove(name);
    }

    /// Notes that the disk was seen with the name, which answers the question whether its create made one. A later
    /// listing may be further behind and lack it.
    pub(super) fn found(&self, name: &str, id: &DiskId) {
        let mut table = self.lock();
        self.prune(&mut table);
        match table.names.get_mut(name) {
            Some(Memory::Made { id: made, seen, .. }) if made == id => *seen = true,
            Some(_) | None => {
                // Somebody else may have it.
                let found = Memory::Made { id: id.clone(), at: Instant::now(), handed_out: true, seen: true };
                table.names.insert(name.to_owned(), found);
            }
        }
    }

    /// Whether the cloud gave the id to the name and may show the disk only later. As with listings, none that is not shown
    /// for the settling time exists.
    pub(super) fn is_awaited(&self, name: &str, id: &DiskId) -> bool {
        matches!(
            self.lock().names.get(name),
            Some(Memory::Made { id: made, at, seen: false, .. }) if made == id && at.elapsed() <= self.settle
        )
    }

    /// Notes that a disk is gone for good. The name, where it was read, is free at once.
    pub(super) fn deleted(&self, id: &DiskId, name: Option<&str>) {
        let now = Instant::now();
        let mut table = self.lock();
        let Table { names, deleted } = &mut *table;
        deleted.retain(|_, (_, at)| now.duration_since(*at) <= MADE_MEMORY);
        let of = name.or_else(|| {
            let made = names
                .iter()
                .find(|(_, memory)| matches!(memory, Memory::Made { id: made, .. } if made == id));
            made.map(|(known, _)| known.as_str())
        });
        if let Some(name) = of {
            deleted.insert(name.to_owned(), (id.clone(), now));
        }
        names.retain(|known, memory| match memory {
            Memory::Made { id: made, .. } => made != id,
            Memory::Sent { .. } => Some(known.as_str()) != name,
        });
    }

    /// The disk of the name that was deleted after this time. A create that began before is one for that disk:
    /// whoever deleted it wants no other.
    pub(super) fn deleted_since(&self, name: &str, since: Instant) -> Option<DiskId> {
        self.lock().deleted.get(name).filter(|(_, at)| *at > since).map(|(id, _)| id.clone())
    }

    /// Notes that a caller has the disk and may keep data on it.
    pub(super) fn handed_out(&self, name: &str) {
        if let Some(Memory::Made { handed_out, .. }) = self.lock().names.get_mut(name) {
            *handed_out = true;
        }
    }

    /// Whether this process got the id as the answer to a create of the name and gave it to nobody.
    pub(super) fn is_ours_alone(&self, name: &str, id: &DiskId) -> bool {
        matches!(
            self.lock().names.get(name),
            Some(Memory::Made { id: made, handed_out: false, .. }) if made == id
        )
    }

    /// What to make of a complete listing without the name that was started at `looked`.
    pub(super) fn known(&self, name: &str, looked: Instant) -> Known {
        match self.lock().names.get(name) {
            None => Known::Nothing,
            Some(Memory::Made { id, .. }) => Known::Made(id.clone()),
            Some(Memory::Sent { at, why }) => {
                let since = looked.saturating_duration_since(*at);
                match self.settle.checked_sub(since) {
                    Some(wait) if !wait.is_zero() => Known::Unsettled { since, wait, why: why.clone() },
                    Some(_) | None => Known::Nothing,
                }
            }
        }
    }

    /// Bounds the memory by the rate at which names come.
    fn prune(&self, table: &mut Table) {
        let now = Instant::now();
        table.names.retain(|_, memory| match memory {
            Memory::Sent { at, .. } => now.duration_since(*at) <= self.settle.max(MADE_MEMORY),
            Memory::Made { at, .. } => now.duration_since(*at) <= MADE_MEMORY,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every step leaves the table whole, so a poisoned lock holds no broken state.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(60);

    fn id(text: &str) -> DiskId {
        DiskId::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_name_is_free_after_the_settling_time() {
        let names = Names::new(SETTLE);
        assert!(matches!(names.known("pvc-1", Instant::now()), Known::Nothing));
        names.sending("pvc-1");
        tokio::time::advance(Duration::from_secs(30)).await;
        names.unanswered("pvc-1", None);
        tokio::time::advance(Duration::from_secs(59)).await;
        let Known::Unsettled { since, wait, .. } = names.known("pvc-1", Instant::now()) else {
            panic!("it is open")
        };
        assert_eq!((since.as_secs(), wait.as_secs()), (59, 1));
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!matches!(names.known("pvc-1", early), Known::Nothing), "the listing was begun too early");
        assert!(matches!(names.known("pvc-1", Instant::now()), Known::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn seeing_or_deleting_the_disk_ends_the_memory() {
        let names = Names::new(SETTLE);
        names.sending("pvc-0");
        names.found("pvc-0", &id("bs-0"));
        assert!(matches!(names.known("pvc-0", Instant::now()), Known::Made(made) if made == id("bs-0")));
        assert!(!names.is_ours_alone("pvc-0", &id("bs-0")));
        names.deleted(&id("bs-0"), None);
        assert!(matches!(names.known("pvc-0", Instant::now()), Known::Nothing));

        names.made("pvc-1", &id("bs-1"));
        names.found("pvc-1", &id("bs-1"));
        assert!(names.is_ours_alone("pvc-1", &id("bs-1")));
        assert!(matches!(names.known("pvc-1", Instant::now()), Known::Made(made) if made == id("bs-1")));
        names.deleted(&id("bs-2"), None);
        assert!(names.is_ours_alone("pvc-1", &id("bs-1")));
        names.handed_out("pvc-1");
        assert!(!names.is_ours_alone("pvc-1", &id("bs-1")));
        names.deleted(&id("bs-1"), None);
        assert!(matches!(names.known("pvc-1", Instant::now()), Known::Nothing));

        names.unanswered("pvc-2", None);
        names.deleted(&id("bs-3"), Some("pvc-2"));
        assert!(matches!(names.known("pvc-2", Instant::now()), Known::Nothing));

        let begun = Instant::now();
        assert_eq!(names.deleted_since("pvc-2", begun), None);
        names.made("pvc-4", &id("bs-4"));
        tokio::time::advance(Duration::from_secs(1)).await;
        names.deleted(&id("bs-4"), None);
        assert_eq!(names.deleted_since("pvc-4", begun), Some(id("bs-4")), "its name was known");
        assert_eq!(names.deleted_since("pvc-4", Instant::now()), None);
    }
}
