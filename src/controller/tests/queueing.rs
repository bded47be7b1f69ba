//! The queue of each host: who goes when, and what those who wait are told.

use super::*;
use crate::cloud::Cause;
use crate::controller::fake::Fault;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn one_change_at_a_time_runs_on_a_host() {
    let bench = Bench::new().await;
    bench.cloud.model().work = seconds(4);
    bench.cloud.model().host_limit = 9;
    for number in 0..4 {
        bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
    }
    let (a, b, c, d) = tokio::join!(
        bench.attach("bs-0", "uhost-a"),
        bench.attach("bs-1", "uhost-a"),
        bench.attach("bs-2", "uhost-a"),
        bench.attach("bs-3", "uhost-b"),
    );
    for answer in [a, b, c, d] {
        answer.unwrap();
    }
    let sends = bench.cloud.model().attachments.len();
    assert_eq!(sends, 4, "none met a busy host");
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_a_queue_knows_its_place_and_what_goes_before() {
    let bench = Arc::new(Bench::new().await);
    bench.cloud.model().work = seconds(100);
    bench.cloud.model().host_limit = 9;
    let start = |disk: &'static str, patience: u64| {
        bench.cloud.put(self::disk(disk, DiskStatus::Available));
        let (bench, deadline) = (Arc::clone(&bench), Instant::now() + seconds(patience));
        tokio::spawn(async move {
            let request = AttachRequest { disk: id(disk), node: NodeRef::parse("uhost-a").unwrap() };
            bench.controller.attach(request, deadline, &Progress::default()).await
        })
    };
    let first = start("bs-1", 300);
    tokio::time::sleep(seconds(1)).await;
    let second = start("bs-2", 300);
    tokio::time::sleep(seconds(1)).await;
    let text = start("bs-3", 30).await.unwrap().unwrap_err().to_string();
    let place =
        "after 30 s waiting to attach UDisk bs-3: number 2 in the queue of uhost-a; now: attach UDisk bs-1";
    assert!(text.contains(place), "{text}");
    let text = start("bs-4", 90).await.unwrap().unwrap_err().to_string();
    let place =
        "after 90 s waiting to attach UDisk bs-4: number 1 in the queue of uhost-a; now: attach UDisk bs-2";
    assert!(text.contains(place), "{text}");
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_moved_by_hand_while_its_turn_comes_is_where_it_was_moved_to() {
    for by_hand in ["uhost-a", "uhost-b"] {
        for attach in [true, false] {
            let context = format!("attach: {attach}, {by_hand} by hand");
            let bench = Arc::new(Bench::new().await);
            bench.cloud.model().work = seconds(8);
            bench.cloud.model().host_limit = 9;
            bench.cloud.put(disk("bs-1", DiskStatus::Available));
            if attach {
                bench.cloud.put(disk("bs-2", DiskStatus::Available));
            } else {
                bench.cloud.put_attached("bs-2", "uhost-a");
            }
            let first = Arc::clone(&bench);
            let first = tokio::spawn(async move { first.attach("bs-1", "uhost-a").await.is_ok() });
            tokio::time::sleep(seconds(1)).await;
            let (answer, ()) = tokio::join!(
                async {
                    if attach {
                        bench.attach("bs-2", "uhost-a").await.map(drop).map_err(|error| error.to_string())
                    } else {
                        bench.detach("bs-2", "uhost-a").await.map_err(|error| error.to_string())
                    }
                },
                async {
                    tokio::time::sleep(seconds(1)).await;
                    bench.cloud.put_attached("bs-2", by_hand);
                }
            );
            assert!(first.await.unwrap(), "{context}");
            let host = bench.cloud.truth("bs-2").unwrap().host.map(|host| host.to_string());
            match (attach, by_hand) {
                (true, "uhost-b") => {
                    let text = answer.unwrap_err();
                    assert!(
                        text.contains("is attached to host uhost-b (10.0.0.2) and not to uhost-a"),
                        "{text}"
                    );
                    assert_eq!(host.as_deref(), Some("uhost-b"), "{context}");
                }
                (true, _) => assert_eq!((answer, host.as_deref()), (Ok(()), Some("uhost-a")), "{context}"),
                (false, "uhost-a") => assert_eq!((answer, host), (Ok(()), None), "{context}"),
                (false, _) => assert_eq!((answer, host.as_deref()), (Ok(()), Some("uhost-b")), "{context}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_width_of_a_hosts_queue_is_found_out() {
    for (one_by_one, seconds_at_most, refused) in [(true, 90, 1..=2), (false, 40, 0..=0)] {
        let bench = Bench::new().await;
        bench.cloud.model().work = seconds(4);
        bench.cloud.model().host_limit = 26;
        bench.cloud.model().one_by_one = one_by_one;
        let disks: Vec<String> = (0..20).map(|number| format!("bs-{number:02}")).collect();
        for id in &disks {
            bench.cloud.put(disk(id, DiskStatus::Available));
        }
        let begun = Instant::now();
        let bench = &Arc::new(bench);
        let attaching: Vec<_> = disks
            .into_iter()
            .map(|id| {
                let bench = Arc::clone(bench);
                tokio::spawn(async move {
                    let request =
                        AttachRequest { disk: self::id(&id), node: NodeRef::parse("uhost-a").unwrap() };
                    bench.controller.attach(request, soon(), &Progress::default()).await.unwrap();
                })
            })
            .collect();
        for task in attaching {
            task.await.unwrap();
        }
        assert!(begun.elapsed() < seconds(seconds_at_most), "{one_by_one}: {:?}", begun.elapsed());
        let sends = bench.cloud.model().attachments.len();
        assert!(refused.contains(&(sends - 20)), "{one_by_one}: {sends} sends");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_refusal_beside_another_change_is_taken_for_busy() {
    let bench = Arc::new(Bench::new().await);
    bench.cloud.model().work = seconds(4);
    bench.cloud.model().host_limit = 26;
    bench.cloud.model().bare_busy = true;
    let run = async |attach: bool| {
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (bench, id) = (Arc::clone(&bench), format!("bs-{number}"));
                tokio::spawn(async move {
                    match attach {
                        true => drop(bench.attach(&id, "uhost-a").await.unwrap()),
                        false => bench.detach(&id, "uhost-a").await.unwrap(),
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let calls = bench.cloud.calls();
        let sent = calls.iter().filter(|call| **call == "attach_disk" || **call == "detach_disk").count();
        (sent, calls.contains(&"host"))
    };
    for number in 0..8 {
        bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
    }
    assert_eq!(run(true).await, (9, false), "one try at two at a time, and nothing to explain");
    assert_eq!(run(false).await, (8, false), "which is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_others_keep_busy_is_tried_again() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.put(bound("bs-other", "uhost-a", DiskStatus::Attaching));
    let (attached, ()) = tokio::join!(bench.attach("bs-1", "uhost-a"), async {
        tokio::time::sleep(seconds(20)).await;
        let phase = bench.progress.get();
        let queued =
            "number 1 in the queue of uhost-a; it is busy with something that this driver did not ask for";
        assert!(phase.contains(queued), "{phase}");
        bench.cloud.put(bound("bs-other", "uhost-a", DiskStatus::InUse));
    });
    attached.unwrap();
    // One that stays busy ends in an error that says so.
    bench.cloud.put(bound("bs-other", "uhost-a", DiskStatus::Attaching));
    bench.cloud.put(disk("bs-2", DiskStatus::Available));
    let text = bench.attach("bs-2", "uhost-a").await.unwrap_err().to_string();
    assert!(text.contains("after 300 s waiting to attach UDisk bs-2: number 1 in the queue"), "{text}");
    assert!(text.contains("last answer of the cloud: attach_disk failed"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_disk_does_not_hold_up_its_host() {
    for attach in [true, false] {
        let bench = Arc::new(Bench::new().await);
        bench.cloud.model().one_by_one = false;
        bench.cloud.model().host_limit = 9;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        bench.cloud.put_attached("bs-2", "uhost-a");
        bench.cloud.put(disk("bs-3", DiskStatus::Available));
        bench.cloud.model().work = seconds(1000);
        let stuck = {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                match attach {
                    true => bench.attach("bs-1", "uhost-a").await.is_err(),
                    false => bench.detach("bs-2", "uhost-a").await.is_err(),
                }
            })
        };
        tokio::time::sleep(seconds(1)).await;
        bench.cloud.model().work = seconds(4);
        let begun = Instant::now();
        bench.attach("bs-3", "uhost-a").await.unwrap();
        assert!((seconds(180)..seconds(200)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert!(stuck.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_detach_passes_an_attach_that_the_cloud_keeps_refusing() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.put_attached("bs-2", "uhost-a");
    bench.cloud.fail("attach_disk", &[Fault::Refused(Cause::Busy); 6]);
    let (attached, ()) = tokio::join!(bench.attach("bs-1", "uhost-a"), async {
        tokio::time::sleep(seconds(1)).await;
        bench.detach("bs-2", "uhost-a").await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available, "it went first");
    });
    attached.unwrap();
}
