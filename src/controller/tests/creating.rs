use super::*;
use crate::cloud::{Cause, Cloud as _};
use crate::controller::fake::{Fault, host, host_id};
use crate::controller::{PlacementError, Unresolved, Verdict};
use crate::volume::{Segment, Zone};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn with_segment(bench: &Bench, disk_type: DiskType, segment: Segment) -> Result<Volume, CreateError> {
    let mut request = request("pvc-one");
    request.parameters.disk_type = disk_type;
    request.topology = Some(TopologyRequirement { requisite: vec![segment], preferred: vec![] });
    bench.controller.create(request, soon(), &bench.progress).await
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_just_started_finds_what_the_one_before_it_made() {
    let bench = Bench::new().await;
    bench.cloud.model().list_lag = seconds(9);
    bench.cloud.fail("create_disk", &[Fault::DoneHang]);
    assert!(tokio::time::timeout(seconds(1), bench.create("pvc-one")).await.is_err(), "it dies here");
    let next = bench.restarted();
    let made = next.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.disks_named("pvc-one"), 1);

    // The same for one that was deleted and is still listed.
    bench.cloud.model().list_lag = Duration::ZERO;
    tokio::time::advance(seconds(60)).await;
    next.delete(made.id.as_str()).await.unwrap();
    (bench.cloud.model().list_lag, bench.cloud.model().read_lag) = (seconds(9), seconds(9));
    let again = next.restarted().create("pvc-one").await.unwrap();
    assert_ne!(again.id, made.id);

    let request = request("pvc-one");
    let late = next.restarted().controller.create(request, Instant::now() + seconds(3), &next.progress).await;
    let Err(CreateError::Unresolved(Unresolved::TimedOut { .. })) = late else { panic!("{late:?}") };
}

/// Its sidecars let go of the lease; those of the next process ask there.
#[tokio::test(start_paused = true)]
async fn a_young_process_makes_nothing_when_nobody_waits_for_it_any_more() {
    let bench = Bench::young();
    let progress = Progress::of_operation();
    let create = || bench.controller.create(request("pvc-one"), soon(), &progress);
    let caller = progress.caller();
    let (made, ()) = tokio::join!(create(), async {
        tokio::time::sleep(seconds(1)).await;
        drop(caller);
    });
    assert!(matches!(made, Err(CreateError::Unresolved(Unresolved::TimedOut { .. }))), "{made:?}");
    assert_eq!(bench.cloud.disks_named("pvc-one"), 0);

    // One that asks again is served, and an older process goes on by itself: its callers come and go.
    let caller = progress.caller();
    let made = create().await.unwrap();
    bench.delete(made.id.as_str()).await.unwrap();
    drop(caller);
    create().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_create_that_lasts_makes_nothing_in_place_of_what_was_deleted_meanwhile() {
    let bench = Bench::young();
    bench.cloud.put(named("bs-1", "pvc-one"));
    let (made, deleted) = tokio::join!(bench.create("pvc-one"), async {
        tokio::time::sleep(seconds(1)).await;
        bench.delete("bs-1").await
    });
    deleted.unwrap();
    assert!(matches!(made, Err(CreateError::Vanished { .. })), "{made:?}");
    assert_eq!(bench.cloud.disks_named("pvc-one"), 0);
    bench.create("pvc-one").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_found_is_deleted_although_reads_lag() {
    let bench = Bench::new().await;
    bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
    let disk = bench.create("pvc-one").await.unwrap().id;
    bench.cloud.model().read_lag = seconds(6);
    bench.delete(disk.as_str()).await.unwrap();
    assert_eq!(bench.cloud.disks_named("pvc-one"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_found_is_not_called_deleted_while_it_is_being_made() {
    for seed in 0..100 {
        let bench = Bench::new().await;
        {
            let mut model = bench.cloud.model();
            (model.work, model.list_lag, model.read_lag) = (seconds(5), seconds(3), seconds(9));
            model.wobble = Some(fastrand::Rng::with_seed(seed));
        }
        bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
        let made = bench.create("pvc-one").await;
        assert!(made.is_ok(), "seed {seed}: {}", made.unwrap_err());
        assert_eq!(bench.cloud.disks_named("pvc-one"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_found_once_is_not_made_again_when_an_older_listing_lacks_it() {
    for (seed, in_time) in (0..50).flat_map(|seed| [(seed, true), (seed, false)]) {
        let bench = Bench::new().await;
        {
            let mut model = bench.cloud.model();
            (model.work, model.list_lag, model.read_lag) = (seconds(8), seconds(20), seconds(9));
            model.wobble = Some(fastrand::Rng::with_seed(seed));
            model.list_wobble = Some(fastrand::Rng::with_seed(seed));
        }
        bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
        for _ in 0..12 {
            let deadline = Instant::now() + seconds(if in_time { 300 } else { 2 });
            let made = bench.controller.create(request("pvc-one"), deadline, &bench.progress).await;
            let told = made.map_or_else(|error| error.to_string(), |volume| volume.id.to_string());
            assert!(!told.contains("deleted by somebody"), "seed {seed}: {told}");
            tokio::time::advance(seconds(1)).await;
        }
        assert_eq!(bench.cloud.model().created.len(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_the_cloud_gave_out_and_does_not_show_for_long_is_not_made_again() {
    for time in [5, 300] {
        let bench = Bench::new().await;
        (bench.cloud.model().read_lag, bench.cloud.model().list_lag) = (seconds(50), seconds(50));
        let mut last = String::new();
        for _ in 0..12 {
            let deadline = Instant::now() + seconds(time);
            let made = bench.controller.create(request("pvc-one"), deadline, &bench.progress).await;
            last = made.map_or_else(|error| error.to_string(), |volume| volume.id.to_string());
            tokio::time::advance(seconds(1)).await;
        }
        assert_eq!(last, "bs-new1");
        assert_eq!(bench.cloud.model().created.len(), 1);
        // One that never shows is given up.
        (bench.cloud.model().read_lag, bench.cloud.model().list_lag) = (seconds(5000), seconds(5000));
        let error = bench.create("pvc-two").await.unwrap_err();
        assert!(matches!(error, CreateError::Vanished { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_looked_up_and_not_repeated() {
    let bench = Bench::new().await;
    bench.cloud.model().work = seconds(3);
    bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
    let volume = bench.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.truth(volume.id.as_str()).unwrap().status, DiskStatus::Available);
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_found_when_the_listing_catches_up() {
    let bench = Bench::new().await;
    bench.cloud.model().list_lag = seconds(40);
    bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
    for _ in 0..6 {
        let error = bench.create("pvc-one").await.unwrap_err();
        assert!(matches!(error, CreateError::Unsettled { .. }), "{error}");
        tokio::time::advance(seconds(7)).await;
    }
    bench.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_sent_again_after_the_settling_time() {
    let bench = Bench::new().await;
    bench.cloud.fail("create_disk", &[Fault::RequestLost]);
    let error = bench.create("pvc-one").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no listing shows the disk") && text.contains("made again in 56 s"), "{text}");
    assert!(text.contains("[request r-1]"), "{text}");
    tokio::time::advance(seconds(50)).await;
    assert!(matches!(bench.create("pvc-one").await, Err(CreateError::Unsettled { .. })));
    // A look-up that fails proves nothing.
    tokio::time::advance(seconds(10)).await;
    bench.cloud.fail("disks", &[Fault::RequestLost]);
    assert!(matches!(
        bench.create("pvc-one").await,
        Err(CreateError::Unresolved(Unresolved::Unreadable { .. }))
    ));
    bench.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_unanswered_send_starts_the_settling_time_anew() {
    let bench = Bench::new().await;
    bench.cloud.fail("create_disk", &[Fault::RequestLost, Fault::RequestLost]);
    for _ in 0..2 {
        assert!(matches!(bench.create("pvc-one").await, Err(CreateError::Unsettled { .. })));
        tokio::time::advance(seconds(61)).await;
    }
    bench.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_a_disk_may_exist_no_answer_is_final() {
    let bench = Bench::new().await;
    bench.cloud.model().list_lag = seconds(30);
    bench.cloud.fail("create_disk", &[Fault::ReplyLost]);
    bench.create("pvc-one").await.unwrap_err();
    // The scheduler has chosen another node meanwhile, which could not take the disk.
    let segment = Segment { rssd: Some(false), ..Segment::default() };
    let error = with_segment(&bench, DiskType::Rssd, segment).await.unwrap_err();
    assert!(matches!(error, CreateError::Unsettled { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_name_made_a_moment_ago_is_not_made_again_while_listings_and_reads_lag() {
    let bench = Bench::new().await;
    bench.cloud.model().list_lag = seconds(90);
    bench.cloud.model().read_lag = seconds(4);
    let volume = bench.create("pvc-one").await.unwrap();
    bench.cloud.calls();
    assert_eq!(bench.create("pvc-one").await.unwrap(), volume);
    assert_eq!(bench.cloud.calls(), ["disks", "disk"]);
    tokio::time::advance(seconds(80)).await;
    assert_eq!(bench.create("pvc-one").await.unwrap(), volume);
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_name_is_free_at_once_even_if_it_is_still_listed() {
    for elsewhere in [false, true] {
        let bench = Bench::new().await;
        let first = bench.create("pvc-one").await.unwrap();
        tokio::time::advance(seconds(100)).await;
        bench.cloud.model().list_lag = seconds(30);
        bench.cloud.model().read_lag = if elsewhere { Duration::ZERO } else { seconds(4) };
        let other = bench.restarted();
        let deleter = if elsewhere { &other } else { &bench };
        deleter.delete(first.id.as_str()).await.unwrap();
        let second = bench.create("pvc-one").await.unwrap();
        assert_ne!(first.id, second.id, "{elsewhere}");
        assert_eq!(bench.cloud.disks_named("pvc-one"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_volume_of_the_name_is_refused_with_the_reasons() {
    type Change = fn(&mut Disk);
    let cases: [(Change, &str); 4] = [
        (|d| d.size = Gib::new(10), "10 GiB, which is less than"),
        (|d| d.size = Gib::new(40), "40 GiB, which is more than"),
        (|d| d.disk_type = Some(DiskType::Sata), "its type is sata and not ssd"),
        (
            |d| d.zone = Zone::parse("cn-bj2-02").unwrap(),
            "zone cn-bj2-02 and the request allows only cn-bj2-05",
        ),
    ];
    for (change, text) in cases {
        let bench = Bench::new().await;
        let mut other = named("bs-1", "pvc-one");
        change(&mut other);
        bench.cloud.put(other);
        let mut request = request("pvc-one");
        request.size.limit_bytes = Some(Gib::new(30).bytes());
        let segment = Segment { zone: Some(zone()), host: Some(host_id("uhost-a")), ..Segment::default() };
        request.topology = Some(TopologyRequirement { requisite: vec![segment], preferred: vec![] });
        let error = bench.controller.create(request, soon(), &bench.progress).await.unwrap_err();
        assert!(matches!(error, CreateError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(bench.cloud.model().created.len(), 0);
    }
}

/// The way out of the refusal that an operator has without deleting anything.
#[tokio::test(start_paused = true)]
async fn another_volume_of_the_name_that_is_renamed_frees_the_name() {
    let bench = Bench::new().await;
    let mut other = named("bs-1", "pvc-one");
    other.size = Gib::new(10);
    bench.cloud.put(other.clone());
    let error = bench.create("pvc-one").await.unwrap_err();
    assert!(matches!(error, CreateError::Incompatible { .. }), "{error}");
    other.name = String::from("other");
    bench.cloud.put(other);
    let renamed = Instant::now();
    let made = loop {
        match bench.create("pvc-one").await {
            Ok(made) => break made,
            Err(CreateError::Foreign { .. } | CreateError::Unsettled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(renamed.elapsed() < seconds(120));
        tokio::time::sleep(seconds(10)).await;
    };
    assert_eq!(made.id, id("bs-new1"));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_removed_if_it_is_ours_and_made_again() {
    let bench = Bench::new().await;
    bench.cloud.model().ends_failed = true;
    let error = bench.create("pvc-one").await.unwrap_err();
    assert!(matches!(error, CreateError::Failed { removed: true, .. }), "{error}");
    assert_eq!(bench.cloud.disks_named("pvc-one"), 0);
    bench.cloud.model().ends_failed = false;
    bench.create("pvc-one").await.unwrap();

    let mut foreign = named("bs-x", "pvc-two");
    foreign.status = DiskStatus::Failed;
    bench.cloud.put(foreign);
    let error = bench.create("pvc-two").await.unwrap_err();
    assert!(matches!(error, CreateError::Failed { removed: false, .. }), "{error}");
    assert!(error.to_string().contains("delete it in the console"), "{error}");
    assert_eq!(bench.cloud.disks_named("pvc-two"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_somebody_has_is_never_removed() {
    let bench = Bench::new().await;
    let disk = bench.create("pvc-one").await.unwrap().id;
    let mut failed = bench.cloud.truth(disk.as_str()).unwrap();
    failed.status = DiskStatus::Failed;
    bench.cloud.put(failed);
    let error = bench.create("pvc-one").await.unwrap_err();
    assert!(matches!(error, CreateError::Failed { removed: false, .. }), "{error}");
    assert_eq!(bench.cloud.disks_named("pvc-one"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_moved_before_the_create_is_read_again() {
    let bench = Bench::new().await;
    bench.cloud.model().hosts[0].rdma_cluster = Some(String::from("r1"));
    bench.cloud.model().moves_to = Some(String::from("r2"));
    let segment = Segment { zone: Some(zone()), host: Some(host_id("uhost-a")), ..Segment::default() };
    with_segment(&bench, DiskType::Rssd, segment.clone()).await.unwrap();
    assert_eq!(bench.cloud.model().created[0].rdma_cluster.as_deref(), Some("r2"));

    // Where it did not move, the refusal stands.
    let bench = Bench::new().await;
    bench.cloud.model().hosts[0].rdma_cluster = Some(String::from("r1"));
    bench.cloud.fail("create_disk", &[Fault::Refused(Cause::InvalidRequest)]);
    let error = with_segment(&bench, DiskType::Rssd, segment).await.unwrap_err();
    assert!(matches!(error, CreateError::Call(_)), "{error}");
    assert_eq!(bench.cloud.model().created.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_nothing_behind() {
    for (cause, verdict) in [
        (Cause::NoStock, Verdict::Exhausted),
        (Cause::Quota, Verdict::Exhausted),
        (Cause::Payment, Verdict::Refused),
        (Cause::Denied, Verdict::Denied),
        (Cause::InvalidRequest, Verdict::Invalid),
        (Cause::Throttled, Verdict::Later),
    ] {
        let bench = Bench::new().await;
        bench.cloud.fail("create_disk", &[Fault::Refused(cause)]);
        let error = bench.create("pvc-one").await.unwrap_err();
        assert!(matches!(&error, CreateError::Call(call) if call.verdict == verdict), "{error}");
        bench.create("pvc-one").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_rdma_disk_goes_to_the_cluster_that_its_host_is_in_now() {
    let bench = Bench::new().await;
    bench.cloud.model().hosts[0].rdma_cluster = Some(String::from("9002_25GE_D_R006"));
    let segment = |host: &str| Segment {
        zone: Some(zone()),
        rssd: Some(true),
        host: Some(host_id(host)),
        ..Segment::default()
    };
    with_segment(&bench, DiskType::Rssd, segment("uhost-a")).await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disks", "host", "create_disk", "disk"]);
    assert_eq!(bench.cloud.model().created[0].rdma_cluster.as_deref(), Some("9002_25GE_D_R006"));
    bench.delete("bs-new1").await.unwrap();
    for host in ["uhost-b", "uhost-gone"] {
        let error = with_segment(&bench, DiskType::Rssd, segment(host)).await.unwrap_err();
        assert!(
            matches!(error, CreateError::Placement { source: PlacementError::Unsuitable { .. }, .. }),
            "{error}"
        );
    }
    // A read that fails says nothing about the host.
    bench.cloud.fail("host", &[Fault::RequestLost]);
    let error = with_segment(&bench, DiskType::Rssd, segment("uhost-a")).await.unwrap_err();
    assert!(matches!(error, CreateError::Unresolved(_)), "{error}");
    assert_eq!(bench.cloud.model().created.len(), 1);
    bench.cloud.calls();
    with_segment(&bench, DiskType::Ssd, segment("uhost-b")).await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disks", "create_disk", "disk"]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_disk_is_reported_and_picked_up_again() {
    let bench = Bench::new().await;
    bench.cloud.model().work = seconds(400);
    let error = bench.create("pvc-one").await.unwrap_err();
    assert!(matches!(error, CreateError::Unresolved(Unresolved::TimedOut { .. })), "{error}");
    assert!(error.to_string().contains("after 300 s UDisk bs-new1 is Initializating"), "{error}");
    assert_eq!(bench.create("pvc-one").await.unwrap().id, id("bs-new1"));
}

#[tokio::test(start_paused = true)]
async fn a_disk_deleted_while_it_is_made_is_reported_as_gone() {
    let bench = Bench::new().await;
    bench.cloud.model().work = seconds(60);
    let create = async { bench.create("pvc-one").await };
    let delete = async {
        tokio::time::sleep(seconds(10)).await;
        bench.cloud.delete_disk(&zone(), &id("bs-new1"), soon()).await.unwrap();
    };
    let (created, ()) = tokio::join!(create, delete);
    assert!(matches!(created, Err(CreateError::Vanished { .. })), "{created:?}");
    bench.cloud.model().work = Duration::ZERO;
    assert_eq!(bench.create("pvc-one").await.unwrap().id, id("bs-new2"));
}

#[tokio::test(start_paused = true)]
async fn a_host_of_the_wrong_kind_sends_the_pod_elsewhere() {
    let bench = Bench::new().await;
    bench.cloud.model().hosts.push(host("uhost-n", "10.0.0.9"));
    let segment = Segment { rssd: Some(false), host: Some(host_id("uhost-n")), ..Segment::default() };
    let error = with_segment(&bench, DiskType::Erssd, segment).await.unwrap_err();
    assert!(
        matches!(error, CreateError::Placement { source: PlacementError::Unsuitable { .. }, .. }),
        "{error}"
    );
    let segment = Segment { region: Some("cn-sh2".into()), ..Segment::default() };
    let error = with_segment(&bench, DiskType::Ssd, segment).await.unwrap_err();
    assert!(
        matches!(error, CreateError::Placement { source: PlacementError::WrongRegion { .. }, .. }),
        "{error}"
    );
    assert_eq!(bench.cloud.model().created.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_listed_and_cannot_be_read_yet_is_not_made_twice() {
    let bench = Bench::new().await;
    bench.cloud.model().read_lag = seconds(6);
    bench.cloud.fail("create_disk", &[Fault::DoneHang]);
    let dying = tokio::time::timeout(seconds(1), bench.create("pvc-one")).await;
    assert!(dying.is_err());
    assert_eq!(bench.restarted().create("pvc-one").await.unwrap().id, id("bs-new1"));
    assert_eq!(bench.cloud.model().created.len(), 1);
}
