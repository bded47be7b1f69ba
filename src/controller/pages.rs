//! Reading listings to their end, so that "it is not there" can be believed.
//!
//! The end is where as many were shown as the cloud counts. A listing that stops before is read anew, because things
//! may have moved between its pages, and is an error if it stops again: a name that such a listing does not show may be
//! that of a disk.

use std::collections::HashSet;
use std::hash::Hash;

use crate::cloud::{
    Cause, Cloud, CloudError, Deadline, Disk, DiskFilter, Host, HostPage, Outcome, Unreadable,
};
use crate::volume::{DiskId, HostId, HostKind};

/// The API's documentation names no maximum for disks and 100 for hosts.
pub(super) const PAGE: usize = 100;

/// Pages in a row that may bring nothing new. A listing of which each page is empty, or the same, does not end.
const IDLE_PAGES: u32 = 3;

/// How often a listing is read that shows less than it counts.
const READS: u32 = 3;

/// Where the next page starts.
///
/// Pages may be short. When the total shrank, things before the offset may have gone and those after it moved
/// down, so the offset moves down by as many: something may be seen twice, nothing is left out.
#[derive(Debug)]
struct Cursor<K> {
    offset: usize,
    total: Option<usize>,
    seen: HashSet<K>,
    /// Pages in a row without anything new.
    idle: u32,
    /// Since the last page.
    news: bool,
    reads: u32,
}

/// How a listing goes on after a page.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Page,
    End,
    /// It shows less than it counts, however often it is read.
    Short {
        seen: usize,
        total: usize,
    },
}

impl<K: Eq + Hash> Cursor<K> {
    fn new() -> Self {
        Self { offset: 0, total: None, seen: HashSet::new(), idle: 0, news: false, reads: 1 }
    }

    /// Whether this is the first time that the item comes.
    fn is_new(&mut self, key: K) -> bool {
        let new = self.seen.insert(key);
        self.news |= new;
        new
    }

    /// Moves on after a page of `len` items.
    fn advance(&mut self, len: usize, total: usize) -> Next {
        let shrunk = self.total.replace(total).unwrap_or(total).saturating_sub(total);
        // An empty page before the end is stepped over whole: it must not stop the listing or repeat for ever.
        let step = if len == 0 { PAGE } else { len };
        self.offset = (self.offset + step).saturating_sub(shrunk);
        self.idle = if std::mem::take(&mut self.news) { 0 } else { self.idle + 1 };
        if self.offset < total && self.idle < IDLE_PAGES {
            return Next::Page;
        }
        let seen = self.seen.len();
        if seen >= total {
            return Next::End;
        }
        if self.reads >= READS {
            return Next::Short { seen, total };
        }
        (self.offset, self.total, self.idle) = (0, None, 0);
        self.reads += 1;
        Next::Page
    }
}

fn short(action: &'static str, seen: usize, total: usize) -> CloudError {
    CloudError {
        action,
        cause: Cause::NoAnswer,
        outcome: Outcome::NothingHappened,
        ret_code: None,
        message: format!("the listing counts {total} and shows {seen}, so what it does not show may exist"),
        advice: Some("the driver looks again; if it stays so, ask UCloud's support"),
        request_id: None,
        attempts: READS,
    }
}

/// That a disk cannot be read which may be one that is looked for.
pub(super) fn hides(unreadable: Unreadable) -> CloudError {
    let Unreadable { id, source, .. } = unreadable;
    CloudError {
        message: format!(
            "UDisk {id} may be the one that is looked for, and cannot be read: {}",
            source.message
        ),
        advice: Some("ask UCloud's support what is wrong with that disk; other disks are not concerned"),
        ..*source
    }
}

/// Hands every disk that the filter may match to `visit`, once each, a page at a time; also those that cannot be read.
pub(crate) async fn disks<C: Cloud>(
    cloud: &C,
    filter: &DiskFilter,
    deadline: Deadline,
    mut visit: impl FnMut(Result<Disk, Unreadable>) + Send,
) -> Result<(), CloudError> {
    let mut visited = HashSet::new();
    let mut once = |id: DiskId, disk| {
        if visited.insert(id) {
            visit(disk);
        }
    };
    let filtered = walk(cloud, filter, usize::MAX, deadline, &mut once).await?;
    let Some((seen, total)) = filtered else { return Ok(()) };
    let whole = DiskFilter { name: None, host: None, ..filter.clone() };
    if whole != *filter {
        // A backend that filters and counts all the same would never show enough. It counts about as many as there
        // are in all; else the count is of something that comes or goes, and reading all would cost much for nothing.
        tracing::warn!(
            seen,
            total,
            "a filtered listing counts more than it shows; trying the one of all disks"
        );
        if walk(cloud, &whole, total.saturating_mul(2), deadline, &mut once).await?.is_none() {
            return Ok(());
        }
    }
    Err(short("DescribeUDisk", seen, total))
}

/// Reads a listing to its end. Or how many it shows and counts, when it does not come to it, or counts more than `most`.
async fn walk<C: Cloud>(
    cloud: &C,
    filter: &DiskFilter,
    most: usize,
    deadline: Deadline,
    visit: &mut (impl FnMut(DiskId, Result<Disk, Unreadable>) + Send),
) -> Result<Option<(usize, usize)>, CloudError> {
    let mut cursor = Cursor::<DiskId>::new();
    loop {
        let page = cloud.disks(filter, cursor.offset, PAGE, deadline).await?;
        let len = page.disks.len();
        if page.total > most {
            return Ok(Some((len, page.total)));
        }
        for disk in page.disks {
            let id = disk.as_ref().map_or_else(|unreadable| &unreadable.id, |disk| &disk.id).clone();
            if cursor.is_new(id.clone()) {
                visit(id, disk);
            }
        }
        match cursor.advance(len, page.total) {
            Next::Page => {}
            Next::End => return Ok(None),
            Next::Short { seen, total } => return Ok(Some((seen, total))),
        }
    }
}

/// All hosts of one kind.
pub(super) async fn hosts<C: Cloud>(
    cloud: &C,
    kind: HostKind,
    deadline: Deadline,
    mut visit: impl FnMut(Host) + Send,
) -> Result<(), CloudError> {
    let mut cursor = Cursor::<HostId>::new();
    let action = match kind {
        HostKind::Virtual => "DescribeUHostInstance",
        HostKind::BareMetal => "DescribePHost",
    };
    loop {
        let HostPage { total, hosts } = match kind {
            HostKind::Virtual => cloud.virtual_hosts(cursor.offset, PAGE, deadline).await?,
            HostKind::BareMetal => cloud.bare_metal_hosts(cursor.offset, PAGE, deadline).await?,
        };
        let len = hosts.len();
        for host in hosts {
            if cursor.is_new(host.id.clone()) {
                visit(host);
            }
        }
        match cursor.advance(len, total) {
            Next::Page => {}
            Next::End => return Ok(()),
            Next::Short { seen, total } => return Err(short(action, seen, total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets of the pages that are asked for, when each brings what is not known yet, and how it ended.
    fn walk(pages: &[(usize, usize)]) -> (Vec<usize>, Next) {
        let mut cursor = Cursor::<usize>::new();
        let mut offsets = vec![0];
        let mut count = 0;
        for (len, total) in pages {
            for _ in 0..*len {
                cursor.is_new(count);
                count += 1;
            }
            match cursor.advance(*len, *total) {
                Next::Page => offsets.push(cursor.offset),
                end @ (Next::End | Next::Short { .. }) => return (offsets, end),
            }
        }
        (offsets, Next::Page)
    }

    #[test]
    fn short_and_empty_pages_do_not_end_a_listing() {
        assert_eq!(walk(&[(100, 250), (100, 250), (50, 250)]), (vec![0, 100, 200], Next::End));
        assert_eq!(walk(&[(20, 50), (20, 50), (10, 50)]), (vec![0, 20, 40], Next::End));
        assert_eq!(walk(&[(0, 150), (50, 150), (100, 150), (0, 150)]), (vec![0, 100, 0, 100], Next::End));
        assert_eq!(walk(&[(0, 0)]), (vec![0], Next::End));
    }

    #[test]
    fn a_listing_that_shrinks_is_read_further_down() {
        assert_eq!(walk(&[(100, 250), (100, 240), (50, 240)]), (vec![0, 100, 190], Next::End));
        assert_eq!(walk(&[(100, 2000), (100, 500), (100, 500), (200, 500)]).0, [0, 100, 0, 100, 300]);
        // What came after an offset that is now past the end moved down too.
        assert_eq!(walk(&[(100, 250), (0, 110)]), (vec![0, 100, 60], Next::Page));
    }

    #[test]
    fn a_listing_that_shows_less_than_it_counts_is_never_complete() {
        assert_eq!(walk(&[(0, 1), (0, 1), (0, 1)]), (vec![0, 0, 0], Next::Short { seen: 0, total: 1 }));
        assert_eq!(walk(&[(1, 3), (0, 3), (0, 3), (0, 3)]).1, Next::Short { seen: 1, total: 3 });
        // Not even one that counts without end does not end.
        let endless = [(0, usize::MAX); 9];
        assert_eq!(walk(&endless).1, Next::Short { seen: 0, total: usize::MAX });
    }

    #[test]
    fn what_moved_between_two_pages_is_found_when_it_is_read_anew() {
        assert_eq!(walk(&[(100, 151), (50, 151), (1, 151)]), (vec![0, 100, 150], Next::End));
        assert_eq!(walk(&[(100, 150), (49, 150), (0, 150), (100, 150), (0, 150)]).1, Next::End);
    }
}
