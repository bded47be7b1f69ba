//! The one way to an external program.
//!
//! All programs in here write to disks, so none is ever killed: a mkfs or fsck that is cut off leaves a broken
//! file system. There is no time limit either; a long fsck goes on while its callers come and go.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;

use super::device::OpenDevice;
use super::device_number::DeviceNumber;
use super::reports::Reports;

/// What is kept of a program's words.
const MAX_OUTPUT: u64 = 4096;

/// Where programs are looked for, whatever the environment says.
const DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// An external program, and the package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    pub name: &'static str,
    pub package: &'static str,
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    /// The end of what it said, on either stream.
    pub words: String,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("{} is not installed on this host; it is in package {}", .0.name, .0.package)]
    Missing(Tool),
    #[error("{tool} could not be run: {source}")]
    NotRun { tool: &'static str, source: io::Error },
    #[error("{tool} {}: {}", ended(.output.code), said(&.output.words))]
    Failed { tool: &'static str, output: Output },
}

fn ended(code: Option<i32>) -> String {
    code.map_or_else(|| "was ended by a signal".to_owned(), |code| format!("failed with status {code}"))
}

fn said(words: &str) -> &str {
    if words.is_empty() { "it said nothing" } else { words }
}

impl ToolError {
    pub(super) fn failed(tool: Tool, output: Output) -> Self {
        Self::Failed { tool: tool.name, output }
    }
}

/// Where a program is, if it is installed.
pub fn find(tool: Tool) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(tool.name)).find(|path| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Runs a program to its end and returns what it left, whatever its status.
pub async fn run<I, S>(tool: Tool, arguments: I) -> Result<Output, ToolError>
where
    I: IntoIterator<Item = S> + Send,
    S: AsRef<OsStr>,
{
    run_with(tool, arguments, Stdio::null(), None).await
}

/// Like [`run`], for a program that works on `device`, whose last argument that becomes. The program has the locked
/// device as its input, which none of them reads without a terminal: so the lock lives as long as the program.
pub async fn run_on<'a>(
    tool: Tool,
    arguments: impl IntoIterator<Item = &'a str> + Send,
    device: &'a OpenDevice,
) -> Result<Output, ToolError> {
    let handed_on = hand_on(tool, device)?;
    let arguments = arguments.into_iter().map(OsStr::new).chain([device.path().as_os_str()]);
    run_with(tool, arguments.collect::<Vec<_>>(), handed_on, None).await
}

/// Like [`run_on`], for a program that reports how far it is, in one write per report, to the descriptor whose number
/// follows `flag`. `told` gets each report.
pub async fn run_on_reporting(
    tool: Tool,
    flag: &str,
    arguments: &[&str],
    device: &OpenDevice,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<Output, ToolError> {
    let handed_on = hand_on(tool, device)?;
    let opened = Reports::open(told).map_err(|source| ToolError::NotRun { tool: tool.name, source });
    let (mut reports, number) = opened?;
    let number = number.to_string();
    let arguments: Vec<&OsStr> = [flag, &number]
        .into_iter()
        .chain(arguments.iter().copied())
        .map(OsStr::new)
        .chain([device.path().as_os_str()])
        .collect();
    run_with(tool, arguments, handed_on, Some(&mut reports)).await
}

/// The locked device as a program's input.
fn hand_on(tool: Tool, device: &OpenDevice) -> Result<Stdio, ToolError> {
    let not_run = |source| ToolError::NotRun { tool: tool.name, source };
    let handed_on = device.handed_on().map_err(|error| not_run(io::Error::other(error)))?;
    // The program opens the path, which may lead to another disk since the last check that took long.
    let rdev = fs::metadata(device.path()).map_err(not_run)?.rdev();
    if DeviceNumber::from_raw(rdev) != device.number() {
        let text = format!("{} was exchanged for another disk", device.path().display());
        return Err(not_run(io::Error::other(text)));
    }
    Ok(handed_on.into())
}

async fn run_with<I, S>(
    tool: Tool,
    arguments: I,
    stdin: Stdio,
    reports: Option<&mut Reports<'_>>,
) -> Result<Output, ToolError>
where
    I: IntoIterator<Item = S> + Send,
    S: AsRef<OsStr>,
{
    let path = find(tool).ok_or(ToolError::Missing(tool))?;
    let not_run = |source: io::Error| ToolError::NotRun { tool: tool.name, source };
    // Not a pipe: if this driver ends, a program that writes to a pipe would be killed by the signal that it gets.
    let words = memfd_create(c"tool-output", MFdFlags::MFD_CLOEXEC).map_err(|e| not_run(e.into()))?;
    let mut words = File::from(words);
    let (out, err) = (words.try_clone().map_err(not_run)?, words.try_clone().map_err(not_run)?);
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", DIRECTORIES.join(":"))
        .stdin(stdin)
        .stdout(out)
        .stderr(err)
        .current_dir("/")
        // Ctrl-C at a terminal is for the driver, which stops in order; not for a mkfs that it runs.
        .process_group(0);
    let mut program = command.spawn().map_err(not_run)?;
    let status = match reports {
        Some(reports) => {
            reports.handed_over();
            let status = tokio::select! {
                never = reports.follow() => match never {},
                status = program.wait() => status,
            };
            reports.rest();
            status
        }
        None => program.wait().await,
    };
    let status = status.map_err(not_run)?;
    Ok(Output { code: status.code(), words: tail(&mut words).map_err(not_run)? })
}

/// Like [`run_on`], but only status 0 is success.
pub async fn succeed_on<'a>(
    tool: Tool,
    arguments: impl IntoIterator<Item = &'a str> + Send,
    device: &'a OpenDevice,
) -> Result<(), ToolError> {
    let output = run_on(tool, arguments, device).await?;
    if output.code == Some(0) { Ok(()) } else { Err(ToolError::failed(tool, output)) }
}

/// The end of the output, on one line.
fn tail(words: &mut File) -> io::Result<String> {
    let length = words.metadata()?.len();
    words.seek(io::SeekFrom::Start(length.saturating_sub(MAX_OUTPUT)))?;
    let mut bytes = Vec::new();
    words.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool { name: "sh", package: "dash" };

    #[tokio::test]
    async fn words_of_both_streams_and_the_status_are_kept() {
        let output = run(SH, ["-c", "echo one; echo two >&2; exit 3"]).await.unwrap();
        assert_eq!(output, Output { code: Some(3), words: "one; two".to_owned() });
        let failed = ToolError::failed(SH, run(SH, ["-c", "echo no; exit 1"]).await.unwrap());
        assert_eq!(failed.to_string(), "sh failed with status 1: no");
        let error = ToolError::failed(SH, run(SH, ["-c", "kill -9 $$"]).await.unwrap());
        assert_eq!(error.to_string(), "sh was ended by a signal: it said nothing");
    }

    #[tokio::test]
    async fn much_output_is_cut_to_its_end_and_stdin_is_empty() {
        let script =
            "cat; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo \"$LC_ALL$HOME\"";
        let output = run(SH, ["-c", script]).await.unwrap();
        assert!(output.words.len() as u64 <= MAX_OUTPUT * 2 && output.words.ends_with("line 2999; C"));
    }

    #[tokio::test]
    async fn reports_are_told_as_they_come_and_are_no_words() {
        const BASH: Tool = Tool { name: "bash", package: "bash" };
        let mut all = Vec::new();
        let mut told = |report: &str| all.push(report.to_owned());
        let (mut reports, number) = Reports::open(&mut told).unwrap();
        let script = format!("for i in {{1..500}}; do echo $i of 500 >&{number}; done; echo words; exit 1");
        let output = run_with(BASH, ["-c", &script], Stdio::null(), Some(&mut reports)).await.unwrap();
        assert_eq!(output, Output { code: Some(1), words: "words".to_owned() });
        drop(reports);
        assert_eq!(all.len(), 500);
        assert_eq!((all[0].as_str(), all[499].as_str()), ("1 of 500", "500 of 500"));
    }

    /// Nobody reads its reports any more; it goes on.
    #[tokio::test]
    async fn a_program_outlives_who_reads_its_reports() {
        const BASH: Tool = Tool { name: "bash", package: "bash" };
        let directory = tempfile::tempdir().unwrap();
        let (started, go, done) =
            (directory.path().join("started"), directory.path().join("go"), directory.path().join("done"));
        let (as_started, as_go, as_done) = (started.clone(), go.clone(), done.clone());
        let call = tokio::spawn(async move {
            let mut told = |_: &str| {};
            let (mut reports, number) = Reports::open(&mut told).unwrap();
            let script = format!(
                "touch {}; until test -e {}; do sleep 0.01; done; for i in {{1..500}}; do echo $i >&{number}; done; touch {}",
                as_started.display(),
                as_go.display(),
                as_done.display()
            );
            run_with(BASH, ["-c", &script], Stdio::null(), Some(&mut reports)).await
        });
        while !started.exists() {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        fs::write(&go, "").unwrap();
        let ended = async {
            while !done.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("it was ended");
    }

    #[tokio::test]
    async fn a_missing_program_names_its_package() {
        let error = run(Tool { name: "mkfs.nothing", package: "nothing-progs" }, ["x"]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "mkfs.nothing is not installed on this host; it is in package nothing-progs"
        );
    }

    /// A dropped call is what a stopping runtime does; the program must still come to its end.
    #[tokio::test]
    async fn a_program_outlives_the_call() {
        let directory = tempfile::tempdir().unwrap();
        let (started, done) = (directory.path().join("started"), directory.path().join("done"));
        let script =
            format!("touch {0}; sleep 0.2; echo words; touch {1}", started.display(), done.display());
        let call = tokio::spawn(async move { run(SH, ["-c".to_owned(), script]).await });
        while !started.exists() {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        while !done.exists() {
            tokio::task::yield_now().await;
        }
    }
}
