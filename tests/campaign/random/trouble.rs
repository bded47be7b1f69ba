//! What befalls the cloud, the driver and the disks while volumes live.

use std::sync::Arc;
use std::time::Duration;

use csi_udisk::sandbox::cloud::model::{Lags, Latencies, Span};
use csi_udisk::sandbox::cloud::{Effect, Event, HostState, Rule};

use super::VOLUMES;
use super::run::Run;
use crate::process::Process;
use crate::world::{HOST_A, HOST_B, METAL, OLD, STRANGER};

const ACTIONS: [&str; 7] = [
    "DescribeUDisk",
    "CreateUDisk",
    "AttachUDisk",
    "DetachUDisk",
    "DeleteUDisk",
    "ResizeUDisk",
    "ResizeAttachedDisk",
];

/// Makes trouble until the run is over.
pub async fn make(run: Arc<Run>) {
    while !run.is_over() {
        run.pause(12).await;
        match run.below(22) {
            0..=9 => {
                let (kind, fault) = fault(&run);
                run.tell(&format!("fault {fault:?}"));
                run.arm(kind, fault);
            }
            10 => {
                run.count_struck();
                run.cloud.clear_faults();
            }
            11 | 12 => {
                run.count("crash");
                run.tell("crash");
                run.lead(Arc::new(Process::start(&run.cloud))).kill();
            }
            13 | 20 | 21 => roll_out(&run).await,
            14 => run.cloud.change_rules(|rules| {
                // Together less than what the driver allows for.
                let lag = |most| Duration::from_secs(run.below(most));
                rules.lags = Lags {
                    new_in_lists: lag(8),
                    new_by_id: lag(4),
                    stale_lists: lag(2),
                    stale_by_id: lag(6),
                };
            }),
            15 => run.cloud.change_rules(|rules| {
                let span = |most| Span::millis(0, run.below(most));
                rules.latencies = Latencies {
                    api: span(200),
                    create: span(5000),
                    attach: span(9000),
                    detach: span(9000),
                    resize: span(6000),
                    ..Latencies::none()
                };
            }),
            16 => by_hand(&run).await,
            17 | 18 => {
                run.count("host starting, stopped or rebooting");
                let host = run.one_of(&[HOST_A, HOST_B, METAL, OLD]).to_owned();
                let state = run.one_of(&[HostState::Starting, HostState::Stopped, HostState::Rebooting]);
                let _ = run.cloud.happen(Event::HostState { host: host.clone(), state }).await;
                run.pause(30).await;
                let _ = run.cloud.happen(Event::HostState { host, state: HostState::Running }).await;
            }
            _ => run.cloud.change_rules(|rules| {
                rules.limits.requests_per_second = run.chance(50).then_some(5);
            }),
        }
    }
}

/// Two processes on one cloud. The next one is there before the sidecars of the last one let go; that is then asked to
/// stop, or nobody tells it. Either way it goes on with what it began.
async fn roll_out(run: &Run) {
    run.tell("roll-out");
    let next = Arc::new(Process::start(&run.cloud));
    run.pause(40).await;
    let last = run.lead(next);
    // A crash meanwhile is the end of it all the same.
    if run.chance(60) {
        run.count("hand-over with SIGTERM");
        run.tell("hand-over with SIGTERM");
        if !last.operations.is_empty() {
            run.count("hand-over with SIGTERM and operations in flight");
        }
        last.stop();
        last.leave();
    } else {
        run.count("hand-over without a word");
        run.tell("hand-over without a word");
        if !last.operations.is_empty() {
            run.count("hand-over without a word and with operations in flight");
        }
        last.lose_callers();
        run.leave_behind(Some(last));
    }
}

/// Somebody moves a disk, and back off the host a while later.
async fn by_hand(run: &Run) {
    let disks = run.cloud.disks();
    let Some(disk) = disks.get(usize::try_from(run.below(VOLUMES as u64)).unwrap()) else { return };
    if disk.name == STRANGER {
        return;
    }
    run.count("disk moved by hand");
    let id = disk.id.clone();
    run.touch(&id);
    run.tell(&format!("{id} is moved by hand"));
    if run.chance(50) {
        let _ = run.cloud.happen(Event::Detach { disk: id }).await;
        return;
    }
    let host = run.one_of(&[HOST_A, HOST_B]).to_owned();
    if run.cloud.happen(Event::Attach { disk: id.clone(), host }).await.is_ok() {
        run.pause(60).await;
        run.touch(&id);
        let _ = run.cloud.happen(Event::Detach { disk: id }).await;
    }
}

/// One thing goes wrong; its kind, and where.
fn fault(run: &Run) -> (String, Rule) {
    let seconds = Duration::from_secs;
    let done = run.chance(50);
    let code = |code, done| Effect::RetCode { code, message: String::new(), done };
    let (kind, effect) = match run.below(14) {
        0 => ("reply lost", Effect::ReplyLost),
        1 => ("request lost", Effect::RequestLost),
        2 => ("no answer for long", Effect::Hang { seconds: seconds(run.below(100)), done }),
        3 => ("HTTP 502", Effect::Http { status: 502, done }),
        4 => ("garbage", Effect::Garbage { done }),
        5 => ("half an answer", Effect::Truncated { done }),
        6 => ("slow change", Effect::Stuck { seconds: Some(run.random(|random| random.f64() * 60.0)) }),
        7 => ("change that fails", Effect::Fails),
        8 => ("stale read", Effect::Stale { seconds: seconds(run.below(9)) }),
        9 => ("done after the API gave up", Effect::Late { seconds: seconds(run.below(2)), code: 110 }),
        10 => ("trouble in the cloud", code(run.one_of(&[110, 130, 150, 4711]), done)),
        11 => ("throttled", code(153, false)),
        12 => ("busy", code(run.one_of(&[17056, 17060, 17061, 17101, 8840, 8980]), false)),
        _ => ("refused", code(run.one_of(&[17055, 17000, 17025, 17030, 174]), false)),
    };
    let action = ACTIONS.get(usize::try_from(run.below(10)).unwrap()).map(|action| (*action).to_owned());
    let (nth, count) = (1 + run.below(3), Some(1 + run.below(3)));
    (kind.to_owned(), Rule { action, disk: None, host: None, nth, probability: None, count, effect })
}
