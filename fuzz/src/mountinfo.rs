//! The parser of mountinfo: it finds the mounts that are listed, and no others.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use csi_udisk::node::linux::DeviceNumber;
use csi_udisk::node::linux::mountinfo::{Mount, Mounts};

use super::input::Input;

pub fn hold(data: &[u8]) {
    any_text(data);
    let mut input = Input::new(data);
    let cut = usize::try_from(input.number::<2>()).unwrap_or_default();
    let mut mounts = Vec::new();
    while !input.is_empty() && mounts.len() < 8 {
        mounts.push(mount(&mut input));
    }
    these(&mounts, cut);
}

/// Each mount comes from a line of its own, field by field.
pub fn any_text(text: &[u8]) {
    let Ok(mounts) = Mounts::parse(text) else { return };
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "the last line was cut off");
    assert_eq!(mounts.iter().count(), lines.len());
    for (mount, line) in mounts.iter().zip(lines) {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-").expect("a dash") + 6;
        let device: Vec<Option<u64>> = fields[2].split(|byte| *byte == b':').map(number).collect();
        assert_eq!((number(fields[0]), number(fields[1])), (Some(mount.id), Some(mount.parent)));
        assert_eq!(device, [Some(mount.device.major), Some(mount.device.minor)]);
        assert_eq!(mount.root.as_os_str().as_bytes(), decoded(fields[3]));
        assert_eq!(mount.mount_point.as_os_str().as_bytes(), decoded(fields[4]));
        assert_eq!(mount.source.as_os_str().as_bytes(), decoded(fields[dash + 2]));
        assert_eq!(mount.shared, fields[6..dash].iter().any(|tag| tag.starts_with(b"shared:")));
        assert_eq!(mount.fs_type, String::from_utf8_lossy(&decoded(fields[dash + 1])));
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn decoded(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < field.len() {
        let code = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let code = code.filter(|code| code.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    bytes
}

/// What was listed is found again. Of a list that is cut off anywhere, nothing is found, or what is whole.
pub fn these(mounts: &[Mount], cut: usize) {
    let text = list(mounts);
    let found = |text: &[u8]| Mounts::parse(text).map(|found| found.iter().cloned().collect::<Vec<_>>());
    assert_eq!(found(&text).as_deref(), Ok(mounts), "{}", String::from_utf8_lossy(&text));
    let cut = cut % (text.len() + 1);
    if let Ok(found) = found(&text[..cut]) {
        let lines = text[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(found, mounts[..lines], "{:?}", String::from_utf8_lossy(&text[..cut]));
    }
}

/// As the kernel writes it.
pub fn list(mounts: &[Mount]) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        text.extend(format!("{} {} {} ", mount.id, mount.parent, mount.device).bytes());
        escape(mount.root.as_os_str(), &mut text);
        text.push(b' ');
        escape(mount.mount_point.as_os_str(), &mut text);
        text.extend(format!(" {}", mount.options).bytes());
        // Tags come in any number, also none.
        let tags = [" unbindable", " master:7", " master:7 propagate_from:2", ""];
        text.extend(if mount.shared { " shared:12" } else { "" }.bytes());
        text.extend(tags[index % tags.len()].bytes());
        text.extend(b" - ");
        escape(OsStr::new(&mount.fs_type), &mut text);
        text.push(b' ');
        escape(mount.source.as_os_str(), &mut text);
        text.extend(format!(" {}\n", mount.super_options).bytes());
    }
    text
}

fn escape(field: &OsStr, text: &mut Vec<u8>) {
    for byte in field.as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend(format!("\\{byte:03o}").bytes()),
            other => text.push(*other),
        }
    }
}

fn mount(input: &mut Input<'_>) -> Mount {
    Mount {
        id: input.number::<2>(),
        parent: input.number::<2>(),
        device: DeviceNumber { major: input.number::<2>(), minor: input.number::<3>() },
        root: path(input),
        mount_point: path(input),
        options: options(input),
        shared: input.byte() & 1 != 0,
        fs_type: input.choice(&["ext4", "xfs", "btrfs", "fuse.odd type", "tmpfs", "#"]).to_owned(),
        source: path(input),
        super_options: options(input),
    }
}

fn path(input: &mut Input<'_>) -> PathBuf {
    let bytes: Vec<u8> = input.counted().iter().map(|byte| (*byte).max(1)).collect();
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// The kernel's words for what may be written come first, always.
fn options(input: &mut Input<'_>) -> String {
    let may_write = input.choice(&["rw", "ro"]);
    let word = |byte: &u8| char::from(b'!' + byte % 90).to_string().replace('\\', "-");
    format!("{may_write},{}", input.counted().iter().map(word).collect::<String>())
}
