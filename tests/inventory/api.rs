//! A double of the Kubernetes API that serves lists: pages with tokens that expire, refusals in the API server's own
//! words, and other answers that a proxy or a broken server gives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
pub const VOLUMES: &str = "/api/v1/persistentvolumes";
pub const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
pub const CONTENTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
pub const NODES: &str = "/api/v1/nodes";
pub const CSI_NODES: &str = "/apis/storage.k8s.io/v1/csinodes";

pub const ALL: [&str; 6] = [CLAIMS, VOLUMES, ATTACHMENTS, CONTENTS, NODES, CSI_NODES];

/// How a request goes wrong.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// A refusal as the API server words it.
    Status(u16, &'static str, &'static str),
    /// Any other body, with its HTTP status.
    Body(u16, &'static str),
    /// The page's token has expired. Does not happen to first pages.
    Expired,
    /// The connection ends without an answer.
    Cut,
    /// The token of the next page is that of this one.
    Circle,
}

#[derive(Debug)]
struct Rule {
    path: &'static str,
    trouble: Trouble,
    times: usize,
}

#[derive(Default)]
struct State {
    lists: BTreeMap<&'static str, Vec<Value>>,
    /// The most that a page holds, whatever is asked for.
    page: Option<usize>,
    rules: Vec<Rule>,
    token: Option<String>,
    /// Every request: path with query, and the bearer token.
    log: Vec<(String, Option<String>)>,
    /// What happens to the cluster after so many requests for a path.
    later: Vec<(&'static str, usize, Change)>,
}

type Change = Box<dyn FnOnce(&mut BTreeMap<&'static str, Vec<Value>>) + Send>;

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A running double.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Api {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// With TLS, as every real cluster has it.
    pub async fn start_tls(config: ServerConfig) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let mut state = State::default();
        for path in ALL {
            state.lists.insert(path, Vec::new());
        }
        let api = Self { url, state: Arc::new(Mutex::new(state)) };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (api, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => api.connection(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                api.connection(stream).await;
                            }
                        }
                    }
                });
            }
        });
        api
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what the cluster holds.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, Vec<Value>>)) {
        change(&mut self.state().lists);
    }

    /// Changes it right after `path` was asked for `times` times.
    pub fn change_after(
        &self,
        path: &'static str,
        times: usize,
        change: impl FnOnce(&mut BTreeMap<&'static str, Vec<Value>>) + Send + 'static,
    ) {
        self.state().later.push((path, times, Box::new(change)));
    }

    pub fn add(&self, path: &'static str, object: Value) {
        self.change(|lists| lists.get_mut(path).unwrap().push(object));
    }

    /// The cluster does not know the kind.
    pub fn forget(&self, path: &'static str) {
        self.change(|lists| _ = lists.remove(path));
    }

    pub fn pages_of(&self, most: usize) {
        self.state().page = Some(most);
    }

    pub fn require_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    pub fn trouble(&self, path: &'static str, trouble: Trouble, times: usize) {
        self.state().rules.push(Rule { path, trouble, times });
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state().log.iter().filter(|(asked, _)| asked.split('?').next() == Some(path)).count()
    }

    pub fn log(&self) -> Vec<(String, Option<String>)> {
        self.state().log.clone()
    }

    async fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let mut read = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                let mut part = [0; 4096];
                match stream.read(&mut part).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => read.extend_from_slice(&part[..n]),
                }
            };
            let head = String::from_utf8(read.drain(..end).collect()).unwrap();
            let Some((status, kind, body)) = self.answer(&head) else { return };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// `None`: no answer at all.
    fn answer(&self, head: &str) -> Option<(u16, &'static str, String)> {
        let line = head.lines().next().unwrap();
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let bearer = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization")
                .then(|| value.strip_prefix("Bearer ").unwrap_or(value).to_owned())
        });
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let mut state = self.state();
        state.log.push((target.to_owned(), bearer.clone()));
        let asked = state.log.iter().filter(|(log, _)| log.split('?').next() == Some(path)).count();
        let answer = state.respond(method, path, &query, bearer.as_deref());
        let (due, later) = std::mem::take(&mut state.later)
            .into_iter()
            .partition(|(on, times, _)| *on == path && *times == asked);
        state.later = later;
        let due: Vec<(&str, usize, Change)> = due;
        for (_, _, change) in due {
            change(&mut state.lists);
        }
        answer
    }
}

impl State {
    fn respond(
        &mut self,
        method: &str,
        path: &str,
        query: &BTreeMap<&str, &str>,
        bearer: Option<&str>,
    ) -> Option<(u16, &'static str, String)> {
        const JSON: &str = "application/json";
        let failure = |code: u16, reason: &str, message: &str| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": reason, "code": code
            });
            Some((code, JSON, status.to_string()))
        };
        if method != "GET" {
            return failure(405, "MethodNotAllowed", "the server does not allow this method");
        }
        if self.token.is_some() && self.token.as_deref() != bearer {
            return failure(401, "Unauthorized", "Unauthorized");
        }
        let token = query.get("continue").copied();
        let struck = self.rules.iter_mut().find(|rule| {
            let fits = !matches!(rule.trouble, Trouble::Expired) || token.is_some();
            rule.path == path && rule.times > 0 && fits
        });
        let trouble = struck.map(|rule| (rule.times -= 1, rule.trouble.clone()).1);
        match trouble {
            None | Some(Trouble::Circle) => {}
            Some(Trouble::Status(code, reason, message)) => return failure(code, reason, message),
            Some(Trouble::Body(code, body)) => {
                return Some((code, "text/plain; charset=utf-8", body.to_owned()));
            }
            Some(Trouble::Cut) => return None,
            Some(Trouble::Expired) => {
                return failure(
                    410,
                    "Expired",
                    "The provided continue parameter is too old to display a consistent list result. You can start a \
                     new list without the continue parameter, or use the continue token in this response to retrieve \
                     the remainder of the results.",
                );
            }
        }
        let Some(items) = self.lists.get(path) else {
            return Some((404, "text/plain; charset=utf-8", "404 page not found\n".to_owned()));
        };
        let start: usize = token.map_or(0, |token| token.trim_start_matches("from-").parse().unwrap());
        let wanted: usize = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let size = wanted.min(self.page.unwrap_or(usize::MAX));
        let page: Vec<&Value> = items.iter().skip(start).take(size).collect();
        let end = start + page.len();
        let mut metadata = json!({ "resourceVersion": "61234" });
        if matches!(trouble, Some(Trouble::Circle)) {
            metadata["continue"] = json!("from-0");
        } else if end < items.len() {
            metadata["continue"] = json!(format!("from-{end}"));
            metadata["remainingItemCount"] = json!(items.len() - end);
        }
        let (version, kind) = match path {
            CLAIMS => ("v1", "PersistentVolumeClaimList"),
            VOLUMES => ("v1", "PersistentVolumeList"),
            ATTACHMENTS => ("storage.k8s.io/v1", "VolumeAttachmentList"),
            CONTENTS => ("snapshot.storage.k8s.io/v1", "VolumeSnapshotContentList"),
            NODES => ("v1", "NodeList"),
            _ => ("storage.k8s.io/v1", "CSINodeList"),
        };
        let list = json!({ "kind": kind, "apiVersion": version, "metadata": metadata, "items": page });
        Some((200, JSON, list.to_string()))
    }
}

/// Long enough that a page in the middle is always asked for.
pub const PATIENCE: Duration = Duration::from_secs(60);
