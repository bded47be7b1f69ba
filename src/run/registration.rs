//! Makes the node known to kubelet, and keeps it known until the stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registered::{Answer, Memory};
use crate::config::{Config, Registration};
use crate::csi::registration::{RegistrationService, Told, serve};
use crate::csi::socket::{Place, Socket, SocketError};
use crate::node::IdentityState;
use crate::readiness::Latch;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// From a refusal to the next try; doubles up to the longest.
const FIRST_AGAIN: Duration = Duration::from_secs(2);
const LONGEST_AGAIN: Duration = Duration::from_secs(60);
/// From one socket to the next: kubelet looks once a second, and the old one has to be gone.
const BETWEEN: Duration = Duration::from_secs(1);
/// How often the socket is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Kubelet calls NodeGetInfo as soon as it sees the socket, and writes what it hears into labels that never change.
/// So the socket comes after the node is known. It goes with `stop` and not later: kubelet then takes the driver's
/// entry out of the CSINode object, where another driver version with another node id could not be entered beside it.
pub(super) async fn run(
    config: Arc<Config>,
    registration: Registration,
    memory: Memory,
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
    if let Some(changes) = memory.before().as_ref().and_then(|before| answer.changes(before)) {
        tracing::warn!(
            "kubelet registered this node with other facts before and may refuse it now: {changes}; they are read \
             from flags and the metadata service at start"
        );
    }

    let path = registration.dir.join(format!("{}-reg.sock", config.driver_name));
    let endpoint = registration.endpoint.display().to_string();
    let mut listener = Listener::new(&config, answer, memory, latch);
    while let Some(socket) = stop.run_until_cancelled(bind(&path, &listener.latch)).await {
        listener.waits(&path, &endpoint);
        let (told, heard) = watch::channel(Told::Nothing);
        let service = RegistrationService::new(config.driver_name.clone(), endpoint.clone(), told);
        // Ends with the listener, and not before: it takes the socket away.
        let round = stop.child_token();
        let end = round.clone().drop_guard();
        let place = socket.place();
        let listening = async {
            let _end = end;
            round.run_until_cancelled(listener.listen(heard, &place)).await;
        };
        let (served, ()) = tokio::join!(serve(socket, service, round.clone()), listening);
        if let Err(error) = served {
            tracing::error!(%error, "the registration with kubelet ended, and begins again");
        }
        if stop.run_until_cancelled(tokio::time::sleep(BETWEEN)).await.is_none() {
            return;
        }
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
    memory: Memory,
    latch: Latch,
    /// Over all sockets: the same words are logged once.
    last: Told,
    pause: Duration,
}

impl<'c> Listener<'c> {
    fn new(config: &'c Config, answer: Answer, memory: Memory, latch: Latch) -> Self {
        Self { config, answer, memory, latch, last: Told::Nothing, pause: FIRST_AGAIN }
    }

    fn waits(&self, path: &Path, endpoint: &str) {
        if !matches!(self.last, Told::Refused(_)) {
            self.latch.blocked_by("kubelet has not called yet");
            tracing::info!(socket = %path.display(), endpoint, "waiting for kubelet to register this node");
        }
    }

    /// Hears what kubelet says, until it has to find a new socket.
    ///
    /// A kubelet before 1.36 that failed to register a driver (a label that collides, an API server that was away for a
    /// second) never tries again with the same socket, and one that sees its file go forgets the driver.
    async fn listen(&mut self, mut heard: watch::Receiver<Told>, place: &Place) {
        let mut look = tokio::time::interval(LOOK);
        let mut again = None;
        loop {
            let due = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let looked = async {
                look.tick().await;
                let place = place.clone();
                // A thread of the pool: kubelet's directory may be on a file system that hangs.
                tokio::task::spawn_blocking(move || place.is_lost()).await.unwrap_or(false)
            };
            tokio::select! {
                changed = heard.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let told = heard.borrow_and_update().clone();
                    again = self.heard(told);
                }
                () = due => return,
                lost = looked => {
                    if lost {
                        self.lost();
                        return;
                    }
                }
            }
        }
    }

    /// When kubelet has to be asked again, if it has to.
    fn heard(&mut self, told: Told) -> Option<Instant> {
        let again = match &told {
            Told::Nothing => None,
            Told::Registered => {
                self.registered();
                None
            }
            Told::Refused(words) => {
                self.refused(words);
                let at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_AGAIN);
                Some(at)
            }
        };
        self.last = told;
        again
    }

    fn registered(&mut self) {
        self.latch.open();
        self.pause = FIRST_AGAIN;
        if self.last == Told::Registered {
            return;
        }
        tracing::info!("kubelet registered this node");
        if let Err(error) = self.memory.write(&self.answer) {
            tracing::warn!(%error, "what kubelet registered is not remembered for the next start");
        }
    }

    fn refused(&self, words: &str) {
        let cure = self.answer.cure(words, &self.config.driver_name, self.config.node.hostname.as_deref());
        self.latch.close(format!("kubelet refused: {words}; to cure it: {cure}"));
        if !matches!(&self.last, Told::Refused(before) if before == words) {
            tracing::error!("kubelet refused to register this node: {words}; to cure it: {cure}");
        }
    }

    fn lost(&mut self) {
        self.last = Told::Nothing;
        self.latch.close("the socket that kubelet found the driver by is gone");
        tracing::warn!(
            "somebody removed the socket that kubelet found the driver by, so kubelet forgot the driver; it is made anew"
        );
    }
}
