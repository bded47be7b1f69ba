//! Finds the cluster and the credentials for it, as kubectl does.

use std::error::Error;
use std::path::{Path, PathBuf};

use kube::client::AuthError;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::{Access, Kubernetes};

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the kubeconfig {} cannot be used: {}", show(.files), chain(.source))]
    Kubeconfig { files: Vec<PathBuf>, source: KubeconfigError },
    #[error("none of the kubeconfigs {} exists", show(.files))]
    NoFile { files: Vec<PathBuf> },
    #[error(
        "no cluster is known: neither --kubeconfig nor KUBECONFIG is given, {} does not exist, and this is no pod \
         with a service account ({})",
        .home.as_ref().map_or_else(|| "~/.kube/config".to_owned(), |home| home.display().to_string()),
        chain(.source)
    )]
    Nowhere { home: Option<PathBuf>, source: InClusterError },
    #[error("--context chooses from a kubeconfig, and there is none")]
    ContextWithoutFile,
    #[error("no client can be made for {cluster}: {message}")]
    Client { cluster: String, message: String },
}

pub(super) async fn connect(access: &Access) -> Result<Kubernetes, ConnectError> {
    let mut config = config(access).await?;
    // The lists are read again by their own rule, which knows more codes.
    config.default_retry = false;
    let name = format!("cluster {}", config.cluster_url);
    let client = Client::try_from(config)
        .map_err(|error| ConnectError::Client { cluster: name.clone(), message: words(&error) })?;
    Ok(Kubernetes { client, name })
}

async fn config(access: &Access) -> Result<Config, ConnectError> {
    let home = access.home.iter().filter(|home| access.kubeconfig.is_empty() && home.exists());
    let files: Vec<&Path> = access.kubeconfig.iter().chain(home).map(PathBuf::as_path).collect();
    if files.is_empty() {
        if access.context.is_some() {
            return Err(ConnectError::ContextWithoutFile);
        }
        return Config::incluster()
            .map_err(|source| ConnectError::Nowhere { home: access.home.clone(), source });
    }
    let named = || files.iter().map(|file| file.to_path_buf()).collect::<Vec<_>>();
    let broken = |source| ConnectError::Kubeconfig { files: named(), source };
    // Of several, some may be missing: the variable often names files that do not exist yet.
    let there: Vec<&&Path> = files.iter().filter(|file| file.exists()).collect();
    if there.is_empty() {
        return Err(ConnectError::NoFile { files: named() });
    }
    let mut merged = Kubeconfig::default();
    for file in there {
        merged = Kubeconfig::read_from(file).and_then(|next| merged.merge(next)).map_err(broken)?;
    }
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(merged, &options).await.map_err(broken)
}

fn show(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// An error with its causes; kube-rs and hyper often say only in the last one what happened.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let next = cause.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
    }
    text
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What a failure of kube-rs says to people.
pub(super) fn words(error: &kube::Error) -> String {
    no_credentials(error).unwrap_or_else(|| chain(error))
}

/// Why there are no credentials, if that is it. Of the program that was to give them only what it says to people is
/// shown: the rest may be the credentials.
pub(super) fn no_credentials(error: &kube::Error) -> Option<String> {
    let error = causes(error).find_map(|cause| cause.downcast_ref::<AuthError>())?;
    Some(if let AuthError::AuthExecRun { out, .. } = error {
        let said = String::from_utf8_lossy(&out.stderr);
        let said: String = said.trim().chars().take(500).collect();
        format!("the program that the kubeconfig names for credentials failed ({}): {said}", out.status)
    } else if matches!(error, AuthError::AuthExecParse(_) | AuthError::ParseTokenKey(_)) {
        "the program that the kubeconfig names for credentials printed none".to_owned()
    } else {
        chain(error)
    })
}
