//! Growing pauses between tries.

use std::time::Duration;

/// Why a [`Backoff`] cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    #[error("the first delay must be longer than zero")]
    Zero,
    #[error("the longest delay must not be shorter than the first")]
    Inverted,
}

/// Delays that double from `first` to `longest`, each shortened by up to a half at random, so that requests that
/// failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Result<Self, BackoffError> {
        if first.is_zero() {
            return Err(BackoffError::Zero);
        }
        if longest.as_nanos() < first.as_nanos() {
            return Err(BackoffError::Inverted);
        }
        Ok(Self { first, longest })
    }

    /// The delay after failure `n`, counted from 0.
    pub fn delay(&self, n: u32, rng: &mut fastrand::Rng) -> Duration {
        let factor = 1_u32.checked_shl(n).unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(factor).min(self.longest);
        full.mul_f64(0.5 + rng.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn delays_double_up_to_the_longest_and_are_shortened_by_at_most_half() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for (n, full) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (40, 1000)] {
            let full = Duration::from_millis(full);
            for _ in 0..50 {
                let delay = backoff.delay(n, &mut rng);
                assert!(delay <= full && delay >= full / 2, "{n}: {delay:?}");
            }
        }
        let again: Vec<_> = (0..5).map(|n| backoff.delay(n, &mut fastrand::Rng::with_seed(3))).collect();
        let same: Vec<_> = (0..5).map(|n| backoff.delay(n, &mut fastrand::Rng::with_seed(3))).collect();
        assert_eq!(again, same, "a seed gives the same delays");
    }

    #[test]
    fn senseless_backoffs_are_refused() {
        assert_eq!(Backoff::new(Duration::ZERO, LONG), Err(BackoffError::Zero));
        assert_eq!(Backoff::new(LONG, SHORT), Err(BackoffError::Inverted));
    }
}
