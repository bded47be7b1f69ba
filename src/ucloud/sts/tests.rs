use proptest::prelude::*;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::super::decode::tests::any_json;
use super::super::testing::{Answer, Scripted};
use super::*;

const HOUR: u64 = 3600;

fn v1(key: &str, lives: u64) -> Answer {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + lives;
    Answer::json(&format!(
        r#"{{"RetCode":0,"Data":{{"Expiration":{expires},"PublicKey":"{key}","PrivateKey":"private","SecurityToken":"token","ProjectID":"org-1"}}}}"#
    ))
}

fn refused() -> Answer {
    Answer::json(r#"{"RetCode":161,"Message":"Role not found"}"#)
}

fn sts(answers: Vec<Answer>) -> (Arc<Sts<Scripted>>, Scripted) {
    let transport = Scripted::new(answers);
    let metadata = Metadata::new(transport.clone(), Url::parse("http://meta.test").unwrap());
    (Arc::new(Sts::new(metadata, Roles::of_uk8s())), transport)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn key(sts: &Sts<Scripted>) -> Result<String, CredentialError> {
    sts.current(soon()).await.map(|found| found.public_key.expose_secret().to_owned())
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_and_renewed_before_they_expire() {
    let (sts, transport) = sts(vec![v1("one", HOUR), v1("two", HOUR)]);
    assert_eq!(key(&sts).await.unwrap(), "one");
    pass(HOUR - 400).await;
    assert_eq!(key(&sts).await.unwrap(), "one");
    assert_eq!(transport.requests().len(), 1);
    pass(110).await;
    assert_eq!(key(&sts).await.unwrap(), "two");
    let first = &transport.requests()[0];
    assert_eq!(first.url.path(), "/meta-data/v1/uam/security-credentials/Uk8sServiceCharacter");
}

#[tokio::test(start_paused = true)]
async fn many_that_need_keys_at_once_fetch_them_once() {
    let (sts, transport) = sts(vec![v1("one", HOUR).after(Duration::from_secs(1)), v1("two", HOUR)]);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let sts = Arc::clone(&sts);
            tokio::spawn(async move { key(&sts).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "one");
    }
    assert_eq!(transport.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn good_keys_serve_on_while_they_are_renewed_and_when_that_fails() {
    let mut answers = vec![v1("one", HOUR)];
    answers.extend(vec![Answer::Hang; 10]);
    let (sts, _) = sts(answers);
    key(&sts).await.unwrap();
    pass(HOUR - 200).await;
    let renewing = {
        let sts = Arc::clone(&sts);
        tokio::spawn(async move { key(&sts).await })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    assert_eq!(key(&sts).await.unwrap(), "one");
    assert_eq!(start.elapsed(), Duration::ZERO, "others do not wait for the renewal");
    assert_eq!(renewing.await.unwrap().unwrap(), "one");
    assert!(start.elapsed() <= PATIENCE);
    // The next try comes after a pause.
    let start = Instant::now();
    assert_eq!(key(&sts).await.unwrap(), "one");
    assert_eq!(start.elapsed(), Duration::ZERO);
    pass(300).await;
    assert!(
        matches!(key(&sts).await.unwrap_err(), CredentialError::Metadata(_)),
        "expired keys are not used"
    );
}

#[tokio::test(start_paused = true)]
async fn the_second_version_is_asked_when_the_first_has_no_role() {
    let v2 = r#"{"RetCode":0,"Data":{"AccessKeyId":"id","AccessKeySecret":"s","SecurityToken":"t","Expiration":"2999-01-01T00:00:00Z"}}"#;
    let (sts, transport) = sts(vec![refused(), Answer::json(v2), Answer::json(v2)]);
    assert_eq!(key(&sts).await.unwrap(), "id");
    let credentials = sts.current(soon()).await.unwrap();
    sts.reject(&credentials);
    assert_eq!(key(&sts).await.unwrap(), "id");
    let paths: Vec<_> = transport.requests().iter().map(|request| request.url.path().to_owned()).collect();
    let second = "/meta-data/v2/iam/security-credentials/ServiceRoleForUK8S";
    assert_eq!(paths[1..], [second, second], "the version that worked is asked first from then on");
}

#[tokio::test(start_paused = true)]
async fn without_any_role_the_error_names_both() {
    let (sts, _) = sts(vec![refused(), Answer::status(404, "")]);
    let text = key(&sts).await.unwrap_err().to_string();
    assert!(text.contains("Uk8sServiceCharacter") && text.contains("ServiceRoleForUK8S"), "{text}");
    assert!(text.contains("Role not found") && text.contains("404"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn only_the_rejected_keys_are_forgotten() {
    let (sts, transport) = sts(vec![v1("one", HOUR), v1("two", HOUR), v1("three", HOUR)]);
    let one = sts.current(soon()).await.unwrap();
    sts.reject(&one);
    assert_eq!(key(&sts).await.unwrap(), "two");
    sts.reject(&one);
    assert_eq!(key(&sts).await.unwrap(), "two");
    assert_eq!(transport.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn unusable_answers_are_errors_that_quote_no_key() {
    for data in [
        r#"{"PublicKey":"hunter2","PrivateKey":"hunter2","SecurityToken":"hunter2"}"#,
        r#"{"PublicKey":"hunter2","PrivateKey":"","SecurityToken":"hunter2","Expiration":1}"#,
        r#"{"PublicKey":"hunter2","PrivateKey":"hunter2","Expiration":"tomorrow","SecurityToken":"hunter2"}"#,
        "[]",
    ] {
        let (sts, _) = sts(vec![Answer::json(&format!(r#"{{"RetCode":0,"Data":{data}}}"#))]);
        let error = key(&sts).await.unwrap_err();
        assert!(!format!("{error} {error:?} {sts:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_wrong_clock_does_not_stop_the_driver() {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let hour = Duration::from_secs(HOUR);
    let good = Life::of(now + hour, now);
    assert_eq!(good.renew_after, hour - RENEW_AHEAD);
    assert_eq!(Life::of(now + Duration::from_secs(100), now).renew_after, Duration::from_secs(50));
    for expired in [now, now - hour, now + Duration::from_secs(5)] {
        let life = Life::of(expired, now);
        assert!(life.wrong_clock && life.valid_for == WRONG_CLOCK_LIFE, "{life:?}");
    }
}

#[test]
fn moments_are_read() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:34:56Z", Some(951_827_696)),
        ("2026-08-21T10:00:00+08:00", Some(1_787_277_600)),
        ("2026-08-21T02:00:00.123456Z", Some(1_787_277_600)),
        ("2026-08-20T21:30:00-04:30", Some(1_787_277_600)),
        ("2026-13-01T00:00:00Z", None),
        ("2026-08-21T10:00:00", None),
        ("2026-08-21", None),
        ("", None),
    ] {
        assert_eq!(unix_seconds(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn damaged_keys_are_refused_in_words_without_them(
        members in prop::collection::btree_map(
            prop::sample::select(vec!["PublicKey", "PrivateKey", "SecurityToken", "Expiration", "ProjectID"]),
            prop_oneof![3 => Just(json!("hunter2")), 1 => any_json()],
            0..6,
        )
    ) {
        let data: Map<String, Value> = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let whole = ["PublicKey", "PrivateKey", "SecurityToken"]
            .iter()
            .all(|name| data.get(*name).and_then(Value::as_str).is_some_and(|text| !text.is_empty()));
        match parse_v1(&data) {
            Ok((credentials, _)) => {
                prop_assert!(whole && data.contains_key("Expiration"), "{data:?}");
                let printed = format!("{credentials:?}");
                prop_assert!(!printed.contains("hunter2"), "{}", printed);
            }
            Err(problem) => prop_assert!(!problem.contains("hunter2"), "{problem}"),
        }
        prop_assert!(parse_v2(&data).is_err());
    }

    #[test]
    fn any_text_is_survived(text in ".{0,40}", digits in "[0-9T:Z+ -]{0,30}") {
        let _ = unix_seconds(&text);
        let _ = unix_seconds(&digits);
    }
}
