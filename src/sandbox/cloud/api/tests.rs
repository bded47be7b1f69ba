//! The API as a caller meets it, in process and under a paused clock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::cloud::model::{HostSpec, Lags, Latencies, Span, ZoneSpec};
use crate::sandbox::cloud::signature::sign;
use crate::sandbox::cloud::{Request, SimCloud, SimConfig};

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
