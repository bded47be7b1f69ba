use super::*;
use crate::cloud::{Cause, Cloud as _};
use crate::controller::fake::{Fault, host_id};
use crate::controller::{DeleteError, DetachError, Unresolved};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_on_the_node_is_detached_without_a_call() {
    use DiskStatus::*;
    let states = [
        disk("bs-1", Available),
        disk("bs-1", Failed),
        disk("bs-1", Cloning),
        bound("bs-1", "uhost-b", InUse),
        bound("bs-1", "uhost-b", Attaching),
        bound("bs-1", "uhost-b", Detaching),
    ];
    for node in ["uhost-a", "10.0.0.1"] {
        for state in &states {
            let bench = Bench::new().await;
            bench.cloud.put(state.clone());
            bench.detach("bs-1", node).await.unwrap();
            assert_eq!(bench.cloud.calls(), ["disk"], "{node} {state:?}");
        }
        let bench = Bench::new().await;
        bench.detach("bs-gone", node).await.unwrap();
        assert_eq!(bench.cloud.calls(), ["disk"]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_name_of_the_node_detaches() {
    for node in ["uhost-a", "10.0.0.1", ""] {
        let bench = Bench::new().await;
        bench.cloud.put_attached("bs-1", "uhost-a");
        bench.cloud.model().work = seconds(3);
        bench.detach("bs-1", node).await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
        let calls = bench.cloud.calls();
        assert!(calls.iter().all(|call| matches!(*call, "disk" | "detach_disk")), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_gone_does_not_keep_the_disk() {
    for node in ["uhost-a", "10.0.0.1"] {
        let bench = Bench::new().await;
        bench.cloud.put_attached("bs-1", "uhost-a");
        bench.cloud.model().hosts.clear();
        bench.detach("bs-1", node).await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().host, None);
    }
    // The disk does not name the address, and its host cannot be asked any more.
    let bench = Bench::new().await;
    let mut nameless = bound("bs-1", "uhost-x", DiskStatus::InUse);
    nameless.host_ip = None;
    bench.cloud.put(nameless.clone());
    bench.detach("bs-1", "10.0.0.77").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, None);
    // A host that can be asked and has another address keeps it.
    nameless.host = Some(host_id("uhost-b"));
    bench.cloud.put(nameless);
    tokio::time::advance(seconds(60)).await;
    bench.detach("bs-1", "10.0.0.77").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, Some(host_id("uhost-b")));
    // One whose address the cloud leaves out may be the node or not.
    bench.cloud.model().hosts.iter_mut().for_each(|host| host.private_ips.clear());
    let error = bench.detach("bs-1", "10.0.0.77").await.unwrap_err();
    assert!(matches!(error, DetachError::Unresolved(_)), "{error}");
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, Some(host_id("uhost-b")));
}

#[tokio::test(start_paused = true)]
async fn an_attach_under_way_is_waited_for_and_undone() {
    let bench = Bench::new().await;
    bench.cloud.put(bound("bs-1", "uhost-a", DiskStatus::Attaching));
    let (detached, ()) = tokio::join!(bench.detach("bs-1", "uhost-a"), async {
        tokio::time::sleep(seconds(5)).await;
        assert!(!bench.cloud.calls().contains(&"detach_disk"), "too early");
        bench.cloud.put_attached("bs-1", "uhost-a");
    });
    detached.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_judged_by_the_disks_own_state() {
    // "Detach failed" for a disk that has just been detached by hand.
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    let cloud = Arc::clone(&bench.cloud);
    cloud.fail("detach_disk", &[Fault::Refused(Cause::DetachFailed)]);
    let (detached, ()) = tokio::join!(bench.detach("bs-1", "uhost-a"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cloud.put(disk("bs-1", DiskStatus::Available));
    });
    detached.unwrap();
    // One that passes, as on a host that has just booted.
    bench.cloud.put_attached("bs-2", "uhost-a");
    bench.cloud.fail("detach_disk", &[Fault::Refused(Cause::DetachFailed); 3]);
    bench.detach("bs-2", "uhost-a").await.unwrap();
    // A host that the cloud does not know any more is an invalid value to it, until it has let go of the disk.
    bench.cloud.put_attached("bs-2", "uhost-a");
    bench.cloud.fail("detach_disk", &[Fault::Refused(Cause::InvalidRequest); 3]);
    let (detached, ()) = tokio::join!(bench.detach("bs-2", "uhost-a"), async {
        tokio::time::sleep(seconds(2)).await;
        bench.cloud.put(disk("bs-2", DiskStatus::Available));
    });
    detached.unwrap();
    // One that stays.
    bench.cloud.put_attached("bs-3", "uhost-a");
    bench.cloud.fail("detach_disk", &[Fault::Refused(Cause::DetachFailed); 99]);
    let error = bench.detach("bs-3", "uhost-a").await.unwrap_err();
    assert!(matches!(error, DetachError::Stays { .. }), "{error}");
    assert!(error.to_string().contains("[request r-1]"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_detach_without_an_answer_is_looked_after() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let bench = Bench::new().await;
        bench.cloud.put_attached("bs-1", "uhost-a");
        bench.cloud.model().work = seconds(3);
        bench.cloud.fail("detach_disk", &[fault]);
        bench.detach("bs-1", "uhost-a").await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_detach_ends_with_what_it_waited_for() {
    let bench = Bench::new().await;
    bench.cloud.put(bound("bs-1", "uhost-a", DiskStatus::Detaching));
    let error = bench.detach("bs-1", "uhost-a").await.unwrap_err();
    assert!(matches!(error, DetachError::Unresolved(Unresolved::TimedOut { .. })), "{error}");
    assert!(error.to_string().contains("Detaching from host uhost-a (10.0.0.1)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_new_process_does_not_take_an_old_picture_for_detached() {
    let bench = Bench::new().await;
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    tokio::time::advance(seconds(60)).await;
    bench.attach("bs-1", "uhost-a").await.unwrap();
    bench.cloud.model().read_lag = seconds(5);
    bench.restarted().detach("bs-1", "uhost-a").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().host, None);
}

#[tokio::test(start_paused = true)]
async fn only_a_free_disk_is_deleted() {
    let bench = Bench::new().await;
    bench.cloud.put_attached("bs-1", "uhost-a");
    let error = bench.delete("bs-1").await.unwrap_err();
    assert!(error.to_string().contains("attached to host uhost-a (10.0.0.1)"), "{error}");
    let mut system = disk("bs-2", DiskStatus::Available);
    system.is_boot = true;
    bench.cloud.put(system);
    assert!(matches!(bench.delete("bs-2").await, Err(DeleteError::SystemDisk { .. })));
    bench.cloud.put(bound("bs-3", "uhost-a", DiskStatus::Detaching));
    assert!(matches!(bench.delete("bs-3").await, Err(DeleteError::Unresolved(Unresolved::TimedOut { .. }))));
    let (deleted, ()) = tokio::join!(bench.delete("bs-3"), async {
        tokio::time::sleep(seconds(5)).await;
        bench.cloud.put(disk("bs-3", DiskStatus::Available));
    });
    deleted.unwrap();
    let calls = bench.cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "delete_disk").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_disk_is_deleted_only_when_a_read_finds_nothing() {
    let bench = Bench::new().await;
    bench.delete("bs-gone").await.unwrap();
    assert_eq!(bench.cloud.calls(), ["disk"]);
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    bench.cloud.fail("delete_disk", &[Fault::Refused(Cause::NotFound); 99]);
    let error = bench.delete("bs-1").await.unwrap_err();
    assert!(matches!(error, DeleteError::Call(_)), "{error}");
    let (deleted, ()) = tokio::join!(bench.delete("bs-1"), async {
        tokio::time::sleep(seconds(1)).await;
        bench.cloud.model().faults.clear();
        bench.cloud.delete_disk(&zone(), &id("bs-1"), soon()).await.unwrap();
        bench.cloud.fail("delete_disk", &[Fault::Refused(Cause::NotFound); 99]);
    });
    deleted.unwrap();
    // A read that fails proves nothing.
    bench.cloud.fail("disk", &[Fault::RequestLost]);
    assert!(matches!(bench.delete("bs-gone").await, Err(DeleteError::Unresolved(_))));
}

#[tokio::test(start_paused = true)]
async fn a_delete_without_an_answer_is_looked_after() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let bench = Bench::new().await;
        bench.cloud.put(disk("bs-1", DiskStatus::Available));
        bench.cloud.fail("delete_disk", &[fault]);
        bench.delete("bs-1").await.unwrap();
        assert_eq!(bench.cloud.truth("bs-1"), None, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_process_does_not_take_a_disk_that_is_not_shown_yet_for_detached() {
    let bench = Bench::new().await;
    bench.cloud.model().read_lag = seconds(6);
    bench.cloud.put_attached("bs-1", "uhost-a");
    bench.restarted().detach("bs-1", "uhost-a").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1").unwrap().status, DiskStatus::Available);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_does_not_take_a_disk_that_is_not_shown_yet_for_gone() {
    let bench = Bench::new().await;
    bench.cloud.model().read_lag = seconds(5);
    bench.cloud.put(disk("bs-1", DiskStatus::Available));
    let next = bench.restarted();
    next.delete("bs-1").await.unwrap();
    assert_eq!(bench.cloud.truth("bs-1"), None);
    next.delete("bs-1").await.unwrap();
}
