use super::*;
use crate::cloud::Unreadable;
use crate::cloud::testing::odd;
use crate::controller::fake::Fault;
use crate::controller::{Listed, VolumePage, VolumeStatus};
use crate::volume::ListToken;

impl Bench {
    async fn list(&self, start: Option<&ListToken>, max: Option<usize>) -> VolumePage {
        self.controller.list(start, max, soon()).await.unwrap()
    }
}

/// What is known of a volume of the page.
fn known(page: &VolumePage, index: usize) -> &VolumeStatus {
    match &page.volumes[index] {
        Listed::Known(status) => status,
        Listed::Unreadable(id) => panic!("{id} cannot be read"),
    }
}

fn ids(page: &VolumePage) -> Vec<&str> {
    page.volumes.iter().map(|listed| listed.id().as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_published_under_every_name_of_its_node() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.cloud.put(disk("bs-2", DiskStatus::Available));
    bench.cloud.put(bound("bs-3", "uhost-a", DiskStatus::Detaching));
    let mut system = disk("bs-4", DiskStatus::InUse);
    system.is_boot = true;
    bench.cloud.put(system);
    let page = bench.list(None, Some(0)).await;
    assert_eq!(ids(&page), ["bs-1", "bs-2", "bs-3"]);
    assert_eq!(known(&page, 0).nodes, ["uhost-a", "10.0.0.1"]);
    assert_eq!((known(&page, 1).nodes.len(), known(&page, 2).nodes.len(), &page.next), (0, 0, &None));
    let one = bench.controller.get(&id("bs-1"), soon()).await.unwrap().unwrap();
    assert_eq!(one, *known(&page, 0));
    assert_eq!(bench.controller.get(&id("bs-4"), soon()).await.unwrap(), None);
    assert_eq!(bench.controller.get(&id("bs-x"), soon()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn pages_leave_nothing_out_and_show_nothing_twice_while_disks_come_and_go() {
    let bench = Bench::new().await;
    for number in 0..250 {
        bench.cloud.put(disk(&format!("bs-{number:03}"), DiskStatus::Available));
    }
    let all = bench.list(None, None).await;
    assert_eq!((all.volumes.len(), all.next), (250, None));
    let (mut seen, mut start) = (Vec::new(), None);
    loop {
        let page = bench.list(start.as_ref(), Some(60)).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page.next else { break };
        assert_eq!(page.volumes.len(), 60);
        // The place where the next page starts goes away, and others before it come.
        bench.delete(next.after.as_str()).await.unwrap();
        bench.cloud.put(disk(&format!("bs-{}-new", &next.after.as_str()[3..5]), DiskStatus::Available));
        start = Some(next);
    }
    let expected: Vec<String> = (0..250).map(|number| format!("bs-{number:03}")).collect();
    seen.retain(|id| !id.ends_with("-new"));
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn one_reading_of_the_listing_serves_all_its_pages() {
    let bench = Bench::new().await;
    for number in 0..250 {
        bench.cloud.put(disk(&format!("bs-{number:03}"), DiskStatus::Available));
    }
    // One reading takes longer than it is kept.
    bench.cloud.model().latency = Duration::from_secs(15);
    let pages = async || {
        let (mut seen, mut start) = (Vec::new(), None);
        loop {
            let page = bench.list(start.as_ref(), Some(60)).await;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            start = page.next;
            if start.is_none() {
                break seen;
            }
        }
    };
    assert_eq!(pages().await.len(), 250);
    assert_eq!(bench.cloud.calls(), ["disks"; 3]);
    // Each listing is read anew, and so is a page that comes late, or after a disk was made or deleted.
    assert_eq!(pages().await.len(), 250);
    assert_eq!(bench.cloud.calls(), ["disks"; 3]);
    let first = bench.list(None, Some(100)).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    let second = bench.list(first.next.as_ref(), Some(100)).await;
    assert_eq!(bench.cloud.calls(), ["disks"; 6]);
    bench.cloud.put(disk("bs-220-more", DiskStatus::Available));
    bench.delete("bs-240").await.unwrap();
    bench.cloud.calls();
    let third = bench.list(second.next.as_ref(), Some(100)).await;
    assert_eq!(bench.cloud.calls(), ["disks"; 3]);
    let third = ids(&third);
    assert!(third.len() == 50 && third.contains(&"bs-220-more") && !third.contains(&"bs-240"), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_asked_for_again_leaves_nothing_out() {
    let bench = Bench::new().await;
    for number in 0..10 {
        bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
    }
    let first = bench.list(None, Some(2)).await;
    let second = bench.list(first.next.as_ref(), Some(2)).await;
    assert_eq!(bench.list(first.next.as_ref(), Some(2)).await, second, "its answer was lost");
    let third = bench.list(second.next.as_ref(), Some(2)).await;
    // Another caller is further behind.
    assert_eq!(bench.list(first.next.as_ref(), Some(2)).await, second);
    assert_eq!(bench.list(second.next.as_ref(), Some(2)).await, third);
    assert_eq!(ids(&third), ["bs-4", "bs-5"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_page_has_no_token() {
    let bench = Bench::new().await;
    for number in 0..4 {
        bench.cloud.put(disk(&format!("bs-{number}"), DiskStatus::Available));
    }
    let first = bench.list(None, Some(2)).await;
    let second = bench.list(first.next.as_ref(), Some(2)).await;
    assert_eq!((ids(&first), ids(&second)), (vec!["bs-0", "bs-1"], vec!["bs-2", "bs-3"]));
    assert_eq!(second.next, None);
}

#[tokio::test(start_paused = true)]
async fn a_volume_made_a_moment_ago_is_not_called_unknown() {
    let bench = Bench::new().await;
    let volume = bench.create("pvc-one").await.unwrap();
    bench.cloud.model().read_lag = Duration::from_secs(3);
    assert!(bench.controller.get(&volume.id, soon()).await.unwrap().is_some());
    bench.cloud.fail("disk", &[Fault::RequestLost]);
    assert!(bench.controller.get(&volume.id, soon()).await.is_err(), "a failed read proves nothing");
    bench.cloud.fail("disks", &[Fault::RequestLost]);
    assert!(bench.controller.list(None, None, soon()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_read_is_listed_and_hides_no_other() {
    let bench = Bench::new().await;
    for number in 1..=250 {
        bench.cloud.put(disk(&format!("bs-{number:03}"), DiskStatus::Available));
    }
    bench.cloud.put(disk("bsi-1", DiskStatus::InUse));
    bench.cloud.model().odd = vec![
        odd("bs-100", None),
        odd("bs-101", Some("x")),
        Unreadable { is_boot: true, ..odd("bsi-1", None) },
    ];
    let page = bench.list(None, None).await;
    assert_eq!(ids(&page), (1..=250).map(|number| format!("bs-{number:03}")).collect::<Vec<_>>());
    let unreadable = |listed: &&Listed| matches!(listed, Listed::Unreadable(_));
    assert_eq!(page.volumes.iter().filter(unreadable).count(), 2);
    // Read alone, it is an error, and neither gone nor somewhere.
    bench.controller.get(&id("bs-100"), soon()).await.unwrap_err();
}
