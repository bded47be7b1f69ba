//! `csi-udisk orphans --delete`: what is refused, what is asked, and what is looked at again.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use csi_udisk::sandbox::cloud::{Effect, Event, Rule};
use nix::pty::openpty;
use serde_json::json;

use crate::api::{CLAIMS, CONTENTS, Trouble, VOLUMES};
use crate::world::{Answer, World, end, name, volume};

const DELETE: &str = "orphans --recheck 1s --delete --volume-name-prefix prod";

/// A cluster with one volume that shows its mark, two leaked disks with it, and one of nobody knows whom.
async fn world() -> (World, [String; 3]) {
    let world = World::start().await;
    world.named_volume("prod", 1).await;
    let leaked = world.disk(&name("prod", 2)).await;
    let another = world.disk(&name("prod", 3)).await;
    let unknown = world.disk(&name("pvc", 4)).await;
    (world, [leaked, another, unknown])
}

async fn untouched(line: &str, words: &[&str]) {
    let (world, _) = world().await;
    refused(&world, line, words).await;
}

async fn refused(world: &World, line: &str, words: &[&str]) {
    let before = world.disks();
    let answer = world.run(line).await;
    assert_ne!(answer.status, 0, "{answer:?}");
    for word in words {
        assert!(answer.err.contains(word), "{word:?} is not in {answer:?}");
    }
    assert_eq!(world.disks(), before, "{answer:?}");
    assert_eq!(world.cloud.counts().get("DeleteUDisk"), None);
}

#[tokio::test]
async fn without_a_mark_nothing_is_deleted() {
    untouched("orphans --recheck 1s --delete", &["--delete", "--volume-name-prefix", "--business-group"])
        .await;
    untouched("orphans --recheck 1s --delete --volume-name-prefix pvc", &["every cluster"]).await;
    untouched("orphans --recheck 1s --delete --business-group Default", &["tells nothing"]).await;
}

#[tokio::test]
async fn a_mark_must_be_shown_to_be_this_clusters() {
    // No volume of this cluster bears it.
    untouched(
        "orphans --recheck 1s --delete --volume-name-prefix other",
        &["nothing is deleted", "the mark is this cluster's"],
    )
    .await;
    // The cluster and the account have nothing in common: somebody took the kubeconfig of another cluster.
    let (world, _) = world().await;
    world.api.change(|lists| {
        lists.get_mut(VOLUMES).unwrap()[0]["spec"]["csi"]["volumeHandle"] = json!("bs-elsewhere")
    });
    refused(&world, DELETE, &["belong together"]).await;
    world.api.change(|lists| lists.get_mut(VOLUMES).unwrap().clear());
    refused(&world, DELETE, &["belong together"]).await;
}

#[tokio::test]
async fn without_a_terminal_only_named_disks_are_deleted() {
    untouched(DELETE, &["no terminal", "--ids"]).await;

    let (world, [leaked, another, _]) = world().await;
    let answer = world.run(&format!("{DELETE} --ids {leaked} --output json")).await;
    // Others are left, so there is something to tell.
    assert_eq!(answer.status, 2, "{answer:?}");
    assert!(!world.disks().contains(&leaked) && world.disks().contains(&another));
    let json = answer.json();
    assert_eq!(
        (&json["orphans"][0]["deleted"], &json["orphans"][0]["deletion"]),
        (&json!(true), &json!("deleted"))
    );
    assert_eq!(json["orphans"][1]["deleted"], json!(null));

    let text = world.run(&format!("{DELETE} --ids {another}")).await;
    assert!(text.out.ends_with(&format!("\n{another}: deleted\n")), "{text:?}");
    assert_eq!(world.cloud.counts()["DeleteUDisk"], 2);
}

#[tokio::test]
async fn an_id_that_is_no_orphan_of_this_cluster_stops_all() {
    let (world, [leaked, _, unknown]) = world().await;
    let used = world.cloud.disks().iter().find(|disk| disk.name == name("prod", 1)).unwrap().id.clone();
    let failed = world.disk(&name("prod", 9)).await;
    world.happen(Event::FailDisk { disk: failed.clone() }).await;
    for (id, word) in [
        (unknown.as_str(), "unknown to this cluster"),
        (used.as_str(), "none of the listed"),
        ("bs-none", "none of the listed"),
        (failed.as_str(), "only Available disks"),
    ] {
        refused(&world, &format!("{DELETE} --ids {leaked},{id}"), &["nothing is deleted", id, word]).await;
    }
    let attached = world.disk(&name("prod", 10)).await;
    world.attach(&attached, "uhost-b").await;
    refused(&world, &format!("{DELETE} --ids {attached}"), &[&attached, "attached to a host"]).await;
    // Also when there is no orphan at all.
    let quiet = World::start().await;
    quiet.named_volume("prod", 1).await;
    refused(&quiet, &format!("{DELETE} --ids bs-none"), &["bs-none", "none of the listed"]).await;
}

/// What happens to the disk between the listing and its deletion.
#[tokio::test]
async fn a_disk_that_changes_before_it_goes_is_kept() {
    type Change = fn(String) -> Event;
    let attach: Change = |disk| Event::Attach { disk, host: "uhost-b".into() };
    let rename: Change = |disk| Event::Rename { disk, name: "wanted-again".into() };
    let delete: Change = |disk| Event::DeleteDisk { disk };
    for (change, action, word) in [
        // Before it is read again, and even after that.
        (attach, "DescribeUDisk", "uhost-b"),
        (rename, "DescribeUDisk", "wanted-again"),
        (delete, "DescribeUDisk", "gone already"),
        (attach, "DeleteUDisk", "RetCode 17026"),
    ] {
        let (world, [leaked, ..]) = world().await;
        let effect = Effect::Before { event: change(leaked.clone()) };
        // Listings name no disk, so this is the reading of this one.
        world.cloud.add_fault(Rule { disk: Some(leaked.clone()), ..Rule::once(action, effect) });
        let answer = world.run(&format!("{DELETE} --ids {leaked}")).await;
        assert_eq!(answer.status, 1, "{answer:?}");
        assert!(
            answer.out.contains(&format!("{leaked}: not deleted: ")) && answer.out.contains(word),
            "{answer:?}"
        );
        let sent = world.cloud.counts().get("DeleteUDisk").copied().unwrap_or(0);
        assert_eq!(sent, u64::from(action == "DeleteUDisk"));
    }
}

/// Somebody makes a volume of it while the operator thinks.
#[tokio::test]
async fn a_disk_that_gets_a_reference_before_it_goes_is_kept() {
    let (world, [leaked, ..]) = world().await;
    let disk = leaked.clone();
    world.api.change_after(CONTENTS, 2, move |lists| {
        lists.get_mut(VOLUMES).unwrap().push(volume("by-hand", 100, &disk));
    });
    let answer = world.run(&format!("{DELETE} --ids {leaked}")).await;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(
        answer.out.contains(&format!("{leaked}: not deleted: something in the cluster refers to it")),
        "{answer:?}"
    );
    assert!(world.disks().contains(&leaked));

    let (world, [leaked, ..]) = self::world().await;
    world.api.change_after(CONTENTS, 2, |lists| _ = lists.remove(CLAIMS));
    let answer = world.run(&format!("{DELETE} --ids {leaked}")).await;
    assert!(answer.out.contains("not deleted: the cluster could not be read again"), "{answer:?}");
    assert!(world.disks().contains(&leaked));
}

#[tokio::test]
async fn what_the_cloud_says_to_a_deletion_is_told_as_it_is() {
    // The reply is lost, and the disk is gone.
    let (world, [leaked, another, _]) = world().await;
    world.cloud.add_fault(Rule::once("DeleteUDisk", Effect::ReplyLost));
    let answer = world.run(&format!("{DELETE} --ids {leaked}")).await;
    assert!(answer.out.contains(&format!("{leaked}: deleted")), "{answer:?}");
    // The request is lost, and the disk is there.
    world.cloud.add_fault(Rule::once("DeleteUDisk", Effect::RequestLost));
    let answer = world.run(&format!("{DELETE} --ids {another}")).await;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(
        answer.out.contains(&format!("{another}: perhaps not deleted: DeleteUDisk failed")),
        "{answer:?}"
    );
    let refused = Effect::RetCode { code: 299, message: "iam".into(), done: false };
    world.cloud.add_fault(Rule::once("DeleteUDisk", refused));
    let answer = world.run(&format!("{DELETE} --ids {another}")).await;
    assert!(
        answer.out.contains(&format!("{another}: not deleted: DeleteUDisk failed with RetCode 299")),
        "{answer:?}"
    );
    assert!(world.disks().contains(&another));
}

/// Runs it on a terminal where somebody types the lines.
async fn at_a_terminal(world: &World, line: &str, typed: &str) -> Answer {
    let terminal = openpty(None, None).unwrap();
    let (mut person, program) = (std::fs::File::from(terminal.master), terminal.slave);
    // A terminal keeps what is typed ahead until it is asked for.
    person.write_all(typed.as_bytes()).unwrap();
    let mut command = world.command(line);
    command.stdin(Stdio::from(program.try_clone().unwrap()));
    let answer = end(command).await;
    drop::<OwnedFd>(program);
    let mut echo = [0; 4096];
    let _ = person.read(&mut echo);
    answer
}

#[tokio::test]
async fn a_person_types_the_id_of_each_disk() {
    let (world, [leaked, another, unknown]) = world().await;
    // Enter keeps, another id keeps, the id deletes. The unknown disk is never asked about.
    let answer = at_a_terminal(&world, DELETE, &format!("\n{leaked}\n")).await;
    assert_eq!(answer.status, 2, "{answer:?}");
    assert_eq!(answer.err.matches("Type its id to delete it").count(), 2, "{answer:?}");
    assert_eq!(answer.out.matches(": kept: not confirmed").count(), 2, "{answer:?}");
    assert!(!answer.err.contains(&unknown), "{answer:?}");

    let (first, second) = if leaked < another { (&leaked, &another) } else { (&another, &leaked) };
    let answer = at_a_terminal(&world, DELETE, &format!("yes\n{second}\n")).await;
    assert!(answer.out.contains(&format!("{first}: kept")), "{answer:?}");
    assert!(answer.out.contains(&format!("{second}: deleted")), "{answer:?}");
    for part in ["20 GiB", "Dynamic", &name("prod", 2), "cannot be brought back"] {
        assert!(answer.err.contains(part), "{part:?} is not in {answer:?}");
    }
    // Named ids are asked about, too, where somebody can be asked.
    let answer = at_a_terminal(&world, &format!("{DELETE} --ids {first}"), "\n").await;
    assert!(answer.out.contains(&format!("{first}: kept")), "{answer:?}");
    let answer = at_a_terminal(&world, &format!("{DELETE} --ids {first}"), &format!("{first}\n")).await;
    assert!(answer.out.contains(&format!("{first}: deleted")), "{answer:?}");
    assert_eq!(world.cloud.counts()["DeleteUDisk"], 2);
}

#[tokio::test]
async fn a_reading_that_fails_deletes_nothing() {
    let (world, [leaked, ..]) = world().await;
    world.api.trouble(VOLUMES, Trouble::Status(403, "Forbidden", "no"), 99);
    refused(&world, &format!("{DELETE} --ids {leaked}"), &["may not list persistentvolumes"]).await;
}
