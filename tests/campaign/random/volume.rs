//! One volume, as Kubernetes lets it live.

use std::sync::Arc;
use std::time::Duration;

use csi_udisk::sandbox::cloud::{Event, Happening};
use tonic::Code;

use super::run::Run;
use crate::call::{Call, Done, Outcome, host_of};
use crate::judge;
use crate::process::Process;
use crate::world::{HOST_A, HOST_B, METAL, OLD, named};

const NODES: [&str; 8] = [HOST_A, "10.9.0.11", HOST_B, "10.9.0.12", METAL, "10.9.0.13", OLD, "10.9.0.14"];
/// Refusals in a row after which a call counts as one that does not end. Faults come as fast as calls.
const PATIENCE: usize = 150;
const GONE: &str = "nobody is left to answer";
/// More than reads are ever behind.
const SETTLED: Duration = Duration::from_secs(10);

pub struct Volume {
    run: Arc<Run>,
    name: String,
    id: String,
    /// Where a VolumeAttachment wants it, or may have left it.
    node: Option<&'static str>,
    /// The last one that may still be running.
    last: Option<Call>,
    /// What comes next comes at once.
    hurries: bool,
    /// How far the journal was when the last answer was promised.
    promised: Option<(Promise, usize)>,
}

/// What an answer rules out until the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Absent,
    Free,
    Kept,
}

impl Volume {
    pub fn new(run: &Arc<Run>, name: String) -> Self {
        Self {
            run: Arc::clone(run),
            name,
            id: String::new(),
            node: None,
            last: None,
            hurries: false,
            promised: None,
        }
    }

    /// One call, and all that can be said of its answer.
    async fn call(&mut self, call: Call) -> Outcome {
        self.keep_promise();
        let run = Arc::clone(&self.run);
        self.until_free(call).await;
        run.step();
        let outcome = self.answer(call, &run.leader()).await;
        if !matches!(&outcome, Outcome::Refused(status) if judge::is_busy(status)) {
            self.last = Some(call);
        }
        self.promise(match &outcome {
            Outcome::Done(_) => match call {
                Call::Unpublish(_) => Some(Promise::Free),
                Call::Delete | Call::Expand(_) => None,
                Call::Create(_) | Call::Publish(_) => Some(Promise::Kept),
            },
            Outcome::Refused(status) => {
                let forgets = matches!(call, Call::Create(_)) && is_final(call, status.code());
                forgets.then_some(Promise::Absent)
            }
            Outcome::Died => None,
        });
        if named(&run.cloud, &self.name).len() > 1 {
            run.fail(&format!("two disks bear the name {}", self.name));
        }
        outcome
    }

    /// A process that lost the sidecars to another one and was not told so goes on with what it began. It may be asked for
    /// the same again meanwhile, from the other one; the opposite is left for later, and no second create is sent while
    /// the first one may be.
    async fn until_free(&self, call: Call) {
        let Some(left) = self.run.left() else { return };
        let keys = [format!("create:{}", self.name), format!("disk:{}", self.id)];
        let busy = || keys.iter().any(|key| left.operations.holder(key).is_some()) && !left.is_dead();
        if !busy() {
            return;
        }
        if self.last == Some(call) && !matches!(call, Call::Create(_)) {
            self.run.count("call to one process while another does the same");
            return;
        }
        while busy() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(SETTLED).await;
    }

    async fn answer(&self, call: Call, process: &Process) -> Outcome {
        let run = &self.run;
        let patience = Duration::from_secs(run.one_of(&[2, 15, 60, 60]));
        // A sidecar may wait for its answer from a process that is asked to stop, or turn to the next one at once.
        let stays = run.chance(50);
        let end = async { if stays { process.death().await } else { process.end().await } };
        let outcome = call.with_patience(process, &self.name, &self.id, patience, end).await;
        if process.is_stopped() && !matches!(outcome, Outcome::Died) {
            run.count("answer from a process that is asked to stop");
        }
        run.tell(&format!("{call:?} of {} ({}): {outcome:?}", self.name, self.id));
        let kind = match call {
            Call::Create(_) => "CreateVolume",
            Call::Delete => "DeleteVolume",
            Call::Publish(_) => "ControllerPublishVolume",
            Call::Unpublish(_) => "ControllerUnpublishVolume",
            Call::Expand(_) => "ControllerExpandVolume",
        };
        match &outcome {
            Outcome::Done(done) => {
                run.count(&format!("{kind}: done"));
                let id = if self.id.is_empty() { &done.id } else { &self.id };
                if !run.is_touched(id)
                    && let Some(why) = call.doubt(done, &run.cloud, &self.name, &self.id)
                {
                    run.fail(&why);
                }
            }
            Outcome::Refused(status) => {
                run.count(&format!("{kind}: {:?}", status.code()));
                if let Some(fault) = judge::refusal(call, status, &self.name, &self.id).first() {
                    run.fail(&format!("{call:?} {fault}"));
                }
                if matches!(call, Call::Expand(_)) && status.code() == Code::InvalidArgument {
                    run.fail(&format!("{call:?} can be done, and is answered {status}"));
                }
                if is_final(call, status.code())
                    && let Some(fault) = judge::finality(call, &run.cloud, &self.name, &self.id)
                    && !run.is_touched(&self.id)
                {
                    run.fail(&format!("{call:?} answered {status}: {fault}"));
                }
            }
            Outcome::Died => run.count(&format!("{kind}: no answer, the process was gone")),
        }
        outcome
    }

    fn promise(&mut self, promise: Option<Promise>) {
        let at = self.run.cloud.journal().len();
        self.promised = promise.map(|promise| (promise, at));
    }

    fn keep_promise(&mut self) {
        let Some((promise, from)) = self.promised.take() else { return };
        let broken = self.run.cloud.journal().into_iter().skip(from).find(|record| {
            let ours = record.disk == self.id && record.action != "console";
            match promise {
                Promise::Absent => {
                    record.event == Happening::CreateAccepted
                        && self.run.cloud.disk(&record.disk).is_some_and(|disk| disk.name == self.name)
                }
                Promise::Free => ours && record.event == Happening::AttachAccepted,
                Promise::Kept => ours && record.event == Happening::Deleted,
            }
        });
        if let Some(record) = broken {
            let (name, id) = (&self.name, &self.id);
            self.run.fail(&format!("{promise:?} was promised of {name} ({id}), and then {record:?}"));
        }
    }

    /// Calls until it is answered with OK. `None`: given up, as asked.
    async fn until_done(&mut self, call: Call, give_up: bool) -> Option<Done> {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match self.call(call).await {
                Outcome::Done(done) => return Some(done),
                Outcome::Refused(status) => {
                    // What the driver leaves to people, people do.
                    if status.message().contains("delete it in the console") {
                        for disk in named(&self.run.cloud, &self.name) {
                            self.run.touch(&disk.id);
                            let _ = self.run.cloud.happen(Event::DeleteDisk { disk: disk.id }).await;
                        }
                    }
                    last = status.to_string();
                }
                Outcome::Died => last = GONE.to_owned(),
            }
            // A roll-out is when people change their minds, too, and the next process is called for the opposite.
            let odds = if last == GONE { 70 } else { 30 };
            if give_up && self.run.chance(odds) {
                self.hurries = last == GONE;
                return None;
            }
            // The first tries of a sidecar follow at once, the later ones take their time.
            let longest = self.run.one_of(&[2, 20]);
            self.run.pause(longest).await;
        }
        self.run.fail(&format!("{call:?} of {} ({}) does not end: {last}", self.name, self.id))
    }

    /// From the claim to its deletion.
    pub async fn live(mut self) {
        let run = Arc::clone(&self.run);
        let kind = run.one_of(&["ssd", "rssd"]);
        let made = self.until_done(Call::Create(kind), false).await;
        self.id = made.map(|made| made.id).unwrap_or_default();
        let mut size = 20;
        while !run.is_over() && run.chance(75) {
            match run.below(6) {
                0 => {
                    self.until_done(Call::Create(kind), true).await;
                }
                1 => {
                    size += 10;
                    // Given up or not: what was asked for stays asked for.
                    self.until_done(Call::Expand(size), true).await;
                }
                2 if self.node.is_none() => {
                    // For a node that it is not on.
                    self.until_done(Call::Unpublish(self.any_node(kind)), true).await;
                }
                _ => match self.node {
                    None => {
                        let node = self.any_node(kind);
                        self.node = Some(node);
                        self.until_done(Call::Publish(node), true).await;
                    }
                    Some(node) => {
                        self.until_done(Call::Unpublish(node), false).await;
                        self.node = None;
                    }
                },
            }
            if !std::mem::take(&mut self.hurries) {
                run.pause(30).await;
            }
        }
        if let Some(node) = self.node {
            self.until_done(Call::Unpublish(node), false).await;
        }
        self.until_done(Call::Delete, false).await;
        self.keep_promise();
    }

    fn any_node(&self, kind: &str) -> &'static str {
        loop {
            let node = self.run.one_of(&NODES);
            // Bare metal takes no other type.
            if kind == "rssd" || host_of(node) != METAL {
                return node;
            }
        }
    }
}

/// Whether a caller with this answer may forget the call. Of a name that is taken nothing is promised.
fn is_final(call: Call, code: Code) -> bool {
    call.is_final(code) && code != Code::AlreadyExists
}
