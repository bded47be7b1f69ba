//! The texts that people read in `kubectl describe`, for the twenty refusals of the cloud that they meet most, as this driver
//! makes them from what the simulated cloud answers. `CSI_UDISK_GOLDEN=1` writes the file anew.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use csi_udisk::sandbox::cloud::{Effect, Rule};

use crate::call::{Call, Outcome};
use crate::process::Process;
use crate::world::{HOST_A, Temper, account};
use Call::{Create, Delete, Expand, Publish, Unpublish};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events.txt");
const NAME: &str = "pvc-0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
/// What an event keeps.
const EVENT: usize = 1024;

struct Case {
    what: &'static str,
    before: &'static [Call],
    call: Call,
    action: &'static str,
    code: i64,
    /// The cloud's own words.
    words: &'static str,
}

const fn case(
    what: &'static str,
    before: &'static [Call],
    call: Call,
    action: &'static str,
    code: i64,
    words: &'static str,
) -> Case {
    Case { what, before, call, action, code, words }
}

const MADE: &[Call] = &[Create("ssd")];
const USED: &[Call] = &[Create("ssd"), Publish(HOST_A)];

const CASES: [Case; 20] = [
    case("the zone is sold out", &[], Create("rssd"), "CreateUDisk", 17005, "no available set exist"),
    case("the account has no money", &[], Create("ssd"), "CreateUDisk", 520, "Lack of balance"),
    case(
        "the balance does not pay for the disk",
        &[],
        Create("ssd"),
        "CreateUDisk",
        17063,
        "balance not enough",
    ),
    case("the account is in arrears", &[], Create("ssd"), "CreateUDisk", 173, "account frozen"),
    case("hourly billing is not allowed", &[], Create("ssd"), "CreateUDisk", 17062, "no dynamic permission"),
    case("a value is rejected", &[], Create("ssd"), "CreateUDisk", 230, "Params [ChargeType] not available"),
    case("the type is not sold there", &[], Create("ssd"), "CreateUDisk", 240, "no product permission"),
    case("a sub-account lacks a right", &[], Create("ssd"), "CreateUDisk", 291, "permission denied"),
    case("an IAM policy forbids it", &[], Create("ssd"), "CreateUDisk", 299, "IAM permission error"),
    case("the address is not on the list", &[], Create("ssd"), "CreateUDisk", 294, "ip not allowed"),
    case("the private key is wrong", &[], Create("ssd"), "CreateUDisk", 171, "Signature VerifyAC Error"),
    case("the disk quota is used up", &[], Create("ssd"), "CreateUDisk", 17067, "quota exceeded"),
    case("the API throttles the account", &[], Create("ssd"), "CreateUDisk", 153, "request throttled"),
    case("a backend does not answer", &[], Create("ssd"), "CreateUDisk", 110, "backend timeout"),
    case("the host takes no disk", MADE, Publish(HOST_A), "AttachUDisk", 17055, "attach udisk failed"),
    case(
        "disk and host are in different RDMA clusters",
        MADE,
        Publish(HOST_A),
        "AttachUDisk",
        17218,
        "Command failed: add_udisk.py failed",
    ),
    case("what was paid in advance is over", MADE, Publish(HOST_A), "AttachUDisk", 8117, "bill expired"),
    case(
        "the host does not let the disk go",
        USED,
        Unpublish(HOST_A),
        "DetachUDisk",
        17060,
        "detach udisk failed",
    ),
    case(
        "the host must be stopped to see a bigger disk",
        USED,
        Expand(30),
        "ResizeAttachedDisk",
        8010,
        "stop the host first",
    ),
    case("the disk cannot be deleted", MADE, Delete, "DeleteUDisk", 17030, "delete udisk failed"),
];

/// As it lands: the words of the sidecar that called, then those of the driver.
fn event(call: Call, status: &tonic::Status) -> String {
    let code = format!("{:?}", status.code());
    let (reason, prefix) = match call {
        Create(kind) => {
            ("ProvisioningFailed", format!("failed to provision volume with StorageClass \"{kind}\": "))
        }
        Publish(_) => ("FailedAttachVolume", format!("AttachVolume.Attach failed for volume \"{NAME}\" : ")),
        Unpublish(_) => ("detachError of the VolumeAttachment", String::new()),
        Expand(_) => (
            "VolumeResizeFailed",
            format!("resize volume \"{NAME}\" by resizer \"udisk.csi.ucloud.cn\" failed: "),
        ),
        Delete => ("VolumeFailedDelete", String::new()),
    };
    format!("{reason}\n{prefix}rpc error: code = {code} desc = {}", status.message())
}

impl Case {
    /// The event that the last of several calls leaves.
    async fn event(&self) -> String {
        fastrand::seed(7);
        let cloud = account(Temper::Prompt, 7).await;
        let process = Arc::new(Process::start(&cloud));
        let mut id = String::new();
        assert!(matches!(Delete.run(&process, "", "bsm-of-nobody").await, Outcome::Done(_)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        for call in self.before {
            let Outcome::Done(done) = call.run(&process, NAME, &id).await else { panic!("{}", self.what) };
            id = if id.is_empty() { done.id } else { id };
        }
        let effect = Effect::RetCode { code: self.code, message: self.words.to_owned(), done: false };
        cloud.add_fault(Rule { count: None, ..Rule::once(self.action, effect) });
        let mut last = None;
        for _ in 0..3 {
            match self.call.run(&process, NAME, &id).await {
                Outcome::Refused(status) => last = Some(status),
                other @ (Outcome::Done(_) | Outcome::Died) => panic!("{}: {other:?}", self.what),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let status = last.unwrap();
        let text = event(self.call, &status);
        let message = status.message();
        let subject = if id.is_empty() { NAME } else { id.as_str() };
        let number = format!("RetCode {}", self.code);
        let mut needed = vec![subject, &number];
        // Of many refusals that are waited out no single request is to blame.
        if self.code != 153 {
            needed.extend([self.action, self.words, "[request "]);
        }
        if let Publish(host) | Unpublish(host) = self.call {
            needed.push(host);
        }
        for part in needed {
            assert!(message.contains(part), "{}: {message:?} lacks {part:?}", self.what);
        }
        assert!(text.len() <= EVENT, "{}: {} bytes: {text}", self.what, text.len());
        // Which id and which request it is changes with the simulator; that they are there was seen.
        let text = if id.is_empty() { text } else { text.replace(&id, "bsm-0123456789ab") };
        with_request(&text)
    }
}

/// With one id for every request.
fn with_request(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("[request ") {
        let (_, after) = after.split_once(']').unwrap();
        out.push_str(before);
        out.push_str("[request 12345678-9abc-def0-1234-56789abcdef0]");
        rest = after;
    }
    out + rest
}

#[test]
fn the_most_common_events_read_as_the_file_says() {
    let mut text = String::from(
        "# What people read when the cloud refuses, one paragraph for each: what happened, the reason of the event, its text.\n\
         # Made by tests/campaign/events.rs; CSI_UDISK_GOLDEN=1 cargo test --test campaign events writes it anew.\n",
    );
    for case in &CASES {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let event = runtime.block_on(case.event());
        let _ = write!(text, "\n{}\n{event}\n", case.what);
    }
    if std::env::var_os("CSI_UDISK_GOLDEN").is_some() {
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(FILE, &text).unwrap();
    }
    let golden = std::fs::read_to_string(FILE).unwrap_or_default();
    for (line, (made, written)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(made, written, "line {} of {FILE}", line + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{FILE} has more or fewer lines");
}
