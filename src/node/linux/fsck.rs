//! Checks before a writable mount.

use std::path::Path;

use super::device::OpenDevice;
use super::exec::{self, Output, Tool, ToolError};
use super::probe::FsKind;

const E2FSCK: Tool = Tool { name: "e2fsck", package: "e2fsprogs" };

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
pub async fn check(kind: FsKind, device: &OpenDevice, full: bool) -> Result<Option<String>, CheckError> {
    if !kind.is_ext() {
        return Ok(None);
    }
    let flag = if full { "-fp" } else { "-p" };
    let output = exec::run_on(E2FSCK, [flag], device).await?;
    judge(output, device.path())
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
}
