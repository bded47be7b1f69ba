//! What this process changed a moment ago, and so which reads must be stale.
//!
//! Reads of the cloud may lag. One that contradicts a change accepted a moment ago is not believed until no
//! read has agreed with that change for longer than the lag. The memory is short and only delays a conclusion:
//! without it (after a restart) the cloud's state still decides. Because a predecessor may have made a change
//! just before it died or let go, "nothing to do" read in the first moments of the process's work is looked at again as
//! well. They count from the first change that it is asked for: it may have stood by for long while another one worked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Disk, DiskStatus};
use crate::volume::{DiskId, Gib, HostId};

/// A change of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Attached(HostId),
    Detached(HostId),
    Grown(Gib),
    Deleted,
    /// Not a change of ours: the cloud refused one because the disk is on a host, or on its way to one.
    Bound,
}

/// How much a read is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Sound,
    /// Not contradicted by anything, but this process is too young to know what its predecessor did.
    Young,
    /// Contradicts a recent change: look again.
    Stale,
}

#[derive(Debug)]
struct Entry {
    change: Change,
    /// When the change was made or a read last agreed with it.
    at: Instant,
    /// Whether the cloud accepted the change. Otherwise it may have happened or not.
    certain: bool,
    /// The last certain change before this one, and until when reads may show what was before that: what looks like
    /// the new state may be that old one.
    before: Option<(Change, Instant)>,
}

#[derive(Debug)]
pub(super) struct Recent {
    lag: Duration,
    /// When this process was asked for its first change.
    begun: OnceLock<Instant>,
    entries: Mutex<HashMap<DiskId, Entry>>,
    /// Whatever was changed in the last [`MEMORY`], the oldest first.
    past: Mutex<HashMap<DiskId, Vec<(Change, Instant)>>>,
    made_or_deleted: AtomicU64,
}

/// Listings may be further behind than reads by id, but not that far.
const MEMORY: Duration = Duration::from_secs(600);

impl Recent {
    pub(super) fn new(lag: Duration) -> Self {
        Self {
            lag,
            begun: OnceLock::new(),
            entries: Mutex::default(),
            past: Mutex::default(),
            made_or_deleted: AtomicU64::new(0),
        }
    }

    /// Notes a change at the moment when the cloud accepted it.
    pub(super) fn note(&self, disk: &DiskId, change: Change) {
        self.insert(disk, change, true);
    }

    /// Notes a change whose outcome the cloud left open.
    pub(super) fn note_uncertain(&self, disk: &DiskId, change: Change) {
        self.insert(disk, change, false);
    }

    /// How many disks this process has made or deleted.
    pub(super) fn made_or_deleted(&self) -> u64 {
        self.made_or_deleted.load(Ordering::Relaxed)
    }

    fn insert(&self, disk: &DiskId, change: Change, certain: bool) {
        let now = Instant::now();
        if matches!(change, Change::Created | Change::Deleted) {
            self.made_or_deleted.fetch_add(1, Ordering::Relaxed);
        }
        let mut past = self.past();
        past.retain(|_, changes| changes.last().is_some_and(|(_, at)| now.duration_since(*at) <= MEMORY));
        if change != Change::Bound {
            let changes = past.entry(disk.clone()).or_default();
            changes.retain(|(_, at)| now.duration_since(*at) <= MEMORY);
            changes.push((change.clone(), now));
        }
        drop(past);
        let mut entries = self.lock();
        // Old entries decide nothing any more; dropping them here bounds the memory by the rate of changes.
        entries.retain(|_, entry| now.duration_since(entry.at) <= self.lag);
        let before = entries.remove(disk).and_then(|entry| match entry.certain {
            true => Some((entry.change, entry.at + self.lag)),
            false => entry.before,
        });
        entries.insert(disk.clone(), Entry { change, at: now, certain, before });
    }

    /// Judges a read that was started at `started`. One of a listing, which may be further behind than the lag,
    /// proves nothing: it changes no memory.
    pub(super) fn judge(
        &self,
        disk: &DiskId,
        reading: Option<&Disk>,
        started: Instant,
        listed: bool,
    ) -> Trust {
        let begun = *self.begun.get_or_init(|| started);
        let young = started.saturating_duration_since(begun) <= self.lag;
        let mut entries = self.lock();
        let live = entries
            .get_mut(disk)
            .map(|entry| (started.saturating_duration_since(entry.at) <= self.lag, entry));
        let entry = match live {
            Some((true, entry)) => entry,
            Some((false, _)) => return Trust::Sound,
            None if young => return Trust::Young,
            None => return Trust::Sound,
        };
        let older = entry
            .before
            .as_ref()
            .is_some_and(|(change, until)| started <= *until && contradicts(change, reading));
        if older || contradicts(&entry.change, reading) {
            return Trust::Stale;
        }
        if young && !entry.certain {
            return Trust::Young;
        }
        if !listed {
            entry.at = entry.at.max(started);
            entry.certain = true;
        }
        // Also the end of a change of our own can be an old picture, of what was before the predecessor's last one.
        if young { Trust::Young } else { Trust::Sound }
    }

    /// Whether a read that was started at `started` cannot be true, because it shows the disk as it was before a change
    /// that the cloud had accepted by then.
    pub(super) fn is_past(&self, disk: &Disk, started: Instant) -> bool {
        self.lock().get(&disk.id).is_some_and(|entry| {
            let live = entry.at <= started && started.duration_since(entry.at) <= self.lag;
            live && entry.certain && contradicts(&entry.change, Some(disk))
        })
    }

    /// Whether the last change of the disk has happened to it before, so that what a listing shows of it may be that.
    pub(super) fn is_repeated(&self, disk: &DiskId) -> bool {
        let past = self.past();
        let last = past.get(disk).and_then(|changes| changes.split_last());
        last.is_some_and(|((last, _), before)| before.iter().any(|(change, _)| change == last))
    }

    /// Whether a change of a moment ago may have happened or not.
    pub(super) fn is_open(&self, disk: &DiskId) -> bool {
        self.lock().get(disk).is_some_and(|entry| !entry.certain && entry.at.elapsed() <= self.lag)
    }

    /// Notes that a listing or a read has shown the disk. One that does not lags, or the disk is gone: neither is believed
    /// at once.
    pub(super) fn doubt_absence(&self, disk: &DiskId) {
        let known = self.lock().get(disk).is_some_and(|entry| entry.at.elapsed() <= self.lag);
        if !known {
            self.note_uncertain(disk, Change::Created);
        }
    }

    /// When reads show all that a predecessor may have changed a moment before it died or let go.
    pub(super) fn settled_at(&self) -> Instant {
        *self.begun.get_or_init(Instant::now) + self.lag
    }

    /// Whether this process deleted the disk a moment ago, so that a listing may still show it.
    pub(super) fn deleted(&self, disk: &DiskId) -> bool {
        self.lock().get(disk).is_some_and(|entry| entry.certain && entry.change == Change::Deleted)
    }

    fn past(&self) -> MutexGuard<'_, HashMap<DiskId, Vec<(Change, Instant)>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DiskId, Entry>> {
        // Every step leaves the table whole, so a poisoned lock holds no broken state.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a read cannot be true after the change, unless somebody else acted too.
fn contradicts(change: &Change, reading: Option<&Disk>) -> bool {
    let Some(disk) = reading else {
        return match change {
            Change::Deleted => false,
            Change::Created
            | Change::Attached(_)
            | Change::Detached(_)
            | Change::Grown(_)
            | Change::Bound => true,
        };
    };
    let bound = matches!(disk.status, DiskStatus::InUse | DiskStatus::Attaching);
    match change {
        Change::Created => false,
        // Also on its way off another host: it must have left that one before.
        Change::Attached(host) => {
            is_free(&disk.status)
                || ((bound || disk.status == DiskStatus::Detaching)
                    && disk.host.as_ref().is_some_and(|h| h != host))
        }
        Change::Detached(host) => bound && disk.host.as_ref().is_none_or(|h| h == host),
        Change::Grown(size) => disk.size < *size,
        Change::Deleted => true,
        Change::Bound => is_free(&disk.status),
    }
}

/// Whether this is a state of a disk that is on no host: one that was made a moment before it was attached, say.
fn is_free(status: &DiskStatus) -> bool {
    match status {
        DiskStatus::Available
        | DiskStatus::Initializing
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::RestoreFailed
        | DiskStatus::Failed => true,
        DiskStatus::InUse | DiskStatus::Attaching | DiskStatus::Detaching | DiskStatus::Other(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake::disk;

    fn id() -> DiskId {
        DiskId::parse("bs-1").unwrap()
    }

    fn host(name: &str) -> HostId {
        HostId::parse(name).unwrap()
    }

    #[test]
    fn each_change_is_contradicted_by_the_state_before_it() {
        let free = disk("bs-1", DiskStatus::Available);
        let mut used = disk("bs-1", DiskStatus::InUse);
        used.host = Some(host("uhost-a"));
        let mut going = used.clone();
        going.status = DiskStatus::Detaching;
        let a = || host("uhost-a");
        for (change, reading, expected) in [
            (Change::Created, None, true),
            (Change::Created, Some(&free), false),
            (Change::Attached(a()), Some(&free), true),
            (Change::Attached(a()), Some(&used), false),
            (Change::Attached(a()), Some(&going), false),
            (Change::Attached(host("uhost-b")), Some(&used), true),
            // Of the time when it was made.
            (Change::Attached(a()), Some(&disk("bs-1", DiskStatus::Initializing)), true),
            (Change::Bound, Some(&disk("bs-1", DiskStatus::Initializing)), true),
            // It cannot be on its way off the host that it had left before.
            (Change::Attached(host("uhost-b")), Some(&going), true),
            (Change::Detached(a()), Some(&used), true),
            (Change::Detached(a()), Some(&going), false),
            (Change::Detached(a()), Some(&free), false),
            (Change::Detached(host("uhost-b")), Some(&used), false),
            (Change::Grown(Gib::new(20)), Some(&free), true),
            (Change::Grown(Gib::new(10)), Some(&free), false),
            (Change::Deleted, Some(&free), true),
            (Change::Deleted, None, false),
            (Change::Bound, Some(&free), true),
            (Change::Bound, Some(&going), false),
            (Change::Bound, None, true),
        ] {
            assert_eq!(contradicts(&change, reading), expected, "{change:?} {reading:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_contradiction_is_believed_once_no_read_agreed_for_longer_than_the_lag() {
        let recent = Recent::new(Duration::from_secs(10));
        recent.settled_at();
        tokio::time::advance(Duration::from_secs(60)).await;
        let free = disk("bs-1", DiskStatus::Available);
        let attaching = disk("bs-1", DiskStatus::Attaching);
        recent.note(&id(), Change::Attached(host("uhost-a")));
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), false), Trust::Stale);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(recent.judge(&id(), Some(&attaching), Instant::now(), false), Trust::Sound);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), false), Trust::Stale);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), false), Trust::Sound);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wanted_state_proves_an_uncertain_change_only_if_it_cannot_be_an_old_picture() {
        let recent = Recent::new(Duration::from_secs(10));
        recent.settled_at();
        let free = disk("bs-1", DiskStatus::Available);
        recent.note(&id(), Change::Attached(host("uhost-a")));
        tokio::time::advance(Duration::from_secs(6)).await;
        recent.note_uncertain(&id(), Change::Detached(host("uhost-a")));
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), false), Trust::Stale);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), false), Trust::Sound);
        recent.note_uncertain(&id(), Change::Deleted);
        assert!(!recent.deleted(&id()));
        recent.note(&id(), Change::Deleted);
        assert!(recent.deleted(&id()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_settles_nothing() {
        let recent = Recent::new(Duration::from_secs(10));
        recent.settled_at();
        let free = disk("bs-1", DiskStatus::Available);
        let mut used = disk("bs-1", DiskStatus::InUse);
        used.host = Some(host("uhost-a"));
        recent.note_uncertain(&id(), Change::Attached(host("uhost-a")));
        assert!(recent.is_open(&id()));
        tokio::time::advance(Duration::from_secs(8)).await;
        recent.judge(&id(), Some(&used), Instant::now(), true);
        assert!(recent.is_open(&id()));
        assert_eq!(recent.judge(&id(), Some(&free), Instant::now(), true), Trust::Stale);
        // A process that is no longer young believes a read by id.
        tokio::time::advance(Duration::from_secs(8)).await;
        recent.note_uncertain(&id(), Change::Attached(host("uhost-a")));
        recent.judge(&id(), Some(&used), Instant::now(), false);
        assert!(!recent.is_open(&id()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_the_last_change_does_not_pass_for_what_came_after_this_one() {
        let recent = Recent::new(Duration::from_secs(10));
        recent.settled_at();
        tokio::time::advance(Duration::from_secs(60)).await;
        let free = disk("bs-1", DiskStatus::Available);
        let mut used = disk("bs-1", DiskStatus::InUse);
        used.host = Some(host("uhost-a"));
        let now = |disk| recent.judge(&id(), Some(disk), Instant::now(), false);
        recent.note(&id(), Change::Attached(host("uhost-a")));
        tokio::time::advance(Duration::from_secs(4)).await;
        recent.note(&id(), Change::Detached(host("uhost-a")));
        assert_eq!(now(&free), Trust::Stale, "it may be the picture from before the attachment");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(now(&free), Trust::Sound);
        recent.note(&id(), Change::Attached(host("uhost-a")));
        assert_eq!(now(&used), Trust::Stale, "it may be the first attachment, at another slot");
        let mut going = used.clone();
        going.status = DiskStatus::Attaching;
        assert_eq!(now(&going), Trust::Stale);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(now(&used), Trust::Sound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_process_knows_little() {
        let recent = Recent::new(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(recent.judge(&id(), None, Instant::now(), false), Trust::Young, "it only stood by");
        recent.note(&id(), Change::Detached(host("uhost-a")));
        let free = disk("bs-1", DiskStatus::Available);
        let told = recent.judge(&id(), Some(&free), Instant::now(), false);
        assert_eq!(told, Trust::Young, "it may be from before the predecessor's attachment");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(recent.judge(&id(), None, Instant::now(), false), Trust::Sound);
    }
}
