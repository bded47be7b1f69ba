//! The client against scripts: what is sent, how often and when, and what the caller hears.

use super::super::action::{AttachUDisk, CreateUDisk, DescribeUDisk};
use super::super::metadata::Metadata;
use super::super::sts::Roles;
use super::super::testing::{Answer, Scripted};
use super::super::{UCloud, UCloudConfig};
use super::*;
use crate::cloud::{Attachment, Cause, Cloud as _, NewDisk, Outcome};
use crate::volume::{ChargeType, DiskId, DiskType, Gib, HostId, Zone};

const DISK: &str = r#"{"RetCode":0,"TotalCount":1,"DataSet":[{"UDiskId":"bsm-1","Zone":"cn-bj2-05","Name":"pvc-1",
    "Size":20,"Status":"Available"}]}"#;
const GONE: &str = r#"{"RetCode":0,"TotalCount":0,"DataSet":[]}"#;
const CREATED: &str = r#"{"RetCode":0,"UDiskId":["bsm-1"]}"#;
const DONE: &str = r#"{"RetCode":0}"#;

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn attempt(&self, attempt: &Attempt<'_>) {
        let Attempt { action, number, ret_code, again, .. } = attempt;
        self.0.lock().unwrap().push(format!("{action} {number} {ret_code:?} {again}"));
    }
}

struct Bench {
    client: Client<Scripted>,
    script: Scripted,
    heard: Arc<Heard>,
}

fn common() -> Common {
    Common {
        endpoint: Url::parse("http://api.test/").unwrap(),
        region: "cn-bj2".into(),
        project_id: Some("org-1".into()),
        user_agent: "test".into(),
        read_timeout: Duration::from_secs(30),
    }
}

fn bench_with(answers: Vec<Answer>, credentials: CredentialSource<Scripted>) -> Bench {
    let script = Scripted::new(answers);
    let heard = Arc::new(Heard::default());
    let observer: Arc<dyn Observer> = Arc::<Heard>::clone(&heard);
    let client = Client::new(common(), script.clone(), credentials, observer, fastrand::Rng::with_seed(1));
    Bench { client, script, heard }
}

fn keys() -> Credentials {
    Credentials::keys("public-hunter2".into(), "private-hunter2".into())
}

fn bench(answers: Vec<Answer>) -> Bench {
    bench_with(answers, CredentialSource::keys(keys()))
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn disk_id() -> DiskId {
    DiskId::parse("bsm-1").unwrap()
}

fn zone() -> Zone {
    Zone::parse("cn-bj2-05").unwrap()
}

fn new_disk() -> NewDisk {
    NewDisk {
        zone: zone(),
        name: "pvc-1".into(),
        size: Gib::new(20),
        disk_type: DiskType::Ssd,
        charge_type: ChargeType::Dynamic,
        quantity: None,
        data_ark: false,
        tag: None,
        cmk_id: None,
        rdma_cluster: None,
    }
}

impl Bench {
    async fn read(&self, seconds: u64) -> Result<Option<crate::cloud::Disk>, CloudError> {
        self.client.call(&DescribeUDisk { id: &disk_id() }, within(seconds)).await
    }

    async fn create(&self, seconds: u64) -> Result<DiskId, CloudError> {
        self.client.call(&CreateUDisk { disk: &new_disk() }, within(seconds)).await
    }

    fn sends(&self) -> usize {
        self.script.requests().len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_signed_form_with_the_action_in_the_query() {
    let bench = bench(vec![Answer::json(DISK)]);
    bench.read(10).await.unwrap().expect("a disk");
    let sent = &bench.script.requests()[0];
    assert_eq!(sent.url.as_str(), "http://api.test/?Action=DescribeUDisk");
    let names: Vec<_> = sent.params.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Action",
            "Region",
            "ProjectId",
            "UDiskId",
            "IgnoreUBillInfo",
            "IgnoreBackupMode",
            "PublicKey",
            "Signature"
        ]
    );
    let mut signed = Params::default();
    for (name, value) in sent.params.iter().filter(|(name, _)| name != "Signature") {
        signed.text(name.clone(), value);
    }
    assert_eq!(sent.param("Signature").unwrap(), signature(&signed, "private-hunter2"));
    assert_eq!(*bench.heard.0.lock().unwrap(), ["DescribeUDisk 1 Some(0) false"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_repeated_after_anything_that_may_pass() {
    for failure in [
        Answer::Lost,
        Answer::NotSent,
        Answer::Hang,
        Answer::status(502, "<html>"),
        Answer::json("<html>portal</html>"),
        Answer::json(r#"{"RetCode":0,"DataS"#),
        Answer::refused(110),
        Answer::refused(130),
        Answer::refused(150),
        Answer::refused(153),
        Answer::refused(17040),
        Answer::status(429, ""),
    ] {
        let bench = bench(vec![failure.clone(), Answer::json(GONE)]);
        assert_eq!(bench.read(120).await.unwrap(), None, "{failure:?}");
        assert_eq!(bench.sends(), 2, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_have_been_taken_is_never_repeated() {
    for (failure, cause) in [
        (Answer::Lost, Cause::NoAnswer),
        (Answer::Hang, Cause::NoAnswer),
        (Answer::status(502, ""), Cause::NoAnswer),
        (Answer::status(500, r#"{"RetCode":0,"UDiskId":["bsm-1"]}"#), Cause::NoAnswer),
        (Answer::status(503, r#"{"RetCode":17005,"Message":"x"}"#), Cause::NoStock),
        (Answer::status(301, ""), Cause::Unreachable),
        (Answer::json("<html>"), Cause::NoAnswer),
        (Answer::json(r#"{"RetCode":0}"#), Cause::NoAnswer),
        (Answer::json(r#"{"RetCode":0,"UDiskId":["a","b"]}"#), Cause::NoAnswer),
        (Answer::refused(110), Cause::NoAnswer),
        (Answer::refused(130), Cause::NoAnswer),
        (Answer::refused(150), Cause::NoAnswer),
        (Answer::refused(17000), Cause::Refused),
        (Answer::refused(4711), Cause::Refused),
    ] {
        let bench = bench(vec![failure.clone()]);
        let error = bench.create(300).await.unwrap_err();
        assert_eq!((error.outcome, error.cause), (Outcome::Unknown, cause), "{failure:?}: {error}");
        assert_eq!((bench.sends(), error.attempts), (1, 1), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_certainly_was_not_taken_is_repeated() {
    for failure in [Answer::NotSent, Answer::refused(153), Answer::status(429, "")] {
        let bench = bench(vec![failure.clone(), Answer::json(CREATED)]);
        assert_eq!(bench.create(120).await.unwrap(), disk_id(), "{failure:?}");
        assert_eq!(bench.sends(), 2, "{failure:?}");
    }
    for code in [17005, 17041, 17056, 17067, 17218, 299] {
        let bench = bench(vec![Answer::refused(code)]);
        let error = bench.create(120).await.unwrap_err();
        assert!(error.nothing_happened(), "{error}");
        assert_eq!(bench.sends(), 1, "waiting for a busy disk is for the caller: {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_tells_all_that_is_needed_to_follow_it_up() {
    let bench = bench(vec![Answer::refused(17055)]);
    let attachment = Attachment {
        disk: disk_id(),
        host: HostId::parse("uhost-1").unwrap(),
        zone: zone(),
        multi_attach: Some(false),
        cross_pod: false,
    };
    let error = bench.client.call(&AttachUDisk { attachment: &attachment }, within(10)).await.unwrap_err();
    assert_eq!((error.ret_code, error.request_id.as_deref()), (Some(17055), Some("req-1")));
    let text = error.to_string();
    for part in ["AttachUDisk failed with RetCode 17055", "said 17055", "26", "[request req-1]"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_disk_is_gone_and_a_failed_read_is_not() {
    let bench_ = bench(vec![Answer::refused(17041)]);
    assert_eq!(bench_.read(10).await.unwrap(), None);
    for body in [
        r#"{"RetCode":0}"#,
        r#"{"RetCode":0,"DataSet":null}"#,
        r#"{"RetCode":0,"TotalCount":1,"DataSet":[]}"#,
    ] {
        let bench = bench(vec![Answer::json(body)]);
        let error = bench.read(10).await.unwrap_err();
        assert_eq!(error.cause, Cause::NoAnswer, "{body}");
    }
    // Under a gateway's own error status, the number proves nothing.
    let bench = bench(vec![Answer::status(404, r#"{"RetCode":17041,"Message":"x"}"#)]);
    assert!(bench.read(10).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn reads_give_up_after_four_sends_and_share_a_budget() {
    let bench = bench(vec![Answer::Lost; 200]);
    let error = bench.read(600).await.unwrap_err();
    assert_eq!((bench.sends(), error.attempts), (4, 4));
    for _ in 0..50 {
        let _ = bench.read(600).await;
    }
    // 51 requests and the 20 retries that a full budget pays for.
    assert_eq!(bench.sends(), 71);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_given_up_after_its_time_and_a_change_later() {
    let bench_ = bench(vec![Answer::Hang, Answer::json(GONE)]);
    let start = Instant::now();
    bench_.read(600).await.unwrap();
    let sent = bench_.script.requests();
    assert!(sent[1].at - start >= Duration::from_secs(30) && sent[1].at - start < Duration::from_secs(31));

    // The API itself says 110 after 60 s, which is better to know than nothing.
    let bench = bench(vec![Answer::refused(110).after(Duration::from_secs(60))]);
    assert_eq!(bench.create(600).await.unwrap_err().ret_code, Some(110));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_begins_and_never_ends_is_named() {
    let error = bench(vec![Answer::Endless("req-1")]).create(600).await.unwrap_err();
    assert_eq!(error.request_id.as_deref(), Some("req-1"), "{error}");
    assert_eq!(error.outcome, Outcome::Unknown, "{error}");
}

#[tokio::test(start_paused = true)]
async fn nothing_lasts_longer_than_the_deadline() {
    let outage = [Answer::Hang, Answer::NotSent, Answer::refused(153), Answer::refused(110)];
    for failure in outage {
        let bench = bench(vec![failure.clone(); 100]);
        for seconds in [0, 1, 5] {
            let start = Instant::now();
            assert!(bench.read(seconds).await.is_err(), "{failure:?}");
            assert!(start.elapsed() <= Duration::from_secs(seconds), "{failure:?} {seconds}");
            let start = Instant::now();
            assert!(bench.create(seconds).await.is_err(), "{failure:?}");
            assert!(start.elapsed() <= Duration::from_secs(seconds), "{failure:?} {seconds}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_is_not_sent() {
    let bench = bench(vec![]);
    let error = bench.create(0).await.unwrap_err();
    assert!(error.nothing_happened() && error.attempts == 0, "{error}");
    assert_eq!(bench.sends(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_not_sent_when_its_answer_could_not_be_awaited() {
    let throttled = || bench(vec![Answer::refused(153), Answer::json(CREATED)]);
    let soon = Instant::now() + TIME_FOR_ANSWER + Duration::from_millis(150);
    let bench = throttled();
    let error = bench.client.call(&CreateUDisk { disk: &new_disk() }, soon).await.unwrap_err();
    assert!(error.nothing_happened() && bench.sends() == 1, "{error}");
    // With a little more there is time for both.
    let bench = throttled();
    let later = Instant::now() + TIME_FOR_ANSWER + Duration::from_millis(500);
    assert!(bench.client.call(&CreateUDisk { disk: &new_disk() }, later).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_stopped_reads_and_changes_nothing() {
    let throttled = Answer::refused(153).after(Duration::from_secs(2));
    let bench = bench(vec![throttled, Answer::json(DISK)]);
    let stop = CancellationToken::new();
    let client = bench.client.stopped_by(stop.clone());
    let new = new_disk();
    let create = CreateUDisk { disk: &new };
    let (created, ()) = tokio::join!(client.call(&create, within(60)), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    });
    let error = created.unwrap_err();
    assert_eq!((error.cause, error.outcome), (Cause::Unreachable, Outcome::NothingHappened), "{error}");
    assert_eq!(error.attempts, 1, "what was refused before is not sent again");
    let id = disk_id();
    assert!(client.call(&DescribeUDisk { id: &id }, within(60)).await.unwrap().is_some());
    assert_eq!(bench.script.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_long_throttling_ends_as_throttled_and_certain() {
    let bench = bench(vec![Answer::refused(153); 100]);
    let error = bench.create(20).await.unwrap_err();
    assert_eq!(
        (error.cause, error.outcome, error.ret_code),
        (Cause::Throttled, Outcome::NothingHappened, Some(153))
    );
    let sends = bench.sends();
    assert!((3..12).contains(&sends), "probing slows down: {sends}");
}

#[tokio::test(start_paused = true)]
async fn while_throttled_one_request_probes_and_a_change_goes_before_reads() {
    let answers = vec![
        Answer::refused(153),
        Answer::json(CREATED).after(Duration::from_secs(1)),
        Answer::json(GONE),
        Answer::json(GONE),
    ];
    let Bench { client, script, .. } = bench(answers);
    let client = Arc::new(client);
    let read = |client: Arc<Client<Scripted>>| async move {
        client.call(&DescribeUDisk { id: &disk_id() }, within(60)).await.map(|_| ())
    };
    let first = tokio::spawn(read(Arc::clone(&client)));
    while script.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(read(Arc::clone(&client)));
    let create = {
        let client = Arc::clone(&client);
        tokio::spawn(
            async move { client.call(&CreateUDisk { disk: &new_disk() }, within(60)).await.map(|_| ()) },
        )
    };
    for task in [first, second, create] {
        task.await.unwrap().unwrap();
    }
    let sent = script.requests();
    let actions: Vec<_> = sent.iter().map(|sent| sent.param("Action").unwrap().to_owned()).collect();
    assert_eq!(actions, ["DescribeUDisk", "CreateUDisk", "DescribeUDisk", "DescribeUDisk"]);
    assert!(sent[2].at - sent[1].at >= Duration::from_secs(1), "nobody goes beside the prober");
}

fn temporary(key: &str) -> Answer {
    Answer::json(&format!(
        r#"{{"RetCode":0,"Data":{{"Expiration":32503680000,"PublicKey":"{key}","PrivateKey":"p","SecurityToken":"token-{key}","ProjectID":"org-sts"}}}}"#
    ))
}

fn with_sts(keys: Vec<Answer>) -> (CredentialSource<Scripted>, Scripted) {
    let script = Scripted::new(keys);
    let metadata = Metadata::new(script.clone(), Url::parse("http://meta.test").unwrap());
    (CredentialSource::sts(metadata, Roles::of_uk8s()), script)
}

#[tokio::test(start_paused = true)]
async fn an_unknown_temporary_key_is_replaced_once() {
    let (source, metadata) = with_sts(vec![temporary("one"), temporary("two")]);
    let bench = bench_with(vec![Answer::refused(174), Answer::json(CREATED)], source);
    bench.create(60).await.unwrap();
    let tokens: Vec<_> =
        bench.script.requests().iter().map(|sent| sent.param("SecurityToken").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["token-one", "token-two"]);
    assert_eq!(metadata.requests().len(), 2);

    let (source, _) = with_sts(vec![temporary("one"), temporary("two")]);
    let bench = bench_with(vec![Answer::refused(174); 5], source);
    let error = bench.create(60).await.unwrap_err();
    assert_eq!((bench.sends(), error.cause), (2, Cause::Credentials));
}

#[tokio::test(start_paused = true)]
async fn lasting_keys_that_are_rejected_are_not_tried_again() {
    let bench = bench(vec![Answer::refused(174)]);
    assert_eq!(bench.create(60).await.unwrap_err().cause, Cause::Credentials);
    assert_eq!(bench.sends(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_keys_nothing_is_sent_and_the_error_says_what_to_do() {
    let (source, _) = with_sts(vec![Answer::NotSent; 10]);
    let bench = bench_with(vec![], source);
    let error = bench.create(60).await.unwrap_err();
    assert_eq!(
        (error.cause, error.outcome, bench.sends()),
        (Cause::Credentials, Outcome::NothingHappened, 0)
    );
    assert!(error.to_string().contains("--metadata-endpoint"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_error_and_no_debug_print_holds_a_secret() {
    let bench = bench(vec![]);
    let text = format!("{:?}", bench.client);
    assert!(!text.contains("hunter2"), "{text}");
    let (request, signature) = bench.client.request(&DescribeUDisk { id: &disk_id() }, &keys());
    assert!(request.body.contains("public-hunter2") && request.body.contains(&signature));
    assert!(!request.body.contains("private-hunter2"));
    let text = format!("{request:?}");
    assert!(!text.contains("hunter2") && !text.contains(&signature), "{text}");

    // A cloud that quotes the request in its error, as some gateways do.
    let quoting = format!(r#"{{"RetCode":171,"Message":"VerifyAC Error of public-hunter2 {signature}"}}"#);
    let bench = self::bench(vec![Answer::json(&quoting), Answer::status(404, "echo public-hunter2")]);
    for _ in 0..2 {
        let error = bench.read(10).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2") && !text.contains(&signature), "{text}");
    }
}

fn ucloud(answers: Vec<Answer>) -> (UCloud<Scripted>, Scripted) {
    let script = Scripted::new(answers);
    let Common { endpoint, region, project_id, read_timeout, .. } = common();
    let config = UCloudConfig { endpoint, region, project_id, vpc_id: Some("uvnet-1".into()), read_timeout };
    (UCloud::new(config, script.clone(), CredentialSource::keys(keys())), script)
}

#[tokio::test(start_paused = true)]
async fn each_operation_is_its_action() {
    let hosts = r#"{"RetCode":0,"TotalCount":0,"UHostSet":[],"PHostSet":[]}"#;
    let answers = [GONE, GONE, CREATED, DONE, DONE, DONE, DONE, DONE, DONE, hosts, hosts, hosts, hosts];
    let (cloud, script) = ucloud(answers.map(Answer::json).to_vec());
    let (disk, zone, size, soon) = (disk_id(), zone(), Gib::new(30), within(60));
    let (vm, metal) = (HostId::parse("uhost-1").unwrap(), HostId::parse("upm-1").unwrap());
    let attachment = Attachment {
        disk: disk.clone(),
        host: vm.clone(),
        zone: zone.clone(),
        multi_attach: None,
        cross_pod: false,
    };
    assert_eq!(cloud.disk(&disk, soon).await.unwrap(), None);
    assert_eq!(cloud.disks(&Default::default(), 0, 10, soon).await.unwrap().total, 0);
    assert_eq!(cloud.create_disk(&new_disk(), soon).await.unwrap(), disk);
    cloud.delete_disk(&zone, &disk, soon).await.unwrap();
    cloud.attach_disk(&attachment, soon).await.unwrap();
    cloud.detach_disk(&zone, &disk, &vm, soon).await.unwrap();
    cloud.resize_detached_disk(&zone, &disk, size, soon).await.unwrap();
    cloud.resize_attached_disk(&zone, &disk, &vm, size, soon).await.unwrap();
    cloud.resize_attached_disk(&zone, &disk, &metal, size, soon).await.unwrap();
    assert_eq!(cloud.host(&vm, soon).await.unwrap(), None);
    assert_eq!(cloud.host(&metal, soon).await.unwrap(), None);
    assert_eq!(cloud.virtual_hosts(0, 10, soon).await.unwrap().total, 0);
    assert_eq!(cloud.bare_metal_hosts(0, 10, soon).await.unwrap().total, 0);

    let sent = script.requests();
    let actions: Vec<_> = sent.iter().map(|sent| sent.param("Action").unwrap()).collect();
    assert_eq!(
        actions,
        [
            "DescribeUDisk",
            "DescribeUDisk",
            "CreateUDisk",
            "DeleteUDisk",
            "AttachUDisk",
            "DetachUDisk",
            "ResizeUDisk",
            "ResizeAttachedDisk",
            "ResizePHostAttachedDisk",
            "DescribeUHostInstance",
            "DescribePHost",
            "DescribeUHostInstance",
            "DescribePHost",
        ]
    );
    assert!(sent.iter().all(|sent| sent.param("Region") == Some("cn-bj2")));
    assert!(sent[11..].iter().all(|sent| sent.param("VPCId") == Some("uvnet-1")));
}
