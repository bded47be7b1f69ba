//! Checks before a writable mount.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::device::OpenDevice;
use super::exec::{self, Output, Tool, ToolError};
use super::probe::FsKind;
use crate::progress::Progress;

const E2FSCK: Tool = Tool { name: "e2fsck", package: "e2fsprogs" };

/// Between two lines of the log about one check.
const LOG_PAUSE: Duration = Duration::from_secs(30);

const CORRECTED: i32 = 1;
/// Corrected as well; the advice to reboot is for a mounted root file system.
const REBOOT: i32 = 2;
const UNCORRECTED: i32 = 4;

/// Why a file system is not mounted for writing.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(
        "e2fsck found errors that a person must decide on; run e2fsck on {device} by hand. It said: {words}"
    )]
    Uncorrected { device: String, words: String },
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Replays the journal and repairs what is safe to repair. Xfs replays its log when it is mounted and btrfs needs
/// nothing. With `full` everything is read, as `resize2fs` demands. Returns what was repaired.
///
/// A large file system that must be read as a whole takes hours. Only then are there reports: how far it is, is told to
/// whoever waits, and to the log at once and every now and then.
pub async fn check(
    kind: FsKind,
    device: &OpenDevice,
    full: bool,
    progress: &Progress,
) -> Result<Option<String>, CheckError> {
    if !kind.is_ext() {
        return Ok(None);
    }
    let path = device.path().display();
    progress.set(format!("checking {kind} of {path}"));
    let start = Instant::now();
    let mut pace = Pace::default();
    let mut told = |report: &str| {
        let Some(percent) = percent(report) else { return };
        progress.set(format!("checking {kind} of {path}: {percent} %"));
        if pace.is_due() {
            info!(device = %path, fs = %kind, percent, seconds = start.elapsed().as_secs(), "the whole file system is being checked");
        }
    };
    let flag = if full { "-fp" } else { "-p" };
    let output = exec::run_on_reporting(E2FSCK, "-C", &[flag], device, &mut told).await?;
    if pace.last.is_some() {
        info!(device = %path, fs = %kind, seconds = start.elapsed().as_secs(), "the check of the file system has ended");
    }
    judge(output, device.path())
}

/// When the log gets its next line.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
}

impl Pace {
    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= LOG_PAUSE);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// A report names the pass, how much of it is done, and how much it is. The passes take as much of the whole as e2fsck's
/// own bar gives them.
fn percent(report: &str) -> Option<u64> {
    const ENDS: [u64; 6] = [0, 70, 90, 92, 95, 100];
    let mut numbers = report.split(' ').map(|number| number.parse::<u64>().ok());
    let (pass, done, whole) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let pass = usize::try_from(pass).ok()?;
    let (begin, end) = (ENDS.get(pass.checked_sub(1)?)?, ENDS.get(pass)?);
    Some(begin + (end - begin) * done.min(whole) / whole.max(1))
}

/// The status is a sum of bits.
fn judge(output: Output, device: &Path) -> Result<Option<String>, CheckError> {
    match output.code {
        Some(0) => Ok(None),
        Some(code) if code & !(CORRECTED | REBOOT) == 0 => Ok(Some(output.words)),
        Some(code) if code & !(CORRECTED | REBOOT | UNCORRECTED) == 0 => {
            Err(CheckError::Uncorrected { device: device.display().to_string(), words: output.words })
        }
        _ => Err(ToolError::failed(E2FSCK, output).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_the_status_are_judged() {
        let judge = |code| judge(Output { code, words: "words".into() }, Path::new("/dev/vdb"));
        assert_eq!(judge(Some(0)).unwrap(), None);
        for code in 1..=3 {
            assert_eq!(judge(Some(code)).unwrap().as_deref(), Some("words"));
        }
        for code in 4..=7 {
            assert!(matches!(judge(Some(code)), Err(CheckError::Uncorrected { .. })), "{code}");
        }
        for code in [Some(8), Some(12), Some(16), Some(32), Some(128), None] {
            assert!(matches!(judge(code), Err(CheckError::Tool(_))), "{code:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_of_the_whole_is_in_the_log_at_once_and_every_half_minute() {
        let mut pace = Pace::default();
        let mut lines = Vec::new();
        for second in 0..=100 {
            if pace.is_due() {
                lines.push(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [0, 30, 60, 90]);
    }

    #[test]
    fn reports_become_shares_of_the_whole() {
        for (report, share) in [
            ("1 0 8 /dev/vdb", 0),
            ("1 4 8 /dev/vdb", 35),
            ("1 8 8 /dev/vdb", 70),
            ("2 1 2 /dev/vdb", 80),
            ("5 8 8 /dev/vdb", 100),
            ("5 9 8 /dev/vdb", 100),
            ("3 0 0 /dev/vdb", 90),
        ] {
            assert_eq!(percent(report), Some(share), "{report}");
        }
        for odd in ["", "0 1 1 /dev/vdb", "6 1 1 /dev/vdb", "1 x 8", "1 2", "-1 2 3"] {
            assert_eq!(percent(odd), None, "{odd}");
        }
    }
}
