//! Which disks are called orphans. The property that matters: never one that anything refers to.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::cloud::testing::odd;
use crate::cloud::{Disk, DiskStatus, Unreadable};
use crate::inventory::cluster::{Attachment, Claim, Cluster, Volume};
use crate::inventory::orphans::*;
use crate::inventory::report::{Fate, Format, Orphans, PriceList, price_class};
use crate::inventory::testing::{DAY, DRIVER, NOW, at, disk};
use crate::volume::{DiskName, Gib};

const UID: &str = "0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d";
const OTHER_UID: &str = "11111111-7f4e-4d6a-9d7a-0c5c2f1e3b4d";

fn rule(prefix: Option<&str>, group: Option<&str>) -> Rule {
    let marks = Marks { name_prefix: prefix.map(str::to_owned), business_group: group.map(str::to_owned) };
    Rule { driver: DRIVER.into(), now: NOW, older_than: DAY, marks }
}

fn named(id: &str, name: &str) -> Disk {
    Disk { name: name.into(), ..disk(id) }
}

fn volume(name: &str, handle: &str) -> Volume {
    Volume {
        name: name.into(),
        driver: Some(DRIVER.into()),
        handle: Some(handle.into()),
        ..Volume::default()
    }
}

fn claim(uid: &str, volume: Option<&str>) -> Claim {
    Claim {
        uid: uid.into(),
        provisioner: Some(DRIVER.into()),
        volume: volume.map(str::to_owned),
        ..Claim::default()
    }
}

/// The ids that are listed, with a star on those that bear the marks.
fn listed(disks: &[Disk], cluster: &Cluster, rule: &Rule) -> Vec<String> {
    let sorted = sort_out(disks, cluster, rule);
    sorted.orphans.iter().map(|o| format!("{}{}", o.disk.id, if o.ours { "*" } else { "" })).collect()
}

fn nothing_listed(disks: &[Disk], cluster: &Cluster) {
    assert_eq!(listed(disks, cluster, &rule(None, None)), [""; 0]);
}

#[test]
fn only_disks_with_the_name_of_a_volume_are_looked_at() {
    let hash = DiskName::for_volume("my.volume").to_string();
    let disks = [
        named("bs-1", &format!("pvc-{UID}")),
        named("bs-2", "mysql"),
        named("bs-3", &hash),
        named("bs-4", "pvc-by-hand"),
        named("bs-5", &format!("prod-{UID}")),
        Disk { is_boot: true, ..named("bs-6", &format!("pvc-{UID}")) },
        named("bs-7", "prod-db"),
    ];
    let none = Cluster::default();
    assert_eq!(listed(&disks, &none, &rule(None, None)), ["bs-1", "bs-3", "bs-4", "bs-5"]);
    assert_eq!(listed(&disks, &none, &rule(Some("prod"), None)), ["bs-5*", "bs-1", "bs-3", "bs-4", "bs-7"]);
    let wanted = wanted(&disks, &rule(None, None).marks);
    assert_eq!(wanted.len(), 4);
    assert!(wanted.contains("bs-1") && !wanted.contains("bs-2"));
}

#[test]
fn a_mark_is_a_whole_prefix_or_a_business_group_and_never_what_a_person_may_have_named() {
    let mut grouped = named("bs-1", &format!("pvc-{UID}"));
    grouped.tag = Some("cluster-a".into());
    let mut both = named("bs-2", &format!("prod-{UID}"));
    both.tag = Some("cluster-a".into());
    let mut by_hand = named("bs-3", "pvc-backup-of-mysql");
    by_hand.tag = Some("cluster-a".into());
    let longer = named("bs-4", &format!("prod-b-{UID}"));
    let disks = [grouped, both, by_hand, longer];
    let none = Cluster::default();
    let list = |prefix, group| listed(&disks, &none, &rule(prefix, group));
    assert_eq!(list(None, Some("cluster-a")), ["bs-1*", "bs-2*", "bs-3", "bs-4"]);
    assert_eq!(list(Some("prod"), None), ["bs-2*", "bs-1", "bs-3", "bs-4"]);
    assert_eq!(list(Some("prod"), Some("cluster-a")), ["bs-2*", "bs-1", "bs-3", "bs-4"]);
    assert_eq!(list(Some("prod"), Some("cluster-b")), ["bs-1", "bs-2", "bs-3", "bs-4"]);
}

#[test]
fn whatever_refers_to_a_disk_keeps_it() {
    let name = format!("pvc-{UID}");
    let disks = [named("bs-1", &name)];
    let with = |change: fn(&mut Cluster)| {
        let mut cluster = Cluster::default();
        change(&mut cluster);
        cluster
    };
    nothing_listed(&disks, &with(|c| c.volumes.push(volume("by-hand", "bs-1"))));
    // Of any driver and any storage class.
    nothing_listed(
        &disks,
        &with(|c| c.volumes.push(Volume { driver: Some("other".into()), ..volume("x", "bs-1") })),
    );
    nothing_listed(&disks, &with(|c| _ = c.mentions.insert("bs-1".into())));
    nothing_listed(&disks, &with(|c| c.claims.push(claim(UID, None))));
    // A claim of a driver that is not known yet, and one that lost its volume.
    nothing_listed(&disks, &with(|c| c.claims.push(Claim { provisioner: None, ..claim(UID, None) })));
    nothing_listed(&disks, &with(|c| c.claims.push(claim(UID, Some("gone")))));
    // A volume of that name, whatever disk it names, unless that one is there too.
    nothing_listed(&disks, &with(|c| c.volumes.push(volume(&format!("pvc-{UID}"), "bs-gone"))));
    // An attachment of a volume that is gone.
    nothing_listed(
        &disks,
        &with(|c| {
            c.attachments.push(Attachment { volume: Some(format!("pvc-{UID}")), ..Attachment::default() });
        }),
    );
    assert_eq!(listed(&disks, &with(|c| c.claims.push(claim(OTHER_UID, None))), &rule(None, None)), ["bs-1"]);
}

#[test]
fn prefixes_that_nobody_told_are_known_by_the_uid() {
    let cluster = Cluster { claims: vec![claim(UID, None)], ..Cluster::default() };
    nothing_listed(&[named("bs-1", &format!("prod-{UID}"))], &cluster);
    nothing_listed(&[named("bs-1", &format!("pvc-{UID}-bsm-1"))], &cluster);
    // A hash hides the uid: a prefix that is known finds it, and else any claim that waits may be meant.
    let hash = DiskName::for_volume(&format!("a.b-{UID}")).to_string();
    let disks = [named("bs-1", &hash)];
    assert_eq!(sort_out(&disks, &cluster, &rule(Some("a.b"), None)).referred, 1);
    let waits = Cluster { claims: vec![claim(OTHER_UID, None)], ..Cluster::default() };
    assert_eq!(sort_out(&disks, &waits, &rule(None, None)).held_back[0].why, Doubt::ClaimWaits);
    let bound = Cluster {
        claims: vec![claim(OTHER_UID, Some("pv"))],
        volumes: vec![volume("pv", "bs-2")],
        ..Cluster::default()
    };
    assert_eq!(listed(&disks, &bound, &rule(None, None)), ["bs-1"]);
    // And a volume whose own name is hashed is known by the hash.
    let hashed = Cluster { volumes: vec![volume(&format!("a.b-{UID}"), "bs-gone")], ..Cluster::default() };
    nothing_listed(&disks, &hashed);
}

#[test]
fn the_second_disk_of_a_name_is_an_orphan_when_the_first_is_there() {
    let name = format!("pvc-{UID}");
    let disks = [named("bs-1", &name), named("bs-2", &name)];
    let cluster = Cluster {
        volumes: vec![volume(&name, "bs-1")],
        claims: vec![claim(UID, Some(&name))],
        ..Cluster::default()
    };
    assert_eq!(listed(&disks, &cluster, &rule(None, None)), ["bs-2"]);
    nothing_listed(&disks[1..], &cluster);
    // While the claim waits, either may become its volume.
    let waits = Cluster { claims: vec![claim(UID, None)], ..Cluster::default() };
    nothing_listed(&disks, &waits);
}

#[test]
fn doubts_hold_back() {
    let name = format!("pvc-{UID}");
    let plain = named("bs-1", &name);
    let none = Cluster::default();
    for (disk, why) in [
        (at(plain.clone(), "uhost-a", "10.9.0.11", DiskStatus::InUse), Doubt::Attached),
        (Disk { status: DiskStatus::Attaching, ..plain.clone() }, Doubt::Attached),
        (Disk { host_ip: "10.9.0.11".parse().ok(), ..plain.clone() }, Doubt::Attached),
        (Disk { device: Some("vdc".into()), ..plain.clone() }, Doubt::Attached),
        (Disk { status: DiskStatus::Initializing, ..plain.clone() }, Doubt::Unsettled),
        (Disk { status: DiskStatus::Other("New".into()), ..plain.clone() }, Doubt::Unsettled),
        (Disk { created_at: None, ..plain.clone() }, Doubt::NoAge),
        (Disk { created_at: Some(0), ..plain.clone() }, Doubt::NoAge),
        (Disk { created_at: Some(NOW - DAY + 1), ..plain.clone() }, Doubt::Young),
        (Disk { created_at: Some(NOW + DAY), ..plain.clone() }, Doubt::Young),
        (Disk { snapshots: Some(1), ..plain.clone() }, Doubt::Snapshots),
    ] {
        let sorted = sort_out(std::slice::from_ref(&disk), &none, &rule(None, None));
        assert!(sorted.orphans.is_empty(), "{disk:?}");
        assert_eq!(sorted.held_back[0].why, why, "{disk:?}");
    }
    let failed = Disk { status: DiskStatus::Failed, ..plain.clone() };
    assert_eq!(listed(&[failed], &none, &rule(None, None)), ["bs-1"]);
    let old_enough = Disk { created_at: Some(NOW - DAY), ..plain };
    assert_eq!(listed(&[old_enough], &none, &rule(None, None)), ["bs-1"]);
}

#[test]
fn once_is_not_enough() {
    let name = format!("pvc-{UID}");
    let rule = rule(None, None);
    let read = |disk: Disk| sort_out(&[disk], &Cluster::default(), &rule);
    let first = read(named("bs-1", &name));
    assert_eq!(seen_twice(&first, first.clone()), first);
    for changed in [
        named("bs-2", &name),
        named("bs-1", &format!("pvc-{OTHER_UID}")),
        Disk { status: DiskStatus::Failed, ..named("bs-1", &name) },
        Disk { created_at: Some(NOW - 3 * DAY), ..named("bs-1", &name) },
        Disk { size: Gib::new(30), ..named("bs-1", &name) },
    ] {
        let later = seen_twice(&first, read(changed));
        assert_eq!((later.orphans.len(), later.held_back[0].why), (0, Doubt::SeenOnce));
    }
}

#[test]
fn nothing_may_be_deleted_without_a_mark_that_is_shown_to_be_this_clusters() {
    let disks = [named("bs-1", &format!("prod-{UID}")), named("bs-2", &format!("prod-{OTHER_UID}"))];
    let refused = |cluster: &Cluster, rule: &Rule| refusal(&sort_out(&disks, cluster, rule), &rule.marks);
    let with = |handle: &str| Cluster { volumes: vec![volume("pv", handle)], ..Cluster::default() };
    assert!(refused(&with("bs-1"), &rule(None, None)).unwrap().contains("--volume-name-prefix"));
    let marked = rule(Some("prod"), None);
    assert!(refused(&Cluster::default(), &marked).unwrap().contains("belong together"));
    assert!(refused(&with("bs-of-another-account"), &marked).unwrap().contains("belong together"));
    let plain = [disks.to_vec(), vec![named("bs-3", &format!("pvc-{UID}"))]].concat();
    let sorted = sort_out(&plain, &with("bs-3"), &marked);
    assert!(refusal(&sorted, &marked.marks).unwrap().contains("the mark is this"));
    // A disk of another driver's volume shows nothing.
    let other = Cluster {
        volumes: vec![Volume { driver: Some("other".into()), ..volume("pv", "bs-1") }],
        ..Cluster::default()
    };
    assert!(refused(&other, &marked).is_some());
    assert_eq!(refused(&with("bs-1"), &marked), None);
}

#[test]
fn single_disks_are_refused_for_what_they_are() {
    let orphan = |ours, status| Orphan { ours, disk: Disk { status, ..named("bs-1", "x") } };
    assert_eq!(deletable(&orphan(true, DiskStatus::Available)), Ok(()));
    assert!(
        deletable(&orphan(false, DiskStatus::Available)).unwrap_err().contains("unknown to this cluster")
    );
    assert!(deletable(&orphan(true, DiskStatus::Failed)).unwrap_err().contains("Failed"));
}

#[test]
fn a_disk_that_changed_since_it_was_listed_is_left_alone() {
    let listed = named("bs-1", "pvc-1");
    // Bills are read only in listings.
    assert_eq!(unchanged(&listed, &Disk { charge_type: None, ..listed.clone() }), Ok(()));
    for (now, word) in [
        (at(listed.clone(), "uhost-a", "10.9.0.11", DiskStatus::InUse), "uhost-a"),
        (Disk { status: DiskStatus::Attaching, ..listed.clone() }, "Attaching"),
        (Disk { host: Some(crate::volume::HostId::parse("uhost-a").unwrap()), ..listed.clone() }, "uhost-a"),
        (Disk { device: Some("vdc".into()), ..listed.clone() }, "no longer"),
        (Disk { name: "kept".into(), ..listed.clone() }, "kept"),
        (Disk { created_at: Some(NOW), ..listed.clone() }, "creation"),
        (Disk { created_at: None, ..listed.clone() }, "creation"),
        (Disk { size: Gib::new(30), ..listed.clone() }, "30 GiB"),
        (Disk { is_boot: true, ..listed.clone() }, "system"),
        (Disk { snapshots: Some(1), ..listed.clone() }, "snapshots"),
        (disk("bs-2"), "id"),
    ] {
        let why = unchanged(&listed, &now).unwrap_err();
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
}

#[test]
fn the_report_tells_ours_from_unknown_with_prices_and_what_was_done() {
    let mut disks = vec![
        named("bs-1", &format!("prod-{UID}")),
        named("bs-2", &format!("pvc-{OTHER_UID}")),
        Disk { snapshots: Some(1), ..named("bs-3", "pvc-1") },
    ];
    disks[1].charge_type = Some("Month".into());
    let rule = rule(Some("prod"), None);
    let sorted = sort_out(&disks, &Cluster::default(), &rule);
    let prices: PriceList = [(price_class(&disks[0]).unwrap(), 7)].into();
    let fates: BTreeMap<String, Fate> = [("bs-1".to_owned(), Fate::Deleted)].into();
    let report = Orphans {
        sorted: &sorted,
        unreadable: &[],
        marks: &rule.marks,
        prices: &prices,
        now: NOW,
        account: "region cn-bj2",
        fates: &fates,
    };
    assert_eq!(
        report.print(Format::Text),
        "of this cluster (names prod-…):\n\
         UDISK  NAME                                       TYPE  SIZE  CHARGE     PRICE   AGE  ZONE       GROUP\n\
         bs-1   prod-0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d  rssd  20Gi  Dynamic  ¥0.07/h  10 d  cn-bj2-05  Default\n\
         \n\
         unknown to this cluster:\n\
         UDISK  NAME                                      TYPE  SIZE  CHARGE  PRICE   AGE  ZONE       GROUP\n\
         bs-2   pvc-11111111-7f4e-4d6a-9d7a-0c5c2f1e3b4d  rssd  20Gi  Month       ?  10 d  cn-bj2-05  Default\n\
         \n\
         2 disks that nothing refers to; 0 with a volume's name are in use by this cluster\n\
         not listed: 1 with snapshots\n\
         region cn-bj2\n"
    );
    let json: serde_json::Value = serde_json::from_str(&report.print(Format::Json)).unwrap();
    assert_eq!(json["orphans"][0]["belongsTo"], "this cluster");
    assert_eq!(json["orphans"][0]["priceFen"], 7);
    assert_eq!(json["orphans"][0]["deleted"], true);
    assert_eq!(json["orphans"][1]["belongsTo"], "unknown to this cluster");
    assert_eq!(json["orphans"][1]["priceFen"], serde_json::Value::Null);
    assert_eq!(json["notListed"][0]["id"], "bs-3");
}

#[test]
fn what_cannot_be_read_is_told_if_it_may_be_a_volumes() {
    let named = format!("pvc-{UID}");
    let all = vec![
        odd("bs-1", None),
        odd("bs-2", Some(&named)),
        odd("bs-3", Some("the database of sales")),
        Unreadable { is_boot: true, ..odd("bs-4", None) },
    ];
    let marks = rule(None, None).marks;
    let unreadable = hidden(all, &marks);
    assert_eq!(unreadable.iter().map(|disk| disk.id.as_str()).collect::<Vec<_>>(), ["bs-1", "bs-2"]);
    let (sorted, prices, fates) = (Sorted::default(), PriceList::new(), BTreeMap::new());
    let report = Orphans {
        sorted: &sorted,
        unreadable: &unreadable,
        marks: &marks,
        prices: &prices,
        now: NOW,
        account: "region cn-bj2",
        fates: &fates,
    };
    let text = report.print(Format::Text);
    assert!(
        text.contains("not listed: bs-1, which cannot be read: DescribeUDisk failed: RetCode 0, but "),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&report.print(Format::Json)).unwrap();
    assert_eq!(
        (&json["unreadable"][1]["id"], &json["unreadable"][1]["name"]),
        (&"bs-2".into(), &named.into())
    );
}

#[test]
fn the_twin_of_a_disk_that_cannot_be_read_is_nobodys_orphan() {
    let name = format!("pvc-{UID}");
    let twin = named("bs-2", &name);
    let cluster = Cluster { volumes: vec![volume(&name, "bs-1")], ..Cluster::default() };
    let readable = sort_out(&[named("bs-1", &name), twin.clone()], &cluster, &rule(None, None));
    assert_eq!(readable.orphans.len(), 1, "it shows that the twin is nobody's");
    assert_eq!(sort_out(&[twin], &cluster, &rule(None, None)).orphans, []);
}

/// How a disk can be referred to.
#[derive(Debug, Clone, Copy)]
enum Link {
    Nothing,
    Handle,
    HandleOfOther,
    Mention,
    PendingClaim,
    BoundClaimAndVolume,
    LostVolume,
    AttachmentOnly,
}

const LINKS: [Link; 8] = [
    Link::Nothing,
    Link::Handle,
    Link::HandleOfOther,
    Link::Mention,
    Link::PendingClaim,
    Link::BoundClaimAndVolume,
    Link::LostVolume,
    Link::AttachmentOnly,
];

fn uid(number: usize) -> String {
    format!("{number:08x}-7f4e-4d6a-9d7a-0c5c2f1e3b4d")
}

/// How its provisioner named it; the last is hashed.
const PREFIXES: [&str; 3] = ["pvc", "prod", "a.b"];

proptest! {
    #[test]
    fn what_is_referred_to_is_never_listed(
        kinds in proptest::collection::vec((0..LINKS.len(), 0..PREFIXES.len(), 0..3_u8, any::<bool>()), 0..12),
        told in 0..=PREFIXES.len(),
        grouped in any::<bool>(),
    ) {
        let mut cluster = Cluster::default();
        let mut disks = Vec::new();
        let mut linked = Vec::new();
        for (number, (link, prefix, oddity, young)) in kinds.into_iter().enumerate() {
            let csi_name = format!("{}-{}", PREFIXES[prefix], uid(number));
            let id = format!("bs-{number}");
            let mut disk = named(&id, DiskName::for_volume(&csi_name).as_str());
            match oddity {
                0 => {}
                1 => disk = at(disk, "uhost-a", "10.9.0.11", DiskStatus::InUse),
                _ => disk.status = DiskStatus::Failed,
            }
            if young {
                disk.created_at = Some(NOW - 60);
            }
            disks.push(disk);
            match LINKS[link] {
                Link::Nothing => {}
                Link::Handle => cluster.volumes.push(volume(&csi_name, &id)),
                Link::HandleOfOther => {
                    cluster.volumes.push(Volume { driver: Some("other".into()), ..volume("static", &id) });
                }
                Link::Mention => _ = cluster.mentions.insert(id.clone()),
                Link::PendingClaim => cluster.claims.push(claim(&uid(number), None)),
                Link::BoundClaimAndVolume => {
                    cluster.volumes.push(volume(&csi_name, &id));
                    cluster.claims.push(claim(&uid(number), Some(&csi_name)));
                }
                Link::LostVolume => cluster.volumes.push(volume(&csi_name, "bs-gone")),
                Link::AttachmentOnly => cluster
                    .attachments
                    .push(Attachment { volume: Some(csi_name.clone()), ..Attachment::default() }),
            }
            if !matches!(LINKS[link], Link::Nothing) {
                linked.push(id);
            }
        }
        let rule = rule(PREFIXES.get(told).copied(), grouped.then_some("Default"));
        let sorted = sort_out(&disks, &cluster, &rule);
        for orphan in &sorted.orphans {
            prop_assert!(!linked.contains(&orphan.disk.id.to_string()), "{orphan:?}");
            prop_assert!(orphan.disk.host.is_none() && orphan.disk.created_at.unwrap() <= NOW - DAY);
            prop_assert_eq!(orphan.ours, rule.marks.are_on(&orphan.disk));
        }
        // Nothing is lost between the lists either.
        prop_assert_eq!(sorted.orphans.len() + sorted.held_back.len() + sorted.referred, disks.len());
    }
}
