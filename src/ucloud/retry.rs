//! When a request is sent again: a pure decision over facts about the request and the kind of failure.
//!
//! The rule is short. A read is repeated after anything that may pass. A change is repeated only when it is
//! certain that the cloud did not take it: it was throttled, its temporary key was unknown, or no connection was
//! made. Whether to repeat a change whose fate is unknown is decided above, after reading the disk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What the retry loop must know about a request. It never looks at names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Doing it twice is the same as doing it once and takes nothing from anybody: reads.
    pub(crate) idempotent: bool,
    /// The answer holds secrets, so no error may quote it.
    pub(crate) sensitive: bool,
}

impl Facts {
    pub(crate) const READ: Self = Self { idempotent: true, sensitive: false };
    pub(crate) const CHANGE: Self = Self { idempotent: false, sensitive: false };
    pub(crate) const READ_SECRET: Self = Self { idempotent: true, sensitive: true };
}

/// The kind of a failure, as far as sending again is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same request would fail the same way.
    Never,
    /// It may pass. The request may have been done.
    Transient,
    /// It may pass. The request certainly was not received.
    NotSent,
    /// Refused for the rate of requests, not executed. The limiter says when to go on.
    Throttled,
    /// The temporary key is not known to the cloud, not executed. A fresh key may be.
    StaleKey,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    GiveUp,
    /// Wait, then send again.
    After(Duration),
    /// Send again as soon as the limiter lets it.
    WhenAllowed,
    /// Get a fresh key, then send again.
    WithFreshKey,
}

/// How often one request has failed, by what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tries {
    /// Failures that were answered with a backoff.
    pub(crate) backoffs: u32,
    /// Whether a fresh key was already taken.
    pub(crate) fresh_key: bool,
}

/// Sends of one request that may end in a transient failure. Four with our backoff span about two seconds, which
/// is a gateway's restart; longer outages are for the callers, who try again with their own, longer pauses.
const MAX_SENDS: u32 = 4;

/// Decides what follows on a failure. `delay` is the backoff that would be slept, `left` the time to the
/// caller's deadline.
pub(crate) fn decide(
    facts: Facts,
    failure: Retry,
    tries: Tries,
    delay: Duration,
    left: Duration,
    budget: &RetryBudget,
) -> Next {
    match failure {
        Retry::Never => Next::GiveUp,
        Retry::Throttled => Next::WhenAllowed,
        Retry::StaleKey if tries.fresh_key => Next::GiveUp,
        Retry::StaleKey => Next::WithFreshKey,
        Retry::Transient if !facts.idempotent => Next::GiveUp,
        Retry::Transient | Retry::NotSent => {
            // Sleeping up to the deadline would leave no time for the answer.
            if tries.backoffs + 1 < MAX_SENDS && delay < left && budget.spend() {
                Next::After(delay)
            } else {
                Next::GiveUp
            }
        }
    }
}

/// Retries that all requests share, so that an outage does not multiply the load on what is left of the cloud:
/// each retry takes tokens, each success gives one back.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: Mutex<u32>,
}

impl RetryBudget {
    /// Full, it pays for 20 retries at once; afterwards one request in five may be a retry.
    const FULL: u32 = 100;
    const PRICE: u32 = 5;

    pub fn full() -> Self {
        Self { tokens: Mutex::new(Self::FULL) }
    }

    /// Takes the price of one retry, or says no.
    pub fn spend(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.checked_sub(Self::PRICE) {
            Some(rest) => {
                *tokens = rest;
                true
            }
            None => false,
        }
    }

    /// Notes a request that went well.
    pub fn refill(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + 1).min(Self::FULL);
    }
}

/// The time left until `deadline`.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn after(facts: Facts, failure: Retry, tries: Tries) -> Next {
        decide(facts, failure, tries, SHORT, LONG, &RetryBudget::full())
    }

    #[test]
    fn a_change_is_repeated_only_when_it_certainly_was_not_taken() {
        let cases = [
            (Facts::READ, Retry::Never, Next::GiveUp),
            (Facts::READ, Retry::Transient, Next::After(SHORT)),
            (Facts::READ, Retry::NotSent, Next::After(SHORT)),
            (Facts::READ, Retry::Throttled, Next::WhenAllowed),
            (Facts::READ, Retry::StaleKey, Next::WithFreshKey),
            (Facts::CHANGE, Retry::Never, Next::GiveUp),
            (Facts::CHANGE, Retry::Transient, Next::GiveUp),
            (Facts::CHANGE, Retry::NotSent, Next::After(SHORT)),
            (Facts::CHANGE, Retry::Throttled, Next::WhenAllowed),
            (Facts::CHANGE, Retry::StaleKey, Next::WithFreshKey),
        ];
        for (facts, failure, expected) in cases {
            assert_eq!(after(facts, failure, Tries::default()), expected, "{facts:?} {failure:?}");
        }
    }

    #[test]
    fn sends_fresh_keys_deadline_and_budget_end_the_retries() {
        let late = Tries { backoffs: 2, fresh_key: false };
        assert_eq!(after(Facts::READ, Retry::Transient, late), Next::After(SHORT));
        let last = Tries { backoffs: 3, fresh_key: false };
        assert_eq!(after(Facts::READ, Retry::Transient, last), Next::GiveUp);
        let fresh = Tries { backoffs: 0, fresh_key: true };
        assert_eq!(after(Facts::READ, Retry::StaleKey, fresh), Next::GiveUp);

        let budget = RetryBudget::full();
        let first = Tries::default();
        let decided = decide(Facts::READ, Retry::Transient, first, SHORT, SHORT, &budget);
        assert_eq!(decided, Next::GiveUp, "no time would be left");
        while budget.spend() {}
        assert_eq!(decide(Facts::READ, Retry::Transient, first, SHORT, LONG, &budget), Next::GiveUp);
    }

    #[test]
    fn the_budget_pays_for_twenty_and_then_for_one_in_five() {
        let budget = RetryBudget::full();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 20);
        let mut paid = 0;
        for _ in 0..100 {
            budget.refill();
            paid += u32::from(budget.spend());
        }
        assert_eq!(paid, 20);
    }
}
