//! The metadata service of the host: who this host is, and temporary keys for it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::envelope::{self, Reply, printable};
use super::retry::{Facts, left};
use super::transport::{HttpRequest, HttpResponse, Method, Transport};
use crate::cloud::Deadline;
use crate::limit::Backoff;
use crate::volume::{HostId, Zone};

/// Where every host of the cloud finds it.
pub const DEFAULT_ENDPOINT: &str = "http://100.80.80.80";

/// It answers from the hypervisor in milliseconds; an answer that takes longer is lost.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Together with the pauses between them, about five seconds of an absent service that refuses connections.
const MAX_ATTEMPTS: u32 = 5;

const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(200), Duration::from_secs(2)) {
    Ok(backoff) => backoff,
    Err(_) => unreachable!(),
};

/// What the metadata service says about the host. What it does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instance {
    pub id: Option<HostId>,
    pub region: Option<String>,
    pub zone: Option<Zone>,
    /// Of a virtual machine its machine type (`O`, `N`…), of a bare-metal host its class.
    pub machine_type: Option<String>,
    pub project_id: Option<String>,
    /// Of the default network interface.
    pub vpc_id: Option<String>,
    pub private_ips: Vec<IpAddr>,
}

/// Why the metadata service was of no help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetadataError {
    #[error("no answer from the metadata service for {what} after {attempts} attempts: {problem}")]
    NoAnswer { what: &'static str, attempts: u32, problem: String },
    #[error("the metadata service has no {what}: {problem}")]
    Refused { what: &'static str, problem: String },
    #[error("the metadata service's answer for {what} cannot be used: {problem}")]
    Malformed { what: &'static str, problem: String },
}

/// The client of the metadata service.
#[derive(Debug)]
pub struct Metadata<T> {
    transport: T,
    base: Url,
    rng: Mutex<fastrand::Rng>,
}

impl<T: Transport> Metadata<T> {
    pub fn new(transport: T, base: Url) -> Self {
        Self { transport, base, rng: Mutex::new(fastrand::Rng::new()) }
    }

    /// Asks who this host is. Ends by `deadline`.
    pub async fn instance(&self, deadline: Deadline) -> Result<Instance, MetadataError> {
        const WHAT: &str = "description of this host";
        let response = self.get(WHAT, &["meta-data", "v1.json"], Facts::READ, deadline).await?;
        let malformed = |problem| MetadataError::Malformed { what: WHAT, problem };
        match serde_json::from_slice(&response.body) {
            Ok(Value::Object(document)) => instance(&document).map_err(malformed),
            Ok(_) => Err(malformed("it is not a JSON object".to_owned())),
            Err(error) => Err(malformed(format!("it is not JSON ({error})"))),
        }
    }

    /// Asks for the `Data` of an answer with an envelope, which holds temporary keys.
    pub(super) async fn keys(
        &self,
        what: &'static str,
        path: &[&str],
        deadline: Deadline,
    ) -> Result<Map<String, Value>, MetadataError> {
        let response = self.get(what, path, Facts::READ_SECRET, deadline).await?;
        let malformed = |problem: String| MetadataError::Malformed { what, problem };
        match envelope::open(&response, None) {
            Reply::Done(mut body) => match body.remove("Data") {
                Some(Value::Object(data)) => Ok(data),
                _ => Err(malformed("it has no Data".to_owned())),
            },
            Reply::Refused { code, message, .. } => {
                Err(MetadataError::Refused { what, problem: format!("RetCode {code}, {message}") })
            }
            Reply::Strange(strange) => Err(malformed(strange.to_string())),
        }
    }

    async fn get(
        &self,
        what: &'static str,
        path: &[&str],
        facts: Facts,
        deadline: Deadline,
    ) -> Result<HttpResponse, MetadataError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let request = HttpRequest {
                method: Method::Get,
                url: url.clone(),
                headers: vec![("accept", "application/json".to_owned())],
                body: String::new(),
                answered_by: Arc::default(),
            };
            let limit = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
            let problem = match tokio::time::timeout_at(limit, self.transport.send(request)).await {
                Err(_) => "no answer in time".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(response)) => match response.status {
                    200..=299 => return Ok(response),
                    // It is there, and knows nothing of this.
                    status @ 300..=499 if !matches!(status, 408 | 425 | 429) => {
                        let quote = if facts.sensitive { String::new() } else { quote(&response.body) };
                        return Err(MetadataError::Refused {
                            what,
                            problem: format!("HTTP {status}{quote}"),
                        });
                    }
                    status => format!("HTTP {status}"),
                },
            };
            let delay = {
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                BACKOFF.delay(attempts - 1, &mut rng)
            };
            tracing::debug!(what, attempts, problem, "metadata service gave no answer");
            if attempts >= MAX_ATTEMPTS || left(deadline) <= delay {
                return Err(MetadataError::NoAnswer { what, attempts, problem });
            }
            tokio::time::sleep(delay).await;
        }
    }
}

fn quote(body: &[u8]) -> String {
    match printable(&String::from_utf8_lossy(body)) {
        text if text.is_empty() => text,
        text => format!(", {text:?}"),
    }
}

/// Reads the whole document. Wrong shapes are errors: a host id that is half understood would be written into the
/// cluster for good.
fn instance(document: &Map<String, Value>) -> Result<Instance, String> {
    // One of the two sections is there, by the kind of host.
    let empty = Map::new();
    let section = ["uhost", "uphost"]
        .iter()
        .find_map(|name| document.get(*name).and_then(Value::as_object))
        .unwrap_or(&empty);
    let either = |top: &str, names: &[&str]| match text(document, top)? {
        Some(text) => Ok(Some(text)),
        None => names.iter().find_map(|name| text(section, name).transpose()).transpose(),
    };
    let id = either("instance-id", &["uhost-id", "phost-id"])?;
    let zone = either("availability-zone", &["zone"])?;
    let region = either("region", &["region"])?;
    if let Some(region) = &region {
        // Its name has the form of a zone's.
        Zone::parse(region).map_err(|e| format!("region {region:?} {e}"))?;
    }
    let mut found = Instance {
        id: id.map(|id| HostId::parse(&id).map_err(|e| format!("instance-id {id:?} {e}"))).transpose()?,
        region,
        zone: zone.map(|zone| Zone::parse(&zone).map_err(|e| format!("zone {zone:?} {e}"))).transpose()?,
        machine_type: match text(section, "machine-type")? {
            Some(machine_type) => Some(machine_type),
            None => text(section, "phost-type")?,
        },
        project_id: text(section, "project-id")?,
        vpc_id: None,
        private_ips: Vec::new(),
    };
    let interfaces =
        section.get("network-interfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut interfaces: Vec<&Map<String, Value>> = interfaces.iter().filter_map(Value::as_object).collect();
    interfaces.sort_by_key(|interface| interface.get("default") != Some(&Value::Bool(true)));
    for interface in interfaces {
        if found.vpc_id.is_none() {
            found.vpc_id = text(interface, "vpc-id")?;
        }
        for address in interface.get("ips").and_then(Value::as_array).into_iter().flatten() {
            let word = |name: &str| address.get(name).and_then(Value::as_str);
            if word("type").is_some_and(|kind| kind.eq_ignore_ascii_case("private")) {
                found.private_ips.extend(word("ip-address").and_then(|ip| ip.parse::<IpAddr>().ok()));
            }
        }
    }
    Ok(found)
}

fn text(map: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::tests::any_json;
    use super::super::testing::{Answer, Scripted};
    use super::*;

    proptest! {
        #[test]
        fn a_damaged_description_never_says_more_than_it_holds(
            damages in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4)
        ) {
            const PLACES: [&str; 12] = [
                "/instance-id", "/region", "/availability-zone", "/uhost", "/uhost/uhost-id", "/uhost/zone",
                "/uhost/region", "/uhost/project-id", "/uhost/machine-type", "/uhost/network-interfaces",
                "/uhost/network-interfaces/0", "/uhost/network-interfaces/1/ips/0",
            ];
            let mut document: Value = serde_json::from_str(UHOST).unwrap();
            for (at, value) in damages {
                if let Some(place) = document.pointer_mut(PLACES[at.index(PLACES.len())]) {
                    *place = value;
                }
            }
            let text = document.to_string();
            let Value::Object(document) = document else { unreachable!() };
            let Ok(found) = instance(&document) else { return Ok(()) };
            let ips = found.private_ips.iter().map(ToString::to_string);
            let id = found.id.map(|id| id.as_str().to_owned());
            let zone = found.zone.map(|zone| zone.as_str().to_owned());
            for word in [id, zone, found.region].into_iter().flatten().chain(ips) {
                prop_assert!(text.contains(&format!("{word:?}")), "{word} is not in {text}");
            }
        }
    }

    const UHOST: &str = r#"{
        "availability-zone": "cn-bj2-05", "cloud-name": "ucloud", "instance-id": "uhost-abc", "region": "cn-bj2",
        "uhost": {
            "project-id": "org-1", "region": "cn-bj2", "zone": "cn-bj2-05", "uhost-id": "uhost-abc",
            "machine-type": "OM", "hotplug": true,
            "network-interfaces": [
                {"vpc-id": "uvnet-2", "default": false, "ips": [{"ip-address": "10.9.0.2", "type": "Private"}]},
                {"vpc-id": "uvnet-1", "default": true, "ips": [
                    {"ip-address": "10.9.0.1", "type": "Private"}, {"ip-address": "117.50.1.1", "type": "Bgp"}]}
            ]
        }}"#;

    fn metadata(answers: Vec<Answer>) -> (Metadata<Scripted>, Scripted) {
        let transport = Scripted::new(answers);
        (Metadata::new(transport.clone(), Url::parse("http://meta.test/base/").unwrap()), transport)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_machine_is_described() {
        let (metadata, transport) = metadata(vec![Answer::json(UHOST)]);
        let found = metadata.instance(soon()).await.unwrap();
        assert_eq!(
            found,
            Instance {
                id: Some(HostId::parse("uhost-abc").unwrap()),
                region: Some("cn-bj2".into()),
                zone: Some(Zone::parse("cn-bj2-05").unwrap()),
                machine_type: Some("OM".into()),
                project_id: Some("org-1".into()),
                vpc_id: Some("uvnet-1".into()),
                private_ips: vec!["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()],
            }
        );
        assert_eq!(transport.requests()[0].url.as_str(), "http://meta.test/base/meta-data/v1.json");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bare_metal_host_and_missing_fields_are_fine() {
        let body = r#"{"uphost": {"phost-id": "upm-1", "zone": "cn-sh2-02", "phost-type": "Cloud", "region": null}}"#;
        let (metadata, _) = metadata(vec![Answer::json(body), Answer::json("{}")]);
        let found = metadata.instance(soon()).await.unwrap();
        assert_eq!(found.id.unwrap().as_str(), "upm-1");
        assert_eq!(found.machine_type.as_deref(), Some("Cloud"));
        assert_eq!(found.region, None);
        assert_eq!(metadata.instance(soon()).await.unwrap(), Instance::default());
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_shapes_are_errors_and_name_the_field() {
        for (body, part) in [
            (r#"{"instance-id": 5}"#, "instance-id"),
            (r#"{"instance-id": "a/b"}"#, "instance-id"),
            (r#"{"availability-zone": ["x"]}"#, "availability-zone"),
            (r#"{"availability-zone": "a/b"}"#, "zone \"a/b\""),
            (r#"{"region": "cn\n-bj2"}"#, "region \"cn\\n-bj2\""),
            (r#"{"uhost": {"region": 2}}"#, "region"),
            ("[]", "JSON object"),
            ("<html>", "not JSON"),
        ] {
            let (metadata, _) = metadata(vec![Answer::json(body)]);
            let error = metadata.instance(soon()).await.unwrap_err();
            assert!(matches!(error, MetadataError::Malformed { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_service_is_tried_again_and_then_reported() {
        let (healed, transport) =
            metadata(vec![Answer::NotSent, Answer::Hang, Answer::status(503, ""), Answer::json(UHOST)]);
        assert!(healed.instance(soon()).await.is_ok());
        assert_eq!(transport.requests().len(), 4);

        let (absent, transport) = metadata(vec![Answer::NotSent; 20]);
        let start = Instant::now();
        let error = absent.instance(soon()).await.unwrap_err();
        assert!(matches!(error, MetadataError::NoAnswer { attempts: 5, .. }), "{error}");
        assert_eq!(transport.requests().len(), 5);
        assert!(start.elapsed() < Duration::from_secs(10));

        let (hanging, _) = metadata(vec![Answer::Hang; 20]);
        let start = Instant::now();
        assert!(hanging.instance(start + Duration::from_secs(2)).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(2), "never past the deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn a_no_is_final_and_keys_are_not_quoted() {
        let (plain, transport) = metadata(vec![Answer::status(404, "no such path")]);
        let error = plain.instance(soon()).await.unwrap_err();
        assert!(matches!(error, MetadataError::Refused { .. }) && error.to_string().contains("no such path"));
        assert_eq!(transport.requests().len(), 1);

        for answer in
            [Answer::status(404, "hunter2"), Answer::json("hunter2"), Answer::json(r#"{"k":"hunter2"}"#)]
        {
            let (metadata, _) = metadata(vec![answer]);
            let error = metadata.keys("keys", &["x"], soon()).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
