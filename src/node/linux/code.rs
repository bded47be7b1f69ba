//! The program's own code in memory.
//!
//! A start touches most of the program (flags, TLS, clients, tables), an idle driver little of it, and the kernel counts
//! all that was ever touched as resident until memory runs short. Every node pays for that. So once the start is over
//! its mappings are let go, and what goes on being used comes back from the page cache, without a read of the disk.

use std::io;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// One mapping of this process, of a file, that can be executed and not written.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    length: usize,
}

/// The mappings in a text as `/proc/self/smaps` has it that are code of files, unchanged: a debugger's breakpoint, say,
/// would be lost.
fn code(smaps: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(header) = header(line) {
            current = header;
        } else if line.split_whitespace().eq(["Private_Dirty:", "0", "kB"]) {
            found.extend(current.take());
        }
    }
    found
}

/// `None` when it is no header; a header of another kind of mapping has no mapping.
fn header(line: &str) -> Option<Option<Mapping>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let (may, _offset, _device, inode) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mapping = Mapping { start, length: end.checked_sub(start)? };
    Some((may == "r-xp" && inode != "0").then_some(mapping))
}

/// Lets go of the code that is mapped. Returns how many bytes of address space that were.
///
/// # Errors
/// When `/proc/self/smaps` cannot be read, or the kernel refuses. Nothing is lost then.
pub fn let_go() -> io::Result<usize> {
    let mut bytes = 0;
    for Mapping { start, length } in code(&std::fs::read_to_string("/proc/self/smaps")?) {
        let Some(address) = NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else { continue };
        // SAFETY: the range is a private mapping of a file that nobody can write through and that holds no page of its
        // own. Whoever runs in it faults, and reads the same bytes from the file again. Code is unmapped by nobody:
        // nothing here loads or unloads libraries.
        unsafe { madvise(address, length, MmapAdvise::MADV_DONTNEED) }?;
        bytes += length;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_that_nobody_changed_is_let_go() {
        let mapping = |range: &str, may: &str, inode: u32, dirty: u32| {
            format!(
                "{range} {may} 00000000 08:01 {inode}   /usr/local/bin/csi-udisk\nSize:  8 kB\n\
                 Shared_Dirty:          0 kB\nPrivate_Clean:         8 kB\nPrivate_Dirty:  {dirty} kB\nVmFlags: rd ex\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r--p", 7, 0),
            mapping("3000-7000", "r-xp", 7, 0),
            mapping("7000-8000", "rwxp", 7, 0),
            mapping("8000-9000", "r-xp", 7, 4),
            mapping("9000-a000", "r-xp", 0, 0),
            mapping("7ffe0000-7fff0000", "r-xp", 8, 0),
        ];
        let found = code(&smaps.concat());
        let expected =
            [Mapping { start: 0x3000, length: 0x4000 }, Mapping { start: 0x7ffe_0000, length: 0x1_0000 }];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_program_goes_on_when_its_code_is_let_go() {
        assert!(let_go().unwrap() > 0);
        assert!(!code(&std::fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
    }
}
