//! All cells.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::call::Call::{Create, Delete, Expand, Publish, Unpublish};
use crate::cell::{Cell, Clean, LIVES, Life, Log, Scene, Verdict, clean};
use crate::fault::{self, Fault, Strike};
use crate::process::Sent;
use crate::report;
use crate::world::{HOST_A, HOST_B, METAL, OLD, Temper};

const SCENES: &[Scene] = &[
    Scene { before: &[], just: &[], call: Create("ssd") },
    Scene { before: &[], just: &[], call: Create("rssd") },
    Scene { before: &[Create("ssd")], just: &[], call: Create("ssd") },
    Scene { before: &[Create("ssd")], just: &[Delete], call: Create("ssd") },
    Scene { before: &[Create("ssd")], just: &[], call: Delete },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[Unpublish(HOST_A)], call: Delete },
    Scene { before: &[Create("ssd")], just: &[], call: Publish(HOST_A) },
    Scene { before: &[Create("ssd")], just: &[], call: Publish("10.9.0.11") },
    Scene { before: &[Create("rssd")], just: &[], call: Publish(METAL) },
    Scene { before: &[Create("rssd")], just: &[], call: Publish("10.9.0.13") },
    Scene { before: &[Create("ssd"), Publish(HOST_B)], just: &[Unpublish(HOST_B)], call: Publish(HOST_A) },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[], call: Publish(HOST_A) },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[], call: Unpublish(HOST_A) },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[], call: Unpublish("10.9.0.11") },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[], call: Unpublish("") },
    Scene { before: &[Create("ssd")], just: &[Publish(HOST_A)], call: Unpublish(HOST_A) },
    Scene { before: &[Create("ssd")], just: &[], call: Expand(30) },
    Scene { before: &[Create("ssd"), Publish(HOST_A)], just: &[], call: Expand(30) },
    Scene { before: &[Create("rssd"), Publish(METAL)], just: &[], call: Expand(30) },
    Scene { before: &[Create("ssd"), Publish(OLD)], just: &[], call: Expand(30) },
];

/// What is run, and what is not and why.
#[derive(Default)]
struct Grid<'a> {
    seen: usize,
    cells: Vec<Cell<'a>>,
    left_out: BTreeMap<&'static str, usize>,
}

impl<'a> Grid<'a> {
    fn add(&mut self, scene: Scene, temper: Temper, clean: &'a Clean, faults: &'a [Fault]) {
        for (index, sent) in clean.sent.iter().enumerate() {
            let number = index + 1;
            for fault in faults {
                for life in LIVES {
                    let cell = Cell { scene, temper, clean, number, fault, life };
                    match self.reason(&cell, sent) {
                        Some(reason) => *self.left_out.entry(reason).or_default() += 1,
                        None if self.for_the_long_run(&cell) => {
                            *self.left_out.entry("left to the long run (CSI_UDISK_LONG=1)").or_default() += 1;
                        }
                        None => self.cells.push(cell),
                    }
                }
            }
        }
    }

    /// Where reads lag, the short run takes every seventh cell, spread over all calls, requests, faults and lives.
    fn for_the_long_run(&mut self, cell: &Cell<'_>) -> bool {
        self.seen += 1;
        cell.temper != Temper::Prompt && !crate::long_run() && !self.seen.is_multiple_of(7)
    }

    fn reason(&self, cell: &Cell<'_>, sent: &Sent) -> Option<&'static str> {
        let before_disk = cell.clean.makes.is_some_and(|makes| cell.number <= makes);
        if is_one_of_many(cell.clean, cell.number) {
            return Some("one of many equal polls, of which the first, the second and the last are struck");
        }
        if let Some(reason) = cell.fault.senseless(&sent.action, before_disk) {
            return Some(reason);
        }
        match cell.fault.strike {
            Strike::Event(_) if cell.temper != Temper::Prompt => {
                return Some("what others do is not seen in time where reads lag");
            }
            Strike::Word(_) if sent.shows.is_empty() => return Some("the answer shows no disk"),
            Strike::Word("Attaching" | "Detaching") if matches!(cell.scene.call, Create(_)) => {
                return Some("a disk that moves between hosts can be handed out");
            }
            Strike::Cloud(..) | Strike::Word(_) | Strike::Event(_) | Strike::Unreachable => {}
        }
        if cell.life == Life::DiesUnheard { cell.fault.same_unheard() } else { None }
    }
}

/// Whether the request is like the two before it and the one after it.
fn is_one_of_many(clean: &Clean, number: usize) -> bool {
    let key = |number: usize| clean.sent.get(number - 1).map(|sent| (&sent.action, &sent.about, &sent.shows));
    let same = |other: usize| key(other) == key(number);
    number > 2 && same(number - 1) && same(number - 2) && same(number + 1)
}

fn run(tempers: &[Temper]) {
    let faults = fault::all();
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let cleans: Vec<(Scene, Temper, Clean)> = tempers
        .iter()
        .flat_map(|temper| SCENES.iter().map(|scene| (*scene, *temper)))
        // Listings alone lag there, and only a create reads them.
        .filter(|(scene, temper)| *temper != Temper::Late || matches!(scene.call, Create(_)))
        .map(|(scene, temper)| (scene, temper, runtime().block_on(clean(scene, temper))))
        .collect();
    let mut grid = Grid::default();
    for (scene, temper, clean) in &cleans {
        grid.add(*scene, *temper, clean, &faults);
    }
    let next = AtomicUsize::new(0);
    // Each thread has a clock of its own, which nothing else moves.
    let work = || {
        let log = Log::default();
        let _listening = log.listen();
        let mut verdicts: Vec<(String, Verdict)> = Vec::new();
        while let Some(cell) = grid.cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = runtime().block_on(cell.judge(&log));
            verdicts.push((name(cell), verdict));
        }
        verdicts
    };
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let doubled = verdicts.iter().filter(|(_, verdict)| verdict.doubled).count();
    report(&format!(
        "{tempers:?}: {} calls, {} faults, {} cells run, {doubled} of them made two disks where nobody can know",
        cleans.len(),
        faults.len(),
        verdicts.len(),
    ));
    for (reason, count) in &grid.left_out {
        report(&format!("  {count} cells left out: {reason}"));
    }
    let faults: Vec<_> = verdicts
        .iter()
        .flat_map(|(name, verdict)| verdict.faults.iter().map(move |fault| format!("{name}: {fault}")))
        .collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn name(cell: &Cell<'_>) -> String {
    let sent = &cell.clean.sent[cell.number - 1];
    let Scene { before, just, call } = cell.scene;
    format!(
        "{call:?} after {before:?} and {just:?}, {:?}, request {} {} {}, {}, {:?}",
        cell.temper, cell.number, sent.action, sent.about, cell.fault.name, cell.life
    )
}

#[test]
fn every_call_converges_whatever_befalls_its_requests() {
    run(&[Temper::Prompt]);
}

#[test]
fn every_call_converges_while_reads_lag() {
    run(&[Temper::Lagging, Temper::Late]);
}
