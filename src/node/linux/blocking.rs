//! The one way to a blocking system call.
//!
//! A call on a dead disk may stay in the kernel for minutes and cannot be cancelled. It runs on a thread of the
//! runtime's blocking pool and its permit stays with that thread, so hung disks can use up these permits but
//! never the pool. A call is never given up, on purpose: an operation holds its volume as long as its call is
//! in the kernel, its callers are answered by `csi::operation` meanwhile, and a retry joins it instead of sending
//! a second call after the first. What the limit does is to tell: a call beyond it is in the log and in
//! [`Calls::stuck`].

use std::panic;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::warn;

use super::calls::{Calls, Purpose};

/// A number of threads that may be in blocking calls at a time.
#[derive(Debug, Clone)]
pub struct Blocking {
    permits: Arc<Semaphore>,
    /// A call that takes longer is called stuck.
    limit: Duration,
    calls: Calls,
    purpose: Option<Purpose>,
}

impl Blocking {
    pub fn new(permits: usize, limit: Duration, calls: Calls) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), limit, calls, purpose: None }
    }

    /// The same threads, for calls whose purpose is known, or is not to be told.
    pub fn for_purpose(&self, purpose: Option<Purpose>) -> Self {
        Self { purpose, ..self.clone() }
    }

    /// Runs `work` on a thread of its own. A panic in it is a panic of the caller.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // Never closed, so this is `Some`.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        // What is logged there belongs to the call that it is done for.
        let span = tracing::Span::current();
        let running = self.calls.start(self.purpose.clone(), self.limit);
        let mut thread = tokio::task::spawn_blocking(move || {
            let result = span.in_scope(work);
            drop((running, permit));
            result
        });
        let done = match tokio::time::timeout(self.limit, &mut thread).await {
            Ok(done) => done,
            Err(_) => {
                self.report("a call to the kernel does not come back; the disk may hang");
                let done = thread.await;
                self.report("a call to the kernel came back late");
                done
            }
        };
        match done {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(reason) => panic::resume_unwind(reason),
                // The runtime is shutting down and drops this future next.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn report(&self, what: &str) {
        let (volume, operation) = match &self.purpose {
            Some(purpose) => (purpose.volume.as_str(), purpose.operation),
            None => ("", ""),
        };
        let stuck: usize = self.calls.stuck().iter().map(|of_volume| of_volume.count).sum();
        warn!(volume, operation, limit_seconds = self.limit.as_secs(), stuck_calls = stuck, "{what}");
    }

    /// How many more calls could start now.
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::volume::DiskId;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Opening a FIFO that nobody writes to stands for a call on a disk that hangs.
    #[tokio::test]
    async fn a_call_beyond_its_time_is_told_once_when_it_hangs_and_once_when_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(log);

        let calls = Calls::default();
        let volume = DiskId::parse("bs-1").unwrap();
        let purpose = Purpose { volume: volume.clone(), operation: "NodeStageVolume" };
        let blocking = Blocking::new(2, Duration::from_millis(20), calls.clone());
        assert_eq!(blocking.run(|| 7).await, 7);

        let (of_volume, path) = (blocking.for_purpose(Some(purpose)), fifo.clone());
        let hung = tokio::spawn(async move { of_volume.run(move || fs::read(path).unwrap().len()).await });
        let told = async {
            while !String::from_utf8_lossy(&lines.0.lock().unwrap()).contains("does not come back") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("nothing is told");
        let stuck = calls.stuck_of(&volume).unwrap();
        assert_eq!((stuck.count, stuck.operation), (1, Some("NodeStageVolume")));
        // Others go on, and the thread of this one is not given away.
        assert_eq!(blocking.run(|| 7).await, 7);
        assert_eq!(blocking.available(), 1);

        fs::write(&fifo, "four").unwrap();
        assert_eq!(hung.await.unwrap(), 4);
        assert_eq!((calls.stuck(), blocking.available()), (Vec::new(), 2));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<&str> = text.lines().filter(|line| line.contains("bs-1")).collect();
        let [hangs, back] = told.as_slice() else { panic!("{text}") };
        assert!(hangs.contains("does not come back") && hangs.contains("stuck_calls=1"), "{hangs}");
        assert!(back.contains("came back late") && back.contains("stuck_calls=0"), "{back}");
    }
}
