//! One queue per host for the changes that the cloud runs one at a time there.
//!
//! The cloud answers "busy" to a second attach or detach on a host while one runs, and early plugins failed
//! exactly there. A slot is taken before the call is sent and kept until the disk has reached its final state.
//! Detaches go first: they free room on the host, and somebody else waits for the disk.
//!
//! How many changes a host takes at a time is not documented, so each queue has a [`Limiter`]: it begins with one, grows
//! while all goes well, and is halved by each "busy". What one host refused, the next one is not asked for at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::Deadline;
use crate::limit::{Backoff, Limiter, Limits, Permit, Ticket, Turn, Unit};
use crate::progress::Progress;
use crate::volume::HostId;

/// Between tries on a host that is busy with what this driver did not ask for. The cloud's own advice is up to 30 s.
const PAUSE: Backoff = match Backoff::new(Duration::from_secs(1), Duration::from_secs(15)) {
    Ok(backoff) => backoff,
    Err(_) => unreachable!(),
};

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Detach,
    Other,
}

/// The queues of all hosts. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    widest: u32,
    born: Instant,
    arrivals: Arc<AtomicU64>,
    table: Arc<Mutex<Table>>,
}

/// When an operation came, in the order of all. Its place in a queue follows from it: what comes first is done first,
/// whoever's first read was faster. Those that come in one burst are in no order that means anything; they go in the order
/// of the listing, so that the disks that all hosts work on at a time are neighbours and share its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    burst: u64,
    number: u64,
    place: u64,
}

impl Arrival {
    /// With the disk's place in the listing, if it is known.
    pub(super) fn at(self, place: Option<usize>) -> Self {
        let place = place.and_then(|place| u64::try_from(place).ok());
        Self { place: place.unwrap_or(u64::MAX), ..self }
    }

    fn order(self) -> [u64; 3] {
        [self.burst, self.place, self.number]
    }
}

/// How long a burst is at most.
const BURST: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Table {
    hosts: HashMap<HostId, Queue>,
    /// The number of changes at a time that a host refused last.
    refused_at: Option<f64>,
}

#[derive(Debug)]
struct Queue {
    limiter: Limiter,
    running: BTreeMap<Ticket, String>,
    waiting: BTreeMap<Ticket, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    what: String,
    progress: Progress,
}

/// A place on the host, or in its queue. Dropping it gives the place to the next.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    host: HostId,
    limiter: Limiter,
    ticket: Ticket,
    what: String,
    progress: Progress,
    permit: Option<Permit>,
    /// Whether anything ran before this change, so that what was read earlier may be out of date.
    pub(super) waited: bool,
}

impl Slots {
    /// `widest`: how many changes may run on one host at a time, if the cloud takes so many.
    pub(super) fn new(widest: u32) -> Self {
        let (born, arrivals, table) = (Instant::now(), Arc::default(), Arc::default());
        Self { widest: widest.max(1), born, arrivals, table }
    }

    /// Counts an operation that has come. It may be in one queue at a time.
    pub(super) fn arrive(&self) -> Arrival {
        let burst = self.born.elapsed().as_secs() / BURST.as_secs();
        Arrival { burst, number: self.arrivals.fetch_add(1, Ordering::Relaxed), place: u64::MAX }
    }

    /// Waits for a place on the host. `None`: the deadline passed first; `progress` says behind what.
    pub(super) async fn acquire(
        &self,
        host: &HostId,
        urgency: Urgency,
        arrival: Arrival,
        what: String,
        deadline: Deadline,
        progress: &Progress,
    ) -> Option<Slot> {
        let turn = match urgency {
            Urgency::Detach => Turn::First,
            Urgency::Other => Turn::Later,
        };
        let slot = {
            let mut table = self.lock();
            let known = table.refused_at;
            let queue = table.hosts.entry(host.clone()).or_insert_with(|| self.queue(known));
            let (limiter, ticket) = (queue.limiter.clone(), Limiter::ticket_of(turn, arrival.order()));
            queue.waiting.insert(ticket, Waiting { what: what.clone(), progress: progress.clone() });
            let (slots, host, progress) = (self.clone(), host.clone(), progress.clone());
            Slot { slots, host, limiter, ticket, what, progress, permit: None, waited: false }
        };
        slot.wait(deadline).await
    }

    /// How many changes wait, on all hosts together.
    pub(super) fn waiting(&self) -> usize {
        self.lock().hosts.values().map(|queue| queue.waiting.len()).sum()
    }

    fn queue(&self, refused_at: Option<f64>) -> Queue {
        let limits = match Limits::new(1, self.widest, Unit::AtATime, PAUSE) {
            Ok(limits) => limits.knowing(refused_at),
            Err(_) => unreachable!("the widest is at least one"),
        };
        let limiter = Limiter::new(limits, fastrand::Rng::new());
        Queue { limiter, running: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Changes the host's queue, tells those who wait where they are, and forgets a queue that nobody uses.
    fn change(&self, host: &HostId, change: impl FnOnce(&mut Queue)) {
        let mut table = self.lock();
        let Some(queue) = table.hosts.get_mut(host) else { return };
        change(queue);
        queue.announce(host);
        let (idle, refused_at) =
            (queue.running.is_empty() && queue.waiting.is_empty(), queue.limiter.refused_at());
        table.refused_at = refused_at.or(table.refused_at);
        if idle {
            table.hosts.remove(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every step leaves the table whole, so a poisoned lock holds no broken state.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Whether the place is on this host; a disk may have moved since it was asked for.
    pub(super) fn is_on(&self, host: &HostId) -> bool {
        self.host == *host
    }

    /// Whether no other change of this driver runs on the host, so that a refusal is not about those.
    pub(super) fn is_alone(&self) -> bool {
        self.slots.lock().hosts.get(&self.host).is_none_or(|queue| queue.running.len() <= 1)
    }

    /// The cloud has begun the change.
    pub(super) fn took(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.took();
        }
    }

    /// The host was busy: waits for its turn again, in the old place. `None`: the deadline passed first.
    pub(super) async fn busy(mut self, deadline: Deadline) -> Option<Self> {
        if let Some(permit) = self.permit.take() {
            permit.refused();
        }
        let waiting = Waiting { what: self.what.clone(), progress: self.progress.clone() };
        self.slots.change(&self.host, |queue| {
            queue.running.remove(&self.ticket);
            queue.waiting.insert(self.ticket, waiting);
        });
        self.wait(deadline).await
    }

    async fn wait(mut self, deadline: Deadline) -> Option<Self> {
        let before = Instant::now();
        let permit = match self.limiter.acquire(self.ticket, before).await {
            Ok(permit) => permit,
            Err(_) => {
                self.waited = true;
                self.slots.change(&self.host, |_| {});
                self.limiter.acquire(self.ticket, deadline).await.ok()?
            }
        };
        tracing::debug!(host = %self.host, waited = ?before.elapsed(), "the host's queue is passed");
        self.permit = Some(permit);
        self.slots.change(&self.host, |queue| {
            queue.waiting.remove(&self.ticket);
            queue.running.insert(self.ticket, self.what.clone());
        });
        Some(self)
    }
}

impl Queue {
    fn announce(&self, host: &HostId) {
        let running = self.running.values().map(String::as_str).collect::<Vec<_>>().join(", ");
        let now = match running.as_str() {
            "" => String::from("it is busy with something that this driver did not ask for, and tried again"),
            running => format!("now: {running}"),
        };
        for (place, waiting) in self.waiting.values().enumerate() {
            let (what, number) = (&waiting.what, place + 1);
            waiting.progress.set(format!("waiting to {what}: number {number} in the queue of {host}; {now}"));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permit = None;
        self.slots.change(&self.host, |queue| {
            queue.running.remove(&self.ticket);
            queue.waiting.remove(&self.ticket);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostId {
        HostId::parse("uhost-1").unwrap()
    }

    fn later(seconds: u64) -> Deadline {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn detaches_go_first_and_everybody_knows_their_place() {
        let slots = Slots::new(1);
        let first = slots
            .acquire(
                &host(),
                Urgency::Other,
                slots.arrive(),
                "attach bs-0".into(),
                later(9),
                &Progress::default(),
            )
            .await;
        let first = first.expect("an idle host has a place");
        assert!(!first.waited);
        let (order, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let mut phases = Vec::new();
        // The second one came first, and its first read took longer.
        let (early, late) = (slots.arrive(), slots.arrive());
        for (urgency, arrival, what) in [
            (Urgency::Other, late, "attach bs-1"),
            (Urgency::Other, early, "attach bs-2"),
            (Urgency::Detach, slots.arrive(), "detach bs-3"),
        ] {
            let (slots, order, progress) = (slots.clone(), order.clone(), Progress::default());
            phases.push(progress.clone());
            tokio::spawn(async move {
                let slot = slots.acquire(&host(), urgency, arrival, what.into(), later(9), &progress).await;
                assert!(slot.expect("its turn comes").waited);
                order.send(what).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert!(phases[0].get().contains("number 3 in the queue of uhost-1"), "{}", phases[0].get());
        assert!(phases[0].get().contains("now: attach bs-0"), "{}", phases[0].get());
        assert!(phases[2].get().contains("number 1"), "{}", phases[2].get());
        drop(first);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(finished.recv().await.unwrap());
        }
        assert_eq!(seen, ["detach bs-3", "attach bs-2", "attach bs-1"]);
        assert!(slots.lock().hosts.is_empty(), "an idle host leaves nothing behind");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_queue() {
        let slots = Slots::new(1);
        let progress = Progress::default();
        let first = slots
            .acquire(&host(), Urgency::Other, slots.arrive(), "attach bs-0".into(), later(9), &progress)
            .await;
        assert!(
            slots
                .acquire(&host(), Urgency::Detach, slots.arrive(), "detach bs-1".into(), later(1), &progress)
                .await
                .is_none()
        );
        let host = host();
        let waiting =
            slots.acquire(&host, Urgency::Detach, slots.arrive(), "detach bs-2".into(), later(9), &progress);
        assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
        drop(first);
        let next = slots
            .acquire(&host, Urgency::Other, slots.arrive(), "attach bs-3".into(), later(9), &progress)
            .await;
        assert!(!next.expect("the place is free").waited);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_in_the_order_of_the_listing_and_no_further() {
        let (slots, host) = (Slots::new(1), host());
        let queue = |arrival: Arrival, what: &'static str, done: tokio::sync::mpsc::UnboundedSender<_>| {
            let (slots, host) = (slots.clone(), host.clone());
            async move {
                let progress = Progress::default();
                let slot =
                    slots.acquire(&host, Urgency::Other, arrival, what.into(), later(60), &progress).await;
                done.send(what).unwrap();
                drop(slot);
            }
        };
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let first = slots
            .acquire(&host, Urgency::Other, slots.arrive(), "running".into(), later(60), &Progress::default())
            .await;
        let burst = [("unknown", None), ("far", Some(70)), ("near", Some(3)), ("nearest", Some(2))];
        for (what, place) in burst {
            tokio::spawn(queue(slots.arrive().at(place), what, done.clone()));
        }
        tokio::time::advance(BURST).await;
        tokio::spawn(queue(slots.arrive().at(Some(0)), "later", done.clone()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(first);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            seen.push(order.recv().await.unwrap());
        }
        assert_eq!(seen, ["nearest", "near", "far", "unknown", "later"]);
    }
}
