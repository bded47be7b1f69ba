//! Whether the driver can do its work yet, and what is missing.
//!
//! The socket is served from the first moment, because sidecars and kubelet give up on a driver that does
//! not answer; until the zone, the host id and the keys are known, `Probe` says "not ready". Each background
//! service holds a [`Latch`] and opens it once, for good: a cloud that fails later is no reason to restart. Only a node
//! that kubelet no longer knows is not ready again: nothing reaches it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All conditions of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<Condition>>>);

#[derive(Debug)]
struct Condition {
    name: &'static str,
    open: bool,
    why: String,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, such as `zone of this host`. The driver is not ready until the latch is opened.
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut conditions = self.conditions();
        conditions.push(Condition { name, open: false, why: String::new() });
        Latch { readiness: self.clone(), index: conditions.len() - 1 }
    }

    pub fn is_ready(&self) -> bool {
        self.conditions().iter().all(|condition| condition.open)
    }

    /// What is waited for, in words.
    pub fn missing(&self) -> Vec<String> {
        let closed = |condition: &&Condition| !condition.open;
        let text = |condition: &Condition| match condition.why.as_str() {
            "" => condition.name.to_owned(),
            why => format!("{} ({why})", condition.name),
        };
        self.conditions().iter().filter(closed).map(text).collect()
    }

    fn conditions(&self) -> MutexGuard<'_, Vec<Condition>> {
        // Every change is one assignment, so a poisoned lock holds no broken state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition; closed until it is opened. Dropping it unopened leaves the driver not ready.
#[derive(Debug)]
pub struct Latch {
    readiness: Readiness,
    index: usize,
}

impl Latch {
    pub fn open(&self) {
        self.change(|condition| condition.open = true);
    }

    /// Not ready again, and why.
    pub fn close(&self, why: impl Into<String>) {
        let why = why.into();
        self.change(|condition| {
            condition.open = false;
            condition.why = why;
        });
    }

    /// Says what stands in the way, for those who ask why the driver is not ready.
    pub fn blocked_by(&self, why: impl Into<String>) {
        let why = why.into();
        self.change(|condition| condition.why = why);
    }

    fn change(&self, change: impl FnOnce(&mut Condition)) {
        if let Some(condition) = self.readiness.conditions().get_mut(self.index) {
            change(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_latch_opens_and_until_one_is_closed() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (zone, keys) = (readiness.latch("zone"), readiness.latch("keys"));
        zone.blocked_by("metadata service: connection refused");
        assert_eq!(readiness.missing(), ["zone (metadata service: connection refused)", "keys"]);
        zone.open();
        assert!(!readiness.is_ready());
        drop(keys);
        assert!(!readiness.is_ready());
        let readiness = Readiness::new();
        let keys = readiness.latch("keys");
        keys.open();
        keys.blocked_by("too late");
        assert!(readiness.is_ready());
        assert!(readiness.missing().is_empty());
        keys.close("taken back");
        assert_eq!(readiness.missing(), ["keys (taken back)"]);
        keys.open();
        assert!(readiness.is_ready());
    }
}
