//! A controller that is asked to stop while calls run, and the next one, which is called meanwhile.

use std::error::Error as _;
use std::time::Duration;

use serde_json::Value;
use tonic::{Code, Request, Response, Status};

use crate::csi;
use crate::world::{Driver, World, until_async};

/// Long enough for all that has to happen meanwhile, and far less than a stop may take.
const SLOW: &str = "6.0";
/// More than a stop may take.
const VERY_SLOW: &str = "32.0";

async fn slow_down(world: &World, actions: &[&str], seconds: &str) {
    for action in actions {
        let rule = format!(
            r#"{{"action": "{action}", "count": null, "effect": {{"kind": "stuck", "seconds": {seconds}}}}}"#
        );
        world.control("POST", "faults", &rule).await;
    }
}

async fn made(driver: &Driver, name: &str) -> String {
    let answer = driver.controller().create_volume(csi::create(name, "block", 10)).await.unwrap();
    answer.into_inner().volume.unwrap().volume_id
}

/// As a sidecar calls: again after an answer that says so.
async fn until_done<T>(what: &str, mut call: impl AsyncFnMut() -> Result<Response<T>, Status>) -> T {
    let mut last = None;
    for _ in 0..60 {
        match call().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                assert!(is_asked_again(&status), "{what}: {status:?}");
                last = Some(status);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{what} does not end: {last:?}")
}

fn is_asked_again(status: &Status) -> bool {
    [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded].contains(&status.code())
}

async fn disks(world: &World) -> Vec<Value> {
    world.control("GET", "disks", "").await.as_array().unwrap().clone()
}

/// What the cloud accepted of a kind, of all disks or of one.
async fn accepted(world: &World, kind: &str, disk: Option<&str>) -> usize {
    let journal = world.control("GET", "journal", "").await;
    let ours = |record: &&Value| record["event"] == kind && disk.is_none_or(|disk| record["disk"] == disk);
    journal.as_array().unwrap().iter().filter(ours).count()
}

fn spawn<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(call)
}

/// A creation and an attachment are under way, a second attachment waits for its turn on the host. The first two come to
/// their end and are answered; the third is never sent by the process that stops. The next process is called for all of
/// it from the moment of the signal on.
#[tokio::test]
async fn what_runs_at_sigterm_ends_once_whoever_is_called() {
    let world = World::start("none").await;
    let host = world.first_host();
    let last = world.controller().await;
    let (first, second) = (made(&last, "pvc-first").await, made(&last, "pvc-second").await);
    slow_down(&world, &["CreateUDisk", "AttachUDisk"], SLOW).await;

    let mut controller = last.controller();
    let create = spawn(async move { controller.create_volume(csi::create("pvc-new", "block", 10)).await });
    let (mut controller, request) = (last.controller(), csi::attach(&first, &host, "block"));
    let attach = spawn(async move { controller.controller_publish_volume(request).await });
    until_async("both are under way", async || {
        accepted(&world, "create_accepted", None).await == 3
            && accepted(&world, "attach_accepted", Some(&first)).await == 1
    })
    .await;
    let (mut controller, request) = (last.controller(), csi::attach(&second, &host, "block"));
    let waiting = spawn(async move { controller.controller_publish_volume(request).await });
    until_async("the second waits for its turn", async || {
        let mut impatient = Request::new(csi::attach(&second, &host, "block"));
        impatient.set_timeout(Duration::from_millis(300));
        let told = last.controller().controller_publish_volume(impatient).await.unwrap_err();
        told.message().contains("in the queue of")
    })
    .await;

    last.process.ask_to_stop();
    let next = world.driver("controller", "controller.next", &[], &[]).await;
    let refused = last.controller().delete_volume(csi::delete("bsm-other")).await.unwrap_err();
    // On its way out it says so, or the connection is closed already, which is no answer at all.
    assert!(is_asked_again(&refused) || refused.source().is_some(), "{refused:?}");
    let (create_again, attach_again, second_attached) = tokio::join!(
        until_done("the creation", async || {
            next.controller().create_volume(csi::create("pvc-new", "block", 10)).await
        }),
        until_done("the first attachment", async || {
            next.controller().controller_publish_volume(csi::attach(&first, &host, "block")).await
        }),
        until_done("the second attachment", async || {
            next.controller().controller_publish_volume(csi::attach(&second, &host, "block")).await
        }),
    );

    let created = create.await.unwrap().expect("it ends within the grace").into_inner().volume.unwrap();
    assert_eq!(created.volume_id, create_again.volume.unwrap().volume_id);
    let attached = attach.await.unwrap().expect("it ends within the grace").into_inner();
    assert_eq!(attached.publish_context, attach_again.publish_context);
    match waiting.await.unwrap() {
        Ok(answer) => assert_eq!(answer.into_inner().publish_context, second_attached.publish_context),
        Err(status) => assert!(is_asked_again(&status), "{status:?}"),
    }
    let log = last.process.exits_well();
    assert!(log.contains("SIGTERM: stopping"), "{log}");

    let named: Vec<_> = disks(&world).await.into_iter().filter(|disk| disk["name"] == "pvc-new").collect();
    assert_eq!(named.len(), 1, "{named:?}");
    for disk in [&first, &second] {
        assert_eq!(accepted(&world, "attach_accepted", Some(disk)).await, 1, "{disk}");
        assert_eq!(accepted(&world, "detach_accepted", Some(disk)).await, 0, "{disk}");
        let found = disks(&world).await.into_iter().find(|found| found["id"] == **disk).unwrap();
        assert_eq!(found["status"], "InUse", "{found}");
    }
}

/// What outlasts the grace is answered with a code that brings the sidecar back, and the next process takes it up.
#[tokio::test]
async fn what_outlasts_the_grace_is_answered_and_taken_up() {
    let world = World::start("none").await;
    let host = world.first_host();
    let last = world.controller().await;
    let id = made(&last, "pvc-slow").await;
    slow_down(&world, &["CreateUDisk", "AttachUDisk"], VERY_SLOW).await;
    let mut controller = last.controller();
    let create = spawn(async move { controller.create_volume(csi::create("pvc-new", "block", 10)).await });
    let (mut controller, request) = (last.controller(), csi::attach(&id, &host, "block"));
    let attach = spawn(async move {
        let mut request = Request::new(request);
        request.set_timeout(Duration::from_secs(300));
        controller.controller_publish_volume(request).await
    });
    until_async("both are under way", async || {
        accepted(&world, "create_accepted", None).await == 2
            && accepted(&world, "attach_accepted", Some(&id)).await == 1
    })
    .await;
    last.process.ask_to_stop();
    for answer in [create.await.unwrap().map(|_| ()), attach.await.unwrap().map(|_| ())] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("the driver is stopping"), "{status:?}");
    }
    last.process.exits_well();

    let next = world.driver("controller", "controller.next", &[], &[]).await;
    tokio::join!(
        until_done("the creation", async || {
            next.controller().create_volume(csi::create("pvc-new", "block", 10)).await
        }),
        until_done("the attachment", async || {
            next.controller().controller_publish_volume(csi::attach(&id, &host, "block")).await
        }),
    );
    assert_eq!(accepted(&world, "create_accepted", None).await, 2);
    assert_eq!(accepted(&world, "attach_accepted", Some(&id)).await, 1);
}
