//! What the tour prints: a line for each step with its time and its API calls, and a line while it waits.

use std::fmt;
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// How long a step may be silent.
const PATIENCE: Duration = Duration::from_secs(1);

const NAME_WIDTH: usize = 51;

/// The calls that the simulated cloud has counted so far. The cloud counts, so that a call the driver's own
/// client forgot to count would show.
pub(super) type CallCount = Box<dyn Fn() -> u64 + Send + Sync>;

/// Prints the tour to standard output.
pub(super) struct Report {
    calls: CallCount,
    terminal: bool,
    pub(super) steps: usize,
    pub(super) left_out: Vec<String>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Report {
    pub(super) fn new(calls: CallCount) -> Self {
        Self { calls, terminal: std::io::stdout().is_terminal(), steps: 0, left_out: Vec::new() }
    }

    pub(super) fn say(&self, text: impl fmt::Display) {
        // A closed pipe is no reason to leave mounts behind: the tour goes on to its clean-up.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Notes something that this machine cannot show, and why.
    pub(super) fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.say(format_args!("  left out: {what}"));
        self.left_out.push(what);
    }

    /// Runs one step and prints its line. `state` says what is waited for, asked when the step takes long;
    /// `detail` describes the result.
    pub(super) async fn step<T, E: fmt::Display>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T, E>>,
        state: impl Fn() -> String,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, StepFailed> {
        let before = (self.calls)();
        let start = Instant::now();
        tokio::pin!(work);
        let mut tick = tokio::time::interval_at(start + PATIENCE, PATIENCE);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = tick.tick() => self.waiting(name, start.elapsed(), &state()),
            }
        };
        let calls = (self.calls)() - before;
        let time = start.elapsed();
        if self.terminal {
            print!("\r\x1b[K");
        }
        match outcome {
            Ok(value) => {
                self.steps += 1;
                let line =
                    format!("  {name:<NAME_WIDTH$} {} {} {}", Time(time), Calls(calls), detail(&value));
                self.say(line.trim_end());
                Ok(value)
            }
            Err(cause) => {
                self.say(format_args!("  {name:<NAME_WIDTH$} {} {} FAILED", Time(time), Calls(calls)));
                Err(StepFailed { step: name.to_owned(), cause: cause.to_string() })
            }
        }
    }

    fn waiting(&self, name: &str, time: Duration, state: &str) {
        if self.terminal {
            print!("\r\x1b[K  {name:<NAME_WIDTH$} {} {state}", Time(time));
            let _ = std::io::stdout().flush();
        } else {
            self.say(format_args!("    … {name}, {:.0} s: {state}", time.as_secs_f64()));
        }
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.3} s", self.0.as_secs_f64())
    }
}

struct Calls(u64);

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "{:>9}", "-"),
            1 => write!(f, "{:>9}", "1 call"),
            n => write!(f, "{:>9}", format!("{n} calls")),
        }
    }
}

/// A step that did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub(super) struct StepFailed {
    step: String,
    cause: String,
}

impl StepFailed {
    pub(super) fn new(step: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { step: step.into(), cause: cause.to_string() }
    }
}
