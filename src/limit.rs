//! A limiter that finds its own width: it grows by steps while the cloud takes what is sent, and halves when the
//! cloud refuses.
//!
//! The *width* counts permits in one of two [`Unit`]s: those that are out at a time, or those that were given in the
//! last second or so. The first fits a queue of slow operations, the second a quota of requests, which does not
//! care how long each takes.
//!
//! # Refusals
//!
//! The cloud does not publish its limits, so they are found by being refused. A refusal halves the width and
//! closes the gate: after a pause, one prober goes on and everybody else parks. The prober's success opens the gate for
//! all; its refusal halves again and doubles the pause. Requests that were out at the time of a refusal say
//! nothing new, whatever becomes of them, so a burst of refusals counts once. Where permits are counted at a time and
//! others of ours are out, they are what the cloud is busy with: their end is waited for, and no pause.
//!
//! # Growth
//!
//! Slow around the width that was refused last, where the limit was; fast below it, and fast again above, where
//! the old limit evidently is gone. So at saturation most of the quota is used, and the rare refusal is cheap.
//!
//! # Order
//!
//! Waiters go in the order of their [`Turn`], then of their arrival; where the limits say so, the later turn gets a
//! share even while the first one has waiters without end. Nobody waits longer than it wants to. When nobody waits and
//! nothing was refused, a permit is given without any delay.

mod backoff;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use backoff::{Backoff, BackoffError};

/// Who goes first when not all can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    First,
    Later,
}

/// What a width counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Permits that are out.
    AtATime,
    /// Permits that were given in the last such time.
    Per(Duration),
}

/// Why [`Limits`] cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    #[error("a width must be at least 1")]
    Zero,
    #[error("the largest width must not be below the first one")]
    Inverted,
}

/// How a limiter behaves.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    start: u32,
    max: u32,
    unit: Unit,
    pause: Backoff,
    /// Permits in a row for the first turn after which the later one gets the next; `None`: no such share.
    row: Option<u32>,
    /// The width that is known to be refused; `None`: nothing is known.
    refused_at: Option<f64>,
}

impl Limits {
    /// `start`: the width before the first refusal. `pause`: how long the gate stays closed after a refusal.
    pub const fn new(start: u32, max: u32, unit: Unit, pause: Backoff) -> Result<Self, LimitsError> {
        if start == 0 {
            return Err(LimitsError::Zero);
        }
        if max < start {
            return Err(LimitsError::Inverted);
        }
        Ok(Self { start, max, unit, pause, row: None, refused_at: None })
    }

    /// After `row` permits in a row for [`Turn::First`], one goes to [`Turn::Later`] if it has waiters.
    pub const fn sharing(self, row: u32) -> Self {
        Self { row: Some(row), ..self }
    }

    /// Begins knowing that this width was refused, by [`Limiter::refused_at`] of a like limiter.
    pub const fn knowing(self, refused_at: Option<f64>) -> Self {
        Self { refused_at, ..self }
    }
}

/// A place in the order of waiters. Kept over retries, so that a refused request does not go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    turn: Turn,
    order: [u64; 3],
}

/// Nobody gave a permit before the waiter's time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveUp {
    /// Since when the cloud refuses; `None`: the queue was just long.
    pub refused_since: Option<Instant>,
    /// Waiters that were before this one.
    pub ahead: usize,
}

/// The limiter. Clones share it.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    width: f64,
    /// The width at the last refusal; infinite before the first.
    refused_at: f64,
    /// Counts refusals; a permit remembers the one it was given after.
    epoch: u64,
    /// Permits that are out.
    out: usize,
    /// When the permits of the last unit of time were given; empty when that is not counted.
    given: VecDeque<Instant>,
    gate: Option<Gate>,
    queue: BTreeMap<Ticket, Arc<Notify>>,
    /// Permits for the first turn since one of the later turn was passed over.
    row: u32,
    tickets: u64,
    rng: fastrand::Rng,
}

/// The closed gate.
#[derive(Debug)]
struct Gate {
    since: Instant,
    /// When the next prober may go.
    until: Instant,
    refusals: u32,
    /// A prober is out; until when nobody else probes.
    probing: Option<Instant>,
}

/// A refusal comes at once. A prober without an answer for this long was taken in and only its work is slow (a
/// hanging change may take a minute), so the next one in line probes too.
const PROBER_PATIENCE: Duration = Duration::from_secs(5);

impl Limiter {
    pub fn new(limits: Limits, rng: fastrand::Rng) -> Self {
        let state = State {
            width: f64::from(limits.start),
            refused_at: limits.refused_at.unwrap_or(f64::INFINITY),
            epoch: 0,
            out: 0,
            given: VecDeque::new(),
            gate: None,
            queue: BTreeMap::new(),
            row: 0,
            tickets: 0,
            rng,
        };
        Self(Arc::new(Inner { limits, state: Mutex::new(state) }))
    }

    /// A place in an order that somebody else keeps; no two waiters may have the same.
    pub fn ticket_of(turn: Turn, order: [u64; 3]) -> Ticket {
        Ticket { turn, order }
    }

    /// Takes a place in the order.
    pub fn ticket(&self, turn: Turn) -> Ticket {
        let mut state = self.0.state();
        state.tickets += 1;
        Ticket { turn, order: [0, 0, state.tickets] }
    }

    /// Waits for a permit, at most until `give_up`. One that is free now is given even when that is over.
    pub async fn acquire(&self, ticket: Ticket, give_up: Instant) -> Result<Permit, GaveUp> {
        let place = self.0.enter(ticket);
        loop {
            let wake = match self.0.try_take(ticket) {
                Try::Taken { epoch, probe } => {
                    return Ok(Permit { inner: Arc::clone(&self.0), epoch, probe, verdict: Verdict::None });
                }
                Try::At(moment) => moment.min(give_up),
                Try::Parked => give_up,
            };
            if Instant::now() >= give_up {
                return Err(self.0.gave_up(ticket));
            }
            tokio::select! {
                // In this order, so that a run in simulated time can be repeated.
                biased;
                () = place.notify.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Since when everything is refused, if it is.
    pub fn refused_since(&self) -> Option<Instant> {
        self.0.state().gate.as_ref().map(|gate| gate.since)
    }

    /// The present width, for a gauge.
    pub fn width(&self) -> f64 {
        self.0.state().width
    }

    /// The width that was refused last, if any was.
    pub fn refused_at(&self) -> Option<f64> {
        Some(self.0.state().refused_at).filter(|width| width.is_finite())
    }

    /// How many wait now, for a gauge.
    pub fn waiting(&self) -> usize {
        self.0.state().queue.len()
    }
}

enum Try {
    Taken {
        epoch: u64,
        probe: bool,
    },
    /// Not before this moment.
    At(Instant),
    /// Not before something happens.
    Parked,
}

/// A waiter's entry in the queue, which leaves with it.
struct Place<'a> {
    inner: &'a Inner,
    ticket: Ticket,
    notify: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.queue.remove(&self.ticket);
        state.wake_next(&self.inner.limits);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every step leaves the numbers consistent, so a poisoned lock holds no broken state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, ticket: Ticket) -> Place<'_> {
        let notify = Arc::new(Notify::new());
        self.state().queue.insert(ticket, Arc::clone(&notify));
        Place { inner: self, ticket, notify }
    }

    fn gave_up(&self, ticket: Ticket) -> GaveUp {
        let state = self.state();
        GaveUp {
            refused_since: state.gate.as_ref().map(|gate| gate.since),
            ahead: state.queue.range(..ticket).count(),
        }
    }

    fn try_take(&self, ticket: Ticket) -> Try {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        if state.next(&self.limits).is_some_and(|next| next != ticket) {
            return Try::Parked;
        }
        // Compared with one more, since a width need not be whole.
        let room = state.used(now, self.limits.unit) + 1.0 <= state.width;
        if let Some(gate) = &mut state.gate {
            if !room && self.limits.unit == Unit::AtATime {
                // It would be refused for one of ours, which says nothing of what closed the gate.
                return Try::Parked;
            }
            let open_at = gate.probing.map_or(gate.until, |patience| patience.max(gate.until));
            if now < open_at {
                return Try::At(open_at);
            }
            gate.probing = Some(now + PROBER_PATIENCE);
            state.give(ticket, now, self.limits.unit);
            return Try::Taken { epoch: state.epoch, probe: true };
        }
        if room {
            state.give(ticket, now, self.limits.unit);
            return Try::Taken { epoch: state.epoch, probe: false };
        }
        match (self.limits.unit, state.given.front()) {
            (Unit::Per(time), Some(oldest)) => Try::At(*oldest + time),
            (Unit::Per(_) | Unit::AtATime, _) => Try::Parked,
        }
    }

    fn took(&self, permit: &Permit) {
        let mut state = self.state();
        if permit.probe && permit.epoch == state.epoch {
            state.gate = None;
            state.wake_next(&self.limits);
        }
    }

    fn give_back(&self, permit: &Permit) {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        let current = permit.epoch == state.epoch;
        match permit.verdict {
            Verdict::Refused if current => state.refused(now, &self.limits),
            Verdict::Accepted if current => {
                if permit.probe {
                    state.gate = None;
                }
                state.grow(now, &self.limits);
            }
            Verdict::Accepted | Verdict::Refused | Verdict::None => {}
        }
        if permit.probe
            && let Some(gate) = &mut state.gate
        {
            // Without a verdict the next in line probes, at once.
            gate.probing = None;
        }
        state.out = state.out.saturating_sub(1);
        state.wake_next(&self.limits);
    }
}

impl State {
    /// Whose turn it is.
    fn next(&self, limits: &Limits) -> Option<Ticket> {
        let (first, _) = self.queue.first_key_value()?;
        match limits.row {
            Some(row) if self.row >= row => self.later().or(Some(*first)),
            Some(_) | None => Some(*first),
        }
    }

    fn later(&self) -> Option<Ticket> {
        let lowest = Ticket { turn: Turn::Later, order: [0; 3] };
        self.queue.range(lowest..).next().map(|(ticket, _)| *ticket)
    }

    fn give(&mut self, ticket: Ticket, now: Instant, unit: Unit) {
        let passes_over = ticket.turn == Turn::First && self.later().is_some();
        self.row = if passes_over { self.row + 1 } else { 0 };
        self.out += 1;
        if let Unit::Per(_) = unit {
            self.given.push_back(now);
        }
    }

    // Counts are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    fn used(&mut self, now: Instant, unit: Unit) -> f64 {
        match unit {
            Unit::AtATime => self.out as f64,
            Unit::Per(time) => {
                while self.given.front().is_some_and(|given| *given + time <= now) {
                    self.given.pop_front();
                }
                self.given.len() as f64
            }
        }
    }

    fn wake_next(&self, limits: &Limits) {
        if let Some(notify) = self.next(limits).and_then(|next| self.queue.get(&next)) {
            notify.notify_one();
        }
    }

    fn refused(&mut self, now: Instant, limits: &Limits) {
        let used = self.used(now, limits.unit);
        // A width that was never filled is no evidence for the limit; what was out is.
        self.refused_at = self.width.min(used.max(1.0));
        self.width = (self.refused_at / 2.0).max(1.0);
        self.epoch += 1;
        if limits.unit == Unit::AtATime && self.out > 1 {
            return;
        }
        let (since, refusals) = self.gate.as_ref().map_or((now, 0), |gate| (gate.since, gate.refusals));
        let pause = limits.pause.delay(refusals, &mut self.rng);
        self.gate = Some(Gate { since, until: now + pause, refusals: refusals + 1, probing: None });
    }

    fn grow(&mut self, now: Instant, limits: &Limits) {
        let used = self.used(now, limits.unit);
        // Success while there was room to spare says nothing about more.
        if used * 2.0 < self.width {
            return;
        }
        let beyond = self.width / self.refused_at;
        let step = match limits.unit {
            Unit::Per(_) if (0.875..=1.25).contains(&beyond) => 0.25 / self.width,
            // The next whole number is what was refused, and each is a large step: one try in sixteen.
            Unit::AtATime if beyond <= 1.25 && self.width + 1.0 >= self.refused_at => 1.0 / 16.0,
            Unit::Per(_) | Unit::AtATime => 0.5,
        };
        self.width = (self.width + step).min(f64::from(limits.max));
    }
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    None,
    Accepted,
    Refused,
}

/// The right to send one request. Dropped without a verdict (no answer), it changes nothing.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    epoch: u64,
    probe: bool,
    verdict: Verdict,
}

impl Permit {
    /// The cloud took the request, whatever it made of it, and its work goes on: the permit stays out.
    pub fn took(&mut self) {
        self.verdict = Verdict::Accepted;
        self.inner.took(self);
    }

    /// The cloud took the request, whatever it made of it.
    pub fn accepted(mut self) {
        self.verdict = Verdict::Accepted;
    }

    /// The cloud refused it for the number of requests.
    pub fn refused(mut self) {
        self.verdict = Verdict::Refused;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.give_back(self);
    }
}

#[cfg(test)]
mod tests;
