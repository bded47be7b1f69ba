//! Bad input of every kind over the real sockets: a table whose rows name the code and a phrase of the answer, and
//! after each row nothing is left behind, neither in the cloud nor on the host.

mod configuration;
mod controller;
mod node;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use csi_udisk::csi::proto::v1;
use serde_json::Value;
use tonic::Code;
use v1::volume_capability::{AccessMode, AccessType, MountVolume};

use crate::csi;
use crate::world::{World, has_own_mounts};

/// One row: what is wrong, how a good request becomes it, and the answer: its code and a phrase of its text.
type Row<R> = (&'static str, fn(&mut R, &Place), Code, &'static str);

/// What the rows speak of.
struct Place {
    world: World,
    host: String,
    /// A volume of 20 GiB, type ssd, that is attached nowhere.
    free: String,
    /// Another one, attached to the first host.
    attached: String,
    /// Its publish context.
    context: BTreeMap<String, String>,
    /// The kubelet directory of the test.
    kubelet: PathBuf,
    /// The file behind a disk that is attached, blank, and must stay so.
    blank: Option<PathBuf>,
}

impl Place {
    fn path(&self, name: &str) -> String {
        self.kubelet.join(name).display().to_string()
    }
}

/// All that could be left behind: the cloud's disks and changes, mounts, files below the kubelet directory, and what
/// was written to the blank disk.
#[derive(Debug, PartialEq)]
struct Truth {
    disks: Value,
    journal: Value,
    mounts: String,
    files: Vec<String>,
    blank_blocks: u64,
}

impl Truth {
    async fn read(place: &Place) -> Self {
        let mut files = Vec::new();
        walk(&place.kubelet, &mut files);
        files.sort();
        Self {
            disks: place.world.control("GET", "disks", "").await,
            journal: place.world.control("GET", "journal", "").await,
            mounts: mounts(place),
            files,
            blank_blocks: place.blank.as_ref().map_or(0, |file| std::fs::metadata(file).unwrap().blocks()),
        }
    }

    /// What differs, for a report.
    fn difference(&self, now: &Self) -> Option<String> {
        let changed = [
            ("disks in the cloud", self.disks != now.disks),
            ("changes in the cloud", self.journal != now.journal),
            ("mounts", self.mounts != now.mounts),
            ("files", self.files != now.files),
            ("data on the blank disk", self.blank_blocks != now.blank_blocks),
        ];
        let names: Vec<_> = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| format!("left behind: {}, {self:?} became {now:?}", names.join(", ")))
    }
}

/// All mounts where they are the test's own; else those of its directory, for other programs mount what they like.
fn mounts(place: &Place) -> String {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = place.world.dir.to_str().unwrap();
    all.lines()
        .filter(|line| has_own_mounts() || line.contains(dir))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        let length = entry.metadata().map_or(0, |found| found.len());
        files.push(format!(
            "{} {kind:?} {}",
            entry.path().display(),
            if kind.is_file() { length } else { 0 }
        ));
        if kind.is_dir() {
            walk(&entry.path(), files);
        }
    }
}

/// Collects what is wrong with the answers, so that one run names all of it.
struct Judge {
    before: Truth,
    rows: usize,
    faults: Vec<String>,
}

impl Judge {
    async fn new(place: &Place) -> Self {
        Self { before: Truth::read(place).await, rows: 0, faults: Vec::new() }
    }

    /// Judges one answer; `answer` is the code and the text.
    async fn row(&mut self, place: &Place, name: &str, answer: (Code, String), wanted: (Code, &str)) {
        self.rows += 1;
        let (code, text) = answer;
        let mut faults = Vec::new();
        if code != wanted.0 {
            faults.push(format!("answered {code:?} and not {:?}", wanted.0));
        }
        if !text.contains(wanted.1) {
            faults.push(format!("does not say {:?}", wanted.1));
        }
        // It becomes an event of Kubernetes, on one line.
        if text.chars().any(char::is_control) {
            faults.push("holds a control character".to_owned());
        }
        // Kubernetes keeps a kilobyte of it.
        if text.len() > 1024 {
            faults.push(format!("has {} bytes", text.len()));
        }
        let now = Truth::read(place).await;
        faults.extend(self.before.difference(&now));
        // So that the next rows are not blamed.
        self.before = now;
        self.faults.extend(faults.into_iter().map(|fault| format!("{name}: {fault} [{text}]")));
    }

    fn finish(self, table: &str) {
        report(table, self.rows);
        let Self { rows, faults, .. } = self;
        assert!(faults.is_empty(), "{table}: {} faults in {rows} rows:\n{}", faults.len(), faults.join("\n"));
    }
}

/// Past the test's own capture of its output: the number is part of what the test shows.
fn report(table: &str, rows: usize) {
    let _ = writeln!(std::io::stderr(), "bad input, {table}: {rows} rows");
}

/// The code and text of an answer.
fn answer<T>(result: Result<tonic::Response<T>, tonic::Status>) -> (Code, String) {
    match result {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

/// Sends the rows of one call: a good request, spoilt by each row in turn.
macro_rules! send {
    ($judge:ident, $place:ident, $client:expr, $rpc:ident, $good:expr, $rows:expr) => {
        for (what, spoil, code, phrase) in $rows {
            let mut request = $good;
            spoil(&mut request, &$place);
            let mut request = tonic::Request::new(request);
            request.set_timeout(std::time::Duration::from_secs(20));
            let answer = crate::bad_input::answer($client.$rpc(request).await);
            let name = format!("{}, {what}", stringify!($rpc));
            $judge.row(&$place, &name, answer, (*code, *phrase)).await;
        }
    };
}
use send;

/// Longer than any limit, in a script of three bytes a character, so that texts are cut in the middle of one.
fn huge() -> String {
    "盘".repeat(40_000)
}

/// Ids that no disk has. What takes a volume away succeeds for all of them: there is nothing to take away.
const NO_DISKS: [fn() -> String; 12] = [
    || "bsm-none".into(),
    || "sanity-unknown".into(),
    || "a/b".into(),
    || "../../etc".into(),
    || " ".into(),
    || "bs 1".into(),
    || "盘".into(),
    || "\0".into(),
    || "-".into(),
    || "x".repeat(128),
    || "x".repeat(129),
    huge,
];

/// Capabilities with a mode, or with a file system, flags and a group.
fn mode(mode: i32) -> v1::VolumeCapability {
    v1::VolumeCapability { access_mode: Some(AccessMode { mode }), ..csi::capability("ext4") }
}

fn mount(fs_type: &str, flags: &[&str], group: &str) -> v1::VolumeCapability {
    let access = AccessType::Mount(MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        volume_mount_group: group.to_owned(),
    });
    v1::VolumeCapability { access_type: Some(access), ..csi::capability("ext4") }
}

/// The start of an id, for names of rows.
fn shown(id: &str) -> String {
    format!("{:?}", id.chars().take(20).collect::<String>())
}

fn capacity(required: i64, limit: i64) -> Option<v1::CapacityRange> {
    Some(v1::CapacityRange { required_bytes: required, limit_bytes: limit })
}
