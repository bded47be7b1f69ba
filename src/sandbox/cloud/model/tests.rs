//! The model by itself: time is a number here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::volume::{DiskType, Gib};

const S: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    let second = Span::millis(1000, 1000);
    Rules {
        zones: vec![ZoneSpec::new("z", &["r"])],
        latencies: Latencies {
            create: second,
            attach: second,
            detach: second,
            resize: second,
            clone: second,
            restore: second,
            snapshot: second,
            ..Latencies::none()
        },
        ..Rules::default()
    }
}

fn world(rules: Rules, real_hosts: bool) -> World {
    let mut world = World::new(rules, 7, real_hosts);
    for id in ["uhost-a", "uhost-b"] {
        world.add_host(HostSpec::new(id, "10.0.0.1").in_zone("z").in_rdma_cluster("r"));
    }
    world.take_work();
    world
}

fn new_disk(kind: DiskType) -> NewDisk {
    NewDisk {
        project: String::new(),
        zone: "z".to_owned(),
        name: "n".to_owned(),
        size: Gib::new(10),
        kind,
        charge_type: "Dynamic".to_owned(),
        tag: "Default".to_owned(),
        ark: false,
        key: None,
        snapshot_service: true,
        rdma: None,
        paid_for: None,
    }
}

fn to(disk: &str, host: &str) -> AttachOrder {
    AttachOrder { disk: disk.to_owned(), host: host.to_owned(), across_clusters: false }
}

fn pass(world: &mut World, time: Duration) {
    world.advance(world.now() + time);
}

fn status(world: &World, disk: &str) -> Status {
    world.disk(disk).unwrap().status
}

/// A disk that is ready for use.
fn made(world: &mut World) -> String {
    let disk = world.create(new_disk(DiskType::Sata)).unwrap();
    pass(world, S);
    disk
}

#[test]
fn letters_are_taken_from_the_lowest_and_freed_when_detaching_has_ended() {
    let mut world = world(Rules { latencies: Latencies::none(), ..rules() }, false);
    let disks: Vec<String> = (0..27).map(|_| made(&mut world)).collect();
    let attach = |world: &mut World, index: usize| {
        let device = world.attach(&to(&disks[index], "uhost-a")).map(|at| at.device.to_string());
        pass(world, Duration::ZERO);
        device
    };
    for index in 0..25 {
        attach(&mut world, index).unwrap();
    }
    assert_eq!(attach(&mut world, 25).unwrap(), "vdaa");
    assert_eq!(attach(&mut world, 26), Err(Refusal::HostFull));
    world.rules_mut().latencies.detach = Span::millis(1000, 1000);
    world.detach(&disks[3], "uhost-a").unwrap();
    assert_eq!(attach(&mut world, 26), Err(Refusal::HostFull));
    pass(&mut world, S);
    assert_eq!(attach(&mut world, 26).unwrap(), "vde");
}

#[test]
fn changes_end_exactly_when_due_however_late_somebody_looks() {
    let mut world = world(rules(), false);
    let disk = world.create(new_disk(DiskType::Sata)).unwrap();
    pass(&mut world, S * 100);
    let at: Vec<_> = world.journal().iter().map(|record| (record.event, record.at)).collect();
    assert_eq!(at, [(Happening::CreateAccepted, Duration::ZERO), (Happening::Created, S)]);
    world.rules_mut().lags.stale_by_id = S * 99 + S / 2;
    assert_eq!(world.seen(&disk, Reader::ById).unwrap().status, Status::Initializating);
    assert_eq!(world.seen(&disk, Reader::List).unwrap().status, Status::Available);
}

#[test]
fn stale_readers_still_see_what_is_gone() {
    let mut world = world(Rules { lags: Lags { stale_by_id: S * 5, ..Lags::default() }, ..rules() }, false);
    let disk = made(&mut world);
    pass(&mut world, S * 10);
    world.delete(&disk).unwrap();
    assert!(world.disk(&disk).is_none());
    pass(&mut world, S * 4);
    assert_eq!(world.seen(&disk, Reader::ById).unwrap().status, Status::Available);
    pass(&mut world, S);
    assert!(world.seen(&disk, Reader::ById).is_none());
}

#[test]
fn a_change_waits_for_the_hosts() {
    let mut world = world(rules(), true);
    let disk = world.create(new_disk(DiskType::Sata)).unwrap();
    let create = world.take_work().pop().unwrap();
    pass(&mut world, S * 10);
    assert_eq!(status(&world, &disk), Status::Initializating);
    world.work_done(create.ticket, true);
    assert_eq!(status(&world, &disk), Status::Available);

    world.attach(&to(&disk, "uhost-a")).unwrap();
    let plug = world.take_work().pop().unwrap();
    assert_eq!(plug.at, world.now() + S / 2, "the device comes before the state");
    assert!(world.wants(&plug));
    world.work_done(plug.ticket, false);
    pass(&mut world, S);
    assert_eq!(status(&world, &disk), Status::Available, "a host that failed leaves the disk detached");
    assert!(!world.wants(&plug));
}

#[test]
fn stuck_disks_stay_so_until_freed() {
    let mut world = world(rules(), true);
    let disk = made(&mut world);
    let create = world.take_work().pop().unwrap();
    world.work_done(create.ticket, true);
    world.begin(Cause::default(), Twist { hold: Some(Hold::ForEver), fails: false });
    world.attach(&to(&disk, "uhost-a")).unwrap();
    world.begin(Cause::default(), Twist::default());
    assert_eq!(world.take_work(), []);
    pass(&mut world, S * 1_000_000);
    assert_eq!(status(&world, &disk), Status::Attaching);
    assert_eq!(world.detach(&disk, "uhost-a"), Err(Refusal::Attaching));
    world.happen(Event::Free { disk: disk.clone() }).unwrap();
    let plug = world.take_work().pop().unwrap();
    world.work_done(plug.ticket, true);
    assert_eq!(status(&world, &disk), Status::InUse);
}

#[test]
fn failures_end_where_the_documents_say() {
    let mut world = world(rules(), false);
    let fails = Twist { hold: None, fails: true };
    world.begin(Cause::default(), fails);
    let broken = made(&mut world);
    assert_eq!(status(&world, &broken), Status::Failed);
    world.delete(&broken).unwrap();
    world.begin(Cause::default(), Twist::default());
    let disk = made(&mut world);
    world.begin(Cause::default(), fails);
    world.attach(&to(&disk, "uhost-a")).unwrap();
    pass(&mut world, S);
    assert_eq!((status(&world, &disk), world.host("uhost-a").unwrap().disks.len()), (Status::Available, 0));
    world.begin(Cause::default(), Twist::default());
    world.attach(&to(&disk, "uhost-a")).unwrap();
    pass(&mut world, S);
    world.begin(Cause::default(), fails);
    world.detach(&disk, "uhost-a").unwrap();
    pass(&mut world, S);
    assert_eq!(status(&world, &disk), Status::InUse);
}

#[test]
fn the_account_has_limits() {
    let limits = Limits { disks: 1, one_change_per_host: true, ..Limits::default() };
    let mut world = world(Rules { limits, ..rules() }, false);
    let first = made(&mut world);
    assert_eq!(world.create(new_disk(DiskType::Sata)), Err(Refusal::Quota));
    world.rules_mut().limits.disks = 1000;
    let second = made(&mut world);
    world.attach(&to(&first, "uhost-a")).unwrap();
    assert_eq!(world.attach(&to(&second, "uhost-a")), Err(Refusal::HostAttaching));
    pass(&mut world, S);
    world.attach(&to(&second, "uhost-a")).unwrap();
    assert_eq!(world.detach(&first, "uhost-a"), Err(Refusal::HostAttaching));
    world.happen(Event::StockOut(Stock { zone: None, disk_type: Some("rssd".to_owned()) })).unwrap();
    assert_eq!(world.create(new_disk(DiskType::Rssd)), Err(Refusal::OutOfStock));
    world.happen(Event::Restock).unwrap();
    world.create(new_disk(DiskType::Rssd)).unwrap();
}

#[test]
fn disks_survive_their_host() {
    let mut world = world(rules(), false);
    let disk = made(&mut world);
    world.attach(&to(&disk, "uhost-a")).unwrap();
    world.happen(Event::DeleteHost { host: "uhost-a".to_owned() }).unwrap();
    pass(&mut world, S * 5);
    assert_eq!((status(&world, &disk), world.disk(&disk).unwrap().host()), (Status::Available, None));
    assert_eq!(world.attach(&to(&disk, "uhost-a")), Err(Refusal::NoSuchHost));
    assert_eq!(world.detach(&disk, "uhost-a"), Err(Refusal::NotAttached));
    world.attach(&to(&disk, "uhost-b")).unwrap();
}

#[test]
fn a_guest_that_cannot_grow_online_sees_the_size_at_its_next_start() {
    let mut world = World::new(rules(), 7, true);
    world.add_host(HostSpec { online_grow: false, ..HostSpec::new("uhost-old", "").in_zone("z") });
    let disk = world.create(new_disk(DiskType::Sata)).unwrap();
    world.happen(Event::Attach { disk: disk.clone(), host: "uhost-old".to_owned() }).unwrap_err();
    let work = |world: &mut World| {
        let all = world.take_work();
        all.iter().for_each(|one| world.work_done(one.ticket, true));
        all.into_iter().map(|one| one.kind).collect::<Vec<_>>()
    };
    work(&mut world);
    pass(&mut world, S);
    world.attach(&to(&disk, "uhost-old")).unwrap();
    work(&mut world);
    pass(&mut world, S);
    let size = Gib::new(20);
    assert!(world.resize_attached(&disk, "uhost-old", size, false).unwrap().needs_restart);
    assert_eq!(work(&mut world), [WorkKind::Resize { size, seen_by: None }]);
    pass(&mut world, S);
    let set = |state| Event::HostState { host: "uhost-old".to_owned(), state };
    world.happen(set(HostState::Stopped)).unwrap();
    world.happen(set(HostState::Running)).unwrap();
    let seen_by = Some(("uhost-old".to_owned(), Device::FIRST_DATA));
    assert_eq!(work(&mut world), [WorkKind::Resize { size, seen_by }]);
}

/// Whatever happens in whatever order, the account stays sound.
#[test]
fn random_lives_keep_the_account_sound() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let real = rng.bool();
        let mut world = world(rules(), real);
        let mut outstanding: Vec<Work> = Vec::new();
        for _ in 0..400 {
            let ids: Vec<String> =
                world.disks().filter(|disk| !disk.boot).map(|disk| disk.id.clone()).collect();
            let disk = rng.choice(&ids).cloned().unwrap_or_default();
            let host = (*rng.choice(&["uhost-a", "uhost-b"]).unwrap()).to_owned();
            let hold = rng.choice([None, None, None, Some(Hold::ForEver), Some(Hold::For(S * 3))]).unwrap();
            world.begin(Cause::default(), Twist { hold, fails: rng.u8(..10) == 0 });
            // Refusals are part of life.
            match rng.u8(..12) {
                0 => drop(world.create(new_disk(DiskType::Rssd))),
                1..=3 => drop(world.attach(&to(&disk, &host))),
                4..=5 => drop(world.detach(&disk, &host)),
                6 => drop(world.delete(&disk)),
                7 => drop(world.resize_attached(&disk, &host, Gib::new(rng.u32(10..100)), false)),
                8 => drop(world.happen(Event::Free { disk })),
                9 => drop(world.happen(Event::Attach { disk, host })),
                10 => drop(world.detach_and_delete(&disk, &host)),
                _ => drop(
                    world.create(new_disk(DiskType::Sata)).map(|new| world.attach_once_made(to(&new, &host))),
                ),
            }
            outstanding.extend(world.take_work());
            while !outstanding.is_empty() && rng.bool() {
                let work = outstanding.swap_remove(rng.usize(..outstanding.len()));
                world.work_done(work.ticket, rng.u8(..20) > 0);
            }
            pass(&mut world, Duration::from_millis(rng.u64(..1500)));
            check(&world);
        }
        never_on_two_hosts(world.journal());
    }
}

/// Hosts and disks agree on who has what.
fn check(world: &World) {
    let by_disk: BTreeSet<(String, String, String)> = world
        .disks()
        .filter(|disk| !disk.boot)
        .filter_map(|disk| {
            let at = disk.attachment.as_ref()?;
            Some((disk.id.clone(), at.host.clone(), at.device.to_string()))
        })
        .collect();
    let by_host: BTreeSet<_> = world
        .hosts()
        .flat_map(|host| {
            host.disks.iter().map(|(device, id)| (id.clone(), host.spec.id.clone(), device.to_string()))
        })
        .collect();
    assert_eq!(by_disk, by_host);
    for disk in world.disks() {
        let attached = disk.attachment.is_some();
        match disk.status {
            Status::Attaching | Status::InUse | Status::Detaching => assert!(attached),
            Status::Available | Status::Failed => assert!(!attached),
            Status::Initializating | Status::Cloning | Status::Restoring | Status::RestoreFailed => {}
        }
    }
}

fn never_on_two_hosts(journal: &[Record]) {
    let mut on: BTreeMap<&str, &str> = BTreeMap::new();
    for record in journal {
        let Some(host) = record.host.as_deref() else { continue };
        if matches!(record.event, Happening::AttachAccepted | Happening::Attached) {
            let before = on.insert(&record.disk, host);
            assert!(before.is_none_or(|before| before == host), "{record:?} while on {before:?}");
        } else if matches!(record.event, Happening::Detached | Happening::AttachFailed) {
            on.remove(record.disk.as_str());
        }
    }
}
