//! One queue per host for the changes that the cloud runs one at a time there.
//!
//! The cloud answers "busy" to a second attach or detach on a host while one runs, and early plugins failed
//! exactly there. A slot is taken before the call is sent and kept until the disk has reached its final state.
//! Detaches go first: they free room on the host, and somebody else waits for the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cloud::Deadline;
use crate::progress::Progress;
use crate::volume::HostId;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Detach,
    Other,
}

/// The queues of all hosts. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    /// How many changes may run on one host at a time.
    width: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    hosts: HashMap<HostId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    running: Vec<(u64, String)>,
    detaches: VecDeque<Ticket>,
    others: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    what: String,
    progress: Progress,
    granted: oneshot::Sender<()>,
}

/// A place on the host, or in its queue. Dropping it gives the place to the next.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    host: HostId,
    number: u64,
    /// Whether anything ran before this change, so that what was read earlier may be out of date.
    pub(super) waited: bool,
}

impl Slots {
    pub(super) fn new(width: usize) -> Self {
        Self { width: width.max(1), table: Arc::default() }
    }

    /// Waits for a place on the host. `None`: the deadline passed first; `progress` says behind what.
    pub(super) async fn acquire(
        &self,
        host: &HostId,
        urgency: Urgency,
        what: String,
        deadline: Deadline,
        progress: &Progress,
    ) -> Option<Slot> {
        let (granted, mut turn) = oneshot::channel();
        // From here on the guard exists: a caller that is dropped while it waits leaves the queue.
        let mut slot = {
            let mut table = self.lock();
            table.next += 1;
            let number = table.next;
            let queue = table.hosts.entry(host.clone()).or_default();
            let ticket = Ticket { number, what, progress: progress.clone(), granted };
            match urgency {
                Urgency::Detach => queue.detaches.push_back(ticket),
                Urgency::Other => queue.others.push_back(ticket),
            }
            Slot { slots: self.clone(), host: host.clone(), number, waited: false }
        };
        self.advance(host);
        if turn.try_recv().is_ok() {
            return Some(slot);
        }
        slot.waited = true;
        let before = Instant::now();
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(())) => {
                tracing::debug!(host = %host, waited = ?before.elapsed(), "the host's queue is passed");
                Some(slot)
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Lets those in whose turn it is and tells the others where they are.
    fn advance(&self, host: &HostId) {
        let mut table = self.lock();
        let Some(queue) = table.hosts.get_mut(host) else { return };
        while queue.running.len() < self.width {
            let Some(ticket) = queue.detaches.pop_front().or_else(|| queue.others.pop_front()) else { break };
            queue.running.push((ticket.number, ticket.what));
            // Nobody listens only when that caller is being dropped; its guard then frees the place.
            let _ = ticket.granted.send(());
        }
        queue.announce(host);
        if queue.running.is_empty() {
            table.hosts.remove(host);
        }
    }

    fn leave(&self, host: &HostId, number: u64) {
        if let Some(queue) = self.lock().hosts.get_mut(host) {
            queue.running.retain(|(running, _)| *running != number);
            queue.detaches.retain(|ticket| ticket.number != number);
            queue.others.retain(|ticket| ticket.number != number);
        }
        self.advance(host);
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
}

impl Queue {
    fn announce(&self, host: &HostId) {
        let running = self.running.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>().join(", ");
        for (place, ticket) in self.detaches.iter().chain(&self.others).enumerate() {
            ticket.progress.set(format!(
                "waiting to {}: number {} in the queue of {host}, which takes one change at a time; now: {running}",
                ticket.what,
                place + 1,
            ));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.leave(&self.host, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            .acquire(&host(), Urgency::Other, "attach bs-0".into(), later(9), &Progress::default())
            .await;
        let first = first.expect("an idle host has a place");
        assert!(!first.waited);
        let (order, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let mut phases = Vec::new();
        for (urgency, what) in [
            (Urgency::Other, "attach bs-1"),
            (Urgency::Other, "attach bs-2"),
            (Urgency::Detach, "detach bs-3"),
        ] {
            let (slots, order, progress) = (slots.clone(), order.clone(), Progress::default());
            phases.push(progress.clone());
            tokio::spawn(async move {
                let slot = slots.acquire(&host(), urgency, what.into(), later(9), &progress).await;
                assert!(slot.expect("its turn comes").waited);
                order.send(what).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert!(phases[0].get().contains("number 2 in the queue of uhost-1"), "{}", phases[0].get());
        assert!(phases[0].get().contains("now: attach bs-0"), "{}", phases[0].get());
        assert!(phases[2].get().contains("number 1"), "{}", phases[2].get());
        drop(first);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(finished.recv().await.unwrap());
        }
        assert_eq!(seen, ["detach bs-3", "attach bs-1", "attach bs-2"]);
        assert!(slots.lock().hosts.is_empty(), "an idle host leaves nothing behind");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_queue() {
        let slots = Slots::new(1);
        let progress = Progress::default();
        let first = slots.acquire(&host(), Urgency::Other, "attach bs-0".into(), later(9), &progress).await;
        assert!(
            slots
                .acquire(&host(), Urgency::Detach, "detach bs-1".into(), later(1), &progress)
                .await
                .is_none()
        );
        let host = host();
        let waiting = slots.acquire(&host, Urgency::Detach, "detach bs-2".into(), later(9), &progress);
        assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
        drop(first);
        let next = slots.acquire(&host, Urgency::Other, "attach bs-3".into(), later(9), &progress).await;
        assert!(!next.expect("the place is free").waited);
    }
}
