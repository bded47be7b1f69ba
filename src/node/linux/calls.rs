//! The calls to the kernel that run now, and which of them have been there for too long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::volume::DiskId;

/// For which volume a call is made, and by which operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    pub volume: DiskId,
    /// Such as `NodeUnstageVolume`.
    pub operation: &'static str,
}

/// The calls of one volume that are beyond their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckCalls {
    /// `None`: calls that are for no volume, such as reading the serial of a disk that nobody knows yet.
    pub volume: Option<DiskId>,
    pub count: usize,
    /// The operation of the oldest, and when it went into the kernel.
    pub operation: Option<&'static str>,
    pub since: Instant,
}

#[derive(Debug, Clone)]
struct Call {
    purpose: Option<Purpose>,
    since: Instant,
    limit: Duration,
}

/// All calls of a host. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    /// In the order of their start.
    running: BTreeMap<u64, Call>,
    next: u64,
}

impl Calls {
    /// Notes a call that starts. It is in the list until what is returned is dropped, which its thread does.
    pub(super) fn start(&self, purpose: Option<Purpose>, limit: Duration) -> Running {
        let mut list = self.list();
        let number = list.next;
        list.next += 1;
        list.running.insert(number, Call { purpose, since: Instant::now(), limit });
        Running { calls: self.clone(), number }
    }

    /// The calls beyond their time, by volume.
    pub fn stuck(&self) -> Vec<StuckCalls> {
        let mut stuck: BTreeMap<Option<DiskId>, StuckCalls> = BTreeMap::new();
        for call in self.list().running.values().filter(|call| call.since.elapsed() >= call.limit) {
            let volume = call.purpose.as_ref().map(|purpose| purpose.volume.clone());
            let of_volume = stuck.entry(volume.clone()).or_insert(StuckCalls {
                volume,
                count: 0,
                operation: call.purpose.as_ref().map(|purpose| purpose.operation),
                since: call.since,
            });
            of_volume.count += 1;
        }
        stuck.into_values().collect()
    }

    /// Those of one volume.
    pub fn stuck_of(&self, volume: &DiskId) -> Option<StuckCalls> {
        self.stuck().into_iter().find(|stuck| stuck.volume.as_ref() == Some(volume))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that runs.
#[derive(Debug)]
pub(super) struct Running {
    calls: Calls,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.list().running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(volume: &str, operation: &'static str) -> Option<Purpose> {
        Some(Purpose { volume: DiskId::parse(volume).unwrap(), operation })
    }

    #[tokio::test(start_paused = true)]
    async fn calls_beyond_their_time_are_counted_by_volume_and_the_oldest_is_named() {
        let calls = Calls::default();
        let start = Instant::now();
        let limit = Duration::from_secs(10);
        let first = calls.start(purpose("bs-1", "NodeStageVolume"), limit);
        let unknown = calls.start(None, limit);
        tokio::time::advance(Duration::from_secs(5)).await;
        let second = calls.start(purpose("bs-1", "NodeGetVolumeStats"), Duration::from_secs(5));
        let other = calls.start(purpose("bs-2", "NodeGetVolumeStats"), limit);
        assert_eq!(calls.stuck(), []);
        tokio::time::advance(Duration::from_secs(5)).await;
        let of_none = StuckCalls { volume: None, count: 1, operation: None, since: start };
        let of_first = StuckCalls {
            volume: DiskId::parse("bs-1").ok(),
            count: 2,
            operation: Some("NodeStageVolume"),
            since: start,
        };
        assert_eq!(calls.stuck(), [of_none, of_first.clone()]);
        assert_eq!(calls.stuck_of(&DiskId::parse("bs-2").unwrap()), None);
        drop((first, unknown));
        let left = StuckCalls {
            count: 1,
            operation: Some("NodeGetVolumeStats"),
            since: start + Duration::from_secs(5),
            ..of_first
        };
        assert_eq!(calls.stuck_of(&DiskId::parse("bs-1").unwrap()), Some(left));
        drop((second, other));
        assert_eq!(calls.stuck(), []);
    }
}
