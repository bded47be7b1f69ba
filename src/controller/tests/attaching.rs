use super::*;
use crate::cloud::Cause;
use crate::controller::fake::{Fault, host, host_id};
use crate::controller::{HostError, Unresolved, Verdict};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn every_state_has_its_answer() {
    use DiskStatus::*;
    type Check = fn(&Result<PublishContext, AttachError>) -> bool;
    let cases: [(Disk, Check); 9] = [
        (disk("bs-1", Available), Result::is_ok),
        (bound("bs-1", "uhost-a", InUse), Result::is_ok),
        (bound("bs-1", "uhost-b", InUse), |r| matches!(r, Err(AttachError::Elsewhere { .. }))),
        (disk("bs-1", Failed), |r| matches!(r, Err(AttachError::Unusable { .. }))),
        (disk("bs-1", RestoreFailed), |r| matches!(r, Err(AttachError::Unusable { .. }))),
        (bound("bs-1", "uhost-a", Attaching), stuck),
        (bound("bs-1", "uhost-a", Detaching), stuck),
        (disk("bs-1", Cloning), stuck),
        (disk("bs-1", Other("Mending".into())), stuck),
    ];
    fn stuck(r: &Result<PublishContext, AttachError>) -> bool {
        matches!(r, Err(AttachError::Unresolved(Unresolved::TimedOut { .. })))
    }
    for (state, check) in cases {
        let bench = Bench::new().await;
        bench.cloud.put(state.clone());
        let answer = bench.attach("bs-1", "uhost-a").await;
        assert!(check(&answer), "{state:?}: {answer:?}");
        let sent = bench.cloud.model().attachments.len();
        assert_eq!(sent, usize::from(state.status == Available), "{state:?}");
    }
    let bench = Bench::new().await;
    assert!(matches!(bench.attach("bs-1", "uhost-a").await, Err(AttachError::NoDisk { .. })));
    assert!(matches!(bench.attach("bs-1", "10.0.0.1").await, Err(AttachError::NoDisk { .. })));
    let mut system = disk("bs-1", Available);
    system.is_boot = true;
    bench.cloud.put(system);
    assert!(matches!(bench.attach("bs-1", "uhost-a").await, Err(AttachError::SystemDisk { .. })));
}

#[tokio::test(start_paused = true)]
async fn attached_elsewhere_names_both_forms_of_the_host() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-b");
    let text = bench.attach("bs-1", "uhost-a").await.unwrap_err().to_string();
    assert!(text.contains("uhost-b (10.0.0.2)") && text.contains("not to uhost-a"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_what_is_configured() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.attach("bs-1", "uhost-a").await.unwrap();
    let sent = bench.cloud.model().attachments[0].clone();
    assert_eq!((sent.multi_attach, sent.cross_pod, sent.zone), (Some(false), false, zone()));
}

/// Where the cloud is not told to refuse it, nobody else does.
#[tokio::test(start_paused = true)]
async fn an_old_picture_never_puts_a_disk_on_a_second_host() {
    for multi_attach in [None, Some(true)] {
        let config = ControllerConfig { multi_attach, ..ControllerConfig::new("cn-bj2") };
        let bench = Arc::new(Bench::with(config));
        tokio::time::advance(seconds(3600)).await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        for number in 0..20 {
            bench.cloud.put(disk(&format!("bs-more{number:02}"), DiskStatus::Available));
        }
        tokio::time::advance(seconds(100)).await;
        // By the process before, which died.
        bench.cloud.put_attached("bs-1", "uhost-a");
        bench.cloud.model().read_lag = seconds(9);
        tokio::time::advance(seconds(1)).await;
        let answer = bench.attach("bs-1", "uhost-b").await;
        assert!(matches!(answer, Err(AttachError::Elsewhere { .. })), "{answer:?}");

        // In a crowd, whose pages are older.
        (bench.cloud.model().read_lag, bench.cloud.model().list_lag) = (Duration::ZERO, seconds(60));
        (bench.cloud.model().host_limit, bench.cloud.model().latency) = (26, Duration::from_millis(50));
        let one = {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.attach("bs-1", "upm-c").await })
        };
        let mut crowd = tokio::task::JoinSet::new();
        for number in 0..20 {
            let bench = Arc::clone(&bench);
            crowd
                .spawn(async move { bench.attach(&format!("bs-more{number:02}"), "uhost-b").await.unwrap() });
        }
        crowd.join_all().await;
        let answer = one.await.unwrap();
        assert!(bench.cloud.calls().contains(&"disks"), "there were pages");
        assert!(matches!(answer, Err(AttachError::Elsewhere { .. })), "{answer:?}");
        let sent = bench.cloud.model().attachments.clone();
        assert!(sent.iter().all(|sent| sent.disk != id("bs-1")), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_operation_is_waited_for() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-b");
    bench.cloud.model().work = seconds(6);
    let other = bench.restarted();
    let (detached, attached) = tokio::join!(other.detach("bs-1", "uhost-b"), async {
        tokio::time::sleep(seconds(1)).await;
        bench.attach("bs-1", "uhost-a").await
    });
    detached.unwrap();
    attached.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, Some(host_id("uhost-a")));
}

#[tokio::test(start_paused = true)]
async fn reads_that_lag_do_not_lead_to_wrong_answers() {
    for lag in [1, 5, 9] {
        let bench = Bench::new().await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        tokio::time::advance(seconds(60)).await;
        bench.cloud.model().read_lag = seconds(lag);
        bench.cloud.model().work = seconds(2);
        for _ in 0..2 {
            bench.attach("bs-1", "uhost-a").await.unwrap();
            assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::InUse);
            bench.detach("bs-1", "uhost-a").await.unwrap();
            assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
            bench.attach("bs-1", "uhost-b").await.unwrap();
            assert_eq!(bench.cloud.truth("bs-1").unwrap().host, Some(host_id("uhost-b")));
            bench.detach("bs-1", "").await.unwrap();
            assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
        }
        assert_eq!(bench.cloud.model().attachments.len(), 4, "lag {lag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_process_does_not_believe_an_old_picture() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    tokio::time::advance(seconds(60)).await;
    bench.detach("bs-1", "uhost-a").await.unwrap();
    bench.cloud.model().read_lag = seconds(5);
    let next = bench.restarted();
    next.attach("bs-1", "uhost-a").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::InUse);
}

#[tokio::test(start_paused = true)]
async fn an_attach_without_an_answer_is_looked_after() {
    for (fault, sends) in [(Fault::ReplyLost, 1), (Fault::RequestLost, 2)] {
        let bench = Bench::new().await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        tokio::time::advance(seconds(60)).await;
        bench.cloud.model().work = seconds(3);
        bench.cloud.model().read_lag = seconds(5);
        bench.cloud.fail("attach_disk", &[fault]);
        bench.attach("bs-1", "uhost-a").await.unwrap();
        let calls = bench.cloud.calls();
        assert_eq!(calls.iter().filter(|call| **call == "attach_disk").count(), sends, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_while_waiting_do_not_end_the_wait() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.fail_after("disk", 1, Fault::RequestLost);
    bench.attach("bs-1", "uhost-a").await.unwrap();
    // Without rights nothing comes of waiting.
    bench.cloud.put(bound("bs-2", "uhost-a", DiskStatus::Attaching));
    bench.cloud.fail_after("disk", 1, Fault::Refused(Cause::Denied));
    let error = bench.attach("bs-2", "uhost-a").await.unwrap_err();
    assert!(matches!(error, AttachError::Unresolved(Unresolved::Unreadable { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_stopped_or_of_bare_metal_takes_disks_and_gives_them_back() {
    for (host, state) in [("uhost-a", "Stopped"), ("upm-c", "Running"), ("10.0.0.3", "Running")] {
        let bench = Bench::new().await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        bench.cloud.model().work = seconds(4);
        bench.cloud.model().hosts.iter_mut().for_each(|host| host.state = state.to_owned());
        bench.attach("bs-1", host).await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::InUse, "{host} {state}");
        tokio::time::sleep(seconds(60)).await;
        bench.detach("bs-1", host).await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().host, None, "{host} {state}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_host_is_called_full_with_its_count() {
    let bench = Bench::new().await;
    for number in 0..3 {
        bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
    }
    bench.attach("bs-0", "uhost-a").await.unwrap();
    bench.attach("bs-1", "uhost-a").await.unwrap();
    let error = bench.attach("bs-2", "uhost-a").await.unwrap_err();
    assert!(matches!(error, AttachError::HostFull { count: 2, .. }), "{error}");
    bench.attach("bs-2", "uhost-b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_passes_is_no_reason_to_call_a_host_full() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-0", "uhost-a");
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.fail("attach_disk", &[Fault::Refused(Cause::AttachFailed); 2]);
    bench.attach("bs-1", "uhost-a").await.unwrap();
    // A host without disks is not full, whatever it answers.
    bench.cloud.put(disk("bs-2", DiskStatus::Available));
    bench.cloud.fail("attach_disk", &[Fault::Refused(Cause::AttachFailed); 9]);
    let error = bench.attach("bs-2", "uhost-b").await.unwrap_err();
    assert!(matches!(&error, AttachError::Call(call) if call.verdict == Verdict::Uncertain), "{error}");
}

#[tokio::test(start_paused = true)]
async fn at_the_documented_limit_one_refusal_is_enough() {
    let bench = Bench::new().await;
    bench.cloud.model().host_limit = 26;
    for number in 0..26 {
        bench.cloud.put_attached(&format!("bs-{number}"), "uhost-a");
    }
    bench.cloud.put(disk("bs-x", DiskStatus::Available));
    let error = bench.attach("bs-x", "uhost-a").await.unwrap_err();
    assert!(matches!(error, AttachError::HostFull { count: 26, .. }), "{error}");
    assert_eq!(bench.cloud.calls(), ["disk", "attach_disk", "disk", "host", "disks"]);
}

#[tokio::test(start_paused = true)]
async fn an_unfit_host_is_explained() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    assert!(matches!(bench.attach("bs-1", "uhost-x").await, Err(AttachError::NoHost { .. })));
    let mut far = host("uhost-far", "10.0.0.8");
    far.zone = crate::volume::Zone::parse("cn-bj2-02").ok();
    bench.cloud.model().hosts.push(far);
    assert!(matches!(bench.attach("bs-1", "uhost-far").await, Err(AttachError::WrongZone { .. })));
    // A host that boots will take the disk.
    bench.cloud.model().hosts[0].state = String::from("Rebooting");
    let (attached, ()) = tokio::join!(bench.attach("bs-1", "uhost-a"), async {
        tokio::time::sleep(seconds(40)).await;
        bench.cloud.model().hosts[0].state = String::from("Running");
    });
    attached.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_rdma_cluster_is_crossed_only_when_allowed() {
    for cross_pod_attach in [false, true] {
        let config = ControllerConfig { cross_pod_attach, ..ControllerConfig::new("cn-bj2") };
        let bench = Bench::with(config);
        let mut rssd = disk("bs-1", DiskStatus::Available);
        (rssd.disk_type, rssd.rdma_cluster) = (Some(DiskType::Rssd), Some(String::from("R1")));
        bench.cloud.put(rssd);
        bench.cloud.model().hosts[0].rdma_cluster = Some(String::from("R2"));
        let answer = bench.attach("bs-1", "uhost-a").await;
        if cross_pod_attach {
            answer.unwrap();
            assert!(bench.cloud.model().attachments[1].cross_pod);
        } else {
            let error = answer.unwrap_err();
            assert!(matches!(error, AttachError::OtherRdmaCluster { .. }), "{error}");
            assert!(error.to_string().contains("R1") && error.to_string().contains("R2"), "{error}");
            assert_eq!(bench.cloud.model().attachments.len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_node_id_is_resolved_and_remembered() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.put(disk("bs-2", DiskStatus::Available));
    bench.attach("bs-1", "10.0.0.1").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk", "virtual_hosts", "bare_metal_hosts", "attach_disk", "disk"]);
    bench.attach("bs-1", "10.0.0.1").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk"], "the disk itself names the address");
    bench.attach("bs-2", "10.0.0.3").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk", "attach_disk", "disk"]);
    assert_eq!(bench.cloud.truth("bs-2").unwrap().host, Some(host_id("upm-c")));
}

#[tokio::test(start_paused = true)]
async fn an_address_of_nobody_or_of_two_is_refused() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    let error = bench.attach("bs-1", "10.9.9.9").await.unwrap_err();
    assert!(matches!(error, AttachError::Node { source: HostError::Unknown { .. }, .. }), "{error}");
    // Found by the one new listing.
    bench.cloud.model().hosts.push(host("uhost-d", "10.9.9.9"));
    tokio::time::advance(seconds(1)).await;
    bench.attach("bs-1", "10.9.9.9").await.unwrap();
    bench.detach("bs-1", "10.9.9.9").await.unwrap();
    bench.cloud.model().hosts.push(host("uhost-e", "10.9.9.9"));
    tokio::time::advance(seconds(61)).await;
    let error = bench.attach("bs-1", "10.9.9.9").await.unwrap_err();
    assert!(matches!(error, AttachError::Node { source: HostError::Ambiguous { .. }, .. }), "{error}");
    assert!(error.to_string().contains("uhost-d, uhost-e"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_moved_to_another_host_is_looked_up_again() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.put(disk("bs-2", DiskStatus::Available));
    bench.attach("bs-1", "10.0.0.2").await.unwrap();
    bench.cloud.model().hosts[1] = host("uhost-new", "10.0.0.2");
    bench.attach("bs-2", "10.0.0.2").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-2").unwrap().host, Some(host_id("uhost-new")));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_state_is_bounded_and_says_since_when() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.model().work = seconds(1000);
    let text = bench.attach("bs-1", "uhost-a").await.unwrap_err().to_string();
    assert!(text.contains("after 300 s UDisk bs-1 is Attaching to host uhost-a (10.0.0.1)"), "{text}");
    assert!(text.contains("it has been so for at least 296 s, so it seems stuck"), "{text}");
    assert!(bench.cloud.calls().len() < 100, "a stuck disk costs few reads");
    assert_eq!(bench.controller.disks_stuck(), 1);
    // The next call does not begin to count anew.
    let text = bench.attach("bs-1", "uhost-a").await.unwrap_err().to_string();
    assert!(text.contains("it has been so for at least 596 s, so it seems stuck"), "{text}");
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.attach("bs-1", "uhost-a").await.unwrap();
    assert_eq!(bench.controller.disks_stuck(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_name_may_come_late_but_must_come() {
    let bench = Bench::new().await;
    let mut nameless = bound("bs-1", "uhost-a", DiskStatus::InUse);
    nameless.device = None;
    bench.cloud.put(nameless.clone());
    let (attached, ()) = tokio::join!(bench.attach("bs-1", "uhost-a"), async {
        tokio::time::sleep(seconds(3)).await;
        bench.cloud.put_attached("bs-1", "uhost-a");
    });
    assert_eq!(attached.unwrap().device.as_deref(), Some("vdb"));
    bench.cloud.put(nameless);
    let error = bench.attach("bs-1", "uhost-a").await.unwrap_err();
    assert!(matches!(error, AttachError::NoDevice { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_falls_back_is_tried_a_few_times() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.model().work = seconds(1000);
    let (attached, ()) = tokio::join!(bench.attach("bs-1", "uhost-a"), async {
        loop {
            tokio::time::sleep(seconds(3)).await;
            bench.cloud.put(disk("bs-1", DiskStatus::Available));
            if bench.cloud.model().attachments.len() == 3 {
                break;
            }
        }
    });
    let error = attached.unwrap_err();
    assert!(matches!(error, AttachError::FellBack { times: 3, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_the_cloud_calls_attached_is_looked_at_until_it_is_seen_so() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    tokio::time::advance(Duration::from_secs(60)).await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.cloud.model().read_lag = Duration::from_secs(9);
    // The process before it attached the disk, and this one reads what was before that.
    let next = bench.restarted();
    assert!(next.attach("bs-1", "uhost-a").await.is_ok());
    assert_eq!(bench.cloud.model().attachments.len(), 1);

    // Where it stays so, nobody knows what is true, and no answer may be final.
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.fail("attach_disk", &[Fault::Refused(Cause::AlreadyAttached); 9]);
    let error = bench.attach("bs-1", "uhost-a").await.unwrap_err();
    assert!(matches!(error, AttachError::Contradiction { .. }), "{error}");
    assert_eq!(bench.cloud.model().attachments.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_just_started_does_not_believe_an_old_picture() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-b");
    tokio::time::advance(Duration::from_secs(60)).await;
    bench.cloud.put(bound("bs-1", "uhost-a", DiskStatus::InUse));
    bench.cloud.put_attached("bs-2", "uhost-a");
    bench.cloud.model().read_lag = Duration::from_secs(9);
    let next = bench.restarted();
    let (one, two) = tokio::join!(next.attach("bs-1", "uhost-a"), next.attach("bs-2", "uhost-a"));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
}
