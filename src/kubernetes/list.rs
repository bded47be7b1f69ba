//! Reads one kind of objects to its end, a page at a time.
//!
//! A list is whole or an error. Pages of one list are one snapshot; when its token has expired (410), what was read is
//! thrown away and the list begins anew.

use std::collections::HashSet;
use std::time::Duration;

use kube::Client;
use kube::api::ListParams;
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::Value;

/// Some 500 KiB of JSON; API servers advise this size.
const PAGE: u32 = 500;
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Tries of one page, with pauses that double.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often a list is begun. A token lives for minutes, so a second beginning is rare.
const READS: u32 = 3;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Claims,
    Volumes,
    Attachments,
    SnapshotContents,
    Nodes,
    CsiNodes,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Claims => "/api/v1/persistentvolumeclaims",
            Self::Volumes => "/api/v1/persistentvolumes",
            Self::Attachments => "/apis/storage.k8s.io/v1/volumeattachments",
            Self::SnapshotContents => "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
            Self::Nodes => "/api/v1/nodes",
            Self::CsiNodes => "/apis/storage.k8s.io/v1/csinodes",
        }
    }

    /// As a rule of a ClusterRole names it.
    fn resource(self) -> &'static str {
        match self {
            Self::Claims => "persistentvolumeclaims",
            Self::Volumes => "persistentvolumes",
            Self::Attachments => "volumeattachments.storage.k8s.io",
            Self::SnapshotContents => "volumesnapshotcontents.snapshot.storage.k8s.io",
            Self::Nodes => "nodes",
            Self::CsiNodes => "csinodes.storage.k8s.io",
        }
    }

    /// Whether a cluster may not have the kind at all: snapshots are an extension.
    fn may_be_unknown(self) -> bool {
        self == Self::SnapshotContents
    }
}

/// Why nothing can be said of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error(
        "this account may not list {resource} ({message}); give it a ClusterRole with the verb list on {resource}"
    )]
    Forbidden { resource: &'static str, message: String },
    #[error("the cluster does not take these credentials: {message}")]
    Unauthorized { message: String },
    #[error("{resource} cannot be listed: {message}")]
    Failed { resource: &'static str, message: String },
    #[error("the list of {resource} changed too fast to be read to its end; try again")]
    Expired { resource: &'static str },
    #[error("{cluster} was not read within {} s; --timeout gives it more", .within.as_secs())]
    Late { cluster: String, within: Duration },
}

impl ListError {
    pub(super) fn late(cluster: &str, within: Duration) -> Self {
        Self::Late { cluster: cluster.to_owned(), within }
    }
}

/// A page of any list. What says nothing of its items is no empty page.
#[derive(Deserialize)]
struct Page {
    kind: String,
    #[serde(default)]
    metadata: PageMeta,
    items: Vec<Value>,
}

#[derive(Deserialize, Default)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// What went wrong with one page, as far as it matters here.
#[derive(Debug)]
enum Trouble {
    /// The token's snapshot is gone.
    Expired,
    /// The API has no such kind.
    Unknown,
    Final(ListError),
    Passing(ListError),
}

/// Reads them all; `convert` takes each object as it comes, so that no more than a page is held as it was sent.
pub(super) async fn list<T>(
    client: &Client,
    kind: Kind,
    mut convert: impl FnMut(Value) -> Result<T, serde_json::Error>,
) -> Result<Vec<T>, ListError> {
    for _ in 0..READS {
        match from_the_start(client, kind, &mut convert).await {
            Ok(items) => return Ok(items),
            Err(Trouble::Expired) => {
                tracing::info!("the list of {} expired; reading it anew", kind.resource())
            }
            Err(Trouble::Unknown) if kind.may_be_unknown() => return Ok(Vec::new()),
            Err(Trouble::Unknown) => {
                let message = "the API server does not know them".to_owned();
                return Err(ListError::Failed { resource: kind.resource(), message });
            }
            Err(Trouble::Final(error) | Trouble::Passing(error)) => return Err(error),
        }
    }
    Err(ListError::Expired { resource: kind.resource() })
}

async fn from_the_start<T>(
    client: &Client,
    kind: Kind,
    convert: &mut impl FnMut(Value) -> Result<T, serde_json::Error>,
) -> Result<Vec<T>, Trouble> {
    let mut items = Vec::new();
    let mut tokens = HashSet::new();
    let mut next: Option<String> = None;
    loop {
        let page = patiently(client, kind, next.as_deref()).await?;
        for item in page.items {
            let item = convert(item);
            items.push(item.map_err(|error| failed(kind, &format!("an object is not understood: {error}")))?);
        }
        match page.metadata.next.filter(|token| !token.is_empty()) {
            None => return Ok(items),
            Some(token) if tokens.insert(token.clone()) => next = Some(token),
            Some(_) => return Err(failed(kind, "the API server gives the same page again and again")),
        }
    }
}

async fn patiently(client: &Client, kind: Kind, token: Option<&str>) -> Result<Page, Trouble> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match page(client, kind, token).await {
            Err(Trouble::Passing(error)) => {
                tracing::info!("{error}; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            end => return end,
        }
    }
    page(client, kind, token).await
}

async fn page(client: &Client, kind: Kind, token: Option<&str>) -> Result<Page, Trouble> {
    let mut params = ListParams::default().limit(PAGE);
    if let Some(token) = token {
        params = params.continue_token(token);
    }
    let request =
        Request::new(kind.path()).list(&params).map_err(|error| failed(kind, &error.to_string()))?;
    let asked = client.request::<Page>(request);
    match tokio::time::timeout(REQUEST_WITHIN, asked).await {
        Ok(Ok(page)) if page.kind.ends_with("List") => Ok(page),
        Ok(Ok(page)) => Err(failed(kind, &format!("the answer is a {} and no list", page.kind))),
        Ok(Err(error)) => Err(judge(kind, &error)),
        Err(_) => Err(passing(kind, "no answer in time")),
    }
}

fn judge(kind: Kind, error: &kube::Error) -> Trouble {
    if let kube::Error::Api(status) = error {
        return refused(kind, status);
    }
    if let kube::Error::SerdeError(error) = error {
        return failed(kind, &format!("the answer is no list: {error}"));
    }
    match super::connect::no_credentials(error) {
        Some(message) => Trouble::Final(ListError::Unauthorized { message }),
        None => passing(kind, &super::connect::words(error)),
    }
}

fn refused(kind: Kind, status: &Status) -> Trouble {
    let message = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
    match status.code {
        401 => Trouble::Final(ListError::Unauthorized { message }),
        403 => Trouble::Final(ListError::Forbidden { resource: kind.resource(), message }),
        404 => Trouble::Unknown,
        410 => Trouble::Expired,
        429 | 500..=599 => passing(kind, &format!("HTTP status {}: {message}", status.code)),
        code => failed(kind, &format!("HTTP status {code}: {message}")),
    }
}

fn failed(kind: Kind, message: &str) -> Trouble {
    Trouble::Final(ListError::Failed { resource: kind.resource(), message: message.to_owned() })
}

fn passing(kind: Kind, message: &str) -> Trouble {
    Trouble::Passing(ListError::Failed { resource: kind.resource(), message: message.to_owned() })
}
