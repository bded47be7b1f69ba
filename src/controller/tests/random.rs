//! Random operations and faults; what is answered is compared with the truth.

use super::*;
use crate::cloud::Cause;
use crate::controller::ExpandRequest;
use crate::controller::fake::{Fault, host_id};

const ACTIONS: [&str; 8] = [
    "disk",
    "disks",
    "create_disk",
    "delete_disk",
    "attach_disk",
    "detach_disk",
    "resize_detached_disk",
    "resize_attached_disk",
];
const FAULTS: [Fault; 9] = [
    Fault::ReplyLost,
    Fault::ReplyLost,
    Fault::RequestLost,
    Fault::RequestLost,
    Fault::Refused(Cause::Busy),
    Fault::Refused(Cause::AttachFailed),
    Fault::Refused(Cause::DetachFailed),
    Fault::Refused(Cause::Throttled),
    Fault::Refused(Cause::NoStock),
];
const HOSTS: [(&str, &str); 3] = [("uhost-a", "10.0.0.1"), ("uhost-b", "10.0.0.2"), ("upm-c", "10.0.0.3")];

/// What the caller was promised about one volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Promise {
    disk: Option<DiskId>,
    host: Option<&'static str>,
}

struct Campaign {
    bench: Bench,
    random: fastrand::Rng,
    promises: Vec<Promise>,
    /// Whether processes die; a second disk of a name is possible then if listings lag, so they do not.
    restarts: bool,
}

impl Campaign {
    async fn run(seed: u64, restarts: bool, steps: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let bench = Bench::new().await;
        {
            let mut model = bench.cloud.model();
            model.work = Duration::from_millis(random.u64(0..8000));
            model.read_lag = Duration::from_millis(random.u64(0..9500));
            model.list_lag =
                if restarts { Duration::ZERO } else { Duration::from_millis(random.u64(0..50_000)) };
            model.host_limit = 3;
            model.wobble = random.bool().then(|| random.fork());
            model.list_wobble = random.bool().then(|| random.fork());
        }
        let promises = vec![Promise::default(); 3];
        let mut campaign = Self { bench, random, promises, restarts };
        for step in 0..steps {
            campaign.step(&format!("seed {seed} step {step}")).await;
        }
    }

    async fn step(&mut self, context: &str) {
        while self.random.u8(0..3) == 0 {
            let action = ACTIONS[self.random.usize(0..ACTIONS.len())];
            let fault = FAULTS[self.random.usize(0..FAULTS.len())];
            self.bench.cloud.fail_after(action, self.random.usize(0..3), fault);
        }
        if self.restarts && self.random.u8(0..6) == 0 {
            self.bench = self.bench.restarted();
        }
        tokio::time::advance(Duration::from_millis(self.random.u64(0..15_000))).await;
        let number = self.random.usize(0..self.promises.len());
        let name = format!("volume-{number}");
        let (host, address) = HOSTS[self.random.usize(0..HOSTS.len())];
        let node = if self.random.bool() { host } else { address };
        let begun = Instant::now();
        let promise = self.promises[number].clone();
        let choice = self.random.u8(0..10);
        let cut = (self.restarts && self.random.u8(0..8) == 0).then(|| self.random.u64(0..12_000));
        let cut = cut.map_or(Duration::from_secs(400), Duration::from_millis);
        let done =
            tokio::time::timeout(cut, self.operate(number, &name, choice, host, node, &promise, context));
        let finished = done.await.is_ok();
        assert!(finished || self.restarts, "{context}: no end after {:?}", begun.elapsed());
        if !finished {
            // The process died here.
            self.bench = self.bench.restarted();
        }
        assert!(self.bench.cloud.disks_named(&name) <= 1, "{context}: two disks for one name");
    }

    /// Where reads jump back and forth, the picture of an earlier attachment may pass for the one that the cloud has
    /// just accepted. It will come true; nothing else may be said.
    fn wobbles(&self) -> bool {
        self.bench.cloud.model().wobble.is_some()
    }

    #[expect(clippy::too_many_arguments, reason = "one random choice each")]
    async fn operate(
        &mut self,
        number: usize,
        name: &str,
        choice: u8,
        host: &'static str,
        node: &str,
        promise: &Promise,
        context: &str,
    ) {
        let Promise { disk, host: on } = promise;
        match (choice, disk) {
            (0..=2, _) | (_, None) => {
                let volume = match self.bench.create(name).await {
                    Ok(volume) => volume,
                    Err(CreateError::Vanished { disk, .. }) => {
                        let truth = self.bench.cloud.truth(disk.as_str());
                        assert_eq!(truth, None, "{context}: called deleted");
                        return;
                    }
                    Err(_) => return,
                };
                let truth = self.bench.cloud.truth(volume.id.as_str());
                assert!(truth.is_some_and(|disk| disk.name == name), "{context}: {volume:?} does not exist");
                assert!(
                    disk.as_ref().is_none_or(|disk| *disk == volume.id),
                    "{context}: {disk:?} {volume:?}"
                );
                self.promises[number].disk = Some(volume.id);
            }
            (3..=5, Some(disk)) => {
                // As Kubernetes does: only one node at a time is asked for.
                let (host, node) = on.map_or((host, node), |on| (on, on));
                self.promises[number].host = Some(host);
                if self.bench.attach(disk.as_str(), node).await.is_ok() {
                    let truth = self.bench.cloud.truth(disk.as_str()).unwrap();
                    let there = (truth.status == DiskStatus::InUse
                        || (self.wobbles() && truth.status == DiskStatus::Attaching))
                        && truth.host == Some(host_id(host));
                    assert!(there, "{context}: attached to {host}, but {truth:?}");
                }
            }
            (6..=7, Some(disk)) => {
                let node = on.unwrap_or(node);
                if self.bench.detach(disk.as_str(), node).await.is_ok() {
                    let truth = self.bench.cloud.truth(disk.as_str()).unwrap();
                    let gone =
                        truth.host.is_none() || (self.wobbles() && truth.status == DiskStatus::Detaching);
                    assert!(gone, "{context}: detached, but {truth:?}");
                    self.promises[number].host = None;
                }
            }
            (8, Some(disk)) => {
                let size = self.bench.cloud.truth(disk.as_str()).unwrap().size.get() + 10;
                let required_bytes = Gib::new(size).bytes();
                let request = ExpandRequest { disk: disk.clone(), required_bytes, limit_bytes: None };
                if self.bench.controller.expand(request, soon(), &self.bench.progress).await.is_ok() {
                    let truth = self.bench.cloud.truth(disk.as_str()).unwrap();
                    assert!(truth.size.get() >= size, "{context}: grown to {size}, but {truth:?}");
                }
            }
            (_, Some(disk)) => {
                if on.is_some() {
                    return;
                }
                self.promises[number].disk = None;
                if self.bench.delete(disk.as_str()).await.is_ok() {
                    let truth = self.bench.cloud.truth(disk.as_str());
                    assert_eq!(truth, None, "{context}: deleted");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_true_whatever_fails_and_lags() {
    for seed in 0..150 {
        Campaign::run(seed, false, 80).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_true_whenever_processes_die() {
    for seed in 1000..1150 {
        Campaign::run(seed, true, 80).await;
    }
}
