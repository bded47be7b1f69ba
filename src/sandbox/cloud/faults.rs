//! Faults on demand: rules that make chosen calls go wrong in chosen ways.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{Event, Hold, Twist};
use super::request::{Drip, Params, Response};

/// When a fault strikes, and what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// None: any action.
    #[serde(default)]
    pub action: Option<String>,
    /// Only calls that name this disk.
    #[serde(default)]
    pub disk: Option<String>,
    /// Only calls that name this host.
    #[serde(default)]
    pub host: Option<String>,
    /// Strikes from the n-th matching call on; the first is 1.
    #[serde(default = "one")]
    pub nth: u64,
    /// Strikes with this probability only.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Strikes so many times; none for no end.
    #[serde(default = "once")]
    pub count: Option<u64>,
    pub effect: Effect,
}

fn one() -> u64 {
    1
}

// The type is what serde asks for.
#[expect(clippy::unnecessary_wraps)]
fn once() -> Option<u64> {
    Some(1)
}

impl Rule {
    /// Strikes the next call of an action, once.
    pub fn once(action: &str, effect: Effect) -> Self {
        Self {
            action: Some(action.to_owned()),
            disk: None,
            host: None,
            nth: 1,
            probability: None,
            count: Some(1),
            effect,
        }
    }

    /// Strikes any call with this probability, without end.
    pub fn random(probability: f64, effect: Effect) -> Self {
        Self {
            action: None,
            disk: None,
            host: None,
            nth: 1,
            probability: Some(probability),
            count: None,
            effect,
        }
    }

    fn matches(&self, action: &str, params: &Params) -> bool {
        let names = |wanted: &Option<String>, keys: &[&str]| match wanted {
            None => true,
            Some(wanted) => keys.iter().any(|key| params.get(key) == Some(wanted)),
        };
        self.action.as_deref().is_none_or(|wanted| wanted == action)
            && names(&self.disk, &["UDiskId", "DiskId", "VDiskId", "SourceId"])
            && names(&self.host, &["HostId", "UHostId", "PHostId", "UHostIds.0"])
    }
}

/// What goes wrong. `done` tells whether the action takes effect nevertheless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// Done, but the connection breaks before the answer.
    ReplyLost,
    /// The connection breaks and nothing is done.
    RequestLost,
    /// No answer for so long, then the connection breaks.
    Hang {
        #[serde(with = "super::model::seconds")]
        seconds: Duration,
        #[serde(default)]
        done: bool,
    },
    Http {
        status: u16,
        #[serde(default)]
        done: bool,
    },
    RetCode {
        code: i64,
        #[serde(default)]
        message: String,
        #[serde(default)]
        done: bool,
    },
    /// The API gives up on its backend, which does the work nevertheless, so much later.
    Late {
        #[serde(with = "super::model::seconds")]
        seconds: Duration,
        code: i64,
    },
    /// HTTP 200 with bytes that mean nothing.
    Garbage {
        #[serde(default)]
        done: bool,
    },
    /// HTTP 200 with the first half of the answer.
    Truncated {
        #[serde(default)]
        done: bool,
    },
    /// HTTP 200 with a web page, as proxies do.
    Html {
        #[serde(default)]
        done: bool,
    },
    /// HTTP 200 with so many bytes of JSON.
    HugeBody {
        bytes: usize,
        #[serde(default)]
        done: bool,
    },
    /// The right answer in so many pieces with a pause before each.
    SlowBody {
        pieces: usize,
        #[serde(with = "super::model::seconds")]
        pause: Duration,
    },
    /// The change that the call starts takes so long; null for ever.
    Stuck { seconds: Option<f64> },
    /// The change that the call starts ends in its failed state.
    Fails,
    /// The call reads what was true so long ago.
    Stale {
        #[serde(with = "super::model::seconds")]
        seconds: Duration,
    },
    /// Something happens right before the call takes effect.
    Before { event: Event },
    /// Something happens right after the call has taken effect.
    After { event: Event },
}

impl Effect {
    /// Whether the call is carried out.
    pub(super) fn done(&self) -> bool {
        match self {
            Self::RequestLost | Self::Late { .. } => false,
            Self::Hang { done, .. }
            | Self::Http { done, .. }
            | Self::RetCode { done, .. }
            | Self::Garbage { done }
            | Self::Truncated { done }
            | Self::Html { done }
            | Self::HugeBody { done, .. } => *done,
            Self::ReplyLost
            | Self::SlowBody { .. }
            | Self::Stuck { .. }
            | Self::Fails
            | Self::Stale { .. }
            | Self::Before { .. }
            | Self::After { .. } => true,
        }
    }

    pub(super) fn twist(&self) -> Twist {
        let hold = if let Self::Stuck { seconds } = self {
            match seconds.map(Duration::try_from_secs_f64) {
                Some(Ok(time)) => Some(Hold::For(time)),
                Some(Err(_)) | None => Some(Hold::ForEver),
            }
        } else {
            None
        };
        Twist { hold, fails: *self == Self::Fails }
    }

    /// Turns the answer that there would have been into the one that arrives; `None` is a broken connection.
    pub(super) fn disguise(&self, mut answer: Response) -> Option<Response> {
        match self {
            Self::ReplyLost | Self::RequestLost | Self::Hang { .. } => return None,
            Self::Http { status, .. } => {
                answer.status = *status;
                answer.body = format!("<html><body>{status}</body></html>").into_bytes();
                answer.headers.retain(|(name, _)| name != "content-type");
                answer.headers.push(("content-type".to_owned(), "text/html".to_owned()));
            }
            Self::Garbage { .. } => answer.body = b"\x00\xff\xfe{]garbage\x80".to_vec(),
            Self::Truncated { .. } => answer.body.truncate(answer.body.len() / 2),
            Self::Html { .. } => {
                answer.body = b"<!DOCTYPE html><html><body>Please log in</body></html>".to_vec();
                answer.headers.retain(|(name, _)| name != "content-type");
                answer.headers.push(("content-type".to_owned(), "text/html".to_owned()));
            }
            Self::HugeBody { bytes, .. } => {
                // Valid JSON, so that only its size is wrong with it.
                answer.body = b"{\"RetCode\":0,\"Filler\":\"".to_vec();
                answer.body.resize(answer.body.len() + bytes, b'x');
                answer.body.extend(b"\"}");
            }
            Self::SlowBody { pieces, pause } => {
                answer.drip = Some(Drip { pieces: (*pieces).max(1), pause: *pause });
            }
            // The caller has put the code into the answer; the others leave it alone.
            Self::RetCode { .. }
            | Self::Late { .. }
            | Self::Stuck { .. }
            | Self::Fails
            | Self::Stale { .. }
            | Self::Before { .. }
            | Self::After { .. } => {}
        }
        Some(answer)
    }
}

/// The rules in force, in the order in which they came; the first that strikes wins.
#[derive(Debug)]
pub(super) struct FaultBook {
    rules: Vec<Armed>,
    rng: fastrand::Rng,
    last_id: u64,
}

#[derive(Debug)]
struct Armed {
    id: u64,
    rule: Rule,
    seen: u64,
    struck: u64,
}

impl FaultBook {
    pub(super) fn new(seed: u64) -> Self {
        Self { rules: Vec::new(), rng: fastrand::Rng::with_seed(seed), last_id: 0 }
    }

    pub(super) fn add(&mut self, rule: Rule) -> u64 {
        self.last_id += 1;
        self.rules.push(Armed { id: self.last_id, rule, seen: 0, struck: 0 });
        self.last_id
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How often each rule has struck, by its id.
    pub(super) fn struck(&self) -> impl Iterator<Item = (u64, u64)> {
        self.rules.iter().map(|armed| (armed.id, armed.struck))
    }

    pub(super) fn pick(&mut self, action: &str, params: &Params) -> Option<Effect> {
        let mut chosen = None;
        for armed in &mut self.rules {
            if !armed.rule.matches(action, params) {
                continue;
            }
            armed.seen += 1;
            let left = armed.rule.count.is_none_or(|count| armed.struck < count);
            if chosen.is_some() || !left || armed.seen < armed.rule.nth {
                continue;
            }
            if armed.rule.probability.is_some_and(|chance| self.rng.f64() >= chance) {
                continue;
            }
            armed.struck += 1;
            chosen = Some(armed.rule.effect.clone());
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cloud::request::Request;

    fn params(query: &str) -> Params {
        Params::read(&Request::get(&format!("/?{query}")))
    }

    #[test]
    fn a_rule_strikes_from_its_nth_call_as_often_as_it_says() {
        let mut book = FaultBook::new(1);
        book.add(Rule { nth: 2, count: Some(2), ..Rule::once("A", Effect::ReplyLost) });
        let strikes: Vec<_> = (0..5).map(|_| book.pick("A", &params("")).is_some()).collect();
        assert_eq!(strikes, [false, true, true, false, false]);
        assert_eq!(book.pick("B", &params("")), None);
    }

    #[test]
    fn a_rule_can_be_about_one_disk() {
        let mut book = FaultBook::new(1);
        book.add(Rule { disk: Some("bsm-1".to_owned()), ..Rule::once("A", Effect::RequestLost) });
        assert_eq!(book.pick("A", &params("UDiskId=bsm-2")), None);
        assert_eq!(book.pick("A", &params("UDiskId=bsm-1")), Some(Effect::RequestLost));
    }

    #[test]
    fn the_same_seed_gives_the_same_strikes() {
        let strikes = |seed| {
            let mut book = FaultBook::new(seed);
            book.add(Rule::random(0.5, Effect::RequestLost));
            (0..64).map(|_| book.pick("A", &params("")).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(strikes(7), strikes(7));
        assert_ne!(strikes(7), strikes(8));
    }

    #[test]
    fn rules_can_be_written_by_hand() {
        let rule: Rule =
            serde_json::from_str(r#"{"action": "AttachUDisk", "effect": {"kind": "hang", "seconds": 1.5}}"#)
                .unwrap();
        let hang = Effect::Hang { seconds: Duration::from_millis(1500), done: false };
        assert_eq!(rule, Rule::once("AttachUDisk", hang));
    }
}
