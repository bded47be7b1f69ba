//! What is wrong with a volume, by what a look at it showed. Pure.

use super::linux::mountinfo::Mount;
use super::linux::vitals::Vitals;
use super::paths;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It works, but not as it should.
    Degraded,
    /// It cannot be used on this host.
    Inaccessible,
}

/// What the problem is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    DeviceGone,
    DeviceReadOnly,
    FileSystemErrors,
    FileSystemReadOnly,
    FileSystemShutDown,
    Hung,
    IoErrors,
    MountFailed,
    NotMounted,
}

impl Reason {
    pub fn word(self) -> &'static str {
        match self {
            Self::DeviceGone => "DeviceGone",
            Self::DeviceReadOnly => "DeviceReadOnly",
            Self::FileSystemErrors => "FileSystemErrors",
            Self::FileSystemReadOnly => "FileSystemReadOnly",
            Self::FileSystemShutDown => "FileSystemShutDown",
            Self::Hung => "Hung",
            Self::IoErrors => "IoErrors",
            Self::MountFailed => "MountFailed",
            Self::NotMounted => "NotMounted",
        }
    }
}

/// One problem of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub reason: Reason,
    /// For people: what was found, and what to do.
    pub words: String,
}

impl Problem {
    pub(super) fn inaccessible(reason: Reason, words: String) -> Self {
        Self { severity: Severity::Inaccessible, reason, words }
    }

    fn degraded(reason: Reason, words: String) -> Self {
        Self { severity: Severity::Degraded, reason, words }
    }
}

const ANEW: &str = "delete the pods that use it, so that it is unmounted, checked and mounted anew";

/// Judges one mount of the disk `device`.
pub fn judge(mount: &Mount, device: &str, vitals: &Vitals) -> Vec<Problem> {
    let at = mount.mount_point.display();
    let fs = &mount.fs_type;
    let mut problems = Vec::new();
    if let Err(error) = &vitals.read {
        let words = format!(
            "reading the disk {device} fails: {error}. Look at the disk in the cloud's console and at this host's kernel log"
        );
        problems.push(Problem::inaccessible(Reason::IoErrors, words));
    }
    if mount.fs_shut_down() || vitals.gave_up() {
        let words =
            format!("the {fs} at {at} has shut itself down after an error of the disk {device}; {ANEW}");
        problems.push(Problem::inaccessible(Reason::FileSystemShutDown, words));
    } else if let Err(error) = &vitals.root {
        problems.push(Problem::inaccessible(Reason::IoErrors, format!("looking at {at} fails: {error}")));
    }
    // Where a raw device is staged it may be read-only for the pods that have it so.
    let wanted_writable = !mount.read_only() && paths::staged_volume(&mount.mount_point).is_none();
    if wanted_writable && mount.fs_read_only() {
        let words = format!("the {fs} at {at} refuses writes since an error of the disk {device}; {ANEW}");
        problems.push(Problem::degraded(Reason::FileSystemReadOnly, words));
    }
    if wanted_writable && vitals.read_only {
        let words = format!(
            "the disk {device} refuses writes, but it is wanted writable at {at}. Look at the disk in the cloud's console"
        );
        problems.push(Problem::degraded(Reason::DeviceReadOnly, words));
    }
    if let Some(recorded) = &vitals.recorded {
        let (count, words) = (recorded.count, &recorded.words);
        let remedy = match fs.as_str() {
            "btrfs" => "run btrfs scrub, and btrfs device stats -z once they are dealt with".to_owned(),
            _ => ANEW.to_owned(),
        };
        let words =
            format!("the {fs} at {at} has recorded {count} errors of the disk {device}, {words}; {remedy}");
        problems.push(Problem::degraded(Reason::FileSystemErrors, words));
    }
    problems
}

/// One entry of a kind, as several mounts of one disk have the same problems.
pub fn without_repeats(problems: Vec<Problem>) -> Vec<Problem> {
    let mut once: Vec<Problem> = Vec::new();
    for problem in problems {
        if !once.iter().any(|other| (other.severity, other.reason) == (problem.severity, problem.reason)) {
            once.push(problem);
        }
    }
    once
}
