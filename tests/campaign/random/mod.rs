//! Random lives of volumes, with faults, crashes, hand-overs and people at the console on top. A small model of Kubernetes
//! calls the driver as the sidecars would, for several volumes at once, and checks every answer against the truth.
//!
//! A step is one call. The short run takes the same seeds every time; `CSI_UDISK_LONG=1` takes as many new ones as
//! 100,000 steps need, or those from `CSI_UDISK_SEED` on. `CSI_UDISK_SEED=<seed>` alone plays that one again, step by step
//! as it was.

mod run;
mod trouble;
mod volume;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::run::Run;
use self::volume::Volume;
use crate::cell::Log;
use crate::judge;
use crate::report;
use crate::world::{STRANGER, Temper, account};

/// Volumes that live at the same time.
const VOLUMES: usize = 5;
/// Of one seed; then all that lives comes to its end.
const STEPS: u64 = 500;
const LONG_RUN: u64 = 100_000;

async fn play(seed: u64) -> Arc<Run> {
    fastrand::seed(seed);
    let cloud = account(Temper::Prompt, seed).await;
    let stranger = judge::find_stranger(&cloud);
    let run = Arc::new(Run::new(seed, cloud, STEPS));
    let lives = (0..VOLUMES).map(|number| {
        let run = Arc::clone(&run);
        async move {
            for generation in 0.. {
                if run.is_over() {
                    break;
                }
                Volume::new(&run, format!("pvc-{number}-{generation}")).live().await;
            }
        }
    });
    let trouble = tokio::spawn(trouble::make(Arc::clone(&run)));
    let lives: Vec<_> = lives.map(tokio::spawn).collect();
    for life in lives {
        if let Err(error) = life.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    trouble.await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    run.count_struck();
    let left: Vec<_> = run.cloud.disks().into_iter().filter(|disk| disk.name != STRANGER).collect();
    if !left.is_empty() {
        run.fail(&format!("everything was deleted, and there is {left:?}"));
    }
    if let Some(fault) = judge::stranger(&stranger, &run.cloud) {
        run.fail(&fault);
    }
    if !run.leader().operations.is_empty() {
        run.fail("operations are still running");
    }
    run
}

fn play_alone(seed: u64) -> Arc<Run> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(play(seed))
}

#[test]
fn volumes_live_through_whatever_comes() {
    let wanted: Option<u64> = std::env::var("CSI_UDISK_SEED").ok().map(|text| text.parse().unwrap());
    let (first, steps) = match (wanted, crate::long_run()) {
        (Some(seed), false) => (seed, 1),
        (Some(seed), true) => (seed, LONG_RUN),
        (None, false) => (1, 8 * STEPS),
        (None, true) => (fastrand::u64(1000..1_000_000_000), LONG_RUN),
    };
    report(&format!("random lives: from seed {first} on, {steps} steps"));
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let work = || {
        let log = Log::default();
        let _listening = log.listen();
        let mut counts = BTreeMap::new();
        while done.load(Ordering::Relaxed) < steps {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if wanted.is_some() && seed > first && steps == 1 {
                break;
            }
            let run = play_alone(seed);
            *counts.entry("seeds".to_owned()).or_insert(0) += 1;
            done.fetch_add(run.steps(), Ordering::Relaxed);
            for (what, count) in run.counts() {
                *counts.entry(what).or_insert(0) += count;
            }
            log.clear();
        }
        counts
    };
    // Each thread has a clock of its own, which nothing else moves.
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|fault| {
                    done.fetch_add(steps, Ordering::Relaxed);
                    std::panic::resume_unwind(fault)
                })
            })
            .collect()
    });
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (what, count) in all.into_iter().flatten() {
        *counts.entry(what).or_default() += count;
    }
    report(&format!("random lives: {} steps", done.load(Ordering::Relaxed)));
    for (what, count) in counts {
        report(&format!("  {count:>7} {what}"));
    }
}

/// Else a seed would be no way to find out why.
#[test]
fn a_seed_is_played_again_step_by_step() {
    let told = |_: usize| play_alone(3).whole_history();
    let (one, other) = (told(1), told(2));
    let differs = one.iter().zip(&other).find(|(one, other)| one != other);
    assert_eq!(differs, None);
    assert_eq!(one.len(), other.len());
}
