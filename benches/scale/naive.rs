//! What the poller is compared with: every waiter reads its own disk, once a second.
//!
//! It has the same client, keeps the same one change at a time on each host, and is a process of its own, so that its
//! use of the machine can be compared as well. It takes `attach DISK HOST` and `detach DISK HOST` on standard input, all at
//! once, and prints each disk when it is done.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use csi_udisk::cloud::{Attachment, Cloud as _, Disk, DiskStatus};
use csi_udisk::sandbox::cloud::SimConfig;
use csi_udisk::ucloud::{CredentialSource, Credentials, ReqwestTransport, UCloud, UCloudConfig};
use csi_udisk::volume::{DiskId, HostId};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::world::{Watched, World};

const EVERY: Duration = Duration::from_secs(1);

/// The word on the command line that makes this program the naive one.
pub(crate) const WORD: &str = "naive";

/// The naive driver, seen from outside.
pub(crate) struct Naive {
    pub(crate) process: Watched,
    lines: mpsc::UnboundedReceiver<(String, Instant)>,
}

impl Naive {
    pub(crate) fn start(world: &World) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([WORD, &world.url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read(child.stdout.take().unwrap());
        Self { process: Watched(child), lines }
    }

    /// Has all done at once; answers when each was.
    pub(crate) async fn run(&mut self, verb: &str, disks: &[(String, String)]) -> HashMap<String, Instant> {
        let orders: String = disks.iter().map(|(disk, host)| format!("{verb} {disk} {host}\n")).collect();
        self.process.0.stdin.as_mut().unwrap().write_all(orders.as_bytes()).unwrap();
        let mut answers = HashMap::new();
        while answers.len() < disks.len() {
            answers.extend(self.lines.recv().await);
        }
        answers
    }
}

fn read(stdout: ChildStdout) -> mpsc::UnboundedReceiver<(String, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send((line, Instant::now())).is_err() {
                break;
            }
        }
    });
    receiver
}

#[derive(Clone)]
struct Client {
    cloud: Arc<UCloud>,
    hosts: Arc<StdMutex<HashMap<String, Arc<Mutex<()>>>>>,
}

/// The naive driver itself.
pub(crate) async fn serve(url: &str) {
    let account = SimConfig::default();
    let endpoint = url.parse().unwrap();
    let transport = ReqwestTransport::for_endpoint(&endpoint).unwrap();
    let keys = account.keys[0].clone();
    let keys = CredentialSource::keys(Credentials::keys(keys.public.into(), keys.private.into()));
    let config = UCloudConfig {
        endpoint,
        region: account.region,
        project_id: None,
        vpc_id: None,
        read_timeout: Duration::from_secs(30),
    };
    let client = Client { cloud: Arc::new(UCloud::new(config, transport, keys)), hosts: Arc::default() };
    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    while let Some(order) = orders.recv().await {
        let client = client.clone();
        tokio::spawn(async move {
            let words: Vec<&str> = order.split(' ').collect();
            let (disk, host) = (DiskId::parse(words[1]).unwrap(), HostId::parse(words[2]).unwrap());
            client.change(words[0] == "attach", &disk, &host).await;
            println!("{disk}");
        });
    }
}

impl Client {
    async fn change(&self, attach: bool, disk: &DiskId, host: &HostId) {
        let mut found = self.read(disk).await;
        let slot = Arc::clone(self.hosts.lock().unwrap().entry(host.to_string()).or_default());
        let turn = slot.lock().await;
        let wanted = if attach { DiskStatus::InUse } else { DiskStatus::Available };
        let deadline = || Instant::now() + Duration::from_secs(600);
        loop {
            let zone = &found.zone;
            let sent = match attach {
                true => {
                    let (disk, host) = (disk.clone(), host.clone());
                    let (zone, multi_attach) = (zone.clone(), Some(false));
                    let attachment = Attachment { disk, host, zone, multi_attach, cross_pod: false };
                    self.cloud.attach_disk(&attachment, deadline()).await
                }
                false => self.cloud.detach_disk(zone, disk, host, deadline()).await,
            };
            if sent.is_ok() {
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
        while found.status != wanted {
            tokio::time::sleep(EVERY).await;
            found = self.read(disk).await;
        }
        drop(turn);
    }

    async fn read(&self, disk: &DiskId) -> Disk {
        loop {
            if let Ok(Some(disk)) = self.cloud.disk(disk, Instant::now() + Duration::from_secs(600)).await {
                return disk;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
