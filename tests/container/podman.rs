//! Containers, run by podman with the options that `tests/container/run` found.

use std::process::{Command, Output};

use crate::manifest::Container;
use crate::world::until;

/// `podman` and its options, and the image: set by `tests/container/run`.
pub fn podman() -> Command {
    let line = std::env::var("CSI_UDISK_PODMAN").expect("tests/container/run sets CSI_UDISK_PODMAN");
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

pub fn image() -> String {
    std::env::var("CSI_UDISK_IMAGE").expect("tests/container/run sets CSI_UDISK_IMAGE")
}

/// What a machine allows that may not raise limits.
const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn must(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs the image's program to its end: whether it succeeded, and all it said.
pub fn run_once(arguments: &[&str]) -> (bool, String) {
    let mut command = podman();
    command.args(["run", "--rm", "--network=none"]).args(LIMITS).arg(image()).args(arguments);
    let output = command.output().unwrap();
    (output.status.success(), said(&output))
}

/// A container that is gone when this is dropped.
pub struct Running {
    id: String,
}

impl Running {
    pub fn start(
        container: &Container,
        options: &[String],
        variables: &[(String, String)],
        extra: &[&str],
    ) -> Self {
        let mut command = podman();
        command.args(["run", "--detach"]).args(LIMITS).args(options).args(extra);
        for (name, value) in variables {
            command.arg(format!("--env={name}={value}"));
        }
        command.arg(image()).args(&container.arguments);
        Self { id: must(command) }
    }

    fn inspect(&self, what: &str) -> String {
        let mut command = podman();
        command.args(["inspect", "--format", what, &self.id]);
        must(command)
    }

    fn exec(&self, words: &[String]) -> Output {
        podman().arg("exec").arg(&self.id).args(words).output().unwrap()
    }

    /// What a probe of the manifest prints.
    pub fn probe(&self, words: &[String]) -> String {
        said(&self.exec(words))
    }

    pub async fn until_probe(&self, words: &[String]) {
        until(&words.join(" "), || self.exec(words).status.success()).await;
    }

    /// A line of the process's status in /proc, as the first word of its value.
    pub fn status(&self, key: &str) -> String {
        let text =
            std::fs::read_to_string(format!("/proc/{}/status", self.inspect("{{.State.Pid}}"))).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).split_whitespace().next().unwrap().to_owned()
    }

    /// Bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS").parse::<u64>().unwrap() * 1024
    }

    fn log(&self) -> String {
        podman()
            .args(["logs", &self.id])
            .output()
            .map_or_else(|error| error.to_string(), |output| said(&output))
    }

    /// As kubelet ends a pod; the driver ends well.
    pub fn stop(self) {
        let mut command = podman();
        command.args(["stop", "--time", "30", &self.id]);
        must(command);
        assert_eq!(self.inspect("{{.State.ExitCode}}"), "0", "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of container {}\n{}", self.id, self.log());
        }
        let _ = podman().args(["rm", "--force", "--time", "5", &self.id]).output();
    }
}
