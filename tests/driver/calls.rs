//! What the controller costs the cloud, counted by the cloud, and what it does with calls that overlap.

use std::time::Duration;

use tonic::Code;

use crate::csi;
use crate::world::World;

/// One read before and one after each change, none twice: (list, create, read), (read, attach, read),
/// (read, detach, read), (read, delete).
#[tokio::test]
async fn a_life_without_latency_costs_eleven_calls() {
    let world = World::start("none").await;
    let host = world.first_host();
    let driver = world.controller().await;
    let mut controller = driver.controller();
    let before = world.total_calls().await;
    let volume =
        controller.create_volume(csi::create("pvc-calls", "ext4", 10)).await.unwrap().into_inner().volume;
    let id = volume.unwrap().volume_id;
    controller.controller_publish_volume(csi::attach(&id, &host, "ext4")).await.unwrap();
    controller.controller_unpublish_volume(csi::detach(&id, &host)).await.unwrap();
    controller.delete_volume(csi::delete(&id)).await.unwrap();
    let after = world.calls().await;
    let total: u64 = after.values().sum::<u64>() - before;
    assert!(total <= 11, "{total} calls: {after:?}");
}

/// Whoever reads the log finds the calls to the API by the id of the RPC that they were made for.
#[tokio::test]
async fn every_call_to_the_cloud_is_logged_under_its_rpc() {
    let world = World::start("short").await;
    let host = world.first_host();
    let driver = world.controller().await;
    let mut controller = driver.controller();
    let volume =
        controller.create_volume(csi::create("pvc-tied", "ext4", 10)).await.unwrap().into_inner().volume;
    let id = volume.unwrap().volume_id;
    controller.controller_publish_volume(csi::attach(&id, &host, "ext4")).await.unwrap();
    let crowd: Vec<_> = (0..30)
        .map(|number| {
            let mut controller = driver.controller();
            let request = csi::create(&format!("pvc-tied-{number}"), "ext4", 10);
            tokio::spawn(async move { controller.create_volume(request).await.unwrap() })
        })
        .collect();
    for one in crowd {
        one.await.unwrap();
    }
    controller.controller_unpublish_volume(csi::detach(&id, &host)).await.unwrap();
    let log = driver.process.log();
    let calls: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["message"] == "api request")
        .collect();
    assert!(calls.len() > 60, "{}", calls.len());
    for call in calls {
        assert!(call["request_id"].is_string(), "{call}");
        assert!(call["span"]["request"].is_string(), "no RPC is named: {call}");
    }
}

#[tokio::test]
async fn creating_costs_the_same_in_a_full_account() {
    let world = World::start("none").await;
    let driver = world.controller().await;
    // An account may have 1,000 disks unless it asked for more.
    world.control("POST", "limits", r#"{"disks": 20000}"#).await;
    let mut costs = Vec::new();
    for (name, disks) in [("pvc-few", 10), ("pvc-many", 9_990)] {
        world.control("POST", "disks", &format!(r#"{{"count": {disks}, "name": "other-"}}"#)).await;
        let before = world.total_calls().await;
        driver.controller().create_volume(csi::create(name, "ext4", 10)).await.unwrap();
        costs.push(world.total_calls().await - before);
    }
    assert_eq!(costs[0], costs[1], "calls with 10 and with 10,000 disks");
    assert!(costs[0] <= 3, "{costs:?}");
}

#[tokio::test]
async fn simultaneous_creates_of_one_name_make_one_disk() {
    let world = World::start("short").await;
    let driver = world.controller().await;
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let mut controller = driver.controller();
            tokio::spawn(async move { controller.create_volume(csi::create("pvc-same", "ext4", 10)).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap().into_inner());
    }
    assert_eq!(answers.len(), 32);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(world.calls().await.get("CreateUDisk"), Some(&1));
}

/// The sidecar's time is over long before the cloud is done; its retry must find the same operation.
#[tokio::test]
async fn a_caller_that_gives_up_and_comes_again_joins_the_running_task() {
    let world = World::start("realistic").await;
    let host = world.first_host();
    let driver = world.controller().await;
    let mut controller = driver.controller();
    let volume = controller.create_volume(csi::create("pvc-joined", "ext4", 10)).await.unwrap().into_inner();
    let id = volume.volume.unwrap().volume_id;

    let mut impatient = tonic::Request::new(csi::attach(&id, &host, "ext4"));
    impatient.set_timeout(Duration::from_millis(700));
    let refused = controller.controller_publish_volume(impatient).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    assert!(refused.message().contains(&id) && refused.message().contains("still running"), "{refused:?}");

    // Another request for the same disk is told what runs.
    let other = controller.delete_volume(csi::delete(&id)).await.unwrap_err();
    assert_eq!(other.code(), Code::Aborted, "{other:?}");

    let joined = controller.controller_publish_volume(csi::attach(&id, &host, "ext4")).await.unwrap();
    assert!(joined.into_inner().publish_context.contains_key("device"));
    assert_eq!(world.calls().await.get("AttachUDisk"), Some(&1));
}

#[tokio::test]
async fn a_stop_in_the_middle_ends_in_time_and_the_next_process_goes_on() {
    let world = World::start("realistic").await;
    let host = world.first_host();
    let driver = world.controller().await;
    let volume = driver.controller().create_volume(csi::create("pvc-stopped", "ext4", 10)).await.unwrap();
    let id = volume.into_inner().volume.unwrap().volume_id;
    let mut controller = driver.controller();
    let attach = csi::attach(&id, &host, "ext4");
    let running = tokio::spawn(async move { controller.controller_publish_volume(attach).await });
    let received = || async { world.calls().await.contains_key("AttachUDisk") };
    while !received().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    driver.process.stop();
    // Whatever the caller got, the cloud is asked by the next process.
    let _ = running.await;

    let driver = world.controller().await;
    let context =
        driver.controller().controller_publish_volume(csi::attach(&id, &host, "ext4")).await.unwrap();
    assert!(context.into_inner().publish_context.contains_key("device"));
    assert_eq!(world.calls().await.get("AttachUDisk"), Some(&1));
}

/// What the scheduler needs to choose another node. csi-sanity is content with any error here.
#[tokio::test]
async fn a_full_host_is_resource_exhausted_and_says_how_many_it_has() {
    let world = World::start("none").await;
    let host = world.first_host();
    let driver = world.controller().await;
    world.control("POST", "limits", r#"{"disks": 100}"#).await;
    let mut ids = Vec::new();
    for number in 0..21 {
        let created =
            driver.controller().create_volume(csi::create(&format!("pvc-full-{number}"), "block", 10)).await;
        ids.push(created.unwrap().into_inner().volume.unwrap().volume_id);
    }
    let (last, fitting) = ids.split_last().unwrap();
    for id in fitting {
        driver.controller().controller_publish_volume(csi::attach(id, &host, "block")).await.unwrap();
    }
    let refused =
        driver.controller().controller_publish_volume(csi::attach(last, &host, "block")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("20") && refused.message().contains(&host), "{refused:?}");
    // One that goes makes room for it.
    driver.controller().controller_unpublish_volume(csi::detach(&ids[0], &host)).await.unwrap();
    driver.controller().controller_publish_volume(csi::attach(last, &host, "block")).await.unwrap();
}
