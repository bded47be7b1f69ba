//! The cloud as a value: disks, hosts, snapshots and the rules by which they change.
//!
//! Nothing here does I/O, waits or reads a clock. [`World::advance`] is told the time; changes that take time end
//! when a later `advance` passes their end, each exactly at the moment it was due. What the hosts must do for real is
//! left as [`Work`] for the caller, and a change that depends on it does not end before [`World::work_done`].

mod attach;
mod console;
mod create;
mod device;
mod disk;
mod grow;
mod host;
mod journal;
mod refusal;
mod rules;
pub(super) mod seconds;
mod snapshot;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use attach::AttachOrder;
pub use console::Event;
pub use create::{CloneOrder, NewDisk};
pub use device::Device;
pub use disk::{Attachment, Disk, Status};
pub use grow::Growth;
pub use host::{DISKS_PER_HOST, Host, HostSpec, HostState};
pub use journal::{Cause, Happening, Record};
pub use refusal::Refusal;
pub use rules::{DeviceTiming, Lags, Latencies, Limits, Rules, Span, Stock, ZoneSpec};
pub use snapshot::{Service, Snapshot, SnapshotStatus};
pub use work::{Work, WorkKind};

use disk::{Change, Entry, Pending, Then};
use host::Host as HostEntry;

/// How the next change is to go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Twist {
    /// Takes so long instead of what it would.
    pub hold: Option<Hold>,
    /// Ends in its failed state.
    pub fails: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    For(Duration),
    /// Until [`World::free`].
    ForEver,
}

/// How a reader asks: lists may be further behind than reads by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    ById,
    List,
}

/// Everything in the account.
#[derive(Debug)]
pub struct World {
    now: Duration,
    rules: Rules,
    rng: fastrand::Rng,
    disks: BTreeMap<String, Entry>,
    hosts: BTreeMap<String, HostEntry>,
    snapshots: BTreeMap<String, Snapshot>,
    services: BTreeMap<String, Service>,
    journal: Vec<Record>,
    work: Vec<Work>,
    last_ticket: u64,
    cause: Cause,
    twist: Twist,
    real_hosts: bool,
}

impl World {
    /// With `real_hosts`, somebody does the work that comes up; without, there is none, and no change waits for it.
    pub fn new(rules: Rules, seed: u64, real_hosts: bool) -> Self {
        Self {
            real_hosts,
            now: Duration::ZERO,
            rules,
            rng: fastrand::Rng::with_seed(seed),
            disks: BTreeMap::new(),
            hosts: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            services: BTreeMap::new(),
            journal: Vec::new(),
            work: Vec::new(),
            last_ticket: 0,
            cause: Cause::console(),
            twist: Twist::default(),
        }
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn rules_mut(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Lets time pass: ends every change that is due, in the order in which they are.
    pub fn advance(&mut self, now: Duration) {
        loop {
            let next = self
                .disks
                .iter()
                .filter_map(|(id, entry)| {
                    let pending = entry.pending.as_ref()?;
                    let due = pending.due.filter(|due| *due <= now && pending.waits_for.is_none())?;
                    Some((due, id.clone()))
                })
                .min();
            let Some((due, id)) = next else { break };
            self.now = self.now.max(due);
            self.complete(&id);
        }
        self.now = self.now.max(now);
        let now = self.now;
        self.disks.retain(|_, entry| !entry.forgotten(now));
    }

    /// Names who asks for what comes next, and how it is to go wrong.
    pub fn begin(&mut self, cause: Cause, twist: Twist) {
        self.cause = cause;
        self.twist = twist;
    }

    /// The jobs that came up since the last call.
    pub fn take_work(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.work)
    }

    /// Whether a job still makes sense at the time when it is to be done: a disk may be gone from a host before it
    /// was ever shown to it.
    pub fn wants(&self, work: &Work) -> bool {
        match &work.kind {
            WorkKind::Plug { host, device, .. } => {
                self.disks.get(&work.subject).is_some_and(|entry| {
                    entry.gone.is_none()
                        && entry.disk.status != Status::Detaching
                        && entry.disk.attachment.as_ref().is_some_and(|attachment| {
                            attachment.host == *host && attachment.device == *device
                        })
                })
            }
            WorkKind::Create { .. }
            | WorkKind::Delete
            | WorkKind::Copy { .. }
            | WorkKind::Unplug { .. }
            | WorkKind::Resize { .. }
            | WorkKind::AddHost { .. }
            | WorkKind::RemoveHost { .. } => true,
        }
    }

    /// A job has ended; `success` is false if the host could not do it, which fails the change that needs it.
    pub fn work_done(&mut self, ticket: u64, success: bool) {
        let now = self.now;
        for entry in self.disks.values_mut() {
            if let Some(pending) = entry.pending.as_mut().filter(|pending| pending.waits_for == Some(ticket))
            {
                pending.waits_for = None;
                pending.fails |= !success;
                pending.due = pending.due.map(|due| due.max(now));
            }
        }
        self.advance(now);
    }

    /// The next moment at which something ends by itself.
    pub fn next_due(&self) -> Option<Duration> {
        self.disks
            .values()
            .filter_map(|entry| entry.pending.as_ref())
            .filter(|pending| pending.waits_for.is_none())
            .filter_map(|pending| pending.due)
            .min()
    }

    /// A disk as it truly is.
    pub fn disk(&self, id: &str) -> Option<&Disk> {
        self.disks.get(id).filter(|entry| entry.gone.is_none()).map(|entry| &entry.disk)
    }

    /// All disks as they truly are, by id.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.values().filter(|entry| entry.gone.is_none()).map(|entry| &entry.disk)
    }

    /// A disk as a reader gets to see it.
    pub fn seen(&self, id: &str, reader: Reader) -> Option<&Disk> {
        self.visible(self.disks.get(id)?, reader)
    }

    /// All disks as a reader gets to see them, the newest first.
    pub fn all_seen(&self, reader: Reader) -> Vec<&Disk> {
        let mut seen: Vec<_> = self.disks.values().filter_map(|entry| self.visible(entry, reader)).collect();
        seen.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        seen
    }

    fn visible<'a>(&self, entry: &'a Entry, reader: Reader) -> Option<&'a Disk> {
        let lags = &self.rules.lags;
        let (new, stale) = match reader {
            Reader::ById => (lags.new_by_id, lags.stale_by_id),
            Reader::List => (lags.new_in_lists, lags.stale_lists),
        };
        if entry.disk.created + new > self.now {
            return None;
        }
        entry.as_of(self.now.checked_sub(stale)?)
    }

    pub fn host(&self, id: &str) -> Option<&Host> {
        self.hosts.get(id)
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    pub fn journal(&self) -> &[Record] {
        &self.journal
    }

    /// A random id such as `bsm-x0k3r9qp2m7a`.
    pub fn new_id(&mut self, prefix: &str) -> String {
        let tail: String = (0..12)
            .map(|_| if self.rng.u8(0..36) < 10 { self.rng.digit(10) } else { self.rng.lowercase() })
            .collect();
        format!("{prefix}-{tail}")
    }

    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    fn entry(&mut self, id: &str) -> Result<&mut Entry, Refusal> {
        self.disks.get_mut(id).filter(|entry| entry.gone.is_none()).ok_or(Refusal::NoSuchDisk)
    }

    fn note(&mut self, event: Happening, disk: &str, host: Option<&str>) {
        self.journal.push(Record {
            at: self.now,
            action: self.cause.action.clone(),
            request_id: self.cause.request_id.clone(),
            event,
            disk: disk.to_owned(),
            host: host.map(str::to_owned),
        });
    }

    /// Hands out a job for now or later.
    ///
    /// The answer is the ticket to wait for, if there are hosts to do it.
    fn order(&mut self, at: Duration, subject: &str, kind: WorkKind) -> Option<u64> {
        if !self.real_hosts {
            return None;
        }
        self.last_ticket += 1;
        self.work.push(Work { ticket: self.last_ticket, at, subject: subject.to_owned(), kind });
        Some(self.last_ticket)
    }

    /// When a change that takes `span` ends, unless it is meant to go wrong.
    fn due(&mut self, span: Span) -> Option<Duration> {
        let usual = span.draw(&mut self.rng);
        match self.twist.hold {
            None => Some(self.now + usual),
            Some(Hold::For(time)) => Some(self.now + time),
            Some(Hold::ForEver) => None,
        }
    }

    /// Starts a change that ends at `due` and needs `job` to be done on the way.
    fn start(&mut self, id: &str, change: Change, due: Option<Duration>, job: Option<WorkKind>) {
        let (fails, cause) = (self.twist.fails, self.cause.clone());
        let (mut waits_for, mut held) = (None, None);
        match (job, due) {
            (Some(job), Some(due)) => {
                let half_way = self.now + due.saturating_sub(self.now) / 2;
                waits_for = self.order(half_way, id, job);
            }
            (job, _) => held = job,
        }
        if let Some(entry) = self.disks.get_mut(id) {
            entry.pending =
                Some(Pending { change, due, waits_for, fails, held, then: None, source: None, cause });
        }
    }

    /// Ends the change that a disk is busy with, now, on behalf of whoever asked for it.
    fn complete(&mut self, id: &str) {
        let Some(pending) = self.disks.get_mut(id).and_then(|entry| entry.pending.take()) else { return };
        let cause = std::mem::replace(&mut self.cause, pending.cause);
        let twist = std::mem::take(&mut self.twist);
        match pending.change {
            Change::Create | Change::Clone => self.complete_create(id, pending.fails),
            Change::Restore => self.complete_restore(id, pending.fails),
            Change::Attach => self.complete_attach(id, pending.fails),
            Change::Detach => self.complete_detach(id, pending.fails),
            Change::Resize(size) => self.complete_resize(id, size, pending.fails),
        }
        match pending.then {
            Some(Then::Attach) if pending.fails => {
                self.release(id);
                self.set_status(id, Status::Failed);
            }
            Some(Then::Attach) => {
                if let Some(attachment) = self.disk(id).and_then(|disk| disk.attachment.clone()) {
                    // The disk was there a moment ago; without it there is nothing to attach.
                    let _ = self.begin_attach(id, &attachment);
                }
            }
            Some(Then::Delete) if !pending.fails => self.remove(id),
            Some(Then::Delete) | None => {}
        }
        (self.cause, self.twist) = (cause, twist);
    }

    fn set_status(&mut self, id: &str, status: Status) {
        let now = self.now;
        if let Some(entry) = self.disks.get_mut(id) {
            entry.change(now, |disk| disk.status = status);
        }
    }
}
