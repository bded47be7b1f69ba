//! The metadata service of each host, at `/_metadata/<host>/` instead of an address of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SimCloud;
use super::api::disk_type_of_hosts;
use super::model::{Device, Host, World};
use super::request::{Answer, Request, Response};

/// How the metadata services of all hosts are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataMode {
    /// Before every answer.
    #[serde(with = "super::model::seconds")]
    pub delay: Duration,
    /// Connections break, as where there is no such service.
    pub absent: bool,
    /// Only credentials are refused, with HTTP 500.
    pub no_credentials: bool,
}

impl SimCloud {
    pub(super) async fn metadata(&self, request: &Request) -> Answer {
        let mode = self.state().metadata;
        tokio::time::sleep(mode.delay).await;
        if mode.absent {
            return Answer::Reset;
        }
        let rest = request.path.strip_prefix("/_metadata/").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let response = match path {
            "user-data" | "vendor-data" => Some(text("")),
            _ => self.metadata_of(host, path, request, mode),
        };
        Answer::Response(response.unwrap_or_else(|| Response::new(404, "text/plain", "not found")))
    }

    fn metadata_of(&self, host: &str, path: &str, request: &Request, mode: MetadataMode) -> Option<Response> {
        let path = path.strip_prefix("meta-data/")?;
        if let Some(role) = path.strip_prefix("v1/uam/security-credentials/") {
            return self.credentials(host, role, None, mode);
        }
        if let Some(role) = path.strip_prefix("v2/iam/security-credentials/") {
            let wanted = request.header("Duration-Seconds").unwrap_or("3600").parse::<u64>();
            return match wanted {
                Ok(seconds @ 900..=3600) => self.credentials(host, role, Some(seconds), mode),
                Ok(_) | Err(_) => {
                    let refused =
                        json!({ "RetCode": 230, "Message": "Params [Duration-Seconds] not available" });
                    Some(Response::json(200, &refused))
                }
            };
        }
        let state = self.state();
        let document = document(state.world.host(host)?, &state.world, &self.inner.region);
        if path == "v1.json" {
            return Some(Response::json(200, &document));
        }
        let below = path.strip_prefix("v1").or_else(|| path.strip_prefix("latest"))?;
        let mut found = &document;
        for step in below.split('/').filter(|step| !step.is_empty()) {
            found = match found.as_array() {
                Some(items) => items.get(step.parse::<usize>().ok()?)?,
                None => found.get(step)?,
            };
        }
        Some(text(&show(found)))
    }

    /// The two versions differ in the spelling of every field. Only the second lets the caller choose `seconds`.
    fn credentials(
        &self,
        host: &str,
        role: &str,
        seconds: Option<u64>,
        mode: MetadataMode,
    ) -> Option<Response> {
        let mut state = self.state();
        let now = state.world.now();
        let spec = state.world.host(host)?.spec.clone();
        if mode.no_credentials {
            return Some(Response::new(500, "text/plain", "internal error"));
        }
        let Some(session) = state.sessions.begin(role, seconds.map(Duration::from_secs), now) else {
            return Some(Response::json(200, &json!({ "RetCode": 161, "Message": "Role not found" })));
        };
        let ends = self.inner.epoch + session.ends.as_secs();
        let (virtual_id, bare_id) = if spec.bare_metal() { ("", host) } else { (host, "") };
        let data = match seconds {
            None => json!({
                "Expiration": ends,
                "PublicKey": session.key.public,
                "PrivateKey": session.key.private,
                "SecurityToken": session.token,
                "ProjectID": spec.project,
                "CharacterName": role,
                "UHostID": virtual_id,
                "UPHostId": bare_id,
            }),
            Some(_) => json!({
                "Expiration": rfc3339(ends),
                "AccessKeyId": session.key.public,
                "AccessKeySecret": session.key.private,
                "SecurityToken": session.token,
                "ProjectID": spec.project,
                "CharacterName": role,
                "HostID": host,
                "UHostID": virtual_id,
                "UPHostId": bare_id,
            }),
        };
        Some(Response::json(200, &json!({ "RetCode": 0, "Message": "", "Data": data })))
    }
}

fn text(body: &str) -> Response {
    Response::new(200, "text/plain", body)
}

/// A leaf as text, anything else as the names below it, one a line.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => members.keys().cloned().collect::<Vec<_>>().join("\n"),
        Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect::<Vec<_>>().join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn document(host: &Host, world: &World, region: &str) -> Value {
    let spec = &host.spec;
    let mut document = json!({
        "availability-zone": spec.zone,
        "cloud-name": "ucloud",
        "instance-id": spec.id,
        "local-hostname": spec.ip.replace('.', "-"),
        "platform": "ucloud",
        "public-ssh-keys": "",
        "region": region,
        "network-config": {},
    });
    let disks = std::iter::once((Device::SYSTEM, &host.system_disk))
        .chain(host.disks.iter().map(|(device, id)| (*device, id)))
        .filter_map(|(device, id)| Some((device, world.disk(id)?)));
    let (key, own) = if spec.bare_metal() {
        let disks: Vec<_> = disks
            .map(|(_, disk)| json!({ "name": disk.name, "space": disk.size.get(), "type": "CloudDisk" }))
            .collect();
        let own = json!({
            "phost-id": spec.id,
            "phost-type": spec.machine_type,
            "project-id": spec.project,
            "region": region,
            "zone": spec.zone,
            "name": spec.name,
            "remark": "",
            "tag": "Default",
            "cpu": 64,
            "memory": 262_144,
            "os-name": "Ubuntu 22.04 64",
            "disks": disks,
            "network-interfaces": [],
        });
        ("uphost", own)
    } else {
        let disks: Vec<_> = disks
            .map(|(device, disk)| {
                json!({
                    "disk-id": disk.id,
                    "name": disk.name,
                    "is-boot": disk.boot,
                    "disk-type": disk_type_of_hosts(disk.kind),
                    "size": disk.size.get(),
                    "drive": device.to_string(),
                    "encrypted": disk.key.is_some(),
                    "backup-type": "NONE",
                })
            })
            .collect();
        let own = json!({
            "project-id": spec.project,
            "region": region,
            "zone": spec.zone,
            "uhost-id": spec.id,
            "name": spec.name,
            "remark": "",
            "tag": "Default",
            "image-id": "uimage-sandbox",
            "os-name": "Ubuntu 22.04 64",
            "machine-type": spec.machine_type,
            "cpu": 4,
            "memory": 8192,
            "gpu": 0,
            "isolation-group": "",
            "net-capability": "Normal",
            "hotplug": false,
            "disks": disks,
            "network-interfaces": [{
                "vpc-id": "uvnet-sandbox",
                "subnet-id": "subnet-sandbox",
                "mac": "52:54:00:00:00:01",
                "id": "uni-sandbox",
                "default": true,
                "ips": [{ "ip-id": "", "ip-address": spec.ip, "type": "Private", "bandwidth": 0 }],
            }],
        });
        ("uhost", own)
    };
    document[key] = own;
    document
}

/// A Unix time as `2026-01-31T12:00:00Z`.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of the year 0 in eras of 400 years, which puts leap days last (the well-known
    // algorithm of Howard Hinnant).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cloud::{Role, SimConfig};

    async fn get(cloud: &SimCloud, path: &str) -> Option<Response> {
        cloud.handle(Request::get(&format!("/_metadata/{path}"))).await.response()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_248_001), "2026-11-21T08:00:01Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_learns_who_it_is() {
        let cloud = SimCloud::new(SimConfig::default());
        let body = async |path: &str| String::from_utf8(get(&cloud, path).await.unwrap().body).unwrap();
        assert_eq!(body("uhost-a/meta-data/v1/instance-id").await, "uhost-a");
        assert_eq!(
            body("uhost-b/meta-data/latest/uhost/network-interfaces/0/ips/0/ip-address").await,
            "10.9.0.12"
        );
        assert!(body("uhost-a/meta-data/v1/uhost").await.lines().any(|line| line == "machine-type"));
        let document: Value = serde_json::from_str(&body("uhost-a/meta-data/v1.json").await).unwrap();
        assert_eq!(document["availability-zone"], "cn-sh2-02");
        assert_eq!(document["uhost"]["disks"][0]["drive"], "vda");
        assert_eq!(get(&cloud, "uhost-z/meta-data/v1.json").await.unwrap().status, 404);
        cloud.set_metadata(MetadataMode { absent: true, ..MetadataMode::default() });
        assert_eq!(get(&cloud, "uhost-a/meta-data/v1.json").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_end() {
        let role = Role { lasts: Duration::from_secs(60), ..Role::new("Uk8sServiceCharacter") };
        let cloud = SimCloud::new(SimConfig { roles: vec![role], ..SimConfig::default() });
        let path = "uhost-a/meta-data/v1/uam/security-credentials/Uk8sServiceCharacter";
        let answer: Value = serde_json::from_slice(&get(&cloud, path).await.unwrap().body).unwrap();
        let data = &answer["Data"];
        let mut params = [("Action", "DescribeUDisk"), ("Region", "cn-sh2")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect::<std::collections::BTreeMap<_, _>>();
        params.insert("PublicKey".to_owned(), data["PublicKey"].clone());
        params.insert("SecurityToken".to_owned(), data["SecurityToken"].clone());
        let signature = super::super::signature::sign(&params, data["PrivateKey"].as_str().unwrap());
        params.insert("Signature".to_owned(), json!(signature));
        let query: Vec<_> =
            params.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
        let request = Request::get(&format!("/?{}", query.join("&")));
        let code = async || {
            let response = cloud.handle(request.clone()).await.response().unwrap();
            serde_json::from_slice::<Value>(&response.body).unwrap()["RetCode"].as_i64().unwrap()
        };
        assert_eq!(code().await, 0);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(code().await, 174);
        let unknown = get(&cloud, "uhost-a/meta-data/v1/uam/security-credentials/Nobody").await.unwrap();
        assert!(String::from_utf8(unknown.body).unwrap().contains("161"));
    }
}
