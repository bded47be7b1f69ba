//! Levers for other processes, below `/_sandbox/`. No part of the API; JSON in and out.
//!
//! | request | effect |
//! |---|---|
//! | `GET stats` | calls by action, the clock, how often each fault has struck |
//! | `POST reset-stats` | starts counting anew |
//! | `GET disks`, `GET hosts`, `GET journal` | the truth |
//! | `POST faults` with a [`Rule`] | makes calls go wrong; answers the rule's number |
//! | `DELETE faults` | ends all faults |
//! | `POST events` with an [`Event`] | something happens at the console |
//! | `POST hosts` with a [`HostSpec`] | adds a host |
//! | `DELETE hosts/<id>` | deletes one |
//! | `POST disks` with `name` and `count` | fills the account with disks of 10 GiB whose names begin so |
//! | `POST latencies`, `lags`, `limits`, `quirks`, `metadata` | replaces them; what is left out gets its default |

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::SimCloud;
use super::model::{Device, Disk, Event, Host, HostSpec};
use super::request::{Request, Response};
use crate::volume::Gib;

impl SimCloud {
    pub(super) async fn control(&self, request: &Request) -> Response {
        match self.pull(request).await {
            Ok(value) => Response::json(200, &value),
            Err(refused) => Response::json(refused.0, &json!({ "error": refused.1 })),
        }
    }

    async fn pull(&self, request: &Request) -> Result<Value, Refused> {
        let path = request.path.strip_prefix("/_sandbox/").unwrap_or_default();
        match (request.method.as_str(), path) {
            ("GET", "stats") => {
                let struck: Vec<_> = self
                    .struck()
                    .into_iter()
                    .map(|(rule, times)| json!({ "rule": rule, "times": times }))
                    .collect();
                Ok(json!({
                    "counts": self.counts(),
                    "uptime_seconds": self.now().as_secs_f64(),
                    "faults": struck,
                }))
            }
            ("POST", "reset-stats") => {
                self.reset_counts();
                Ok(json!({}))
            }
            ("GET", "disks") => Ok(self.disks().iter().map(disk).collect()),
            ("POST", "disks") => {
                let Crowd { name, count } = body(request)?;
                for number in 0..count {
                    let made = self.create_disk(&format!("{name}{number}"), Gib::new(10)).await;
                    made.map_err(|refusal| Refused(409, refusal.to_string()))?;
                }
                Ok(json!({}))
            }
            ("GET", "hosts") => Ok(self.hosts().iter().map(host).collect()),
            ("GET", "journal") => {
                serde_json::to_value(self.journal()).map_err(|error| Refused(500, error.to_string()))
            }
            ("POST", "faults") => Ok(json!({ "rule": self.add_fault(body(request)?) })),
            ("DELETE", "faults") => {
                self.clear_faults();
                Ok(json!({}))
            }
            ("POST", "events") => self.let_happen(body(request)?).await,
            ("POST", "hosts") => {
                let spec: HostSpec = body(request)?;
                if spec.id.is_empty() {
                    return Err(Refused(400, "a host needs an id".to_owned()));
                }
                self.add_host(spec).await;
                Ok(json!({}))
            }
            ("DELETE", path) if path.starts_with("hosts/") => {
                let host = path.trim_start_matches("hosts/").to_owned();
                self.let_happen(Event::DeleteHost { host }).await
            }
            ("POST", "latencies") => {
                let latencies = body(request)?;
                self.change_rules(|rules| rules.latencies = latencies);
                Ok(json!({}))
            }
            ("POST", "lags") => {
                let lags = body(request)?;
                self.change_rules(|rules| rules.lags = lags);
                Ok(json!({}))
            }
            ("POST", "limits") => {
                let limits = body(request)?;
                self.change_rules(|rules| rules.limits = limits);
                Ok(json!({}))
            }
            ("POST", "quirks") => {
                let quirks = body(request)?;
                self.change_quirks(|own| *own = quirks);
                Ok(json!({}))
            }
            ("POST", "metadata") => {
                self.set_metadata(body(request)?);
                Ok(json!({}))
            }
            _ => Err(Refused(404, "no such lever".to_owned())),
        }
    }

    async fn let_happen(&self, event: Event) -> Result<Value, Refused> {
        self.happen(event).await.map(|()| json!({})).map_err(|refusal| Refused(409, refusal.to_string()))
    }
}

/// Disks that somebody else has in the account.
#[derive(Deserialize)]
struct Crowd {
    /// Each disk's name begins with it.
    name: String,
    count: usize,
}

/// An HTTP status and why.
struct Refused(u16, String);

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    serde_json::from_slice(&request.body).map_err(|error| Refused(400, error.to_string()))
}

fn disk(disk: &Disk) -> Value {
    json!({
        "id": disk.id,
        "name": disk.name,
        "zone": disk.zone,
        "size_gib": disk.size.get(),
        "type": disk.kind.word(),
        "status": disk.status.word(),
        "host": disk.host(),
        "device": disk.attachment.as_ref().map(|attachment| attachment.device.to_string()),
        "rdma_cluster": disk.rdma,
    })
}

fn host(host: &Host) -> Value {
    let device = |(device, id): (&Device, &String)| (device.to_string(), json!(id));
    json!({
        "spec": host.spec,
        "disks": host.disks.iter().map(device).collect::<serde_json::Map<_, _>>(),
        "system_disk": host.system_disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cloud::SimConfig;

    #[tokio::test(start_paused = true)]
    async fn other_processes_can_pull_the_levers() {
        let cloud = SimCloud::new(SimConfig::default());
        let pull = async |method: &str, path: &str, body: Value| {
            let request = Request {
                method: method.to_owned(),
                path: format!("/_sandbox/{path}"),
                body: body.to_string().into_bytes(),
                ..Request::default()
            };
            let response = cloud.handle(request).await.response().unwrap();
            (response.status, serde_json::from_slice::<Value>(&response.body).unwrap())
        };
        let new_host = json!({ "id": "uhost-c", "ip": "10.9.0.13" });
        assert_eq!(pull("POST", "hosts", new_host).await.0, 200);
        assert_eq!(cloud.host("uhost-c").unwrap().spec.zone, "cn-sh2-02");
        assert_eq!(pull("DELETE", "hosts/uhost-c", json!({})).await.0, 200);
        assert_eq!(pull("DELETE", "hosts/uhost-c", json!({})).await.0, 409);
        let rule = json!({ "action": "CreateUDisk", "effect": { "kind": "reply_lost" } });
        assert_eq!(pull("POST", "faults", rule).await, (200, json!({ "rule": 1 })));
        let event = json!({ "kind": "host_state", "host": "uhost-a", "state": "Stopped" });
        assert_eq!(pull("POST", "events", event).await.0, 200);
        assert_eq!(cloud.host("uhost-a").unwrap().spec.state.word(), "Stopped");
        assert_eq!(pull("POST", "lags", json!({ "new_in_lists": 2.5 })).await.0, 200);
        assert_eq!(pull("POST", "lags", json!({ "no_such_lag": 1 })).await.0, 400);
        assert_eq!(pull("GET", "stats", json!({})).await.1["faults"][0]["times"], 0);
        assert_eq!(pull("GET", "nothing", json!({})).await.0, 404);
    }
}
