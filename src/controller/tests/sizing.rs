use super::*;
use crate::cloud::Cause;
use crate::controller::fake::{Fault, host_id};
use crate::controller::{ExpandError, ExpandRequest, Expanded, HostSees, Unresolved, Verdict};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Bench {
    async fn expand(&self, required: u32, limit: Option<u32>) -> Result<Expanded, ExpandError> {
        self.expand_disk("bs-1", required, limit).await
    }

    pub(super) async fn expand_disk(
        &self,
        disk: &str,
        required: u32,
        limit: Option<u32>,
    ) -> Result<Expanded, ExpandError> {
        let request = ExpandRequest {
            disk: id(disk),
            required_bytes: Gib::new(required).bytes(),
            limit_bytes: limit.map(|limit| Gib::new(limit).bytes()),
        };
        self.controller.expand(request, soon(), &self.progress).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_grows_in_steps_where_it_is() {
    for (host, action) in [
        (None, "resize_detached_disk"),
        (Some("uhost-a"), "resize_attached_disk"),
        (Some("upm-c"), "resize_attached_disk"),
    ] {
        let bench = Bench::new().await;
        match host {
            None => bench.cloud.put(disk("bs-1", DiskStatus::Available)),
            Some(host) => bench.cloud.put_attached("bs-1", host),
        }
        let expanded = |host_sees| Expanded { size: Gib::new(30), host_sees };
        assert_eq!(bench.expand(21, None).await.unwrap(), expanded(HostSees::Now));
        assert_eq!(bench.cloud.calls(), ["disk", action, "disk"]);
        // Who asks again may ask because the first answer never arrived.
        let again = if host.is_some() { HostSees::NotKnown } else { HostSees::Now };
        assert_eq!(bench.expand(21, None).await.unwrap(), expanded(again));
        assert_eq!(bench.cloud.calls(), ["disk"]);
    }
}

#[tokio::test(start_paused = true)]
async fn disks_of_one_host_grow_one_after_the_other_and_a_detach_goes_before_them() {
    let bench = Arc::new(Bench::new().await);
    bench.cloud.model().work = seconds(4);
    for number in 0..4 {
        bench.cloud.put_attached(&format!("bs-{number}"), "uhost-a");
    }
    let begun = Instant::now();
    let growing: Vec<_> = (0..3)
        .map(|number| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let id = format!("bs-{number}");
                assert_eq!(bench.expand_disk(&id, 20, None).await.unwrap().size, Gib::new(20));
                assert_eq!(bench.cloud.truth(&id).unwrap().size, Gib::new(20));
            })
        })
        .collect();
    tokio::time::sleep(seconds(1)).await;
    bench.detach("bs-3", "uhost-a").await.unwrap();
    assert!(begun.elapsed() < seconds(10), "after one of the three: {:?}", begun.elapsed());
    for task in growing {
        task.await.unwrap();
    }
    let calls = bench.cloud.calls();
    let sends = |action: &str| calls.iter().filter(|call| **call == action).count();
    assert_eq!(sends("detach_disk"), 1);
    assert!((3..=4).contains(&sends("resize_attached_disk")), "one at most met a busy host: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn sizes_that_cannot_be_are_refused_before_anything_is_sent() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    assert!(matches!(bench.expand(11, Some(19)).await, Err(ExpandError::Capacity { .. })));
    assert!(matches!(bench.expand(8001, None).await, Err(ExpandError::Capacity { .. })));
    assert!(matches!(bench.expand(1, Some(5)).await, Err(ExpandError::OverLimit { .. })));
    assert_eq!(bench.cloud.calls(), ["disk"; 3]);
    assert!(matches!(
        bench
            .controller
            .expand(
                ExpandRequest { disk: id("bs-gone"), required_bytes: 1, limit_bytes: None },
                soon(),
                &bench.progress
            )
            .await,
        Err(ExpandError::NoDisk { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn growth_that_needs_a_restart_or_a_stop_says_so() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.cloud.model().needs_restart = true;
    assert_eq!(bench.expand(20, None).await.unwrap().host_sees, HostSees::AfterRestart);
    // The cloud says it once. A driver that died with it must not make the next one say that all is well.
    assert_eq!(bench.restarted().expand(20, None).await.unwrap().host_sees, HostSees::NotKnown);
    bench.cloud.fail("resize_attached_disk", &[Fault::ReplyLost]);
    assert_eq!(bench.expand(30, None).await.unwrap().host_sees, HostSees::NotKnown);
    bench.cloud.fail("resize_attached_disk", &[Fault::Refused(Cause::HostMustStop)]);
    let error = bench.expand(40, None).await.unwrap_err();
    assert!(matches!(error, ExpandError::HostMustStop { .. }), "{error}");
    assert!(error.to_string().contains("uhost-a"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn slow_and_lagging_growth_is_verified() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    tokio::time::advance(seconds(60)).await;
    bench.cloud.model().work = seconds(5);
    bench.cloud.model().read_lag = seconds(4);
    bench.expand(40, None).await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().size, Gib::new(40));
    let sends = bench.cloud.calls().iter().filter(|call| **call == "resize_attached_disk").count();
    assert_eq!(sends, 1);
}

/// What the cloud makes of a second request for what is under way is not documented.
#[tokio::test(start_paused = true)]
async fn a_growth_that_takes_its_time_is_asked_for_once() {
    for host in [None, Some("uhost-a")] {
        for lost in [false, true] {
            let bench = Bench::new().await;
            let put = || match host {
                None => bench.cloud.put(disk("bs-1", DiskStatus::Available)),
                Some(host) => bench.cloud.put_attached("bs-1", host),
            };
            put();
            bench.cloud.model().work = seconds(120);
            let (grown, text) = tokio::join!(bench.expand(20, None), async {
                tokio::time::sleep(seconds(60)).await;
                if lost {
                    // The cloud gives up on what it has accepted.
                    put();
                    bench.cloud.model().work = seconds(1);
                }
                tokio::time::sleep(seconds(30)).await;
                bench.progress.get()
            });
            assert_eq!(grown.unwrap().size, Gib::new(20), "{host:?}");
            assert!(text.contains("growing to 20 GiB, for 8"), "{text}");
            let sends = bench.cloud.calls().iter().filter(|call| call.starts_with("resize")).count();
            assert_eq!(sends, if lost { 2 } else { 1 }, "{host:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_growth_that_no_read_shows_yet_is_not_refused_as_impossible() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    tokio::time::advance(seconds(60)).await;
    bench.cloud.model().read_lag = seconds(9);
    let mut grown = disk("bs-1", DiskStatus::Available);
    grown.size = Gib::new(20);
    bench.cloud.put(grown);
    let grown = bench.restarted().expand(20, None).await.unwrap();
    assert_eq!(grown.size, Gib::new(20));
}

#[tokio::test(start_paused = true)]
async fn a_resize_without_an_answer_is_looked_after() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let bench = Bench::new().await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        bench.cloud.fail("resize_detached_disk", &[fault]);
        assert_eq!(bench.expand(20, None).await.unwrap().size, Gib::new(20), "{fault:?}");
    }
}

/// The cloud refuses a size that it is growing the disk to already.
#[tokio::test(start_paused = true)]
async fn a_growth_whose_answer_was_lost_is_not_refused_while_it_takes_its_time() {
    for (action, host) in [("resize_detached_disk", None), ("resize_attached_disk", Some("uhost-a"))] {
        let bench = Bench::new().await;
        match host {
            None => bench.cloud.put(disk("bs-1", DiskStatus::Available)),
            Some(host) => bench.cloud.put_attached("bs-1", host),
        }
        bench.cloud.model().work = seconds(60);
        bench.cloud.fail(action, &[Fault::ReplyLost]);
        bench.cloud.fail(action, &[Fault::Refused(Cause::InvalidRequest); 20]);
        let (grown, text) = tokio::join!(bench.expand(20, None), async {
            tokio::time::sleep(seconds(40)).await;
            bench.progress.get()
        });
        assert_eq!(grown.unwrap().size, Gib::new(20), "{action}");
        assert!(text.contains("may be growing to 20 GiB already"), "{text}");
        assert!(text.contains("InvalidRequest"), "{text}");
        let sends = bench.cloud.calls().iter().filter(|call| **call == action).count();
        assert_eq!(sends, 2);

        // The same for one that was accepted and is asked for again because it is overdue.
        bench.cloud.model().faults.clear();
        bench.cloud.model().work = seconds(250);
        bench.cloud.fail_after(action, 1, Fault::Refused(Cause::InvalidRequest));
        bench.cloud.fail(action, &[Fault::Refused(Cause::InvalidRequest); 20]);
        assert_eq!(bench.expand(30, None).await.unwrap().size, Gib::new(30), "{action}");

        // The refusal of one that never comes is passed on in the end.
        bench.cloud.model().faults.clear();
        bench.cloud.fail(action, &[Fault::RequestLost]);
        bench.cloud.fail(action, &[Fault::Refused(Cause::InvalidRequest); 2]);
        let error = bench.expand(40, None).await.unwrap_err();
        let invalid = matches!(&error, ExpandError::Call(call) if call.verdict == Verdict::Invalid);
        assert!(invalid, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_growth_that_is_overdue_does_not_hold_up_its_host() {
    for (detach, meanwhile) in [(true, None), (false, None), (false, Some(DiskStatus::Detaching))] {
        let bench = Arc::new(Bench::new().await);
        {
            let mut model = bench.cloud.model();
            (model.one_by_one, model.host_limit, model.work) = (false, 9, seconds(1000));
        }
        bench.cloud.put_attached("bs-1", "uhost-a");
        bench.cloud.put_attached("bs-2", "uhost-a");
        for number in 3..6 {
            bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
        }
        let growing = {
            let (bench, deadline) = (Arc::clone(&bench), Instant::now() + seconds(900));
            tokio::spawn(async move {
                let request = ExpandRequest {
                    disk: id("bs-1"),
                    required_bytes: Gib::new(20).bytes(),
                    limit_bytes: None,
                };
                bench.controller.expand(request, deadline, &Progress::default()).await.is_err()
            })
        };
        tokio::time::sleep(seconds(1)).await;
        if let Some(status) = meanwhile {
            bench.cloud.put(bound("bs-1", "uhost-a", status));
        }
        bench.cloud.model().work = seconds(4);
        bench.cloud.fail("resize_attached_disk", &[Fault::Refused(Cause::InvalidRequest); 20]);
        let begun = Instant::now();
        if detach {
            bench.detach("bs-2", "uhost-a").await.unwrap();
            let calls = bench.cloud.calls();
            let before = calls.iter().take_while(|call| **call != "detach_disk");
            let sends = before.filter(|call| **call == "resize_attached_disk").count();
            assert_eq!(sends, 1, "the detach goes before the second request");
        } else {
            bench.attach("bs-3", "uhost-a").await.unwrap();
        }
        assert!((seconds(170)..seconds(200)).contains(&begun.elapsed()), "{detach}: {:?}", begun.elapsed());
        // What comes while it is watched for the second time does not wait for it.
        let begun = Instant::now();
        bench.attach("bs-4", "uhost-a").await.unwrap();
        tokio::time::sleep(seconds(20)).await;
        bench.attach("bs-5", "uhost-a").await.unwrap();
        assert!(begun.elapsed() < seconds(60), "{detach}: {:?}", begun.elapsed());
        assert!(growing.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_moves_meanwhile_grows_where_it_is_then() {
    let bench = Bench::new().await;
    bench.cloud.put(bound("bs-1", "uhost-a", DiskStatus::Attaching));
    let (expanded, ()) = tokio::join!(bench.expand(20, None), async {
        tokio::time::sleep(seconds(5)).await;
        bench.cloud.put_attached("bs-1", "uhost-b");
    });
    assert_eq!(expanded.unwrap().size, Gib::new(20));
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, Some(host_id("uhost-b")));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_passed_on_and_busy_is_waited_out() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.cloud.fail("resize_attached_disk", &[Fault::Refused(Cause::Busy); 3]);
    bench.expand(20, None).await.unwrap();
    for (cause, verdict) in [(Cause::InvalidRequest, Verdict::Invalid), (Cause::NoStock, Verdict::Exhausted)]
    {
        bench.cloud.fail("resize_attached_disk", &[Fault::Refused(cause); 2]);
        let error = bench.expand(30, None).await.unwrap_err();
        assert!(matches!(&error, ExpandError::Call(call) if call.verdict == verdict), "{error}");
    }
    bench.cloud.put(disk("bs-1", DiskStatus::Restoring));
    let error = bench.expand(30, None).await.unwrap_err();
    assert!(matches!(error, ExpandError::Unresolved(Unresolved::TimedOut { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_attached_a_moment_ago_grows_where_it_is() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    tokio::time::advance(seconds(60)).await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.cloud.model().read_lag = seconds(9);
    // The process before it attached the disk, and this one reads what was before that.
    let next = bench.restarted();
    assert_eq!(next.expand(21, None).await.unwrap().size, Gib::new(30));
}
