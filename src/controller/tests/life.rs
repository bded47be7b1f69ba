use super::*;
use crate::controller::fake::Fault;

#[tokio::test(start_paused = true)]
async fn a_life_without_latency_takes_eleven_calls() {
    let bench = Bench::new().await;
    let volume = bench.create("pvc-one").await.unwrap();
    assert_eq!((volume.size, volume.zone, volume.disk_type), (Gib::new(20), zone(), Some(DiskType::Ssd)));
    let disk = volume.id.as_str();
    assert_eq!(bench.cloud.calls(), ["disks", "create_disk", "disk"]);
    let context = bench.attach(disk, "uhost-a").await.unwrap();
    assert_eq!(context, PublishContext { device: Some("vdb".into()), size: Some(Gib::new(20)) });
    assert_eq!(bench.cloud.calls(), ["disk", "attach_disk", "disk"]);
    in_use().await;
    bench.detach(disk, "uhost-a").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk", "detach_disk", "disk"]);
    bench.delete(disk).await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk", "delete_disk"]);
    assert_eq!(bench.cloud.truth(disk), None);
}

#[tokio::test(start_paused = true)]
async fn a_young_process_lives_as_cheaply() {
    let bench = Bench::young();
    let disk = bench.create("pvc-one").await.unwrap().id;
    bench.attach(disk.as_str(), "uhost-a").await.unwrap();
    in_use().await;
    bench.detach(disk.as_str(), "uhost-a").await.unwrap();
    bench.delete(disk.as_str()).await.unwrap();
    assert_eq!(bench.cloud.calls().len(), 11);
}

/// Longer than reads may lag: what comes next is not taken for what was before.
async fn in_use() {
    tokio::time::advance(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn repeated_calls_change_nothing_and_answer_the_same() {
    let bench = Bench::new().await;
    let volume = bench.create("pvc-one").await.unwrap();
    let disk = volume.id.as_str();
    bench.cloud.calls();
    assert_eq!(bench.create("pvc-one").await.unwrap(), volume);
    assert_eq!(bench.cloud.calls(), ["disks", "disk"]);
    let context = bench.attach(disk, "uhost-a").await.unwrap();
    bench.cloud.calls();
    assert_eq!(bench.attach(disk, "uhost-a").await.unwrap(), context);
    assert_eq!(bench.cloud.calls(), ["disk"]);
    bench.detach(disk, "uhost-a").await.unwrap();
    bench.cloud.calls();
    bench.detach(disk, "uhost-a").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk"]);
    bench.delete(disk).await.unwrap();
    bench.cloud.calls();
    bench.delete(disk).await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_costs_few_reads_and_little_time() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.model().work = Duration::from_millis(5300);
    let begun = Instant::now();
    bench.attach("bs-1", "uhost-a").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(6100), "{:?}", begun.elapsed());
    let reads = bench.cloud.calls().iter().filter(|call| **call == "disk").count();
    assert!(reads <= 14, "{reads} reads");
}

/// Cuts a whole life off at every call, once before the cloud did it and once after, and goes on with a new process.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_call_is_continued_by_the_next() {
    let actions = [
        "disks",
        "create_disk",
        "disk",
        "resize_detached_disk",
        "attach_disk",
        "resize_attached_disk",
        "detach_disk",
        "delete_disk",
    ];
    for fault in [Fault::Hang, Fault::DoneHang] {
        let mut cuts = 0;
        for action in actions {
            for passed in 0..40 {
                cuts += live_through(action, passed, fault).await;
            }
        }
        assert!(cuts >= 30, "{cuts} cuts");
    }
}

/// How often the life was cut off.
async fn live_through(action: &'static str, passed: usize, fault: Fault) -> usize {
    let mut cuts = 0;
    let mut bench = Bench::new().await;
    bench.cloud.model().work = Duration::from_secs(2);
    bench.cloud.fail_after(action, passed, fault);
    for step in ["create", "grow", "attach", "grow attached", "detach", "delete"] {
        while tokio::time::timeout(Duration::from_secs(200), bench.step(step)).await.is_err() {
            cuts += 1;
            bench = bench.restarted();
        }
    }
    assert_eq!(bench.cloud.model().created.len(), 1, "{action} {passed} {fault:?}");
    assert_eq!(bench.cloud.disks_named("pvc-one"), 0, "{action} {passed} {fault:?}");
    cuts
}

impl Bench {
    async fn step(&self, step: &str) {
        match step {
            "create" => assert_eq!(self.create("pvc-one").await.unwrap().id, id("bs-new1")),
            "grow" => {
                assert_eq!(self.expand_disk("bs-new1", 30, None).await.unwrap().size, Gib::new(30));
                assert_eq!(self.cloud.truth("bs-new1").unwrap().size, Gib::new(30));
            }
            "grow attached" => {
                assert_eq!(self.expand_disk("bs-new1", 40, None).await.unwrap().size, Gib::new(40));
                assert_eq!(self.cloud.truth("bs-new1").unwrap().size, Gib::new(40));
            }
            "attach" => {
                self.attach("bs-new1", "uhost-a").await.unwrap();
                assert_eq!(self.cloud.truth("bs-new1").unwrap().status, DiskStatus::InUse);
            }
            "detach" => {
                self.detach("bs-new1", "uhost-a").await.unwrap();
                assert_eq!(self.cloud.truth("bs-new1").unwrap().status, DiskStatus::Available);
            }
            _ => self.delete("bs-new1").await.unwrap(),
        }
    }
}
