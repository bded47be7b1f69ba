//! Which reads show the disks that are waited for, in the fewest calls.
//!
//! The cloud reads one disk by its id, or a page of a listing by its offset; it takes no list of ids. So a page pays
//! where it shows several of the wanted disks, and whether it does is known for disks whose place in the listing was seen
//! before. Where many places are not known, the whole listing is read once.

use std::time::Duration;

use crate::controller::pages::PAGE;
use crate::volume::DiskId;

/// Wanted disks that make a page worth reading.
const SHARED: usize = 2;

/// Disks without a known place from which on a listing is thought of.
const MANY: usize = 4;

/// Places on either side of a page by which a listing may move before a wanted disk is missed.
const MARGIN: usize = 2;

/// How often the disks are read while pages are. Each page serves many, so few calls are saved by waiting longer, and
/// this is what a waiting attachment is late by at most.
pub(super) const PAGED: Duration = Duration::from_millis(1150);

/// A disk to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: DiskId,
    /// Its place in the listing, as last seen.
    pub(super) place: Option<usize>,
    /// No page showed it.
    pub(super) alone: bool,
}

/// What is known of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) total: Option<usize>,
    /// Whether pages can be believed.
    pub(super) believed: bool,
    /// Whether reading all of it is likely to show disks whose place is not known.
    pub(super) shows_all: bool,
}

/// One call, or for a sweep one call per page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Single(DiskId),
    /// A page that should show these.
    Page {
        offset: usize,
        wanted: Vec<DiskId>,
    },
    /// All pages. While the length of the listing is not known, only the first.
    Sweep {
        offsets: Vec<usize>,
        wanted: Vec<DiskId>,
    },
}

impl Read {
    fn calls(&self) -> usize {
        match self {
            Self::Single(_) | Self::Page { .. } => 1,
            Self::Sweep { offsets, .. } => offsets.len(),
        }
    }
}

pub(super) fn plan(mut wanted: Vec<Wanted>, listing: Listing) -> Vec<Read> {
    let single = |wanted: Wanted| Read::Single(wanted.id);
    if !listing.believed {
        return wanted.into_iter().map(single).collect();
    }
    wanted.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.id.cmp(&b.id)));
    let (alone, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| wanted.alone);
    let (unplaced, placed): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| wanted.place.is_none());
    let mut reads: Vec<Read> = alone.into_iter().map(single).collect();
    let pages = pages(placed.clone());
    let offsets: Vec<usize> = (0..listing.total.unwrap_or(1).max(1)).step_by(PAGE).collect();
    // A wait takes several reads, and a sweep finds the places for all of them.
    let sweep =
        listing.shows_all && unplaced.len() >= MANY && offsets.len() <= 2 * unplaced.len() + pages.len();
    if sweep {
        let wanted = placed.into_iter().chain(unplaced).map(|wanted| wanted.id).collect();
        reads.push(Read::Sweep { offsets, wanted });
    } else {
        reads.extend(pages);
        reads.extend(unplaced.into_iter().map(single));
    }
    reads
}

/// Pages that show the disks, in the order of their places; single reads for those that would have one to themselves.
fn pages(placed: Vec<Wanted>) -> Vec<Read> {
    let mut reads = Vec::new();
    let mut page: Vec<Wanted> = Vec::new();
    let mut flush = |page: &mut Vec<Wanted>| {
        let place = page.first().and_then(|wanted| wanted.place).unwrap_or_default();
        let ids = page.drain(..).map(|wanted| wanted.id);
        if ids.len() < SHARED {
            reads.extend(ids.map(Read::Single));
        } else {
            reads.push(Read::Page { offset: place.saturating_sub(MARGIN), wanted: ids.collect() });
        }
    };
    for wanted in placed {
        let first = page.first().and_then(|first| first.place);
        if first.is_some_and(|first| wanted.place.is_some_and(|place| place - first >= PAGE - 2 * MARGIN)) {
            flush(&mut page);
        }
        page.push(wanted);
    }
    flush(&mut page);
    reads
}

/// The least time between two rounds of reads like this one.
pub(super) fn interval(reads: &[Read], least: Duration, most: Duration) -> Duration {
    let calls = u32::try_from(reads.iter().map(Read::calls).sum::<usize>()).unwrap_or(u32::MAX);
    let mut usual = (Duration::from_millis(400) * calls.min(4)).min(PAGED);
    if reads.iter().any(|read| !matches!(read, Read::Single(_))) {
        usual = PAGED;
    }
    // Where pages do not help, many must not use up the account's rate.
    usual.max(Duration::from_millis(100).saturating_mul(calls)).clamp(least, most.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing { total: Some(1050), believed: true, shows_all: true };

    fn wanted(places: &[Option<usize>]) -> Vec<Wanted> {
        let wanted = |(number, place): (usize, &Option<usize>)| Wanted {
            id: DiskId::parse(&format!("bs-{number:04}")).unwrap(),
            place: *place,
            alone: false,
        };
        places.iter().enumerate().map(wanted).collect()
    }

    /// Offsets of pages, the number of single reads, and whether all is read.
    fn shape(reads: &[Read]) -> (Vec<usize>, usize, bool) {
        let mut shape = (Vec::new(), 0, false);
        for read in reads {
            match read {
                Read::Single(_) => shape.1 += 1,
                Read::Page { offset, .. } => shape.0.push(*offset),
                Read::Sweep { offsets, .. } => {
                    shape.0.extend(offsets);
                    shape.2 = true;
                }
            }
        }
        shape
    }

    #[test]
    fn few_are_read_one_by_one() {
        assert_eq!(shape(&plan(wanted(&[None]), LISTING)), (vec![], 1, false));
        assert_eq!(shape(&plan(wanted(&[None; 3]), LISTING)), (vec![], 3, false));
        assert_eq!(shape(&plan(wanted(&[Some(10), Some(200)]), LISTING)), (vec![], 2, false));
        assert_eq!(shape(&plan(wanted(&[Some(10), Some(200), Some(400), Some(600)]), LISTING)).1, 4);
        assert_eq!(plan(Vec::new(), LISTING), []);
    }

    #[test]
    fn neighbours_share_a_page_wherever_they_are() {
        let places: Vec<_> = (430..645).step_by(5).map(Some).collect();
        assert_eq!(shape(&plan(wanted(&places), LISTING)), (vec![428, 528, 628], 0, false));
        // What is left over is not worth a page.
        let places = [Some(50), Some(60), Some(145), Some(146), Some(900)];
        assert_eq!(shape(&plan(wanted(&places), LISTING)), (vec![48], 2, false));
        let reads = plan(wanted(&[Some(1), Some(99)]), LISTING);
        assert_eq!(shape(&reads), (vec![], 2, false), "98 apart, and the listing may move");
    }

    #[test]
    fn a_listing_is_read_whole_when_that_costs_less_than_it_saves() {
        let offsets: Vec<_> = (0..1050).step_by(100).collect();
        assert_eq!(shape(&plan(wanted(&[None; 5]), LISTING)), (vec![], 5, false));
        assert_eq!(shape(&plan(wanted(&[None; 6]), LISTING)), (offsets, 0, true));
        let unknown = Listing { total: None, ..LISTING };
        assert_eq!(shape(&plan(wanted(&[None; 900]), unknown)), (vec![0], 0, true));
        let late = Listing { shows_all: false, ..LISTING };
        assert_eq!(shape(&plan(wanted(&[None; 900]), late)), (vec![], 900, false));
        let off = Listing { believed: false, ..LISTING };
        let places: Vec<_> = (0..50).map(Some).collect();
        assert_eq!(shape(&plan(wanted(&places), off)), (vec![], 50, false));
        assert_eq!(shape(&plan(wanted(&places), LISTING)), (vec![0], 0, false));
    }

    #[test]
    fn each_wanted_disk_is_in_one_read() {
        let mut all = wanted(&[None; 40]);
        for (number, wanted) in all.iter_mut().enumerate().skip(8) {
            wanted.place = Some(number * 13);
            wanted.alone = number % 7 == 0;
        }
        for total in [None, Some(30), Some(520), Some(100_000)] {
            for shows_all in [false, true] {
                let reads = plan(all.clone(), Listing { total, believed: true, shows_all });
                let mut ids: Vec<DiskId> = Vec::new();
                for read in reads {
                    match read {
                        Read::Single(id) => ids.push(id),
                        Read::Page { wanted, .. } | Read::Sweep { wanted, .. } => ids.extend(wanted),
                    }
                }
                ids.sort();
                assert_eq!(ids, all.iter().map(|wanted| wanted.id.clone()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn rounds_are_as_far_apart_as_they_cost() {
        let (least, most) = (Duration::from_millis(500), Duration::from_secs(5));
        let single = |n: usize| plan(wanted(&vec![None; n]), Listing { shows_all: false, ..LISTING });
        for (n, millis) in [(1, 500), (2, 800), (4, 1150), (11, 1150), (20, 2000), (900, 5000)] {
            assert_eq!(interval(&single(n), least, most), Duration::from_millis(millis), "{n}");
        }
        let paged = plan(wanted(&[Some(1), Some(2)]), LISTING);
        assert_eq!(interval(&paged, least, most), PAGED);
    }
}
