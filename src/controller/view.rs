//! How one operation sees its disk: a first read, then the shared polling, each read judged for staleness.
//!
//! Reads may be shared pages of the listing, which may be further behind than reads by id. So a page is good enough to
//! act on where the cloud itself refuses what does not fit, and to go on waiting. It ends the wait for a change only if
//! that was seen under way before and has not happened to this disk lately, since what the page shows could be that
//! other time; a disk that was just made has no other time. Any other conclusion needs a read by id.

use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Cloud, CloudError, Deadline, Disk, DiskStatus};
use crate::progress::Progress;
use crate::volume::{DiskId, HostId};

use super::Controller;
use super::error::{Seconds, Unresolved, reading_again_helps};
use super::poller::{Follow, Reading, Which};
use super::recent::Trust;
use super::slots::{Arrival, Slot, Urgency};

/// A disk as read, and how much that read is worth. `None`: the cloud does not know it.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) disk: Option<Disk>,
    pub(super) trust: Trust,
    /// From a page that may show what is past: nothing is concluded from it.
    pub(super) listed: bool,
}

#[derive(Debug)]
pub(super) struct View<'a, C> {
    controller: &'a Controller<C>,
    id: &'a DiskId,
    /// The operation in words, as in "cannot …".
    pub(super) what: String,
    pub(super) deadline: Deadline,
    pub(super) progress: &'a Progress,
    arrival: Arrival,
    begun: Instant,
    follow: Option<Follow>,
    /// Since when the change is waited for.
    wait: Option<Instant>,
    /// The state of the disk while the cloud does what was asked for last.
    meanwhile: Option<DiskStatus>,
    /// Whether a page may show the end of that.
    settled_by_page: bool,
    phase: String,
    /// For how long the disk has been on its way to another state, if that is too long.
    stuck: Option<Duration>,
    /// The last thing that went wrong, for the error that ends a wait.
    trouble: Option<CloudError>,
}

impl<'a, C: Cloud> View<'a, C> {
    pub(super) fn new(
        controller: &'a Controller<C>,
        id: &'a DiskId,
        what: String,
        deadline: Deadline,
        progress: &'a Progress,
    ) -> Self {
        let phase = String::from("nothing was done");
        let begun = Instant::now();
        let (follow, wait, meanwhile, settled_by_page, trouble) = (None, None, None, false, None);
        Self {
            controller,
            id,
            what,
            deadline,
            progress,
            arrival: controller.inner.slots.arrive(),
            begun,
            follow,
            wait,
            meanwhile,
            settled_by_page,
            stuck: None,
            phase,
            trouble,
        }
    }

    pub(super) fn id(&self) -> &'a DiskId {
        self.id
    }

    /// Reads the disk now, by its id.
    pub(super) async fn read(&mut self) -> Result<Sight, Unresolved> {
        self.progress.set(format!("reading UDisk {}", self.id));
        self.wait = None;
        let started = Instant::now();
        let result = self.controller.inner.cloud.disk(self.id, self.deadline).await;
        match result {
            Ok(disk) => Ok(self.judge(disk, started, false)),
            Err(source) => Err(Unresolved::Unreadable { what: self.what.clone(), source }),
        }
    }

    /// Reads the disk now; if many do so, they share pages.
    pub(super) async fn look(&mut self) -> Result<Sight, Unresolved> {
        self.phase(format!("reading UDisk {}", self.id));
        self.wait = None;
        let poller = &self.controller.inner.poller;
        loop {
            let follow = self.follow.get_or_insert_with(|| poller.follow(self.id));
            let Some(Reading { started, listed, result }) = follow.next(Which::AtOnce, self.deadline).await
            else {
                return Err(self.timed_out());
            };
            match result {
                Ok(disk) => return Ok(self.judge(disk, started, listed)),
                // Of a page, which says nothing of the disk.
                Err(error) if listed => self.hear(error),
                Err(source) => return Err(Unresolved::Unreadable { what: self.what.clone(), source }),
            }
        }
    }

    /// Waits for the next shared read. `phase` says in a clause what is waited for.
    pub(super) async fn again(&mut self, phase: String) -> Result<Sight, Unresolved> {
        self.phase(match self.stuck {
            Some(lasts) => format!(
                "{phase}; it has been so for at least {}, so it seems stuck: if it stays so, ask UCloud's support \
                 about the disk",
                Seconds(lasts)
            ),
            None => phase,
        });
        let poller = &self.controller.inner.poller;
        loop {
            let since = *self.wait.get_or_insert_with(Instant::now);
            let follow = self.follow.get_or_insert_with(|| poller.follow(self.id));
            let Some(Reading { started, listed, result }) =
                follow.next(Which::WaitingSince(since), self.deadline).await
            else {
                return Err(self.timed_out());
            };
            match result {
                Ok(disk) => return Ok(self.judge(disk, started, listed)),
                Err(error) if listed || reading_again_helps(&error) => self.hear(error),
                Err(source) => return Err(Unresolved::Unreadable { what: self.what.clone(), source }),
            }
        }
    }

    /// A read failed, and the next one may not.
    fn hear(&mut self, error: CloudError) {
        tracing::debug!(disk = %self.id, %error, "a read failed while waiting");
        self.trouble = Some(error);
        self.say();
    }

    /// Starts a new wait: the pace of the reads follows the change that was just sent. `meanwhile` is the state that shows
    /// it under way, if one does.
    pub(super) fn restart(&mut self, meanwhile: Option<DiskStatus>) {
        let once = !self.controller.inner.recent.is_repeated(self.id);
        (self.wait, self.settled_by_page, self.meanwhile) = (None, false, meanwhile.filter(|_| once));
    }

    /// Starts the wait for a disk that was just made: it has no earlier state that a page could show.
    pub(super) fn restart_for_new(&mut self) {
        (self.wait, self.settled_by_page, self.meanwhile) = (None, true, None);
    }

    /// Says what the operation is at, to waiting callers and in the error that ends it.
    pub(super) fn phase(&mut self, phase: String) {
        self.phase = phase;
        self.say();
    }

    /// Whoever waits is told also what goes wrong meanwhile.
    fn say(&self) {
        match &self.trouble {
            Some(trouble) => self.progress.set(format!("{}; lately: {trouble}", self.phase)),
            None => self.progress.set(self.phase.as_str()),
        }
    }

    /// Whether the disk has been on its way to another state for too long. Its host's queue does not wait for it.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// The last thing that went wrong.
    pub(super) fn last_trouble(&self) -> Option<CloudError> {
        self.trouble.clone()
    }

    /// Remembers a refusal that is tried again, for the error that ends the wait.
    pub(super) fn trouble(&mut self, error: CloudError) {
        self.trouble = Some(error);
    }

    /// Waits for a place on the host, to do `what` there.
    pub(super) async fn queue(
        &mut self,
        host: &HostId,
        urgency: Urgency,
        what: String,
    ) -> Result<Slot, Unresolved> {
        let inner = &self.controller.inner;
        let arrival = self.arrival.at(inner.poller.place(self.id));
        let slot = inner.slots.acquire(host, urgency, arrival, what, self.deadline, self.progress).await;
        slot.ok_or_else(|| self.timed_out_in_queue())
    }

    /// Waits for the next turn on a host that is busy.
    pub(super) async fn queue_again(&mut self, slot: Slot, error: CloudError) -> Result<Slot, Unresolved> {
        tracing::info!(disk = %self.id, %error, "the host is busy: {}", self.what);
        self.trouble = Some(error);
        slot.busy(self.deadline).await.ok_or_else(|| self.timed_out_in_queue())
    }

    /// The error of a wait that ended in a queue, which alone knows the place in it.
    fn timed_out_in_queue(&mut self) -> Unresolved {
        self.phase = self.progress.get();
        self.timed_out()
    }

    pub(super) fn timed_out(&self) -> Unresolved {
        let waited = self.begun.elapsed();
        tracing::warn!(disk = %self.id, ?waited, phase = %self.phase, "gave up: cannot {}", self.what);
        Unresolved::TimedOut {
            what: self.what.clone(),
            phase: self.phase.clone(),
            waited,
            source: self.trouble.clone(),
        }
    }

    /// Sleeps before another try. The error ends the operation: the time is over.
    pub(super) async fn pause(&mut self, backoff: &mut Backoff, error: CloudError) -> Result<(), Unresolved> {
        let pause = backoff.next();
        self.phase(format!("the cloud refuses for the moment, trying again in {:.1} s", pause.as_secs_f64()));
        tracing::info!(disk = %self.id, %error, ?pause, "refused for the moment: {}", self.what);
        self.trouble = Some(error);
        if Instant::now() + pause >= self.deadline {
            tokio::time::sleep_until(self.deadline).await;
            return Err(self.timed_out());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn judge(&mut self, disk: Option<Disk>, started: Instant, listed: bool) -> Sight {
        let inner = &self.controller.inner;
        let trust = inner.recent.judge(self.id, disk.as_ref(), started, listed);
        if trust == Trust::Stale {
            tracing::debug!(disk = %self.id, listed, "a read contradicts a change made a moment ago; looking again");
            if listed {
                inner.poller.distrust_pages();
            }
        } else {
            self.stuck = inner.spells.note(self.id, disk.as_ref());
            self.settled_by_page |= disk
                .as_ref()
                .zip(self.meanwhile.as_ref())
                .is_some_and(|(disk, meanwhile)| disk.status == *meanwhile);
        }
        let listed = listed && (!self.settled_by_page || inner.recent.is_open(self.id));
        Sight { disk, trust, listed }
    }
}

/// Growing pauses between tries that the cloud refused for the moment.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_secs(15);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// The next pause, with jitter so that the disks of one host do not come back all at once.
    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.0 = (self.0 * 2).min(Self::LAST);
        pause
    }
}

/// The state of a disk as a clause: "UDisk bs-1 is Attaching to host uhost-1 (10.0.0.1)".
pub(super) fn state(disk: &Disk) -> String {
    let (word, to) = match &disk.status {
        DiskStatus::Attaching => ("Attaching", " to host "),
        DiskStatus::InUse => ("attached", " to host "),
        DiskStatus::Detaching => ("Detaching", " from host "),
        status @ (DiskStatus::Initializing
        | DiskStatus::Available
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::RestoreFailed
        | DiskStatus::Failed
        | DiskStatus::Other(_)) => (word(status), ", host "),
    };
    match place(disk) {
        Some(host) => format!("UDisk {} is {word}{to}{host}", disk.id),
        None => format!("UDisk {} is {word}", disk.id),
    }
}

/// Where a disk is, with both names that a host has.
pub(super) fn place(disk: &Disk) -> Option<String> {
    match (&disk.host, disk.host_ip) {
        (Some(host), Some(ip)) => Some(format!("{host} ({ip})")),
        (Some(host), None) => Some(host.to_string()),
        (None, Some(ip)) => Some(ip.to_string()),
        (None, None) => None,
    }
}

/// The API's word for a state.
pub(super) fn word(status: &DiskStatus) -> &str {
    match status {
        DiskStatus::Initializing => "Initializating",
        DiskStatus::Available => "Available",
        DiskStatus::Attaching => "Attaching",
        DiskStatus::InUse => "InUse",
        DiskStatus::Detaching => "Detaching",
        DiskStatus::Cloning => "Cloning",
        DiskStatus::Restoring => "Restoring",
        DiskStatus::RestoreFailed => "RestoreFailed",
        DiskStatus::Failed => "Failed",
        DiskStatus::Other(word) => word,
    }
}
