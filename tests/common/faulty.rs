//! Disks that fail on command: a loop device whose backing file is in a FUSE file system, and a mount of a disk whose
//! file system does not answer.
//!
//! The FUSE server is a process of its own. A thread that hangs in the kernel keeps all descriptors of its process
//! open, and if the server's were among them, nothing could end the hang. So every disk ends with its server: what
//! hung then fails. It ends when its test does, when the test's process dies, and after [`LONGEST_LIFE`] in any case.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a module of tests")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, SessionACL, WriteFlags,
};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::common::{Disk, TestHost, skip};

/// The test that is the server when it is told so.
const SERVER: &str = "a_faulty_disk_does_what_it_is_told";
const DIRECTORY: &str = "CSI_UDISK_TEST_FAULTY_DISK";
const LONGEST_LIFE: Duration = Duration::from_secs(300);
const TURN: Duration = Duration::from_millis(2);
/// What a read or write of a slow disk takes.
const SLOW: Duration = Duration::from_millis(100);

/// What a disk does with what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Good,
    /// Takes a while for everything.
    Slow,
    /// Fails what is written.
    FailWrites,
    Fail,
    /// Keeps everybody waiting until it is given another mode.
    Hang,
}

impl Mode {
    const ALL: [Self; 5] = [Self::Good, Self::Slow, Self::FailWrites, Self::Fail, Self::Hang];

    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::FailWrites => "fail-writes",
            Self::Fail => "fail",
            Self::Hang => "hang",
        }
    }
}

/// Whether this machine has FUSE; says so if it has not.
pub fn is_possible() -> bool {
    let is = Path::new("/dev/fuse").exists();
    if !is {
        skip("tests of disks that fail or hang: this machine has no /dev/fuse");
    }
    is
}

/// What a disk was asked to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// All before it is on the disk for good.
    Flush,
}

impl Kept {
    const HEADER: usize = 16;

    /// A flush has no bytes.
    fn header(offset: u64, length: usize) -> [u8; Self::HEADER] {
        let mut header = [0; Self::HEADER];
        header[..8].copy_from_slice(&offset.to_le_bytes());
        header[8..].copy_from_slice(&u64::try_from(length).unwrap().to_le_bytes());
        header
    }

    fn parse(mut record: &[u8]) -> Vec<Self> {
        let mut all = Vec::new();
        while !record.is_empty() {
            let (header, rest) = record.split_at(Self::HEADER);
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
            let (bytes, rest) = rest.split_at(usize::try_from(number(&header[8..])).unwrap());
            let offset = number(&header[..8]);
            all.push(if bytes.is_empty() {
                Self::Flush
            } else {
                Self::Write { offset, bytes: bytes.to_vec() }
            });
            record = rest;
        }
        all
    }
}

/// A server. What it serves fails when this is dropped.
pub struct Faulty {
    directory: PathBuf,
    server: Child,
}

impl Faulty {
    /// A disk.
    pub fn disk(host: &TestHost, name: &str, size: u64) -> (Self, Disk) {
        let directory = host.path(name);
        fs::create_dir(&directory).unwrap();
        File::create_new(directory.join("image")).unwrap().set_len(size).unwrap();
        let this = Self::start(directory);
        let disk = host.disk_of(&this.directory.join("mount/disk"));
        (this, disk)
    }

    /// A disk that keeps a record of what it was asked to keep, in that order.
    pub fn recorded(host: &TestHost, name: &str, size: u64) -> (Self, Disk) {
        let directory = host.path(name);
        fs::create_dir(&directory).unwrap();
        File::create_new(directory.join("record")).unwrap();
        File::create_new(directory.join("image")).unwrap().set_len(size).unwrap();
        let this = Self::start(directory);
        let disk = host.disk_of(&this.directory.join("mount/disk"));
        (this, disk)
    }

    /// The record up to now. What was answered is in it.
    pub fn record(&self) -> Vec<Kept> {
        Kept::parse(&fs::read(self.directory.join("record")).unwrap())
    }

    /// A file system of its own on a disk, mounted at `path`.
    pub fn file_system(host: &TestHost, disk: &Disk, path: &Path) -> Self {
        let directory = host.path("faulty-file-system");
        fs::create_dir(&directory).unwrap();
        File::create_new(directory.join("image")).unwrap();
        std::os::unix::fs::symlink(disk.device(), directory.join("device")).unwrap();
        std::os::unix::fs::symlink(path, directory.join("mount")).unwrap();
        Self::start(directory)
    }

    fn start(directory: PathBuf) -> Self {
        let ready = directory.join("ready");
        let server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SERVER, "--nocapture"])
            .env(DIRECTORY, &directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut this = Self { directory, server };
        this.set(Mode::Good);
        while !ready.exists() {
            assert_eq!(this.server.try_wait().unwrap(), None, "the server of a faulty disk has ended");
            wait();
        }
        this
    }

    pub fn set(&self, mode: Mode) {
        // In one step, for the server reads it at any time.
        let (new, path) = (self.directory.join("mode.new"), self.directory.join("mode"));
        fs::write(&new, mode.word()).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Ends the server, as if the disk were pulled.
    pub fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait() {
    pause(TURN);
}

#[allow(clippy::disallowed_methods, reason = "the server has nothing else to wait for")]
fn pause(time: Duration) {
    sleep(time);
}

/// Serves, if this process was started for that.
pub fn serve_if_asked() -> bool {
    #[allow(clippy::disallowed_methods, reason = "the word from the test to its server")]
    let Ok(directory) = std::env::var(DIRECTORY) else { return false };
    set_pdeathsig(Signal::SIGKILL).unwrap();
    std::thread::spawn(|| {
        #[allow(clippy::disallowed_methods, reason = "a limit that is no part of any test")]
        sleep(LONGEST_LIFE);
        std::process::exit(1);
    });
    serve(Path::new(&directory));
    true
}

fn serve(directory: &Path) {
    let image = OpenOptions::new().read(true).write(true).open(directory.join("image")).unwrap();
    let target = directory.join("mount");
    let device = fs::canonicalize(directory.join("device")).ok();
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&fuse);
    let data = format!("fd={fd},rootmode=40755,user_id=0,group_id=0,allow_other");
    let (source, kind) = match &device {
        Some(device) => (device.as_path(), "fuseblk"),
        None => {
            fs::create_dir(&target).unwrap();
            (Path::new("faulty"), "fuse")
        }
    };
    mount(Some(source), &target, Some(kind), MsFlags::empty(), Some(data.as_str())).unwrap();
    let record = OpenOptions::new().append(true).open(directory.join("record")).ok();
    let disk = Server { image, record, mode: directory.join("mode") };
    let session = Session::from_fd(disk, fuse.into(), SessionACL::All, Config::default()).unwrap();
    fs::write(directory.join("ready"), "").unwrap();
    // Ends when nobody has it mounted or open.
    let _ = session.run();
}

struct Server {
    image: File,
    record: Option<File>,
    mode: PathBuf,
}

const FILE: INodeNo = INodeNo(2);
const AT_ONCE: Duration = Duration::ZERO;

impl Server {
    fn mode(&self) -> Mode {
        let word = fs::read_to_string(&self.mode).unwrap_or_default();
        Mode::ALL.into_iter().find(|mode| mode.word() == word).unwrap_or(Mode::Fail)
    }

    /// Waits while the disk hangs. Whether a read succeeds, and whether a write does.
    fn outcome(&self) -> (bool, bool) {
        loop {
            match self.mode() {
                Mode::Good => return (true, true),
                Mode::Slow => {
                    pause(SLOW);
                    return (true, true);
                }
                Mode::FailWrites => return (true, false),
                Mode::Fail => return (false, false),
                Mode::Hang => wait(),
            }
        }
    }

    /// One call after the other is served, so the record has their order.
    fn keep(&self, offset: u64, bytes: &[u8]) {
        if let Some(mut record) = self.record.as_ref() {
            record.write_all(&[&Kept::header(offset, bytes.len())[..], bytes].concat()).unwrap();
        }
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE;
        FileAttr {
            ino: inode,
            size: if is_file { self.image.metadata().map_or(0, |found| found.len()) } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o600 } else { 0o755 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&AT_ONCE, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&AT_ONCE, &self.attributes(inode));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        if self.outcome().0 {
            reply.statfs(1000, 500, 500, 100, 50, 4096, 255, 4096);
        } else {
            reply.error(Errno::EIO);
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing is to be answered from a cache.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match (self.outcome().0, self.image.read_at(&mut bytes, offset)) {
            (true, Ok(length)) => reply.data(&bytes[..length]),
            _ => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.outcome().1 && self.image.write_all_at(data, offset).is_ok() {
            self.keep(offset, data);
            reply.written(u32::try_from(data.len()).unwrap());
        } else {
            reply.error(Errno::EIO);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if self.outcome().1 {
            self.keep(0, &[]);
            reply.ok();
        } else {
            reply.error(Errno::EIO);
        }
    }
}
