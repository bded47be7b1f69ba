//! Readings that fail or break off. Half of one never leads to a finding or an orphan.

use csi_udisk::sandbox::cloud::{Effect, Rule};

use crate::api::{ALL, ATTACHMENTS, CLAIMS, CONTENTS, NODES, Trouble, VOLUMES};
use crate::world::{World, name};

const LIST: &str = "orphans --output json --recheck 1s";

/// An account with one leaked disk and five in use, and a cluster that gives its objects in pages of two.
async fn world() -> (World, String) {
    let world = World::start().await;
    world.api.pages_of(2);
    for number in 0..5 {
        world.volume(number).await;
    }
    let leaked = world.disk(&name("pvc", 77)).await;
    (world, leaked)
}

#[tokio::test]
async fn without_the_right_to_list_nothing_is_said_but_what_right_is_missing() {
    for (path, resource) in [
        (VOLUMES, "persistentvolumes"),
        (CLAIMS, "persistentvolumeclaims"),
        (ATTACHMENTS, "volumeattachments.storage.k8s.io"),
        (CONTENTS, "volumesnapshotcontents.snapshot.storage.k8s.io"),
        (NODES, "nodes"),
    ] {
        let (world, _) = world().await;
        let words =
            "User \"system:serviceaccount:kube-system:default\" cannot list resource at the cluster scope";
        world.api.trouble(path, Trouble::Status(403, "Forbidden", words), 1);
        let answer = world.run(LIST).await;
        assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
        for part in [&format!("may not list {resource}")[..], words, "ClusterRole", "verb list"] {
            assert!(answer.err.contains(part), "{part:?} is not in {answer:?}");
        }
        assert_eq!(world.api.asked(path), 1, "a refusal is not asked for again");
    }
}

#[tokio::test]
async fn a_list_that_expires_between_two_pages_begins_anew() {
    let (world, leaked) = world().await;
    world.api.trouble(VOLUMES, Trouble::Expired, 1);
    world.api.trouble(CLAIMS, Trouble::Expired, 2);
    assert_eq!(world.run(LIST).await.orphans(), [leaked]);
    let volumes = world.run("volumes --output json --recheck 0s").await;
    assert_eq!((volumes.status, volumes.json()["volumes"].as_array().unwrap().len()), (0, 5));

    world.api.trouble(VOLUMES, Trouble::Expired, 99);
    let answer = world.run(LIST).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.err.contains("persistentvolumes changed too fast"), "{answer:?}");
}

#[tokio::test]
async fn what_passes_is_waited_for_and_what_stays_is_told() {
    let (world, leaked) = world().await;
    world.api.trouble(VOLUMES, Trouble::Status(500, "InternalError", "etcdserver: request timed out"), 1);
    world.api.trouble(CLAIMS, Trouble::Body(503, "upstream connect error"), 1);
    world.api.trouble(
        ATTACHMENTS,
        Trouble::Status(429, "TooManyRequests", "the server has received too many requests"),
        1,
    );
    world.api.trouble(NODES, Trouble::Cut, 1);
    assert_eq!(world.run(LIST).await.orphans(), [leaked]);

    world.api.trouble(
        ATTACHMENTS,
        Trouble::Status(500, "InternalError", "etcdserver: request timed out"),
        99,
    );
    let answer = world.run(LIST).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(
        answer.err.contains("volumeattachments.storage.k8s.io cannot be listed: HTTP status 500"),
        "{answer:?}"
    );
    assert!(answer.err.contains("etcdserver"), "{answer:?}");
}

/// Each list, with answers that say yes and hold no list, or only a part of one.
#[tokio::test]
async fn half_an_answer_is_none() {
    for path in ALL {
        for trouble in [
            Trouble::Body(200, "<html>please log in</html>"),
            Trouble::Body(200, "{}"),
            Trouble::Body(200, r#"{"kind": "PersistentVolumeList", "metadata": {}}"#),
            Trouble::Body(200, r#"{"kind": "PersistentVolume", "items": []}"#),
            Trouble::Body(200, r#"{"kind": "List", "items": null}"#),
            Trouble::Body(200, r#"{"kind": "List", "items": [{"metadata": {"name": 1}, "spec": 1}]}"#),
            Trouble::Body(200, r#"{"kind": "List", "items": [{"#),
            Trouble::Circle,
        ] {
            // Any object will do where none is looked into.
            let any = matches!(trouble, Trouble::Body(_, body) if body.contains("\"spec\": 1"));
            if any && path == CONTENTS {
                continue;
            }
            let (world, _) = world().await;
            world.api.trouble(path, trouble.clone(), 99);
            let answer = world.run("orphans --output json --recheck 1s").await;
            assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{path} {trouble:?}: {answer:?}");
            assert!(answer.err.contains("cannot be listed"), "{path} {trouble:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn kinds_that_every_cluster_has_must_be_known() {
    let (world, _) = world().await;
    world.api.forget(VOLUMES);
    let answer = world.run(LIST).await;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.err.contains("persistentvolumes cannot be listed"), "{answer:?}");
}

/// The cloud's side: refusals, lies about the count, and a listing that breaks off.
#[tokio::test]
async fn half_of_the_account_is_no_account() {
    let refused = Effect::RetCode { code: 299, message: "iam".into(), done: false };
    for effect in [refused, Effect::Garbage { done: false }, Effect::Http { status: 502, done: false }] {
        let (world, _) = world().await;
        world.cloud.add_fault(Rule { count: None, ..Rule::once("DescribeUDisk", effect.clone()) });
        for line in [LIST, "volumes --output json"] {
            let answer = world.run(line).await;
            assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{effect:?}: {answer:?}");
            assert!(answer.err.contains("the disks cannot be listed: DescribeUDisk failed"), "{answer:?}");
        }
    }
}

/// The second reading decides as much as the first.
#[tokio::test]
async fn a_second_reading_that_fails_takes_the_first_back() {
    let (world, _) = world().await;
    let api = world.api.clone();
    world.api.change_after(CONTENTS, 1, move |lists| _ = lists.remove(VOLUMES));
    let answer = world.run(LIST).await;
    assert_eq!((answer.status, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(api.asked(VOLUMES) > 3);
}

#[tokio::test]
async fn no_reading_is_waited_for_without_end() {
    let (world, _) = world().await;
    world.api.trouble(VOLUMES, Trouble::Status(503, "ServiceUnavailable", "shutting down"), 99);
    let answer = world.run("volumes --timeout 1s").await;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.err.contains("was not read within 1 s; --timeout gives it more"), "{answer:?}");
}
