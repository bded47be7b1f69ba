//! One poller for all that wait: what it costs in calls, and how late it is.

use super::*;
use crate::cloud::Cause;
use crate::cloud::testing::odd;
use crate::controller::fake::{Fault, host};
use crate::controller::poller::Which;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn count(calls: &[&str], action: &str) -> usize {
    calls.iter().filter(|call| **call == action).count()
}

/// Runs all at once, each as a task of its own, and says when each ended.
async fn all<F>(operations: impl Iterator<Item = F>) -> Vec<Instant>
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = operations
        .map(|operation| {
            tokio::spawn(async move {
                operation.await;
                Instant::now()
            })
        })
        .collect();
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await.unwrap());
    }
    ended
}

fn attach(bench: &Arc<Bench>, disk: String, node: String) -> impl Future<Output = ()> + Send + use<> {
    let bench = Arc::clone(bench);
    async move {
        let request = AttachRequest { disk: id(&disk), node: NodeRef::parse(&node).unwrap() };
        bench.controller.attach(request, soon(), &Progress::default()).await.unwrap();
    }
}

/// A bench with `hosts` hosts and `disks` free disks, whose calls take 50 ms and whose changes take four seconds.
async fn crowd(hosts: usize, disks: usize) -> Arc<Bench> {
    let bench = Bench::new().await;
    {
        let mut model = bench.cloud.model();
        model.hosts = (0..hosts).map(|n| host(&format!("uhost-{n}"), &format!("10.0.1.{n}"))).collect();
        model.host_limit = 26;
        model.work = seconds(4);
        model.latency = millis(50);
    }
    for number in 0..disks {
        bench.cloud.put(disk(&format!("bs-{number:04}"), DiskStatus::Available));
    }
    tokio::time::advance(seconds(60)).await;
    Arc::new(bench)
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_one_disk_share_its_reads() {
    let bench = Bench::new().await;
    bench.cloud.put(bound("bs-1", "uhost-a", DiskStatus::Attaching));
    let poller = &bench.controller.inner.poller;
    let follows: Vec<_> = (0..50).map(|_| poller.follow(&id("bs-1"))).collect();
    let since = Instant::now();
    all(follows.into_iter().map(|mut follow| async move {
        let reading = follow.next(Which::WaitingSince(since), soon()).await.unwrap();
        assert!(reading.result.unwrap().is_some() && !reading.listed);
    }))
    .await;
    assert_eq!(bench.cloud.calls(), ["disk"]);
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(bench.cloud.calls(), [""; 0], "nobody follows, so nothing is read");
    let mut late = poller.follow(&id("bs-1"));
    assert!(late.next(Which::AtOnce, soon()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_alone_is_served_at_its_own_pace() {
    // Whatever the cloud takes, an eighth of it is added at most, or half a second, and the call.
    for tenths in [0_u64, 1, 5, 10, 30, 45, 60, 80, 200] {
        let bench = crowd(1, 1).await;
        bench.cloud.model().work = millis(tenths * 100);
        let begun = Instant::now();
        attach(&bench, "bs-0000".to_owned(), "uhost-0".to_owned()).await;
        let (took, calls) = (begun.elapsed(), bench.cloud.calls());
        let late = took.checked_sub(millis(tenths * 100 + 100)).unwrap();
        assert!(late <= millis(100 + (tenths * 100 / 8).max(500) + 50), "{tenths}: late by {late:?}");
        assert!(tenths > 80 || count(&calls, "disk") <= 14, "{tenths}: {calls:?}");
        assert_eq!(count(&calls, "disks"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_wait_share_pages() {
    let bench = crowd(50, 1000).await;
    let begun = Instant::now();
    let operations = (0..1000).map(|n| attach(&bench, format!("bs-{n:04}"), format!("uhost-{}", n % 50)));
    let ended = all(operations).await;
    let calls = bench.cloud.calls();
    let reads = calls.len() - count(&calls, "attach_disk");
    assert!(reads <= 350, "{reads} reads, {} of single disks", count(&calls, "disk"));
    // Twenty after one another on each host, each four seconds and two calls, and seen in the round after.
    let took = ended.into_iter().max().unwrap().duration_since(begun);
    assert!(took <= seconds(20 * 4) + 20 * millis(1350 + 100), "{took:?}");
    assert!(bench.cloud.truth("bs-0999").unwrap().status == DiskStatus::InUse);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_pages_do_not_show_is_read_by_its_id() {
    let bench = crowd(20, 60).await;
    // Never listed, like a disk that is new for longer than anybody waits.
    bench.cloud.model().unlisted = (0..30).map(|n| id(&format!("bs-{:04}", n * 2))).collect();
    all((0..60).map(|n| attach(&bench, format!("bs-{n:04}"), format!("uhost-{}", n % 20)))).await;
    let calls = bench.cloud.calls();
    assert!(count(&calls, "disks") > 0, "pages were tried");
    assert!(count(&calls, "disk") >= 30, "each of the others was read by its id");
    // One that is gone is called gone by a read of its own.
    let operations = (0..20).map(|n| {
        let (bench, gone) = (Arc::clone(&bench), format!("bs-gone{n}"));
        async move {
            let error = bench.attach(&gone, "uhost-0").await.unwrap_err();
            assert!(matches!(error, AttachError::NoDisk { .. }), "{error}");
        }
    });
    all(operations).await;
    assert!(count(&bench.cloud.calls(), "disk") >= 20);
}

#[tokio::test(start_paused = true)]
async fn pages_that_fail_or_hang_cost_nobody_the_answer() {
    let faults = [Fault::RequestLost, Fault::Refused(Cause::NoAnswer), Fault::Hang];
    for fault in faults {
        let bench = crowd(20, 60).await;
        bench.cloud.fail("disks", &[fault; 50]);
        let begun = Instant::now();
        all((0..60).map(|n| attach(&bench, format!("bs-{n:04}"), format!("uhost-{}", n % 20)))).await;
        assert!(begun.elapsed() < seconds(60), "{fault:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_disk_does_not_hold_up_the_others() {
    let bench = crowd(20, 60).await;
    bench.cloud.model().unreadable = Some(id("bs-0007"));
    let bad = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.attach("bs-0007", "uhost-7").await })
    };
    let begun = Instant::now();
    let others = (0..60).filter(|n| *n != 7);
    all(others.map(|n| attach(&bench, format!("bs-{n:04}"), format!("uhost-{}", n % 20)))).await;
    assert!(begun.elapsed() < seconds(40), "{:?}", begun.elapsed());
    bench.cloud.model().unreadable = None;
    assert!(!bad.is_finished(), "its own read hangs");
    bad.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_read_does_not_take_the_pages_from_the_others() {
    let mut reads = Vec::new();
    for id in [None, Some("bs-0007")] {
        let bench = crowd(20, 60).await;
        bench.cloud.model().odd.extend(id.map(|id| odd(id, None)));
        // The odd one is somebody else's, or has been attached for long.
        let others = (0..60).filter(|n| *n != 7);
        all(others.map(|n| attach(&bench, format!("bs-{n:04}"), format!("uhost-{}", n % 20)))).await;
        let calls = bench.cloud.calls();
        reads.push(count(&calls, "disk") + count(&calls, "disks"));
    }
    assert_eq!(reads[0], reads[1]);
}

#[tokio::test(start_paused = true)]
async fn pages_that_lag_are_found_out_and_left_alone() {
    let lags = [0, 1, 2, 5, 14, 30, 40, 300].into_iter().flat_map(|lag| [(lag, false), (lag, true)]);
    for (lag, wobbles) in lags {
        let context = format!("lag {lag}, wobbles: {wobbles}");
        let bench = crowd(20, 60).await;
        tokio::time::advance(seconds(600)).await;
        bench.cloud.model().list_lag = seconds(lag);
        bench.cloud.model().list_wobble = wobbles.then(|| fastrand::Rng::with_seed(lag));
        // On, off and on again: what the pages show in later rounds may be the rounds before.
        for round in 0..3 {
            let begun = Instant::now();
            for (attach, wanted) in [(true, DiskStatus::InUse), (false, DiskStatus::Available)] {
                let change = |n: usize| {
                    let (bench, context, wanted) = (Arc::clone(&bench), context.clone(), wanted.clone());
                    let (disk, node) = (format!("bs-{n:04}"), format!("uhost-{}", n % 20));
                    async move {
                        match attach {
                            true => drop(bench.attach(&disk, &node).await.unwrap()),
                            false => bench.detach(&disk, &node).await.unwrap(),
                        }
                        let truth = bench.cloud.truth(&disk).unwrap();
                        assert_eq!(truth.status, wanted, "{context}, round {round}: {truth:?}");
                    }
                };
                all((0..60).map(change)).await;
            }
            assert!(begun.elapsed() < seconds(60), "{context}: {:?}", begun.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_own_deadline() {
    let bench = crowd(1, 1).await;
    bench.cloud.put(bound("bs-1", "uhost-0", DiskStatus::Attaching));
    let poller = &bench.controller.inner.poller;
    let (mut short, mut long) = (poller.follow(&id("bs-1")), poller.follow(&id("bs-1")));
    bench.cloud.fail("disk", &[Fault::Hang]);
    let begun = Instant::now();
    let (short, long) = tokio::join!(
        async {
            let reading = short.next(Which::AtOnce, begun + seconds(2)).await;
            (reading.is_some(), begun.elapsed())
        },
        long.next(Which::AtOnce, begun + seconds(30))
    );
    assert_eq!(short, (false, seconds(2)));
    assert!(long.is_none() && begun.elapsed() == seconds(30));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_in_a_throttled_account_says_so_with_the_request() {
    // One is read by its id, many by pages.
    for (count, action) in [(1, "disk"), (60, "disks")] {
        for before in [0, 2] {
            let context = format!("{count} disks, throttled after {before} s");
            let bench = crowd(60, count).await;
            let deadline = Instant::now() + seconds(60);
            let tasks: Vec<_> = (0..count)
                .map(|n| {
                    let (bench, progress) = (Arc::clone(&bench), Progress::default());
                    tokio::spawn(async move {
                        let node = NodeRef::parse(&format!("uhost-{n}")).unwrap();
                        let request = AttachRequest { disk: id(&format!("bs-{n:04}")), node };
                        let text = bench
                            .controller
                            .attach(request, deadline, &progress)
                            .await
                            .unwrap_err()
                            .to_string();
                        (text, Instant::now())
                    })
                })
                .collect();
            tokio::time::sleep(seconds(before)).await;
            bench.cloud.model().throttled = true;
            for task in tasks {
                let (text, ended) = task.await.unwrap();
                assert!(
                    text.contains("failed with RetCode 17000: Throttled [request r-1]"),
                    "{context}: {text}"
                );
                assert!(text.contains(&format!("{action} failed")) || before == 0, "{context}: {text}");
                assert!(ended <= deadline, "{context}: {:?} late", ended - deadline);
            }
        }
    }
}
