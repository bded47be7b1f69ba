//! What a node says at its start about the mount that holds kubelet's directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{World, own_mounts, until};

const LINE: &str = "mountPropagation: Bidirectional";

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The lines of its whole log that speak of kubelet's directory.
async fn said_of(world: &World, name: &str, kubelet_dir: &Path, waits_for: Option<&str>) -> Vec<String> {
    let flag = format!("--kubelet-dir={}", kubelet_dir.display());
    let driver = world.driver("node", name, &[&flag], &[]).await;
    if let Some(text) = waits_for {
        until(text, || driver.process.log().contains(text)).await;
    }
    let log = driver.process.path();
    driver.process.stop();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("stopped serving"), "{log}");
    let about = |line: &&str| {
        line.contains("kubelet will not see")
            || line.contains("--kubelet-dir")
            || line.contains("propagation")
    };
    log.lines().filter(about).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_kubelet_directory_that_is_not_shared_is_named_with_the_line_that_cures_it() {
    if !own_mounts("propagation::a_kubelet_directory_that_is_not_shared_is_named_with_the_line_that_cures_it")
    {
        return;
    }
    let world = World::start("none").await;
    let (kubelet, link) = (world.dir.join("own-kubelet"), world.dir.join("linked-kubelet"));
    fs::create_dir(&kubelet).unwrap();
    std::os::unix::fs::symlink(&kubelet, &link).unwrap();
    let path = kubelet.to_str().unwrap();
    let host = world.dir.join("host-kubelet");
    fs::create_dir(&host).unwrap();
    mount(&["--bind", host.to_str().unwrap(), host.to_str().unwrap()]);
    mount(&["--make-shared", host.to_str().unwrap()]);
    mount(&["--bind", host.to_str().unwrap(), path]);

    // As a volume mount of a container with HostToContainer is, and one without a word on propagation.
    for (name, kind) in [("node.slave", "--make-slave"), ("node.private", "--make-private")] {
        mount(&[kind, path]);
        let lines = said_of(&world, name, &link, Some(LINE)).await;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["level"], "WARN", "{line}");
        // By the directory's real name, which is the one in mountinfo.
        assert!(lines[0].contains(&format!("the mount {path} is not shared")), "{line}");
    }
    mount(&["--make-shared", path]);
    let lines = said_of(&world, "node.shared", &link, None).await;
    assert!(lines.is_empty(), "{lines:#?}");

    let missing = "the directory of --kubelet-dir is not there";
    let lines = said_of(&world, "node.missing", &world.dir.join("no-kubelet"), Some(missing)).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
}
