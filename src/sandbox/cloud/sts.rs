//! Temporary credentials that hosts get through their metadata service.

use std::time::Duration;

use super::config::{Key, Role};

/// Credentials that end by themselves.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) key: Key,
    pub(super) token: String,
    pub(super) ends: Duration,
}

/// All that were given out.
#[derive(Debug)]
pub(super) struct Sessions {
    roles: Vec<Role>,
    given: Vec<Session>,
    rng: fastrand::Rng,
}

impl Sessions {
    pub(super) fn new(roles: Vec<Role>, seed: u64) -> Self {
        // Apart from the world's own numbers, so that asking for credentials does not change what happens to disks.
        Self { roles, given: Vec::new(), rng: fastrand::Rng::with_seed(seed ^ 0x5757_5757) }
    }

    /// New credentials for a role, if there is such a role.
    pub(super) fn begin(&mut self, role: &str, lasts: Option<Duration>, now: Duration) -> Option<Session> {
        let role = self.roles.iter().find(|own| own.name == role)?;
        let ends = now + lasts.unwrap_or(role.lasts);
        let mut random = |length: usize| (0..length).map(|_| self.rng.alphanumeric()).collect::<String>();
        let key = Key { public: format!("STS{}", random(29)), private: random(40) };
        let session = Session { key, token: random(80), ends };
        self.given.retain(|old| old.ends > now);
        self.given.push(session.clone());
        Some(session)
    }

    /// The private key that signs together with a token that is still good.
    pub(super) fn private_key(&self, public: &str, token: &str, now: Duration) -> Option<&str> {
        self.given
            .iter()
            .find(|session| session.token == token && session.key.public == public && session.ends > now)
            .map(|session| session.key.private.as_str())
    }

    pub(super) fn revoke(&mut self) {
        self.given.clear();
    }
}
