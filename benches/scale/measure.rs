//! What a round of changes cost and how late its answers were, by the journal of the simulated cloud.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use csi_udisk::sandbox::cloud::{Happening, SimCloud};
use tokio::time::Instant;

/// The kind of change that a round is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Attach,
    Detach,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Attach => "attach",
            Self::Detach => "detach",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Create => "CreateUDisk",
            Self::Attach => "AttachUDisk",
            Self::Detach => "DetachUDisk",
        }
    }

    fn begins(self) -> Happening {
        match self {
            Self::Create => Happening::CreateAccepted,
            Self::Attach => Happening::AttachAccepted,
            Self::Detach => Happening::DetachAccepted,
        }
    }

    fn ends(self) -> Happening {
        match self {
            Self::Create => Happening::Created,
            Self::Attach => Happening::Attached,
            Self::Detach => Happening::Detached,
        }
    }
}

/// A round as it was run.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) kind: Kind,
    pub(crate) begun: Instant,
    /// When the answer for each disk came.
    pub(crate) answers: HashMap<String, Instant>,
    /// Calls of the round by action.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) changes: usize,
    pub(crate) reads: f64,
    /// Calls of the change itself, refused ones included.
    pub(crate) sent: f64,
    pub(crate) wall: Duration,
    pub(crate) ideal: Duration,
    /// From the end of the cloud's work to the answer, sorted.
    pub(crate) added: Vec<Duration>,
}

impl Round {
    /// `epoch` is when the cloud was started; `quota` is what it takes per second.
    pub(crate) fn verdict(&self, cloud: &SimCloud, epoch: Instant, quota: u32) -> Verdict {
        let mut accepted = HashMap::new();
        let (mut queues, mut work, mut added) =
            (HashMap::<String, Duration>::new(), Duration::ZERO, Vec::new());
        for record in cloud.journal().into_iter().filter(|record| epoch + record.at >= self.begun) {
            if record.event == self.kind.begins() {
                accepted.insert(record.disk, record.at);
            } else if record.event == self.kind.ends()
                && let (Some(began), Some(answer)) =
                    (accepted.remove(&record.disk), self.answers.get(&record.disk))
            {
                let took = record.at - began;
                work += took;
                *queues.entry(record.host.unwrap_or_default()).or_default() += took;
                added.push(answer.saturating_duration_since(epoch + record.at));
            }
        }
        added.sort();
        let changes = self.answers.len();
        let count = u32::try_from(changes).unwrap_or(u32::MAX).max(1);
        // Creations have no queue.
        let queue = queues.into_values().max().filter(|_| self.kind != Kind::Create).unwrap_or_default();
        let last = self.answers.values().max().copied().unwrap_or(self.begun);
        let calls = |wanted: &dyn Fn(&str) -> bool| {
            let counts = self.calls.iter().filter(|(action, _)| wanted(action));
            counts.map(|(_, count)| *count as f64).sum::<f64>() / f64::from(count)
        };
        Verdict {
            changes,
            reads: calls(&|action| action.starts_with("Describe")),
            sent: calls(&|action| action == self.kind.action()),
            wall: last - self.begun,
            ideal: queue.max(Duration::from_secs(count.into()) / quota) + work / count,
            added,
        }
    }
}

impl Verdict {
    /// Takes in the answers of another round.
    pub(crate) fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.added.extend(other.added);
        self.added.sort();
    }

    pub(crate) fn added_mean(&self) -> f64 {
        let sum: Duration = self.added.iter().sum();
        sum.as_secs_f64() / self.added.len().max(1) as f64
    }

    /// The value below which `share` of the delays are, in seconds.
    pub(crate) fn added_at(&self, share: f64) -> f64 {
        let last = self.added.len().saturating_sub(1);
        // An index that is far below 2^52.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (last as f64 * share).round() as usize;
        self.added.get(index).copied().unwrap_or_default().as_secs_f64()
    }

    pub(crate) fn over_ideal(&self) -> f64 {
        self.wall.as_secs_f64() / self.ideal.as_secs_f64()
    }
}
