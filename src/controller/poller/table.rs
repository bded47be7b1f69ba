//! Who waits for which disk, what is being read, and what follows from what was read: no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::Span;

use crate::cloud::{Cause, CloudError, Deadline, Disk, DiskPage, Outcome};
use crate::controller::pages::PAGE;
use crate::controller::recent::Recent;
use crate::volume::DiskId;

use super::plan::{Listing, PAGED, Read, Wanted, interval, plan};
use super::{Pace, Reading};

/// Calls that may be out before new waiters are gathered, so that a crowd that comes at once shares pages. Few enough
/// to gather a crowd, and enough that nobody waits when there is none.
const OUT: usize = 4;

/// A call that is out for longer hangs, and nobody gathers behind it.
const HANGS: Duration = Duration::from_secs(2);

/// Time for a page; after that, what it should show is read one by one.
const PAGE_TIME: Duration = Duration::from_secs(10);

/// A read ends this much before whoever waits for it gives up, so that the reason why there is no answer can be told.
const TELLING: Duration = Duration::from_millis(250);

/// For how long pages are not used after they could not be read, or showed what is past.
const DISTRUST: Duration = Duration::from_secs(60);

/// For how long the listing is not searched after it showed few of the disks that were looked for; it does not show
/// new ones at once.
const FRUITLESS: Duration = Duration::from_secs(15);

/// For how long places in the listing are worth remembering.
const MEMORY: Duration = Duration::from_secs(120);

/// One who waits for a read of a disk.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    /// Only reads that began after this are of use; a wait with a pace began then.
    pub(super) since: Instant,
    /// Wanted at once, or at the pace of a wait.
    pub(super) at_once: bool,
    pub(super) deadline: Deadline,
    /// Of the request that waits.
    pub(super) span: Span,
}

/// One call to the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Disk(DiskId),
    Page(usize),
}

/// A call to be made now.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) number: u64,
    pub(super) call: Call,
    pub(super) deadline: Deadline,
    /// What the log shows it under: of those who wait, the one that waits for the longest time.
    pub(super) span: Span,
}

/// What a call brought.
#[derive(Debug)]
pub(super) enum Brought {
    Disk(Result<Option<Disk>, CloudError>),
    Page(Result<DiskPage, CloudError>),
    /// The task that made the call is gone.
    Nothing,
}

/// What is to be done now, and when to look again if nothing happens before.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) orders: Vec<Order>,
    pub(super) wake: Option<Instant>,
}

impl Step {
    fn wake_at(&mut self, moment: Instant) {
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
    }
}

#[derive(Debug)]
struct Entry {
    latest: watch::Sender<Option<Reading>>,
    followers: usize,
    waits: BTreeMap<u64, Wait>,
    /// When the last read of it began and ended.
    last: Option<(Instant, Instant)>,
    /// The flight or sweep that should bring the next.
    flight: Option<u64>,
    /// A page should have shown it and did not, which says nothing of it: it is read by its id.
    missed: bool,
}

/// A call that is out.
#[derive(Debug)]
struct Flight {
    call: Call,
    began: Instant,
    /// Whom it is for. Those of a sweep's pages are in the sweep.
    wanted: Vec<DiskId>,
    sweep: bool,
    /// Known once the call was made.
    abort: Option<AbortHandle>,
}

/// A reading of the whole listing.
#[derive(Debug)]
struct Sweep {
    number: u64,
    began: Instant,
    wanted: Vec<DiskId>,
    /// Pages that are out.
    left: usize,
    /// Up to where it reads.
    end: usize,
    failed: bool,
    trouble: Option<CloudError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    AtOnce,
    At(Instant),
}

#[derive(Debug)]
pub(super) struct Table {
    pace: Pace,
    recent: Arc<Recent>,
    entries: BTreeMap<DiskId, Entry>,
    flights: BTreeMap<u64, Flight>,
    sweep: Option<Sweep>,
    numbers: u64,
    /// Where disks are in the listing, and when a page said so.
    places: BTreeMap<DiskId, (usize, Instant)>,
    total: Option<usize>,
    distrusted_until: Option<Instant>,
    fruitless_until: Option<Instant>,
    /// Waits with a pace are served in rounds; the next one is not before this.
    next_round: Instant,
    /// Whether pages were part of the last round.
    paged: bool,
    /// Whether a task makes the calls.
    pub(super) running: bool,
}

impl Table {
    pub(super) fn new(pace: Pace, recent: Arc<Recent>) -> Self {
        Self {
            pace,
            recent,
            entries: BTreeMap::new(),
            flights: BTreeMap::new(),
            sweep: None,
            numbers: 0,
            places: BTreeMap::new(),
            total: None,
            distrusted_until: None,
            fruitless_until: None,
            next_round: Instant::now(),
            paged: false,
            running: false,
        }
    }

    pub(super) fn join(&mut self, id: &DiskId) -> watch::Receiver<Option<Reading>> {
        let entry = self.entries.entry(id.clone()).or_insert_with(|| Entry {
            latest: watch::Sender::new(None),
            followers: 0,
            waits: BTreeMap::new(),
            last: None,
            flight: None,
            missed: false,
        });
        entry.followers += 1;
        entry.latest.subscribe()
    }

    /// What nobody follows is read no more.
    pub(super) fn leave(&mut self, id: &DiskId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.followers -= 1;
        if entry.followers > 0 {
            return;
        }
        let flight = entry.flight.and_then(|number| self.flights.get(&number));
        if let Some(Flight { call: Call::Disk(_), abort: Some(abort), .. }) = flight {
            abort.abort();
        }
        self.entries.remove(id);
    }

    pub(super) fn wait(&mut self, id: &DiskId, wait: Wait) -> u64 {
        self.numbers += 1;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.waits.insert(self.numbers, wait);
        }
        self.numbers
    }

    pub(super) fn wait_no_more(&mut self, id: &DiskId, number: u64) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.waits.remove(&number);
        }
    }

    /// Forgets the calls of a task that is gone.
    pub(super) fn start(&mut self) {
        self.flights.clear();
        self.sweep = None;
        self.entries.values_mut().for_each(|entry| entry.flight = None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn distrust_pages(&mut self, now: Instant) {
        self.distrusted_until = Some(now + DISTRUST);
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        let gather = self.gather_until(now);
        // A crowd that has dispersed has no rounds.
        let paged = self.paged && now <= self.next_round + PAGED;
        // Those that are nearly due join a round of pages, so that they need none of their own.
        let ahead = if paged { PAGED / 2 } else { Duration::ZERO };
        let (mut at_once, mut paced, mut round) = (Vec::new(), Vec::new(), false);
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.flight.is_none()) {
            match (entry.due(self.pace, paged), gather) {
                (None, _) => {}
                (Some(Due::AtOnce), Some(until)) => step.wake_at(until),
                (Some(Due::AtOnce), None) => at_once.push(self.wanted(id, entry, now)),
                (Some(Due::At(due)), _) => {
                    let due = due.max(self.next_round);
                    round |= due <= now;
                    match due <= now + ahead {
                        true => paced.push((self.wanted(id, entry, now), due)),
                        false => step.wake_at(due),
                    }
                }
            }
        }
        if !round {
            paced.drain(..).for_each(|(_, due)| step.wake_at(due));
        }
        let wanted: Vec<Wanted> =
            at_once.into_iter().chain(paced.into_iter().map(|(wanted, _)| wanted)).collect();
        if wanted.is_empty() {
            return step;
        }
        let passed = |moment: Option<Instant>| moment.is_none_or(|moment| moment <= now);
        let listing = Listing {
            total: self.total,
            believed: passed(self.distrusted_until),
            shows_all: passed(self.fruitless_until) && self.sweep.is_none(),
        };
        let reads = plan(wanted, listing);
        if round {
            self.next_round = now + interval(&reads, self.pace.min, self.pace.max);
            self.paged = reads.iter().any(|read| !matches!(read, Read::Single(_)));
        }
        step.orders = reads.into_iter().flat_map(|read| self.order(read, now)).collect();
        step
    }

    /// Until when new waiters are gathered because enough calls are out, at most: the end of a call may end it before.
    fn gather_until(&self, now: Instant) -> Option<Instant> {
        if let Some(sweep) = &self.sweep {
            // It tells where all are, so it is waited for, and it has an end.
            return Some((sweep.began + PAGE_TIME).max(now + HANGS));
        }
        let hangs = self.flights.values().map(|flight| flight.began + HANGS).filter(|hangs| *hangs > now);
        let out: Vec<Instant> = hangs.collect();
        out.iter().min().copied().filter(|_| out.len() >= OUT)
    }

    fn wanted(&self, id: &DiskId, entry: &Entry, now: Instant) -> Wanted {
        Wanted { id: id.clone(), place: self.place(id, now), alone: entry.missed }
    }

    pub(super) fn place(&self, id: &DiskId, now: Instant) -> Option<usize> {
        self.places.get(id).filter(|(_, seen)| now <= *seen + MEMORY).map(|(place, _)| *place)
    }

    fn order(&mut self, read: Read, now: Instant) -> Vec<Order> {
        self.numbers += 1;
        let number = self.numbers;
        let (calls, wanted, sweep) = match read {
            Read::Single(id) => (vec![Call::Disk(id.clone())], vec![id], false),
            Read::Page { offset, wanted } => (vec![Call::Page(offset)], wanted, false),
            Read::Sweep { offsets, wanted } => (offsets.into_iter().map(Call::Page).collect(), wanted, true),
        };
        let mut deadline = now;
        let mut span = Span::none();
        for id in &wanted {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.flight = Some(number);
                entry.missed = false;
                if let (true, Some(wait)) = (span.is_none(), entry.waits.values().next()) {
                    span = wait.span.clone();
                }
                deadline = entry.waits.values().map(|wait| wait.deadline).fold(deadline, Deadline::max);
            }
        }
        let left = deadline.saturating_duration_since(now);
        let deadline = now + left - TELLING.min(left / 2);
        if sweep {
            self.places.retain(|_, (_, seen)| now <= *seen + MEMORY);
            let (left, end) = (calls.len(), calls.len() * PAGE);
            let (wanted, failed, trouble) = (wanted.clone(), false, None);
            self.sweep = Some(Sweep { number, began: now, wanted, left, end, failed, trouble });
        }
        let mut orders = Vec::new();
        for call in calls {
            // A sweep has a number of its own, and each of its calls another.
            let number = if sweep {
                self.numbers += 1;
                self.numbers
            } else {
                number
            };
            let wanted = if sweep { Vec::new() } else { wanted.clone() };
            self.flights
                .insert(number, Flight { call: call.clone(), began: now, wanted, sweep, abort: None });
            let deadline = match call {
                Call::Disk(_) => deadline,
                Call::Page(_) => deadline.min(now + PAGE_TIME),
            };
            orders.push(Order { number, call, deadline, span: span.clone() });
        }
        orders
    }

    pub(super) fn began(&mut self, number: u64, abort: AbortHandle) {
        if let Some(flight) = self.flights.get_mut(&number) {
            flight.abort = Some(abort);
        }
    }

    pub(super) fn ended(&mut self, number: u64, brought: Brought, now: Instant) {
        let Some(Flight { call, began, wanted, sweep, .. }) = self.flights.remove(&number) else { return };
        let mut trouble = None;
        let came = match (call, brought) {
            (Call::Disk(id), brought) => {
                let result = match brought {
                    Brought::Disk(result) => result,
                    Brought::Page(_) | Brought::Nothing => Err(fault()),
                };
                let entry = self.entries.get_mut(&id).filter(|entry| entry.flight == Some(number));
                if let Some(entry) = entry {
                    entry.flight = None;
                    entry.show(Reading { started: began, listed: false, result }, now);
                }
                return;
            }
            (Call::Page(offset), Brought::Page(Ok(page))) => {
                // Any disk that was changed a moment ago tells how old the page is.
                let mut readable = page.disks.iter().flatten();
                if let Some(disk) = readable.find(|disk| self.recent.is_past(disk, began)) {
                    tracing::info!(disk = %disk.id, "the listing shows what is past; reading disks one by one");
                    self.distrust_pages(now);
                    false
                } else {
                    self.show(offset, page, began, now);
                    true
                }
            }
            (Call::Page(_), Brought::Page(Err(error))) => {
                // Throttled, others would be refused as well.
                if error.cause != Cause::Throttled {
                    tracing::info!(%error, "a page of the listing cannot be read; reading disks one by one");
                    self.distrust_pages(now);
                }
                trouble = Some(error);
                false
            }
            (Call::Page(_), Brought::Disk(_) | Brought::Nothing) => {
                self.distrust_pages(now);
                false
            }
        };
        if sweep {
            self.swept(came, trouble, now);
        } else {
            self.miss(&wanted, number, began, came, trouble);
        }
    }

    /// Those whose page has come, with or without them, or has not come because of `trouble`. Returns how many it did
    /// not show.
    fn miss(
        &mut self,
        wanted: &[DiskId],
        number: u64,
        began: Instant,
        missed: bool,
        trouble: Option<CloudError>,
    ) -> usize {
        let mut count = 0;
        for id in wanted {
            let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.flight == Some(number)) else {
                continue;
            };
            entry.flight = None;
            if entry.last.is_none_or(|(last, _)| last < began) {
                entry.missed = missed;
                if missed {
                    self.places.remove(id);
                }
                if let Some(error) = &trouble {
                    entry.tell(began, error.clone());
                }
                count += 1;
            }
        }
        count
    }

    fn swept(&mut self, came: bool, trouble: Option<CloudError>, now: Instant) {
        let Some(sweep) = &mut self.sweep else { return };
        sweep.left -= 1;
        sweep.failed |= !came;
        sweep.trouble = trouble.or(sweep.trouble.take());
        if sweep.left > 0 {
            return;
        }
        let Some(sweep) = self.sweep.take() else { return };
        let whole = !sweep.failed && self.total.is_some_and(|total| total <= sweep.end);
        let missed = self.miss(&sweep.wanted, sweep.number, sweep.began, whole, sweep.trouble);
        if whole && missed * 2 > sweep.wanted.len() {
            self.fruitless_until = Some(now + FRUITLESS);
        }
    }

    /// Shows the disks of a page to those that follow them.
    fn show(&mut self, offset: usize, page: DiskPage, began: Instant, now: Instant) {
        self.total = Some(page.total);
        let mut shift = None;
        for (place, disk) in (offset..).zip(page.disks) {
            // Read alone, it tells what is wrong with it.
            let Ok(disk) = disk else { continue };
            let before = self.places.insert(disk.id.clone(), (place, began));
            if let Some((before, seen)) = before
                && seen < began
            {
                shift = shift.or_else(|| place.checked_signed_diff(before));
            }
            if let Some(entry) = self.entries.get_mut(&disk.id) {
                entry.show(Reading { started: began, listed: true, result: Ok(Some(disk)) }, now);
            }
        }
        if let Some(shift) = shift.filter(|shift| *shift != 0) {
            // Something came or went before this page, so most likely the rest has moved alike.
            for (place, seen) in self.places.values_mut().filter(|(_, seen)| *seen < began) {
                (*place, *seen) = (place.saturating_add_signed(shift), began);
            }
        }
    }
}

impl Entry {
    fn due(&self, pace: Pace, paged: bool) -> Option<Due> {
        let unserved = |wait: &Wait| self.last.is_none_or(|(began, _)| began < wait.since);
        if self.waits.values().any(|wait| self.missed || (wait.at_once && unserved(wait))) {
            return Some(Due::AtOnce);
        }
        let since = self.waits.values().filter(|wait| !wait.at_once).map(|wait| wait.since).max()?;
        Some(Due::At(match self.last {
            Some((began, ended)) if began >= since => ended + pace.pause(ended.duration_since(since)),
            Some(_) | None => since + if paged { PAGED } else { pace.first },
        }))
    }

    fn show(&mut self, reading: Reading, now: Instant) {
        // A slow answer may come after one that began later.
        if self.last.is_none_or(|(began, _)| began <= reading.started) {
            self.last = Some((reading.started, now));
            self.missed = false;
            self.latest.send_replace(Some(reading));
        }
    }

    /// Says why a page that should have shown it was not read. It is still to be read.
    fn tell(&self, started: Instant, error: CloudError) {
        self.latest.send_replace(Some(Reading { started, listed: true, result: Err(error) }));
    }
}

fn fault() -> CloudError {
    CloudError {
        action: "DescribeUDisk",
        cause: Cause::NoAnswer,
        outcome: Outcome::NothingHappened,
        ret_code: None,
        message: String::from("the read stopped on a fault inside the driver"),
        advice: None,
        request_id: None,
        attempts: 1,
    }
}
