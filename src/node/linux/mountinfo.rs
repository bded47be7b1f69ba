//! The mounts of this process's namespace, as the kernel lists them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::device_number::DeviceNumber;
use super::error::HostError;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// Of the file system; an anonymous number for btrfs.
    pub device: DeviceNumber,
    /// What of the file system is mounted: `/` unless this is a bind mount of a part.
    pub root: PathBuf,
    pub mount_point: PathBuf,
    /// Of this mount, such as `rw,noatime`.
    pub options: String,
    /// Whether the mount is in a peer group, so that what is mounted below shows in other namespaces.
    pub shared: bool,
    pub fs_type: String,
    pub source: PathBuf,
    /// Of the file system, such as `rw,errors=remount-ro`.
    pub super_options: String,
}

impl Mount {
    /// Whether this mount refuses writes.
    pub fn read_only(&self) -> bool {
        has_word(&self.options, "ro")
    }

    /// Whether the whole file system refuses writes, be it so mounted or after an error.
    pub fn fs_read_only(&self) -> bool {
        // Since Linux 6.15 ext4 does not become read-only after an error, it only behaves so.
        has_word(&self.super_options, "ro") || has_word(&self.super_options, "emergency_ro")
    }

    /// Whether the file system says that it has given up; ext4 does since Linux 6.15.
    pub fn fs_shut_down(&self) -> bool {
        has_word(&self.super_options, "shutdown")
    }
}

fn has_word(options: &str, word: &str) -> bool {
    options.split(',').any(|option| option == word)
}

/// Why a line of the list was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of mountinfo is not understood: {text:?}")]
pub struct ParseError {
    line: usize,
    text: String,
}

/// A snapshot of all mounts, in the order in which the kernel lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the list of the calling thread's namespace.
    pub fn read() -> Result<Self, HostError> {
        // Kernels before 5.8 can leave out entries when the list changes while it is read in parts, so a list
        // counts when it was the same twice.
        let mut last = read_bytes()?;
        for _ in 0..4 {
            let again = read_bytes()?;
            if again == last {
                break;
            }
            last = again;
        }
        Self::parse(&last).map_err(|e| HostError::new("cannot read the mounts", io::Error::other(e)))
    }

    /// Understands the text of `/proc/self/mountinfo`.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut mounts = Vec::new();
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            // Without its end it is cut off, and so may be the names in it.
            let mount = line.strip_suffix(b"\n").map(parse_line);
            match mount {
                Some(Some(mount)) => mounts.push(mount),
                _ => {
                    let text = String::from_utf8_lossy(line).trim_end().to_owned();
                    return Err(ParseError { line: index + 1, text });
                }
            }
        }
        Ok(Self(mounts))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mounts on `path`, lowest first.
    pub fn at<'a>(&'a self, path: &Path) -> impl DoubleEndedIterator<Item = &'a Mount> {
        self.0.iter().filter(move |mount| mount.mount_point == path)
    }

    /// What is seen at `path`, if it is a mount point: what nothing else there is mounted on. The order alone does not tell,
    /// for a mount can be moved onto a younger one.
    pub fn top(&self, path: &Path) -> Option<&Mount> {
        let is_covered = |mount: &&Mount| self.at(path).any(|other| other.parent == mount.id);
        self.at(path).rev().find(|mount| !is_covered(mount)).or_else(|| self.at(path).next_back())
    }

    /// What hides `mount`: it was mounted later, on a directory above it.
    pub fn hiding<'a>(&'a self, mount: &Mount) -> Option<&'a Mount> {
        let mut parents = vec![mount.id, mount.parent];
        while let Some(above) = parents.last().and_then(|id| self.iter().find(|other| other.id == *id)) {
            if parents.contains(&above.parent) {
                break;
            }
            parents.push(above.parent);
        }
        self.iter()
            .filter(|other| other.mount_point != mount.mount_point && !parents.contains(&other.id))
            .filter(|other| mount.mount_point.starts_with(&other.mount_point))
            .last()
    }

    /// The mount points in `mount`, other than those on it.
    pub fn within(&self, mount: &Mount) -> Vec<PathBuf> {
        self.iter()
            .filter(|other| other.parent == mount.id && other.mount_point != mount.mount_point)
            .map(|other| other.mount_point.clone())
            .collect()
    }
}

/// In which mount a file was opened, by the number that it has in the list.
pub fn mount_id(file: &File) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other(format!("no mnt_id in {text:?}")))
}

fn read_bytes() -> Result<Vec<u8>, HostError> {
    // The thread's own list, because a thread may be in another namespace than the process; older kernels lack it.
    let result = match fs::read("/proc/thread-self/mountinfo") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read("/proc/self/mountinfo"),
        other => other,
    };
    result.map_err(|error| HostError::new("cannot read the mounts of this process", error))
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let parent = text(fields.next()?)?.parse().ok()?;
    let device = DeviceNumber::parse(text(fields.next()?)?)?;
    let root = path(fields.next()?);
    let mount_point = path(fields.next()?);
    let options = lossy(fields.next()?);
    let mut shared = false;
    loop {
        match fields.next()? {
            b"-" => break,
            tag => shared |= tag.starts_with(b"shared:"),
        }
    }
    let fs_type = lossy(fields.next()?);
    let source = path(fields.next()?);
    // Some file systems have no options of their own, and a few print spaces in them.
    let super_options = lossy(&fields.collect::<Vec<_>>().join(&b' '));
    Some(Mount { id, parent, device, root, mount_point, options, shared, fs_type, source, super_options })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

fn lossy(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            _ => {
                out.push(byte);
                after
            }
        };
    }
    out
}

/// `path` as mountinfo shows it: its parent without symbolic links (UK8S links `/var/lib/kubelet` to
/// `/data/kubelet`), its last component untouched, for that may be a mount of a dead disk.
pub fn as_listed(path: &Path) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    match fs::canonicalize(parent) {
        Ok(parent) => parent.join(OsStr::from_bytes(name.as_bytes())),
        // It will be made where what is above it leads.
        Err(error) if error.kind() == io::ErrorKind::NotFound => as_listed(parent).join(name),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &[u8] = b"\
28 1 253:0 / / rw,relatime - ext4 /dev/vda rw,errors=remount-ro\n\
90 28 253:16 / /var/lib/kubelet/a\\040b rw,noatime shared:2 master:1 - ext4 /dev/vdb rw\n\
91 90 0:45 /sub /var/lib/kubelet/a\\040b ro,relatime - btrfs /dev/vdc rw,space_cache\n\
92 28 0:5 /vdd /block rw - devtmpfs devtmpfs rw,size=4k\n";

    #[test]
    fn fields_are_found_with_and_without_tags() {
        let mounts = Mounts::parse(SAMPLE).unwrap();
        let at: Vec<_> = mounts.at(Path::new("/var/lib/kubelet/a b")).collect();
        assert_eq!(at.len(), 2);
        assert_eq!(at[0].device, DeviceNumber { major: 253, minor: 16 });
        assert!(at[0].shared && !at[0].read_only());
        let top = mounts.top(Path::new("/var/lib/kubelet/a b/")).unwrap();
        assert_eq!((top.root.as_path(), top.source.as_path()), (Path::new("/sub"), Path::new("/dev/vdc")));
        assert!(top.read_only() && !top.fs_read_only() && !top.shared);
        assert_eq!(mounts.top(Path::new("/block")).unwrap().root, Path::new("/vdd"));
        assert_eq!(mounts.top(Path::new("/var")), None);
    }

    #[test]
    fn a_mount_that_was_moved_onto_a_younger_one_is_on_top() {
        let line =
            |id: u32, parent: u32, name: &str| format!("{id} {parent} 8:1 / {name} rw - ext4 /dev/{id} rw\n");
        let list = [
            line(1, 0, "/"),
            line(30, 41, "/a"),
            line(40, 1, "/a"),
            line(41, 40, "/a"),
            line(50, 30, "/a/b"),
        ];
        let mounts = Mounts::parse(list.concat().as_bytes()).unwrap();
        let top = mounts.top(Path::new("/a")).unwrap();
        assert_eq!(top.id, 30);
        assert_eq!(mounts.within(top), [PathBuf::from("/a/b")]);
        assert_eq!(mounts.hiding(top), None);
    }

    #[test]
    fn what_is_mounted_above_a_mount_hides_it() {
        let line =
            |id: u32, parent: u32, name: &str| format!("{id} {parent} 8:1 / {name} rw - ext4 /dev/{id} rw\n");
        let list =
            [line(1, 1, "/"), line(2, 1, "/k"), line(3, 2, "/k/a/b"), line(4, 2, "/k/a"), line(5, 2, "/k/c")];
        let mounts = Mounts::parse(list.concat().as_bytes()).unwrap();
        let hiding = |path: &str| mounts.hiding(mounts.top(Path::new(path)).unwrap()).map(|mount| mount.id);
        assert_eq!((hiding("/k/a/b"), hiding("/k/a"), hiding("/k/c")), (Some(4), None, None));
    }

    #[test]
    fn a_cut_line_is_an_error_and_not_a_missing_mount() {
        assert_eq!(Mounts::parse(b"28 1 253:0 / / rw\n").unwrap_err().line, 1);
        assert!(Mounts::parse(b"28 1 253 / / rw - ext4 a rw\n").is_err());
    }

    #[test]
    fn the_list_of_this_process_is_understood() {
        assert!(Mounts::read().unwrap().top(Path::new("/proc")).is_some());
    }

    fn escape(bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                other => vec![*other],
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_path_survives_the_kernel_s_escapes(tail in proptest::collection::vec(1u8..=255, 0..40)) {
            let mut raw = b"/".to_vec();
            raw.extend(tail);
            let mut line = b"1 2 8:1 / ".to_vec();
            line.extend(escape(&raw));
            line.extend(b" rw - ext4 ");
            line.extend(escape(&raw));
            line.extend(b" rw\n");
            let mounts = Mounts::parse(&line).unwrap();
            let mount = mounts.iter().next().unwrap();
            prop_assert_eq!(mount.mount_point.as_os_str().as_bytes(), raw.as_slice());
            prop_assert_eq!(mount.source.as_os_str().as_bytes(), raw.as_slice());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mounts::parse(&text);
        }
    }
}
