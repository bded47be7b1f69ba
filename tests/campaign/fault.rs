//! The ways in which one request goes wrong.

use std::time::Duration;

use csi_udisk::sandbox::cloud::model::Stock;
use csi_udisk::sandbox::cloud::{Effect, Event, HostState};

use crate::process::Snag;
use crate::world::HOST_B;

/// How a fault is done to the n-th request.
#[derive(Debug, Clone)]
pub enum Strike {
    /// By the cloud, so many times in a row.
    Cloud(Effect, u64),
    Unreachable,
    /// A disk is shown in this state.
    Word(&'static str),
    /// Somebody else does this to the account right before the request takes effect.
    Event(fn(Affected<'_>) -> Event),
}

/// What an event may be about.
#[derive(Debug, Clone, Copy)]
pub struct Affected<'a> {
    pub disk: &'a str,
    pub host: &'a str,
}

/// How the call ends when nothing but the fault is wrong.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// As if nothing had been.
    Well,
    /// Well, once somebody has undone the event.
    Undone(fn(Affected<'_>) -> Event),
    /// Well, or with an error that names this.
    Named(&'static [&'static str]),
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub name: String,
    pub strike: Strike,
    pub end: End,
}

impl Fault {
    /// What a process that dies before the answer leaves behind depends on nothing but whether the request was done.
    pub fn same_unheard(&self) -> Option<&'static str> {
        let reason = match &self.strike {
            Strike::Cloud(Effect::ReplyLost | Effect::RequestLost, 1) => return None,
            Strike::Cloud(Effect::Stuck { .. } | Effect::Fails | Effect::Late { .. }, _)
            | Strike::Event(_) => return None,
            Strike::Cloud(..) | Strike::Word(_) => "unheard, it is a lost reply or a lost request",
            Strike::Unreachable => "unheard, it is a lost request",
        };
        Some(reason)
    }

    /// Why it cannot befall this request.
    pub fn senseless(&self, action: &str, before_disk: bool) -> Option<&'static str> {
        let reads = action.starts_with("Describe");
        match &self.strike {
            Strike::Cloud(Effect::Stale { .. }, _) if !reads => {
                Some("a change reads nothing that could be stale")
            }
            Strike::Cloud(Effect::Stuck { .. } | Effect::Fails | Effect::Late { .. }, _) if reads => {
                Some("a read starts nothing that could go wrong later")
            }
            Strike::Cloud(Effect::Stuck { .. } | Effect::Fails, _) if action == "DeleteUDisk" => {
                Some("a deletion has no course: it is done when it is answered")
            }
            Strike::Event(event) if before_disk && is_about_a_disk(*event) => Some("there is no disk yet"),
            Strike::Cloud(..) | Strike::Word(_) | Strike::Event(_) | Strike::Unreachable => None,
        }
    }

    pub fn snag(&self, number: usize) -> Option<Snag> {
        match &self.strike {
            Strike::Unreachable => Some(Snag::Unreachable(number)),
            Strike::Word(word) => Some(Snag::Word(number, word)),
            Strike::Cloud(..) | Strike::Event(_) => None,
        }
    }

    pub fn effect(&self, affected: Affected<'_>) -> Option<(Effect, u64)> {
        match &self.strike {
            Strike::Cloud(effect, count) => Some((effect.clone(), *count)),
            Strike::Event(event) => Some((Effect::Before { event: event(affected) }, 1)),
            Strike::Word(_) | Strike::Unreachable => None,
        }
    }
}

fn is_about_a_disk(event: fn(Affected<'_>) -> Event) -> bool {
    match event(Affected { disk: "", host: "" }) {
        Event::MoveDisk { .. }
        | Event::Attach { .. }
        | Event::Detach { .. }
        | Event::DeleteDisk { .. }
        | Event::Rename { .. }
        | Event::FailDisk { .. }
        | Event::Free { .. } => true,
        Event::StockOut(_)
        | Event::Restock
        | Event::MoveHost { .. }
        | Event::HostState { .. }
        | Event::DeleteHost { .. }
        | Event::Lags(_)
        | Event::NoBalance { .. } => false,
    }
}

fn cloud(name: &str, effect: Effect) -> Fault {
    burst(name, effect, 1)
}

fn burst(name: &str, effect: Effect, count: u64) -> Fault {
    Fault { name: name.to_owned(), strike: Strike::Cloud(effect, count), end: End::Well }
}

fn code(code: i64, done: bool) -> Effect {
    Effect::RetCode { code, message: "made up by the test".to_owned(), done }
}

fn event(name: &str, event: fn(Affected<'_>) -> Event, end: End) -> Fault {
    Fault { name: name.to_owned(), strike: Strike::Event(event), end }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn all() -> Vec<Fault> {
    let mut all = vec![
        cloud("reply lost", Effect::ReplyLost),
        cloud("request lost", Effect::RequestLost),
        Fault { name: "unreachable".to_owned(), strike: Strike::Unreachable, end: End::Well },
        cloud("HTTP 500, done", Effect::Http { status: 500, done: true }),
        cloud("HTTP 502", Effect::Http { status: 502, done: false }),
        burst("HTTP 503 five times", Effect::Http { status: 503, done: false }, 5),
        cloud("HTTP 504, done", Effect::Http { status: 504, done: true }),
        cloud("half an answer", Effect::Truncated { done: true }),
        cloud("hang", Effect::Hang { seconds: seconds(600), done: false }),
        cloud("hang, done", Effect::Hang { seconds: seconds(600), done: true }),
        cloud("garbage", Effect::Garbage { done: false }),
        cloud("garbage, done", Effect::Garbage { done: true }),
        cloud("a web page", Effect::Html { done: false }),
        cloud("stale by 9 s", Effect::Stale { seconds: seconds(9) }),
        burst("stale by 9 s, three times", Effect::Stale { seconds: seconds(9) }, 3),
        cloud("slow, 100 s", Effect::Stuck { seconds: Some(100.0) }),
        cloud("fails in the end", Effect::Fails),
        cloud("110, done 5 s later", Effect::Late { seconds: seconds(5), code: 110 }),
        burst("153, six times", code(153, false), 6),
        cloud("unknown number", code(4711, false)),
        cloud("unknown number, done", code(4711, true)),
    ];
    for number in [110, 130, 150] {
        all.push(cloud(&number.to_string(), code(number, false)));
        all.push(cloud(&format!("{number}, done"), code(number, true)));
    }
    for number in [17056, 17060, 17061, 17101, 8840, 8980] {
        all.push(burst(&format!("busy {number}, twice"), code(number, false), 2));
    }
    for word in ["Attaching", "Detaching", "Initializating", "Restoring", "Frobnicating"] {
        all.push(Fault { name: format!("shown as {word}"), strike: Strike::Word(word), end: End::Well });
    }
    all.extend(events());
    all
}

fn events() -> Vec<Fault> {
    vec![
        event("disk fails", |at| Event::FailDisk { disk: at.disk.to_owned() }, End::Named(&["state Failed"])),
        event(
            "disk deleted by hand",
            |at| Event::DeleteDisk { disk: at.disk.to_owned() },
            End::Named(&["does not exist", "deleted by somebody"]),
        ),
        event("disk detached by hand", |at| Event::Detach { disk: at.disk.to_owned() }, End::Well),
        event(
            "disk attached elsewhere by hand",
            |at| Event::Attach { disk: at.disk.to_owned(), host: HOST_B.to_owned() },
            End::Undone(|at| Event::Detach { disk: at.disk.to_owned() }),
        ),
        event(
            "disk renamed by hand",
            |at| Event::Rename { disk: at.disk.to_owned(), name: "renamed".to_owned() },
            End::Undone(|at| Event::Rename { disk: at.disk.to_owned(), name: crate::cell::NAME.to_owned() }),
        ),
        event(
            "host restarts",
            |at| Event::HostState { host: at.host.to_owned(), state: HostState::Starting },
            End::Undone(|at| Event::HostState { host: at.host.to_owned(), state: HostState::Running }),
        ),
        event(
            "host stops",
            |at| Event::HostState { host: at.host.to_owned(), state: HostState::Stopped },
            End::Well,
        ),
        event(
            "host deleted",
            |at| Event::DeleteHost { host: at.host.to_owned() },
            End::Named(&["does not exist", "the cloud does not know it", "has the private address"]),
        ),
        event(
            "host moves to another RDMA cluster",
            |at| Event::MoveHost { host: at.host.to_owned(), cluster: "elsewhere".to_owned() },
            End::Undone(|at| Event::MoveHost {
                host: at.host.to_owned(),
                cluster: "9002_25GE_D_R006".to_owned(),
            }),
        ),
        event("out of stock", |_| Event::StockOut(Stock::default()), End::Undone(|_| Event::Restock)),
        event(
            "out of money",
            |_| Event::NoBalance { code: Some(520) },
            End::Undone(|_| Event::NoBalance { code: None }),
        ),
    ]
}
