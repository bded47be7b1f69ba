//! What is logged while a test runs.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a module of tests")]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Subscriber;

#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What is logged on this thread, for as long as the guard lives.
    pub fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let guard = tracing::subscriber::set_default(lines.log());
        (lines, guard)
    }

    /// What is logged on any thread that has no log of its own, from now on and by all tests of this file.
    pub fn of_all() -> Self {
        static ALL: OnceLock<Lines> = OnceLock::new();
        let start = || {
            let lines = Self::default();
            tracing::subscriber::set_global_default(lines.log()).unwrap();
            lines
        };
        ALL.get_or_init(start).clone()
    }

    fn log(&self) -> impl Subscriber + Send + Sync + use<> {
        let writer = self.clone();
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
