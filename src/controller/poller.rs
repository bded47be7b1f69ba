//! Shared, adaptive polling of disks.
//!
//! Whoever waits for a disk follows it here; all that follow one disk share its reads, and where many disks are waited
//! for, they share pages of the listing. Nothing is read while nobody waits.
//!
//! # Pace
//!
//! A wait's first read comes a moment after it began (a change that the cloud makes at once is seen at once), the next
//! ones after about an eighth of the time already waited, so a wait is never much longer than the cloud's own work and a
//! stuck disk costs few calls. Where many wait they are served in rounds, further apart the more calls a round takes.
//!
//! # Pages
//!
//! Which disks share a page is decided for each round by what takes fewer calls. A page says something of the disks
//! that it shows and nothing of others: a disk that it should have shown is read by its id. A page that cannot be
//! read, or that shows any disk as it was before a change of a moment ago, is thrown away and ends the use of pages
//! for a while.

mod plan;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::cloud::{Cloud, CloudError, Deadline, Disk, DiskFilter};
use crate::controller::pages::PAGE;
use crate::controller::recent::Recent;
use crate::volume::DiskId;

use table::{Brought, Call, Order, Step, Table, Wait};

/// Beyond a deadline, for an error to say why there is no answer.
const GRACE: Duration = Duration::from_secs(1);

/// How often a followed disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the beginning of a wait to its first read.
    pub first: Duration,
    pub min: Duration,
    pub max: Duration,
}

impl Default for Pace {
    /// An attach takes the cloud three to eight seconds: this costs about a dozen reads and adds about 0.3 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            min: Duration::from_millis(550),
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
    /// From a page of the listing, which may be further behind than reads by id. A page that failed is told, and what it
    /// should have shown is read again.
    pub(super) listed: bool,
    pub(super) result: Result<Option<Disk>, CloudError>,
}

/// Which read is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// One that begins now.
    AtOnce,
    /// The next one of a wait that began then.
    WaitingSince(Instant),
}

#[derive(Debug)]
pub(super) struct Poller<C> {
    cloud: Arc<C>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

/// The reads of one disk from now on.
#[derive(Debug)]
pub(super) struct Follow {
    shared: Arc<Shared>,
    id: DiskId,
    readings: watch::Receiver<Option<Reading>>,
}

impl<C: Cloud> Poller<C> {
    pub(super) fn new(cloud: Arc<C>, pace: Pace, recent: Arc<Recent>) -> Self {
        let shared = Shared { table: Mutex::new(Table::new(pace, recent)), changed: Notify::new() };
        Self { cloud, shared: Arc::new(shared) }
    }

    /// Joins those that follow the disk.
    pub(super) fn follow(&self, id: &DiskId) -> Follow {
        let mut table = self.shared.table();
        let readings = table.join(id);
        if !std::mem::replace(&mut table.running, true) {
            tokio::spawn(Arc::clone(&self.shared).supervise(Arc::clone(&self.cloud)));
        }
        Follow { shared: Arc::clone(&self.shared), id: id.clone(), readings }
    }

    /// Where the disk is in the listing, if a page told lately.
    pub(super) fn place(&self, id: &DiskId) -> Option<usize> {
        self.shared.table().place(id, Instant::now())
    }

    /// Pages showed what is past.
    pub(super) fn distrust_pages(&self) {
        self.shared.table().distrust_pages(Instant::now());
    }
}

impl Follow {
    /// Waits for a read. `None`: the deadline passed first.
    pub(super) async fn next(&mut self, which: Which, deadline: Deadline) -> Option<Reading> {
        let (since, at_once) = match which {
            Which::AtOnce => (Instant::now(), true),
            Which::WaitingSince(since) => (since, false),
        };
        let number =
            self.shared.table().wait(&self.id, Wait { since, at_once, deadline, span: Span::current() });
        let _waiting = Waiting { shared: &self.shared, id: &self.id, number };
        self.shared.changed.notify_one();
        loop {
            // The sender stays for as long as this follows.
            tokio::time::timeout_at(deadline, self.readings.changed()).await.ok()?.ok()?;
            let reading = self.readings.borrow_and_update().clone();
            if let Some(reading) = reading.filter(|reading| reading.started >= since) {
                if reading.listed {
                    // Its call is logged under one request of many.
                    tracing::debug!(disk = %self.id, "read from a page of the list");
                }
                return Some(reading);
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.shared.table().leave(&self.id);
        self.shared.changed.notify_one();
    }
}

struct Waiting<'a> {
    shared: &'a Shared,
    id: &'a DiskId,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.table().wait_no_more(self.id, self.number);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every step leaves the table whole, so a poisoned lock holds no broken state.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts anew after a fault, since others wait for what one of them ran into.
    async fn supervise<C: Cloud>(self: Arc<Self>, cloud: Arc<C>) {
        while tokio::spawn(Arc::clone(&self).run(Arc::clone(&cloud)))
            .await
            .is_err_and(|error| error.is_panic())
        {
            tracing::error!("polling stopped on a fault inside the driver; starting anew");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Makes the calls for as long as anybody follows a disk.
    async fn run<C: Cloud>(self: Arc<Self>, cloud: Arc<C>) {
        self.table().start();
        let mut calls: JoinSet<(u64, Brought)> = JoinSet::new();
        let mut tasks = HashMap::new();
        loop {
            let Step { orders, wake } = {
                let mut table = self.table();
                if table.is_empty() {
                    table.running = false;
                    return;
                }
                table.step(Instant::now())
            };
            for Order { number, call, deadline, span } in orders {
                let cloud = Arc::clone(&cloud);
                let task = async move { (number, make(&*cloud, call, deadline).await) };
                let task = calls.spawn(task.instrument(span));
                tasks.insert(task.id(), number);
                self.table().began(number, task);
            }
            tokio::select! {
                // In this order, so that a run in simulated time can be repeated.
                biased;
                () = self.changed.notified() => {}
                () = async { tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => {}
                Some(ended) = calls.join_next_with_id() => {
                    let (number, brought) = match ended {
                        Ok((task, (number, brought))) => {
                            tasks.remove(&task);
                            (number, brought)
                        }
                        Err(error) => (tasks.remove(&error.id()).unwrap_or_default(), Brought::Nothing),
                    };
                    self.table().ended(number, brought, Instant::now());
                }
            }
        }
    }
}

async fn make<C: Cloud>(cloud: &C, call: Call, deadline: Deadline) -> Brought {
    match call {
        Call::Disk(id) => Brought::Disk(cloud.disk(&id, deadline).await),
        Call::Page(offset) => {
            let filter = DiskFilter::default();
            let page = cloud.disks(&filter, offset, PAGE, deadline);
            // The cloud ends by the deadline; whoever does not is not waited for.
            tokio::time::timeout_at(deadline + GRACE, page).await.map_or(Brought::Nothing, Brought::Page)
        }
    }
}
