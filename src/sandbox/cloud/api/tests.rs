//! The API as a caller meets it, in process and under a paused clock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::cloud::model::{HostSpec, Lags, Latencies, Limits, Span, ZoneSpec};
use crate::sandbox::cloud::signature::sign;
use crate::sandbox::cloud::{Effect, Quirks, Request, Rule, SimCloud, SimConfig};

const ZONE: &str = "cn-sh2-02";

/// Calls an action with a proper signature over what is given, and the common parameters.
async fn call(cloud: &SimCloud, action: &str, params: &[(&str, &str)]) -> Value {
    let mut all: BTreeMap<String, Value> =
        [("Action", action), ("PublicKey", "sandbox-public-key"), ("Region", "cn-sh2"), ("Zone", ZONE)]
            .into_iter()
            .chain(params.iter().copied())
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
    // An empty text takes a common parameter away.
    all.retain(|_, value| *value != "");
    let signature = sign(&all, "sandbox-private-key");
    all.entry("Signature".to_owned()).or_insert(json!(signature));
    send(cloud, json!(all)).await
}

async fn send(cloud: &SimCloud, body: Value) -> Value {
    let request = Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
        ..Request::default()
    };
    let response = cloud.handle(request).await.response().unwrap();
    assert_eq!(response.status, 200);
    assert!(response.header("X-UCLOUD-REQUEST-UUID").is_some_and(|id| id.len() == 36));
    serde_json::from_slice(&response.body).unwrap()
}

async fn create(cloud: &SimCloud, name: &str) -> String {
    let answer = call(cloud, "CreateUDisk", &[("Size", "10"), ("Name", name)]).await;
    answer["UDiskId"][0].as_str().unwrap().to_owned()
}

async fn status(cloud: &SimCloud, disk: &str) -> String {
    let answer = call(cloud, "DescribeUDisk", &[("UDiskId", disk)]).await;
    answer["DataSet"][0]["Status"].as_str().unwrap_or("gone").to_owned()
}

fn code(answer: &Value) -> i64 {
    answer["RetCode"].as_i64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_disk_lives_its_life() {
    let cloud = SimCloud::new(SimConfig { latencies: Latencies::realistic(), ..SimConfig::default() });
    let disk = create(&cloud, "pvc-1").await;
    assert_eq!(status(&cloud, &disk).await, "Initializating");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(status(&cloud, &disk).await, "Available");

    let on_a = [("UDiskId", disk.as_str()), ("HostId", "uhost-a"), ("MultiAttach", "No")];
    let answer = call(&cloud, "AttachUDisk", &on_a).await;
    assert_eq!(answer["DeviceName"], "vdb");
    assert_eq!(status(&cloud, &disk).await, "Attaching");
    assert_eq!(code(&call(&cloud, "AttachUDisk", &on_a).await), 17056);
    tokio::time::sleep(Duration::from_secs(9)).await;
    let answer = call(&cloud, "DescribeUDisk", &[("UDiskId", &disk)]).await;
    let found = &answer["DataSet"][0];
    assert_eq!(
        [&found["Status"], &found["HostId"], &found["UHostId"], &found["DeviceName"], &found["HostIP"]],
        ["InUse", "uhost-a", "uhost-a", "vdb", "10.9.0.11"]
    );
    assert_eq!(code(&call(&cloud, "AttachUDisk", &on_a).await), 17057);
    assert_eq!(code(&call(&cloud, "DeleteUDisk", &[("UDiskId", &disk)]).await), 17026);

    assert_eq!(code(&call(&cloud, "DetachUDisk", &on_a).await), 0);
    assert_eq!(code(&call(&cloud, "DetachUDisk", &on_a).await), 17061);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(status(&cloud, &disk).await, "Available");
    assert_eq!(code(&call(&cloud, "DetachUDisk", &on_a).await), 17060);
    assert_eq!(code(&call(&cloud, "DeleteUDisk", &[("UDiskId", &disk)]).await), 0);
    let answer = call(&cloud, "DescribeUDisk", &[("UDiskId", &disk)]).await;
    assert_eq!((code(&answer), &answer["TotalCount"], &answer["DataSet"]), (0, &json!(0), &json!([])));
    assert_eq!(code(&call(&cloud, "DeleteUDisk", &[("UDiskId", &disk)]).await), 17041);
    assert_eq!(cloud.counts()["AttachUDisk"], 3);
}

#[tokio::test(start_paused = true)]
async fn without_latencies_the_next_read_finds_the_end() {
    let cloud = SimCloud::new(SimConfig::default());
    let disk = create(&cloud, "x").await;
    assert_eq!(status(&cloud, &disk).await, "Available");
    let on_a = [("UDiskId", disk.as_str()), ("HostId", "uhost-a")];
    call(&cloud, "AttachUDisk", &on_a).await;
    assert_eq!(status(&cloud, &disk).await, "InUse");
    call(&cloud, "DetachDeleteUDisk", &on_a).await;
    assert_eq!(status(&cloud, &disk).await, "gone");
    let answer =
        call(&cloud, "CreateAttachUDisk", &[("Size", "10"), ("Name", "n"), ("HostId", "uhost-b")]).await;
    let disk = cloud.disk(answer["UDiskId"][0].as_str().unwrap()).unwrap();
    assert_eq!((disk.status.word(), disk.host()), ("InUse", Some("uhost-b")));
}

#[tokio::test(start_paused = true)]
async fn checks_come_in_the_documented_order() {
    let cloud = SimCloud::new(SimConfig::default());
    assert_eq!(code(&send(&cloud, json!({})).await), 160);
    assert_eq!(code(&send(&cloud, json!({"Action": "NoSuchAction"})).await), 161);
    assert_eq!(code(&send(&cloud, json!({"Action": "DescribeUDisk"})).await), 170);
    let wrong = [("Signature", "0000")];
    assert_eq!(code(&call(&cloud, "DescribeUDisk", &wrong).await), 171);
    assert_eq!(code(&call(&cloud, "DescribeUDisk", &[("PublicKey", "nobody")]).await), 172);
    assert_eq!(code(&call(&cloud, "DescribeUDisk", &[("SecurityToken", "nonsense")]).await), 174);
    let missing = |name: &str| (220, format!("Missing params [{name}]"));
    let bad = |name: &str| (230, format!("Params [{name}] not available"));
    type Case = (&'static str, &'static [(&'static str, &'static str)], (i64, String));
    let cases: &[Case] = &[
        ("CreateUDisk", &[("Region", "")], missing("Region")),
        ("CreateUDisk", &[("Region", "cn-bj2")], bad("Region")),
        ("CreateUDisk", &[("Zone", "")], missing("Zone")),
        ("CreateUDisk", &[("Zone", "cn-sh2-09")], bad("Zone")),
        ("CreateUDisk", &[("ProjectId", "org-other")], (292, "project not exist".to_owned())),
        ("CreateUDisk", &[("Size", "x")], missing("Name")),
        ("CreateUDisk", &[("Size", "x"), ("Name", "n")], bad("Size")),
        ("CreateUDisk", &[("Size", "8001"), ("Name", "n")], bad("Size")),
        ("CreateUDisk", &[("Size", "1"), ("Name", "n"), ("DiskType", "Floppy")], bad("DiskType")),
        ("AttachUDisk", &[("UDiskId", "bsm-1")], missing("HostId")),
        ("DescribeUDisk", &[("Limit", "101")], bad("Limit")),
        ("DescribeUDisk", &[("ProtocolVersion", "1"), ("DiskType", "CLOUD_SSD")], missing("IsBoot")),
    ];
    for (action, params, (want, message)) in cases {
        let answer = call(&cloud, action, params).await;
        assert_eq!(
            (code(&answer), answer["Message"].as_str()),
            (*want, Some(message.as_str())),
            "{params:?}"
        );
        assert_eq!(answer["Action"], format!("{action}Response"));
    }
}

#[tokio::test(start_paused = true)]
async fn listings_page_filter_and_lag() {
    let lags = Lags { new_in_lists: Duration::from_secs(2), ..Lags::default() };
    let cloud = SimCloud::new(SimConfig { lags, hosts: Vec::new(), ..SimConfig::default() });
    for number in 0..25 {
        create(&cloud, &format!("pvc-{number}")).await;
    }
    let total = async |params: &[(&str, &str)]| {
        let answer = call(&cloud, "DescribeUDisk", params).await;
        (answer["TotalCount"].as_u64().unwrap(), answer["DataSet"].as_array().unwrap().len())
    };
    assert_eq!(total(&[]).await, (0, 0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(total(&[]).await, (25, 20));
    assert_eq!(total(&[("Offset", "20")]).await, (25, 5));
    assert_eq!(total(&[("Limit", "100"), ("Status", "Available")]).await, (25, 25));
    assert_eq!(total(&[("Status", "InUse")]).await, (0, 0));
    assert_eq!(total(&[("UDiskName", "pvc-2")]).await, (1, 1));
    assert_eq!(total(&[("DiskType", "SSDDataDisk")]).await, (0, 0));
    cloud.change_quirks(|quirks| quirks.name_filter = crate::sandbox::cloud::NameFilter::Fuzzy);
    assert_eq!(total(&[("UDiskName", "pvc-2")]).await, (6, 6));
}

#[tokio::test(start_paused = true)]
async fn basic_information_is_less() {
    let cloud = SimCloud::new(SimConfig::default());
    let disk = create(&cloud, "x").await;
    let fields = async |params: &[(&str, &str)]| {
        let all: Vec<_> = params.iter().copied().chain([("UDiskId", disk.as_str())]).collect();
        call(&cloud, "DescribeUDisk", &all).await["DataSet"][0].as_object().unwrap().clone()
    };
    let full = fields(&[]).await;
    assert!(["ChargeType", "BackupMode", "SnapshotLimit"].iter().all(|name| full.contains_key(*name)));
    assert!(!fields(&[("IgnoreUBillInfo", "Yes")]).await.contains_key("ChargeType"));
    assert!(!fields(&[("IgnoreBackupMode", "Yes")]).await.contains_key("BackupMode"));
    let basic = fields(&[("UDiskBasicInfo", "Yes")]).await;
    assert!(!basic.contains_key("ChargeType") && !basic.contains_key("BackupMode"));
    assert!(["Status", "HostId", "DeviceName", "Size"].iter().all(|name| basic.contains_key(*name)));
}

#[tokio::test(start_paused = true)]
async fn growing_has_its_rules() {
    let latencies = Latencies { resize: Span::millis(1000, 1000), ..Latencies::none() };
    let cloud = SimCloud::new(SimConfig { latencies, ..SimConfig::default() });
    let disk = create(&cloud, "x").await;
    let size = || cloud.disk(&disk).unwrap().size.get();
    assert_eq!(code(&call(&cloud, "ResizeUDisk", &[("UDiskId", &disk), ("Size", "10")]).await), 230);
    assert_eq!(code(&call(&cloud, "ResizeUDisk", &[("UDiskId", &disk), ("Size", "11")]).await), 0);
    assert_eq!(size(), 10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(size(), 11);
    call(&cloud, "AttachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await;
    assert_eq!(code(&call(&cloud, "ResizeUDisk", &[("UDiskId", &disk), ("Size", "20")]).await), 17026);
    let grow = async |host: &str, space: &str, dry: &str| {
        let params = [("UHostId", host), ("DiskId", &disk), ("DiskSpace", space), ("DryRun", dry)];
        call(&cloud, "ResizeAttachedDisk", &params).await
    };
    assert_eq!(code(&grow("uhost-a", "25", "").await), 8107);
    assert_eq!(code(&grow("uhost-a", "10", "").await), 8107);
    assert_eq!(code(&grow("uhost-b", "20", "").await), 8982);
    assert_eq!(grow("uhost-a", "20", "true").await["NeedRestart"], false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(size(), 11);
    assert_eq!(code(&grow("uhost-a", "20", "").await), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(size(), 20);
}

#[tokio::test(start_paused = true)]
async fn rssd_disks_stay_in_their_cluster_unless_told_otherwise() {
    let cloud = SimCloud::new(SimConfig {
        zones: vec![ZoneSpec::new(ZONE, &["r1", "r2"])],
        hosts: vec![
            HostSpec::new("uhost-a", "10.0.0.1").in_rdma_cluster("r1"),
            HostSpec { machine_type: "N".to_owned(), ..HostSpec::new("uhost-n", "10.0.0.2") },
            HostSpec::new("upm-a", "10.0.0.3").in_rdma_cluster("r1"),
        ],
        ..SimConfig::default()
    });
    let new = [("Size", "20"), ("Name", "x"), ("DiskType", "RSSDDataDisk"), ("RdmaClusterId", "r2")];
    let answer = call(&cloud, "CreateUDisk", &new).await;
    let disk = answer["UDiskId"][0].as_str().unwrap();
    let attach = async |host: &str, cross: &str| {
        let params = [("UDiskId", disk), ("HostId", host), ("EnableCrossPodAttach", cross)];
        code(&call(&cloud, "AttachUDisk", &params).await)
    };
    assert_eq!(attach("uhost-a", "").await, 17218);
    assert_eq!(attach("uhost-n", "Yes").await, 17055);
    assert_eq!(attach("uhost-z", "").await, 230);
    assert_eq!(attach("uhost-a", "Yes").await, 0);
    let sata = create(&cloud, "sata").await;
    let answer = call(&cloud, "AttachUDisk", &[("UDiskId", &sata), ("HostId", "upm-a")]).await;
    assert_eq!(code(&answer), 17055);
    let answer = call(&cloud, "DescribePHost", &[("PHostId.0", "upm-a")]).await;
    assert_eq!((&answer["TotalCount"], &answer["PHostSet"][0]["RdmaClusterId"]), (&json!(1), &json!("r1")));
    let answer = call(&cloud, "DescribeUHostInstance", &[("UDiskIdForAttachment", &sata)]).await;
    assert_eq!(answer["TotalCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn snapshots_and_clones_live_their_lives() {
    let second = Span::millis(1000, 1000);
    let latencies = Latencies { snapshot: second, clone: second, restore: second, ..Latencies::none() };
    let cloud = SimCloud::new(SimConfig { latencies, ..SimConfig::default() });
    let disk = create(&cloud, "x").await;
    let of = [("UDiskId", disk.as_str()), ("Name", "s")];
    assert_eq!(code(&call(&cloud, "CreateUDiskSnapshot", &of).await), 17010);
    let opened =
        call(&cloud, "CreateSnapshotService", &[("VDiskId", &disk), ("ChargeType", "Dynamic")]).await;
    assert_eq!(opened["Status"], "Available");
    let with_comment = [of[0], of[1], ("Comment", "c")];
    assert_eq!(code(&call(&cloud, "CreateUDiskSnapshot", &with_comment).await), 230);
    let mut snapshots = Vec::new();
    for _ in 0..3 {
        let answer = call(&cloud, "CreateUDiskSnapshot", &of).await;
        snapshots.push(answer["SnapshotId"][0].as_str().unwrap().to_owned());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(code(&call(&cloud, "CreateUDiskSnapshot", &of).await), 17011);
    let snapshot = ("SnapshotId", snapshots[0].as_str());
    let found = call(&cloud, "DescribeUDiskSnapshot", &[snapshot]).await;
    let found = &found["DataSet"][0];
    assert_eq!(
        (&found["Status"], &found["Size"], &found["DiskType"]),
        (&json!("Normal"), &json!(10), &json!(0))
    );

    assert_eq!(code(&call(&cloud, "RestoreUDisk", &[("UDiskId", &disk), snapshot]).await), 0);
    assert_eq!(status(&cloud, &disk).await, "Restoring");
    assert_eq!(code(&call(&cloud, "RestoreUDisk", &[("UDiskId", &disk), snapshot]).await), 17098);
    tokio::time::sleep(Duration::from_secs(1)).await;

    for (action, source) in [("CloneUDisk", disk.as_str()), ("CloneUDiskSnapshot", snapshot.1)] {
        let params = [("SourceId", source), ("Name", "clone"), ("Size", "5")];
        let answer = call(&cloud, action, &params).await;
        let clone = answer["UDiskId"][0].as_str().unwrap();
        assert_eq!(status(&cloud, clone).await, "Cloning");
        let busy = if action == "CloneUDisk" { 17086 } else { 0 };
        assert_eq!(
            code(&call(&cloud, "AttachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await),
            busy
        );
        call(&cloud, "DetachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&cloud, clone).await, "Available");
        assert_eq!(cloud.disk(clone).unwrap().size.get(), 10);
    }
    call(&cloud, "AttachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await;
    assert_eq!(code(&call(&cloud, "CloneUDisk", &[("SourceId", &disk), ("Name", "c")]).await), 17026);
    assert_eq!(code(&call(&cloud, "RestoreUDisk", &[("UDiskId", &disk), snapshot]).await), 17096);
    assert_eq!(code(&call(&cloud, "DeleteUDiskSnapshot", &[("UDiskId", &disk)]).await), 0);
    assert_eq!(call(&cloud, "DescribeUDiskSnapshot", &[]).await["TotalCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn faults_strike_as_told() {
    let cloud = SimCloud::new(SimConfig::default());
    let new = [("Size", "10"), ("Name", "x")];
    let form = |action: &str| {
        let mut all: BTreeMap<String, Value> =
            [("Action", action), ("PublicKey", "sandbox-public-key"), ("Region", "cn-sh2"), ("Zone", ZONE)]
                .into_iter()
                .chain(new)
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .collect();
        all.insert("Signature".to_owned(), json!(sign(&all, "sandbox-private-key")));
        let pairs: Vec<_> =
            all.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
        Request::get(&format!("/?{}", pairs.join("&")))
    };
    let strike = async |effect: Effect| {
        cloud.add_fault(Rule::once("CreateUDisk", effect));
        let before = cloud.disks().len();
        let answer = cloud.handle(form("CreateUDisk")).await;
        (answer.response(), cloud.disks().len() - before)
    };
    assert_eq!(strike(Effect::ReplyLost).await, (None, 1));
    assert_eq!(strike(Effect::RequestLost).await, (None, 0));
    let start = tokio::time::Instant::now();
    assert_eq!(strike(Effect::Hang { seconds: Duration::from_secs(60), done: true }).await, (None, 1));
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    let (answer, made) = strike(Effect::Http { status: 502, done: true }).await;
    assert_eq!((answer.unwrap().status, made), (502, 1));
    let body = |answer: Option<crate::sandbox::cloud::Response>| answer.unwrap().body;
    let (answer, made) = strike(Effect::RetCode { code: 110, message: "late".to_owned(), done: true }).await;
    let parsed: Value = serde_json::from_slice(&body(answer)).unwrap();
    assert_eq!((code(&parsed), &parsed["Message"], made), (110, &json!("late"), 1));
    let (answer, made) = strike(Effect::Truncated { done: false }).await;
    assert!(serde_json::from_slice::<Value>(&body(answer)).is_err() && made == 0);
    let (answer, _) = strike(Effect::HugeBody { bytes: 10 << 20, done: false }).await;
    assert!(body(answer).len() > 10 << 20);

    let disk = create(&cloud, "d").await;
    cloud.add_fault(Rule::once("AttachUDisk", Effect::Stuck { seconds: Some(30.0) }));
    call(&cloud, "AttachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(status(&cloud, &disk).await, "Attaching");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&cloud, &disk).await, "InUse");
    cloud.add_fault(Rule::once("DescribeUDisk", Effect::Stale { seconds: Duration::from_secs(5) }));
    assert_eq!(status(&cloud, &disk).await, "Attaching");
    assert_eq!(status(&cloud, &disk).await, "InUse");
    let event = crate::sandbox::cloud::Event::Detach { disk: disk.clone() };
    cloud.add_fault(Rule::once("DescribeUDisk", Effect::After { event }));
    assert_eq!(status(&cloud, &disk).await, "InUse");
    assert_eq!(status(&cloud, &disk).await, "Available");
}

#[tokio::test(start_paused = true)]
async fn quirks_change_the_spelling_only() {
    let cloud = SimCloud::new(SimConfig::default());
    let disk = create(&cloud, "x").await;
    call(&cloud, "AttachUDisk", &[("UDiskId", &disk), ("HostId", "uhost-a")]).await;
    let one = async || call(&cloud, "DescribeUDisk", &[("UDiskId", &disk)]).await;
    cloud.change_quirks(|quirks| {
        quirks.ret_code_as_text = true;
        quirks.numbers_as_text = true;
        quirks.empty_fields_absent = true;
        quirks.no_uhost_twins = true;
        quirks.device_name = crate::sandbox::cloud::DeviceNameStyle::Path;
    });
    let answer = one().await;
    let found = &answer["DataSet"][0];
    assert_eq!((&answer["RetCode"], &answer["TotalCount"]), (&json!("0"), &json!("1")));
    assert_eq!((&found["Size"], &found["DeviceName"]), (&json!("10"), &json!("/dev/vdb")));
    assert!(found.get("RdmaClusterId").is_none() && found.get("UHostId").is_none());
    cloud.change_quirks(|quirks| {
        *quirks = Quirks { bare_disk_id: true, unknown_id_is_error: true, ..Quirks::default() };
    });
    assert!(call(&cloud, "CreateUDisk", &[("Size", "10"), ("Name", "y")]).await["UDiskId"].is_string());
    assert_eq!(code(&call(&cloud, "DescribeUDisk", &[("UDiskId", "bsm-none")]).await), 17041);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_refused_and_counted() {
    let limits = Limits { requests_per_second: Some(2), ..Limits::default() };
    let cloud = SimCloud::new(SimConfig { limits, ..SimConfig::default() });
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(code(&call(&cloud, "DescribeUDisk", &[]).await));
    }
    assert_eq!((codes, cloud.counts()["DescribeUDisk"]), (vec![0, 0, 153], 3));
}

/// What the documents say in words beside their tables of parameters.
#[tokio::test(start_paused = true)]
async fn what_a_new_disk_can_have_depends_on_its_type() {
    let zones = vec![ZoneSpec::new(ZONE, &["r1"])];
    let cloud = SimCloud::new(SimConfig { zones, ..SimConfig::default() });
    let create = async |params: &[(&str, &str)]| {
        let named: Vec<_> = params.iter().copied().chain([("Name", "x")]).collect();
        let answer = call(&cloud, "CreateUDisk", &named).await;
        (code(&answer), answer["Message"].as_str().unwrap_or_default().to_owned())
    };
    let fine = (0, String::new());
    let bad = |name: &str| (230, format!("Params [{name}] not available"));
    for (kind, most, above, mode, other_mode) in [
        ("DataDisk", "8000", "8001", "Base", "Lite"),
        ("SSDDataDisk", "8000", "8001", "Ultimate", "Lite"),
        ("ESSDDataDisk", "8000", "8001", "Lite", "Base"),
        ("RSSDDataDisk", "32000", "32001", "Custom", "Lite"),
        ("ERSSDDataDisk", "32000", "32001", "Lite", "Custom"),
        ("EfficiencyDataDisk", "32000", "32001", "Base", "Lite"),
    ] {
        let kind = ("DiskType", kind);
        for size in ["1", most] {
            assert_eq!(create(&[kind, ("Size", size)]).await, fine, "{kind:?} {size}");
        }
        for size in ["0", above, "-1", "1.5", "10G", "99999999999999999999"] {
            assert_eq!(create(&[kind, ("Size", size)]).await, bad("Size"), "{kind:?} {size}");
        }
        let size = ("Size", "10");
        assert_eq!(create(&[kind, size, ("BackupMode", mode)]).await, fine, "{kind:?}");
        assert_eq!(create(&[kind, size, ("BackupMode", other_mode)]).await, bad("BackupMode"), "{kind:?}");
    }
    for (name, good, wrong) in [("Journal", "12", "13"), ("Hour", "48", "25"), ("Day", "10", "6")] {
        let custom = [("Size", "10"), ("BackupMode", "Custom")];
        assert_eq!(create(&[custom[0], custom[1], (name, good)]).await, fine);
        assert_eq!(create(&[custom[0], custom[1], (name, wrong)]).await, bad(name));
    }
    let encrypted = [("Size", "10"), ("DiskType", "RSSDDataDisk"), ("UKmsMode", "Yes")];
    assert_eq!(create(&encrypted).await, (220, "Missing params [CmkId]".to_owned()));
    assert_eq!(create(&[encrypted[0], encrypted[1], encrypted[2], ("CmkId", "key")]).await, fine);
}

/// None of its parameters is required, as far as the documents go; yet none can be left out.
#[tokio::test(start_paused = true)]
async fn a_bare_metal_growth_without_its_parameters_is_refused() {
    let hosts = vec![HostSpec::new("upm-a", "10.0.0.3").in_rdma_cluster("r1")];
    let zones = vec![ZoneSpec::new(ZONE, &["r1"])];
    let cloud = SimCloud::new(SimConfig { zones, hosts, ..SimConfig::default() });
    let new = [("Size", "20"), ("Name", "x"), ("DiskType", "RSSDDataDisk"), ("RdmaClusterId", "r1")];
    let answer = call(&cloud, "CreateUDisk", &new).await;
    let disk = answer["UDiskId"][0].as_str().unwrap();
    assert_eq!(code(&call(&cloud, "AttachUDisk", &[("UDiskId", disk), ("HostId", "upm-a")]).await), 0);
    let all = [("PHostId", "upm-a"), ("UDiskId", disk), ("DiskSpace", "30")];
    for left_out in 0..all.len() {
        let mut some = all.to_vec();
        let (name, _) = some.remove(left_out);
        assert_ne!(code(&call(&cloud, "ResizePHostAttachedDisk", &some).await), 0, "without {name}");
        assert_eq!(cloud.disk(disk).unwrap().size.get(), 20);
    }
    assert_eq!(code(&call(&cloud, "ResizePHostAttachedDisk", &all).await), 0);
    assert_eq!(cloud.disk(disk).unwrap().size.get(), 30);
}
