//! Temporary keys from the metadata service, fetched when needed and renewed before they expire.
//!
//! Renewal is lazy: the first request that finds the keys old renews them while all others go on with the old
//! ones. That needs no background task, and a driver that sends nothing asks for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::credentials::{CredentialError, Credentials};
use super::metadata::{Metadata, MetadataError};
use super::transport::Transport;
use crate::cloud::Deadline;

pub const DEFAULT_ROLE_V1: &str = "Uk8sServiceCharacter";
pub const DEFAULT_ROLE_V2: &str = "ServiceRoleForUK8S";

/// Keys are renewed this long before they expire: enough for several tries and the longest request. Keys with a
/// life of less than twice that are renewed at half of it.
const RENEW_AHEAD: Duration = Duration::from_secs(300);

/// Keys are not used in their last seconds: a request signed then may arrive too late.
const SAFETY: Duration = Duration::from_secs(10);

/// How long keys are used that seem to have expired when they arrive. Then this host's clock is wrong, and only
/// the cloud can tell whether they are good.
const WRONG_CLOCK_LIFE: Duration = Duration::from_secs(60);

/// After a failed renewal, while the old keys are good.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How long one request waits for a renewal that is not urgent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The roles to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    pub v1: String,
    pub v2: String,
}

impl Roles {
    /// The roles that UK8S gives its nodes.
    pub fn of_uk8s() -> Self {
        Self { v1: DEFAULT_ROLE_V1.to_owned(), v2: DEFAULT_ROLE_V2.to_owned() }
    }
}

#[derive(Debug, Clone)]
struct Cached {
    credentials: Arc<Credentials>,
    renew_at: Instant,
    valid_until: Instant,
}

#[derive(Debug)]
pub(super) struct Sts<T> {
    metadata: Metadata<T>,
    roles: Roles,
    cached: Mutex<Option<Cached>>,
    /// Held while keys are fetched.
    renewing: tokio::sync::Mutex<()>,
    /// Which version of the service knew a role last time.
    second: AtomicBool,
}

impl<T: Transport> Sts<T> {
    pub(super) fn new(metadata: Metadata<T>, roles: Roles) -> Self {
        Self {
            metadata,
            roles,
            cached: Mutex::new(None),
            renewing: tokio::sync::Mutex::new(()),
            second: AtomicBool::new(false),
        }
    }

    pub(super) async fn current(&self, deadline: Deadline) -> Result<Arc<Credentials>, CredentialError> {
        let now = Instant::now();
        let usable = match self.cached() {
            Some(cached) if now < cached.renew_at => return Ok(cached.credentials),
            Some(cached) if now < cached.valid_until => Some(cached),
            Some(_) | None => None,
        };
        let (_renewing, patience) = match &usable {
            Some(cached) => match self.renewing.try_lock() {
                Ok(guard) => (guard, deadline.min(now + PATIENCE)),
                Err(_) => return Ok(Arc::clone(&cached.credentials)),
            },
            None => match tokio::time::timeout_at(deadline, self.renewing.lock()).await {
                Ok(guard) => (guard, deadline),
                Err(_) => return Err(CredentialError::Waiting),
            },
        };
        // Somebody else may have renewed them while this one waited for the lock.
        if let Some(cached) = self.cached()
            && Instant::now() < cached.renew_at
        {
            return Ok(cached.credentials);
        }
        match self.fetch(patience).await {
            Ok(fresh) => {
                let credentials = Arc::clone(&fresh.credentials);
                self.store(Some(fresh));
                Ok(credentials)
            }
            Err(error) => match usable {
                Some(cached) => {
                    tracing::warn!(%error, "temporary keys could not be renewed; the old ones are still good");
                    let credentials = Arc::clone(&cached.credentials);
                    self.store(Some(Cached { renew_at: Instant::now() + PAUSE_AFTER_FAILURE, ..cached }));
                    Ok(credentials)
                }
                None => Err(error),
            },
        }
    }

    /// Forgets keys that the cloud rejected, unless they were replaced since.
    pub(super) fn reject(&self, rejected: &Arc<Credentials>) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|cached| Arc::ptr_eq(&cached.credentials, rejected)) {
            *cached = None;
        }
    }

    fn cached(&self) -> Option<Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self, fresh: Option<Cached>) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Asks the version that knew a role last time, then the other one.
    async fn fetch(&self, deadline: Deadline) -> Result<Cached, CredentialError> {
        let second = self.second.load(Ordering::Relaxed);
        let refused = match self.fetch_version(second, deadline).await {
            Ok(fresh) => return Ok(fresh),
            Err(refused @ MetadataError::Refused { .. }) => refused,
            Err(error) => return Err(CredentialError::Metadata(error)),
        };
        match self.fetch_version(!second, deadline).await {
            Ok(fresh) => {
                self.second.store(!second, Ordering::Relaxed);
                Ok(fresh)
            }
            Err(other) => {
                let (v1, v2) = if second { (other, refused) } else { (refused, other) };
                Err(CredentialError::NoRole {
                    role_v1: self.roles.v1.clone(),
                    v1: Box::new(v1),
                    role_v2: self.roles.v2.clone(),
                    v2: Box::new(v2),
                })
            }
        }
    }

    async fn fetch_version(&self, second: bool, deadline: Deadline) -> Result<Cached, MetadataError> {
        let (what, path, parse): (_, _, Parse) = if second {
            let path = ["meta-data", "v2", "iam", "security-credentials", self.roles.v2.as_str()];
            ("temporary keys (v2)", path, parse_v2)
        } else {
            let path = ["meta-data", "v1", "uam", "security-credentials", self.roles.v1.as_str()];
            ("temporary keys (v1)", path, parse_v1)
        };
        let data = self.metadata.keys(what, &path, deadline).await?;
        let (credentials, expires) =
            parse(&data).map_err(|problem| MetadataError::Malformed { what, problem })?;
        let now = Instant::now();
        let life = Life::of(expires, SystemTime::now());
        if life.wrong_clock {
            tracing::warn!(
                "temporary keys seem to have expired before they came; is this host's clock right?"
            );
        }
        Ok(Cached {
            credentials: Arc::new(credentials),
            renew_at: now + life.renew_after,
            valid_until: now + life.valid_for,
        })
    }
}

/// How long keys are good, seen from now.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    renew_after: Duration,
    valid_for: Duration,
    wrong_clock: bool,
}

impl Life {
    fn of(expires: SystemTime, now: SystemTime) -> Self {
        match expires.duration_since(now) {
            Ok(life) if life > SAFETY => Self {
                renew_after: life.saturating_sub(RENEW_AHEAD).max(life / 2),
                valid_for: life - SAFETY,
                wrong_clock: false,
            },
            _ => Self { renew_after: WRONG_CLOCK_LIFE, valid_for: WRONG_CLOCK_LIFE, wrong_clock: true },
        }
    }
}

type Parsed = (Credentials, SystemTime);
type Parse = fn(&Map<String, Value>) -> Result<Parsed, String>;

fn parse_v1(data: &Map<String, Value>) -> Result<Parsed, String> {
    parse(data, "PublicKey", "PrivateKey")
}

fn parse_v2(data: &Map<String, Value>) -> Result<Parsed, String> {
    parse(data, "AccessKeyId", "AccessKeySecret")
}

fn parse(data: &Map<String, Value>, public: &str, private: &str) -> Result<Parsed, String> {
    let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let required = |name: &str| text(name).ok_or_else(|| format!("it has no {name}"));
    let expires = match data.get("Expiration") {
        Some(Value::Number(seconds)) => seconds.as_u64(),
        Some(Value::String(text)) => text.parse().ok().or_else(|| unix_seconds(text)),
        _ => None,
    };
    let expires = expires
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or("it has no Expiration that can be read")?;
    let credentials = Credentials::temporary(
        required(public)?,
        required(private)?,
        required("SecurityToken")?,
        text("ProjectID"),
    );
    Ok((credentials, expires))
}

/// The seconds since 1970 of a moment written as in RFC 3339, such as `2026-08-21T10:00:00+08:00`.
fn unix_seconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let clock = clock.split_once('.').map_or(clock, |(seconds, _)| seconds);
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && offset.abs() < 24 * 60;
    if !in_range {
        return None;
    }
    // Days since 1970, with years that begin in March so that the leap day comes last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = shifted_year * 365 + leap_days + (shifted_month * 153 + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + (minute - offset) * 60 + second).ok()
}

#[cfg(test)]
mod tests;
