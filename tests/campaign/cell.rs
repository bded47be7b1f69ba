//! One cell: a call in a situation, a fault at one of its requests, and what becomes of the process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi_udisk::sandbox::cloud::{Disk, Effect, Happening, Rule, SimCloud, Status};

use crate::call::{Call, Done, Outcome, host_of};
use crate::fault::{Affected, End, Fault, Strike};
use crate::judge;
use crate::process::{Process, Sent, Snag};
use crate::world::{Temper, account, named};

pub const NAME: &str = "pvc-campaign";

/// More than any lag, and than what the driver remembers to be careful.
const SETTLED: Duration = Duration::from_secs(120);
/// How often a sidecar comes again before the cell counts as one that does not end.
const ATTEMPTS: u32 = 16;
/// After so many refusals somebody undoes what was done to the account.
const UNDONE_AFTER: u32 = 3;
/// Requests that no cell may need.
const MOST_REQUESTS: usize = 400;

/// A call in a situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// What was done long ago, by another process.
    pub before: &'static [Call],
    /// What this process did a moment ago.
    pub just: &'static [Call],
    pub call: Call,
}

/// What becomes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Lives,
    /// It dies before it hears the answer.
    DiesUnheard,
    /// It dies before it sends its next request.
    DiesBeforeNext,
    /// Its next request is done, and it dies before it hears so.
    DiesAfterNext,
    /// It is asked to stop and goes on with what it does, while the next one is called.
    HandsOver,
}

pub const LIVES: [Life; 5] =
    [Life::Lives, Life::DiesUnheard, Life::DiesBeforeNext, Life::DiesAfterNext, Life::HandsOver];

/// The account and the process at the moment of the call.
pub struct Stage {
    pub cloud: SimCloud,
    pub process: Arc<Process>,
    /// The volume's disk, where there is one.
    pub id: String,
}

impl Stage {
    pub async fn set(scene: Scene, temper: Temper) -> Self {
        fastrand::seed(7);
        let cloud = account(Temper::Prompt, 7).await;
        let mut stage = Self { process: Arc::new(Process::start(&cloud)), cloud, id: String::new() };
        stage.settle().await;
        for call in scene.before {
            stage.must(*call).await;
        }
        tokio::time::sleep(SETTLED).await;
        stage.process.kill();
        stage.process = Arc::new(Process::start(&stage.cloud));
        stage.settle().await;
        stage.cloud.change_rules(|rules| rules.lags = temper.lags());
        for call in scene.just {
            stage.must(*call).await;
        }
        stage
    }

    /// A process is careful from the first change on that it is asked for.
    async fn settle(&mut self) {
        let nothing = Call::Delete.run(&self.process, "", "bsm-of-nobody").await;
        assert!(matches!(nothing, Outcome::Done(_)), "{nothing:?}");
        tokio::time::sleep(SETTLED).await;
    }

    async fn must(&mut self, call: Call) {
        match call.run(&self.process, NAME, &self.id).await {
            Outcome::Done(done) => self.note(call, &done),
            other @ (Outcome::Refused(_) | Outcome::Died) => {
                panic!("{call:?} prepares the cell and ends in {other:?}")
            }
        }
    }

    fn note(&mut self, call: Call, done: &Done) {
        match call {
            Call::Create(_) => self.id.clone_from(&done.id),
            Call::Delete => self.id.clear(),
            Call::Publish(_) | Call::Unpublish(_) | Call::Expand(_) => {}
        }
    }
}

/// A call that goes well: its requests, and the disk in the end.
pub struct Clean {
    pub sent: Vec<Sent>,
    pub id: String,
    /// The number of the request that makes the disk, when the call does.
    pub makes: Option<usize>,
}

pub async fn clean(scene: Scene, temper: Temper) -> Clean {
    let stage = Stage::set(scene, temper).await;
    stage.process.arm(vec![]);
    let outcome = scene.call.run(&stage.process, NAME, &stage.id).await;
    let Outcome::Done(done) = outcome else { panic!("{scene:?} without a fault: {outcome:?}") };
    assert_eq!(scene.call.doubt(&done, &stage.cloud, NAME, &stage.id), None, "{scene:?} without a fault");
    let sent = stage.process.sent();
    let id = if stage.id.is_empty() { done.id } else { stage.id };
    let makes = sent.iter().position(|sent| sent.action == "CreateUDisk").map(|at| at + 1);
    Clean { sent, id, makes }
}

/// What the cell showed.
#[derive(Debug, Default)]
pub struct Verdict {
    pub faults: Vec<String>,
    /// Two disks of one name, where that cannot be avoided, and reported.
    pub doubled: bool,
    requests: usize,
}

pub struct Cell<'a> {
    pub scene: Scene,
    pub temper: Temper,
    pub clean: &'a Clean,
    /// From 1.
    pub number: usize,
    pub fault: &'a Fault,
    pub life: Life,
}

impl Cell<'_> {
    pub async fn judge(&self, log: &Log) -> Verdict {
        let mut stage = Stage::set(self.scene, self.temper).await;
        log.clear();
        let stranger = judge::find_stranger(&stage.cloud);
        let affected = Affected { disk: &self.clean.id, host: self.host() };
        let rule = self.fault.effect(affected).map(|(effect, count)| {
            let nth = u64::try_from(self.number).unwrap();
            let rule = Rule {
                action: None,
                disk: None,
                host: None,
                nth,
                probability: None,
                count: Some(count),
                effect,
            };
            stage.cloud.add_fault(rule)
        });
        let mut snags: Vec<Snag> = self.fault.snag(self.number).into_iter().collect();
        match self.life {
            Life::Lives => {}
            Life::DiesUnheard => snags.push(Snag::DieUnanswered(self.number)),
            Life::DiesBeforeNext => snags.push(Snag::DieUnsent(self.number + 1)),
            Life::DiesAfterNext => snags.push(Snag::DieUnanswered(self.number + 1)),
            Life::HandsOver => snags.push(Snag::Stop(self.number)),
        }
        stage.process.arm(snags);
        let first = Arc::clone(&stage.process);

        let mut verdict = Verdict::default();
        let last = self.converge(&mut stage, affected, &mut verdict).await;
        let struck = rule.is_none_or(|rule| stage.cloud.struck().get(&rule).is_some_and(|times| *times > 0));
        let twisted = !matches!(self.fault.strike, Strike::Word(_)) || first.twisted();
        if !(struck && twisted) {
            verdict.faults.push("the fault did not strike".to_owned());
        }
        self.aftermath(&mut stage, &last, log, &mut verdict).await;
        verdict.faults.extend(judge::stranger(&stranger, &stage.cloud));
        if verdict.requests > MOST_REQUESTS {
            verdict.faults.push(format!("{} requests", verdict.requests));
        }
        verdict
    }

    /// The host that the call is about, or that the disk is to be made for.
    fn host(&self) -> &'static str {
        let of = |call: &Call| match call {
            Call::Publish(node) | Call::Unpublish(node) if !node.is_empty() => Some(host_of(node)),
            Call::Create(_) | Call::Delete | Call::Publish(_) | Call::Unpublish(_) | Call::Expand(_) => None,
        };
        let Scene { before, just, call } = self.scene;
        of(&call)
            .or_else(|| just.iter().rev().find_map(of))
            .or_else(|| before.iter().rev().find_map(of))
            .unwrap_or("uhost-a")
    }

    /// Calls as a sidecar does, until it is answered with OK.
    async fn converge(&self, stage: &mut Stage, affected: Affected<'_>, verdict: &mut Verdict) -> Outcome {
        let call = self.scene.call;
        let mut last = Outcome::Died;
        let mut pause = Duration::from_secs(1);
        for attempt in 0..ATTEMPTS {
            last = call.run(&stage.process, NAME, &stage.id).await;
            match &last {
                Outcome::Done(done) => {
                    verdict.faults.extend(call.doubt(done, &stage.cloud, NAME, &stage.id));
                    verdict.requests += stage.process.sent().len();
                    return last;
                }
                Outcome::Refused(status) => {
                    verdict.faults.extend(judge::refusal(call, status, NAME, &self.clean.id));
                    if call.is_final(status.code()) && status.code() != tonic::Code::AlreadyExists {
                        verdict.faults.extend(judge::finality(call, &stage.cloud, NAME, &stage.id));
                        tokio::time::sleep(SETTLED).await;
                        verdict.faults.extend(judge::finality(call, &stage.cloud, NAME, &stage.id));
                    }
                }
                Outcome::Died => {}
            }
            let ended = stage.process.is_dead() || stage.process.is_stopped();
            if ended || (attempt == 0 && self.life != Life::Lives) {
                verdict.requests += stage.process.sent().len();
                let next = Arc::new(Process::start(&stage.cloud));
                let last = std::mem::replace(&mut stage.process, next);
                match self.life {
                    Life::HandsOver => last.leave(),
                    Life::Lives | Life::DiesUnheard | Life::DiesBeforeNext | Life::DiesAfterNext => {
                        last.kill()
                    }
                }
            }
            if attempt + 1 == UNDONE_AFTER
                && let End::Undone(undo) = self.fault.end
            {
                let _ = stage.cloud.happen(undo(affected)).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(60));
        }
        verdict.requests += stage.process.sent().len();
        match (&last, self.end()) {
            (Outcome::Refused(status), End::Named(words))
                if words.iter().any(|word| status.message().contains(word)) => {}
            (Outcome::Refused(status), _) => verdict.faults.push(format!("does not end: {status}")),
            (Outcome::Died | Outcome::Done(_), _) => verdict.faults.push("does not end".to_owned()),
        }
        last
    }

    fn end(&self) -> End {
        let made_here = self.life == Life::Lives;
        match &self.fault.strike {
            // Nobody knows what it may be good for, so only who made it removes it.
            Strike::Cloud(Effect::Fails, _) if !made_here => End::Named(&["delete it in the console"]),
            Strike::Cloud(..) | Strike::Word(_) | Strike::Event(_) | Strike::Unreachable => self.fault.end,
        }
    }

    /// Nothing comes after an answer, and the account holds what it should.
    async fn aftermath(&self, stage: &mut Stage, last: &Outcome, log: &Log, verdict: &mut Verdict) {
        let call = self.scene.call;
        let before = stage.cloud.journal().len();
        tokio::time::sleep(Duration::from_secs(900)).await;
        let disks = named(&stage.cloud, NAME);
        let doubled = disks.len() > 1 && self.may_double();
        let after = stage.cloud.journal();
        // Of two disks one may still be in the making.
        let late = after[before..].iter().filter(|record| !(doubled && record.event == Happening::Created));
        let late: Vec<_> = late.map(|record| format!("{:?} of {}", record.event, record.disk)).collect();
        if !late.is_empty() {
            verdict.faults.push(format!("after the last answer came {}", late.join(", ")));
        }
        if !stage.process.operations.is_empty() {
            verdict.faults.push("an operation is still running".to_owned());
        }
        let Outcome::Done(done) = last else { return };
        verdict
            .faults
            .extend(call.doubt(done, &stage.cloud, NAME, &stage.id).map(|why| format!("later {why}")));
        let wanted = usize::from(call != Call::Delete);
        if doubled {
            verdict.doubled = true;
            self.doubled(stage, &disks, log, verdict).await;
        } else if disks.len() != wanted && !self.loses_disk() {
            verdict.faults.push(format!("{} disks of the name: {}", disks.len(), judge::ids(&disks)));
        }
    }

    /// A process that dies while its disk is listed later than reads lag leaves nothing by which the next could know.
    fn may_double(&self) -> bool {
        let late = match (self.temper, &self.fault.strike) {
            (Temper::Late, _) | (Temper::Lagging, Strike::Cloud(Effect::Late { .. }, _)) => true,
            (Temper::Lagging | Temper::Prompt, _) => false,
        };
        matches!(self.scene.call, Call::Create(_)) && self.life != Life::Lives && late
    }

    fn loses_disk(&self) -> bool {
        ["disk deleted by hand", "disk renamed by hand"].contains(&self.fault.name.as_str())
    }

    /// The older wins, always, and the other is named.
    async fn doubled(&self, stage: &mut Stage, disks: &[Disk], log: &Log, verdict: &mut Verdict) {
        let order = |disk: &&Disk| (disk.status == Status::Failed, disk.created.as_secs(), disk.id.clone());
        let older = disks.iter().min_by_key(order).unwrap();
        log.clear();
        match self.scene.call.run(&stage.process, NAME, "").await {
            Outcome::Done(done) if done.id == older.id => {}
            other @ (Outcome::Done(_) | Outcome::Refused(_) | Outcome::Died) => {
                verdict.faults.push(format!("the older of two is {}, and {other:?}", older.id))
            }
        }
        let log = log.text();
        if !disks.iter().all(|disk| log.contains(&disk.id)) {
            verdict.faults.push(format!("the log does not name {}: {log}", judge::ids(disks)));
        }
    }
}

/// The warnings of the driver on this thread.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
