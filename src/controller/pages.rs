//! Reading listings to their end, so that "it is not there" can be believed.

use std::collections::HashSet;
use std::hash::Hash;

use crate::cloud::{Cloud, CloudError, Deadline, Disk, DiskFilter, Host, HostPage};
use crate::volume::{DiskId, HostId, HostKind};

/// The API's documentation names no maximum for disks and 100 for hosts.
const PAGE: usize = 100;

/// Where the next page starts.
///
/// Pages may be short. When the total shrank, things before the offset may have gone and those after it moved
/// down, so the offset moves down by as many: something may be seen twice, nothing is left out.
#[derive(Debug)]
struct Cursor<K> {
    offset: usize,
    total: Option<usize>,
    seen: HashSet<K>,
}

impl<K: Eq + Hash> Cursor<K> {
    fn new() -> Self {
        Self { offset: 0, total: None, seen: HashSet::new() }
    }

    /// Whether this is the first time that the item comes.
    fn is_new(&mut self, key: K) -> bool {
        self.seen.insert(key)
    }

    /// Moves on after a page of `len` items; `false` at the end.
    fn advance(&mut self, len: usize, total: usize) -> bool {
        let shrunk = self.total.replace(total).unwrap_or(total).saturating_sub(total);
        // An empty page before the end is stepped over whole: it must not stop the listing or repeat for ever.
        let step = if len == 0 { PAGE } else { len };
        self.offset = (self.offset + step).saturating_sub(shrunk);
        self.offset < total
    }
}

/// Hands every disk that the filter may match to `visit`, once each, a page at a time.
pub(super) async fn disks<C: Cloud>(
    cloud: &C,
    filter: &DiskFilter,
    deadline: Deadline,
    mut visit: impl FnMut(Disk) + Send,
) -> Result<(), CloudError> {
    let mut cursor = Cursor::<DiskId>::new();
    loop {
        let page = cloud.disks(filter, cursor.offset, PAGE, deadline).await?;
        let len = page.disks.len();
        for disk in page.disks {
            if cursor.is_new(disk.id.clone()) {
                visit(disk);
            }
        }
        if !cursor.advance(len, page.total) {
            return Ok(());
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
        if !cursor.advance(len, total) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(pages: &[(usize, usize)]) -> Vec<usize> {
        let mut cursor = Cursor::<u32>::new();
        let mut offsets = vec![0];
        for (len, total) in pages {
            if !cursor.advance(*len, *total) {
                break;
            }
            offsets.push(cursor.offset);
        }
        offsets
    }

    #[test]
    fn short_and_empty_pages_do_not_end_a_listing() {
        assert_eq!(walk(&[(100, 250), (100, 250), (50, 250)]), [0, 100, 200]);
        assert_eq!(walk(&[(20, 50), (20, 50), (10, 50)]), [0, 20, 40]);
        assert_eq!(walk(&[(0, 150), (50, 150)]), [0, 100]);
        assert_eq!(walk(&[(0, 0)]), [0]);
    }

    #[test]
    fn a_listing_that_shrinks_is_read_further_down() {
        assert_eq!(walk(&[(100, 250), (100, 240), (100, 240)]), [0, 100, 190]);
        assert_eq!(walk(&[(100, 2000), (100, 500), (100, 500)]), [0, 100, 0, 100]);
        // What came after an offset that is now past the end moved down too.
        assert_eq!(walk(&[(100, 250), (0, 90)]), [0, 100, 40]);
    }
}
