//! What all volumes of one seed share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use csi_udisk::sandbox::cloud::{Rule, SimCloud};
use tokio::time::Instant;

use crate::process::Process;
use crate::report;

/// How much of its past a run tells when it fails.
const LAST: usize = 400;

pub struct Run {
    seed: u64,
    pub cloud: SimCloud,
    wanted: u64,
    begun: Instant,
    random: Mutex<fastrand::Rng>,
    state: Mutex<State>,
}

struct State {
    /// The process that the sidecars call.
    leader: Arc<Process>,
    /// The one that they called before, which nobody told to stop.
    left: Option<Arc<Process>>,
    steps: u64,
    /// Disks that somebody moved by hand, and when.
    touched: Vec<(String, Instant)>,
    /// The faults that may strike, by their numbers.
    armed: BTreeMap<u64, String>,
    counts: BTreeMap<String, u64>,
    history: VecDeque<String>,
}

impl Run {
    pub fn new(seed: u64, cloud: SimCloud, wanted: u64) -> Self {
        let leader = Arc::new(Process::start(&cloud));
        let state = State {
            leader,
            left: None,
            steps: 0,
            touched: Vec::new(),
            armed: BTreeMap::new(),
            counts: BTreeMap::new(),
            history: VecDeque::new(),
        };
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { seed, cloud, wanted, begun: Instant::now(), random, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap())
    }

    pub fn below(&self, end: u64) -> u64 {
        self.random(|random| random.u64(0..end))
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<T: Copy>(&self, those: &[T]) -> T {
        those[usize::try_from(self.below(those.len() as u64)).unwrap()]
    }

    pub async fn pause(&self, longest: u64) {
        let pause = self.below(longest * 1000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    pub fn leader(&self) -> Arc<Process> {
        Arc::clone(&self.state().leader)
    }

    /// The process that was left behind, if it still lives.
    pub fn left(&self) -> Option<Arc<Process>> {
        self.state().left.clone().filter(|left| !left.is_dead())
    }

    /// From now on the sidecars call `next`; gives the process that they called.
    pub fn lead(&self, next: Arc<Process>) -> Arc<Process> {
        std::mem::replace(&mut self.state().leader, next)
    }

    pub fn leave_behind(&self, last: Option<Arc<Process>>) {
        if let Some(before) = std::mem::replace(&mut self.state().left, last) {
            before.kill();
        }
    }

    pub fn step(&self) {
        self.state().steps += 1;
    }

    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    pub fn is_over(&self) -> bool {
        self.steps() >= self.wanted
    }

    pub fn touch(&self, disk: &str) {
        self.state().touched.push((disk.to_owned(), Instant::now()));
    }

    /// Whether somebody moved the disk by hand lately, so that an answer may be true of a moment ago only.
    pub fn is_touched(&self, disk: &str) -> bool {
        let lately = |at: &Instant| at.elapsed() < Duration::from_secs(120);
        self.state().touched.iter().any(|(touched, at)| touched == disk && lately(at))
    }

    pub fn arm(&self, kind: String, rule: Rule) {
        let number = self.cloud.add_fault(rule);
        self.state().armed.insert(number, kind);
    }

    /// Counts which faults have struck, of those that are about to be forgotten.
    pub fn count_struck(&self) {
        let armed = std::mem::take(&mut self.state().armed);
        for (number, times) in self.cloud.struck() {
            if let Some(kind) = armed.get(&number) {
                *self.state().counts.entry(format!("fault, {kind}")).or_default() += times;
            }
        }
    }

    pub fn count(&self, what: &str) {
        *self.state().counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state().counts.clone()
    }

    pub fn tell(&self, what: &str) {
        let line = format!("{:.1}: {what}", self.begun.elapsed().as_secs_f64());
        self.state().history.push_back(line);
    }

    pub fn whole_history(&self) -> Vec<String> {
        self.state().history.iter().cloned().collect()
    }

    pub fn fail(&self, what: &str) -> ! {
        let history = self.whole_history();
        for line in &history[history.len().saturating_sub(LAST)..] {
            report(line);
        }
        let what = format!("seed {}, after {} steps: {what}", self.seed, self.steps());
        report(&what);
        panic!("{what}");
    }
}
