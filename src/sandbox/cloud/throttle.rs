//! The limit of requests per second.

use std::time::Duration;

/// A bucket that holds one second's worth of requests.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Requests left, and when that was so.
    level: Option<(f64, Duration)>,
}

impl Throttle {
    /// Whether a request is let through.
    pub(super) fn admit(&mut self, now: Duration, per_second: Option<u32>) -> bool {
        let Some(rate) = per_second.map(f64::from) else { return true };
        let (level, then) = self.level.unwrap_or((rate, now));
        let level = (level + now.saturating_sub(then).as_secs_f64() * rate).min(rate);
        let admitted = level >= 1.0;
        self.level = Some((if admitted { level - 1.0 } else { level }, now));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_cut_and_a_second_later_there_is_room_again() {
        let mut throttle = Throttle::default();
        let burst = |throttle: &mut Throttle, at| {
            (0..5).filter(|_| throttle.admit(Duration::from_secs(at), Some(3))).count()
        };
        assert_eq!(burst(&mut throttle, 0), 3);
        assert_eq!(burst(&mut throttle, 1), 3);
        assert!((0..100).all(|_| throttle.admit(Duration::ZERO, None)));
    }
}
