//! How CreateVolume finds the disk of a name, or is sure that there is none.

use super::*;
use crate::cloud::testing::odd;
use crate::controller::fake::Fault;

#[tokio::test(start_paused = true)]
async fn the_size_of_the_account_costs_nothing() {
    for count in [10, 10_000] {
        let bench = Bench::new().await;
        for number in 0..count {
            bench.cloud.put(named(&format!("bs-{number}"), &format!("other-{number}")));
        }
        bench.create("pvc-one").await.unwrap();
        assert_eq!(bench.cloud.calls().len(), 3, "{count} disks");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_found_by_exact_comparison_on_any_page() {
    let bench = Bench::new().await;
    bench.cloud.put(named("bs-0", "pvc-one-more"));
    bench.cloud.put(named("bs-1", "a-pvc-one"));
    for number in 0..250 {
        bench.cloud.put(named(&format!("bs-a{number}"), &format!("other-{number}")));
    }
    bench.cloud.put(named("bs-z", "pvc-one"));
    bench.cloud.model().filters_ignored = true;
    assert_eq!(bench.create("pvc-one").await.unwrap().id, id("bs-z"));
    assert_eq!(bench.cloud.calls(), ["disks", "disks", "disks", "disk"]);
    bench.cloud.model().filters_ignored = false;
    assert_eq!(bench.create("pvc-one").await.unwrap().id, id("bs-z"));
}

/// The documentation says that the count is the filter's; should it be the account's, volumes are made all the same.
#[tokio::test(start_paused = true)]
async fn a_count_of_more_than_the_filter_lets_through_costs_reads_and_no_volume() {
    let bench = Bench::new().await;
    for number in 0..150 {
        bench.cloud.put(named(&format!("bs-a{number}"), &format!("other-{number}")));
    }
    bench.cloud.model().counts_all = true;
    let made = bench.create("pvc-one").await.unwrap();
    assert_eq!(bench.cloud.model().created.len(), 1);
    assert_eq!(bench.create("pvc-one").await.unwrap().id, made.id);
    assert_eq!(bench.cloud.model().created.len(), 1);
    // A listing of all that counts more than it shows may hide the name.
    bench.cloud.model().unlisted = vec![id("bs-a7")];
    bench.create("pvc-two").await.unwrap_err();
    assert_eq!(bench.cloud.model().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_one_ahead_does_not_cost_a_reading_of_all_disks() {
    let bench = Bench::new().await;
    for number in 0..1000 {
        bench.cloud.put(named(&format!("bs-a{number}"), &format!("other-{number}")));
    }
    bench.cloud.model().counts_ahead = 1;
    bench.create("pvc-one").await.unwrap_err();
    assert_eq!(bench.cloud.calls(), ["disks", "disks", "disks", "disks"]);
}

#[tokio::test(start_paused = true)]
async fn of_two_disks_of_one_name_the_older_wins_and_a_failed_one_never() {
    let bench = Bench::new().await;
    for (disk_id, created, status) in [
        ("bs-a", Some(30), DiskStatus::Available),
        ("bs-b", Some(20), DiskStatus::Available),
        ("bs-c", Some(20), DiskStatus::Available),
        ("bs-d", None, DiskStatus::Available),
        ("bs-e", Some(10), DiskStatus::Failed),
    ] {
        let mut twin = named(disk_id, "pvc-one");
        (twin.created_at, twin.status) = (created, status);
        bench.cloud.put(twin);
    }
    let mut system = named("bs-f", "pvc-one");
    (system.created_at, system.is_boot) = (Some(1), true);
    bench.cloud.put(system);
    assert_eq!(bench.create("pvc-one").await.unwrap().id, id("bs-b"));
}

#[tokio::test(start_paused = true)]
async fn few_look_up_names_at_a_time_and_who_has_no_turn_is_told_so() {
    let bench = Arc::new(Bench::new().await);
    bench.cloud.fail("disks", &[Fault::Hang; 8]);
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.create(&format!("pvc-many{number}")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.cloud.calls(), ["disks"; 8]);
    // Whoever is done or gives up makes room.
    tasks[0].abort();
    for task in tasks.into_iter().skip(8) {
        task.await.unwrap().unwrap();
    }
    // The seven others hang still.
    bench.cloud.fail("disks", &[Fault::Hang; 1]);
    let (begun, eighth) = (Instant::now(), Arc::clone(&bench));
    tokio::spawn(async move { eighth.create("pvc-eighth").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = bench.create("pvc-last").await.unwrap_err();
    assert!(error.to_string().contains("after 300 s looking for a UDisk named pvc-last"), "{error}");
    assert!(begun.elapsed() <= Duration::from_secs(302));
}

#[tokio::test(start_paused = true)]
async fn only_a_disk_that_may_have_the_name_holds_up_a_creation() {
    for (name, held_up) in [(Some("the-database-of-sales"), false), (Some("pvc-one"), true), (None, true)] {
        let bench = Bench::new().await;
        bench.cloud.model().filters_ignored = true;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        bench.cloud.model().odd = vec![odd("bs-1", name)];
        let made = bench.create("pvc-one").await;
        assert_eq!(bench.cloud.model().created.len(), usize::from(!held_up), "{name:?}: {made:?}");
        if held_up {
            let error = made.unwrap_err().to_string();
            assert!(error.contains("UDisk bs-1") && error.contains("Size is missing"), "{error}");
        }
    }
}
