//! Makes the node known to kubelet, and keeps it known until the stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::registered::Answer;
use crate::config::{Config, Registration};
use crate::csi::registration::{RegistrationService, Told, serve};
use crate::csi::socket::{Socket, SocketError};
use crate::node::IdentityState;
use crate::readiness::Latch;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Kubelet calls NodeGetInfo as soon as it sees the socket, and writes what it hears into labels that never change.
/// So the socket comes after the node is known. It goes with `stop` and not later: kubelet then takes the driver's
/// entry out of the CSINode object, where another driver version with another node id could not be entered beside it.
pub(super) async fn run(
    config: Arc<Config>,
    registration: Registration,
    mut identity: watch::Receiver<IdentityState>,
    latch: Latch,
    stop: CancellationToken,
) {
    latch.blocked_by("this node is not known yet");
    let known = match identity.wait_for(|state| matches!(state, IdentityState::Known(_))).await.as_deref() {
        Ok(IdentityState::Known(known)) => known.clone(),
        Ok(IdentityState::Missing(_)) | Err(_) => return,
    };
    let answer = Answer::of(&known);
    // The directory of the driver's socket is the host's own, so it outlives the container.
    let home = config.endpoint.parent().unwrap_or(Path::new("/"));
    if let Some(changes) = Answer::read(home).as_ref().and_then(|before| answer.changes(before)) {
        tracing::warn!(
            "kubelet registered this node with other facts before and may refuse it now: {changes}; they are read \
             from flags and the metadata service at start"
        );
    }

    let path = registration.dir.join(format!("{}-reg.sock", config.driver_name));
    let Some(socket) = stop.run_until_cancelled(bind(&path, &latch)).await else { return };
    latch.blocked_by("kubelet has not called yet");
    let (told, heard) = watch::channel(Told::Nothing);
    let endpoint = registration.endpoint.display().to_string();
    tracing::info!(socket = %path.display(), endpoint, "waiting for kubelet to register this node");
    let service = RegistrationService::new(config.driver_name.clone(), endpoint, told);
    let listener = Listener { config: &config, answer, home, latch };
    let (served, ()) = tokio::join!(serve(socket, service, stop), listener.listen(heard));
    if let Err(error) = served {
        tracing::error!(%error, "the registration with kubelet ended");
    }
}

/// Tries until the socket is there: the directory may be mounted late, and another registrar may be on its way out.
async fn bind(path: &Path, latch: &Latch) -> Socket {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let error = match Socket::bind(path).await {
            Ok(socket) => return socket,
            Err(error) => Trouble { path: path.to_owned(), error }.to_string(),
        };
        if said != error {
            tracing::warn!("not registered with kubelet yet: {error}");
            latch.blocked_by(&error);
            said = error;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why there is no socket for kubelet, with what to look at.
#[derive(Debug, thiserror::Error)]
#[error("{error}; is kubelet's plugins_registry mounted at {}, and does no registrar run beside the driver?", .path.parent().unwrap_or(.path).display())]
struct Trouble {
    path: PathBuf,
    error: SocketError,
}

struct Listener<'c> {
    config: &'c Config,
    answer: Answer,
    home: &'c Path,
    latch: Latch,
}

impl Listener<'_> {
    /// Hears what kubelet says until the server is gone. Kubelet tries again by itself after a refusal, with growing
    /// pauses, and says the same words each time; they are said once here.
    async fn listen(self, mut heard: watch::Receiver<Told>) {
        let mut last = Told::Nothing;
        while heard.changed().await.is_ok() {
            let told = heard.borrow_and_update().clone();
            if told == last {
                continue;
            }
            match &told {
                Told::Nothing => {}
                Told::Registered => self.registered(),
                Told::Refused(words) => self.refused(words),
            }
            last = told;
        }
    }

    fn registered(&self) {
        tracing::info!("kubelet registered this node");
        self.latch.open();
        if let Err(error) = self.answer.write(self.home) {
            tracing::warn!(%error, "what kubelet registered is not remembered for the next start");
        }
    }

    fn refused(&self, words: &str) {
        let cure = self.answer.cure(words, &self.config.driver_name, self.config.node.hostname.as_deref());
        tracing::error!("kubelet refused to register this node: {words}; to cure it: {cure}");
        self.latch.blocked_by(format!("kubelet refused: {words}; to cure it: {cure}"));
    }
}
