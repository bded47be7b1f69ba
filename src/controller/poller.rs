//! Shared, adaptive polling of disks.
//!
//! Whoever waits for a disk follows it here; all that follow one disk share its reads. The first read comes a
//! moment after the last follower joined (a change that the cloud makes at once is seen at once), the next ones
//! after about an eighth of the time already waited, so a wait is never much longer than the cloud's own work
//! and a stuck disk costs few calls. Nothing is read while nobody follows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cloud::{Cloud, CloudError, Deadline, Disk};
use crate::volume::DiskId;

/// How often a followed disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From joining to the first read.
    pub first: Duration,
    pub min: Duration,
    pub max: Duration,
}

impl Default for Pace {
    /// An attach takes the cloud three to eight seconds: this costs about a dozen reads and adds about 0.3 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            min: Duration::from_millis(500),
            max: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// The pause after a read that ended when `waited` had passed.
    fn pause(&self, waited: Duration) -> Duration {
        (waited / 8).clamp(self.min, self.max.max(self.min))
    }
}

/// One read of a disk.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) started: Instant,
    pub(super) result: Result<Option<Disk>, CloudError>,
}

type Table = Arc<Mutex<HashMap<DiskId, Arc<Entry>>>>;

#[derive(Debug)]
struct Entry {
    latest: watch::Sender<Option<Reading>>,
    plan: Mutex<Plan>,
    joined: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// When the youngest follower joined.
    since: Instant,
    /// The latest of the followers' deadlines.
    deadline: Deadline,
}

#[derive(Debug)]
pub(super) struct Poller<C> {
    cloud: Arc<C>,
    pace: Pace,
    table: Table,
}

/// The reads of one disk from now on.
#[derive(Debug)]
pub(super) struct Follow {
    id: DiskId,
    joined: Instant,
    deadline: Deadline,
    readings: watch::Receiver<Option<Reading>>,
}

impl<C: Cloud> Poller<C> {
    pub(super) fn new(cloud: Arc<C>, pace: Pace) -> Self {
        Self { cloud, pace, table: Table::default() }
    }

    /// Joins those that wait for the disk. Only reads that start after this call are shown.
    pub(super) fn follow(&self, id: &DiskId, deadline: Deadline) -> Follow {
        let joined = Instant::now();
        let mut table = lock(&self.table);
        if let Some(entry) = table.get(id) {
            let mut plan = lock(&entry.plan);
            plan.since = joined;
            plan.deadline = plan.deadline.max(deadline);
            drop(plan);
            entry.joined.notify_one();
            return Follow { id: id.clone(), joined, deadline, readings: entry.latest.subscribe() };
        }
        let (latest, readings) = watch::channel(None);
        let entry = Arc::new(Entry {
            latest,
            plan: Mutex::new(Plan { since: joined, deadline }),
            joined: Notify::new(),
        });
        table.insert(id.clone(), Arc::clone(&entry));
        drop(table);
        let listing = Listing { table: Arc::clone(&self.table), id: id.clone(), entry };
        tokio::spawn(listing.run(Arc::clone(&self.cloud), self.pace));
        Follow { id: id.clone(), joined, deadline, readings }
    }

    /// Waits for the next read. `None`: the deadline passed first.
    pub(super) async fn next(&self, follow: &mut Follow) -> Option<Reading> {
        loop {
            match tokio::time::timeout_at(follow.deadline, follow.readings.changed()).await {
                Err(_) => return None,
                Ok(Ok(())) => {
                    let reading = follow.readings.borrow_and_update().clone();
                    if let Some(reading) = reading.filter(|reading| reading.started >= follow.joined) {
                        return Some(reading);
                    }
                }
                // The polling task died on a fault; start another.
                Ok(Err(_)) => *follow = self.follow(&follow.id, follow.deadline),
            }
        }
    }
}

/// A disk's place in the table of those that are polled, for as long as its task runs.
struct Listing {
    table: Table,
    id: DiskId,
    entry: Arc<Entry>,
}

impl Listing {
    async fn run<C: Cloud>(self, cloud: Arc<C>, pace: Pace) {
        let entry = &self.entry;
        let mut last: Option<(Instant, Instant)> = None;
        loop {
            let plan = *lock(&entry.plan);
            let due = match last {
                Some((started, ended)) if started >= plan.since => {
                    ended + pace.pause(ended.duration_since(plan.since))
                }
                Some(_) | None => plan.since + pace.first,
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = entry.joined.notified() => continue,
                () = entry.latest.closed() => {
                    if self.remove_if_unused() { return }
                    continue;
                }
            }
            let started = Instant::now();
            let read = cloud.disk(&self.id, plan.deadline);
            let result = tokio::select! {
                result = read => result,
                () = entry.latest.closed() => {
                    if self.remove_if_unused() { return }
                    continue;
                }
            };
            last = Some((started, Instant::now()));
            entry.latest.send_replace(Some(Reading { started, result }));
        }
    }

    /// Followers join under the table's lock, so none can come between the look and the removal.
    fn remove_if_unused(&self) -> bool {
        let mut table = lock(&self.table);
        let unused = self.entry.latest.receiver_count() == 0;
        if unused {
            table.remove(&self.id);
        }
        unused
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table.get(&self.id).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            table.remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every step leaves the value whole, so a poisoned lock holds no broken state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
