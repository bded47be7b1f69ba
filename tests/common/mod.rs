//! Hosts for tests: real loop devices as disks, a sysfs and a device directory of their own, in a mount namespace of
//! its own. Nothing of it is left behind, also when a test fails.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a module of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::{format, note};
use csi_udisk::node::{Node, NodeConfig, StageError};
use csi_udisk::progress::Progress;
use csi_udisk::volume::{
    Access, AccessMode, Capability, DiskId, FsType, Gib, MountAccess, PublishContext, VolumeContext,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Whence, lseek64};

pub const GIB: u64 = 1 << 30;
/// The smallest disk that is formatted.
pub const SMALL: u64 = note::LEAST_DISK;
pub const SMALL_GIB: Gib = Gib::new(3);
const BLOCK: usize = 4096;

/// Says what is left out and why, where `tests/run` collects it.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    #[allow(clippy::disallowed_methods, reason = "the test runner's own variable")]
    if let Ok(path) = std::env::var("CSI_UDISK_TEST_SKIPS")
        && let Ok(mut file) = fs::OpenOptions::new().append(true).create(true).open(path)
    {
        writeln!(file, "{reason}").unwrap();
    }
}

/// Says what a run held, past the test's own capture of its output: the number is part of what the test shows.
pub fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether loop devices and mounts can be made.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The file systems whose tools are here; says which are not.
pub fn file_systems() -> Vec<FsType> {
    let (here, missing): (Vec<_>, Vec<_>) = FsType::ALL.into_iter().partition(|fs| format::is_installed(*fs));
    for fs in missing {
        skip(&format!("tests of {fs}: {} is not installed", format::mkfs(fs).name));
    }
    here
}

/// Runs a test as root in a mount namespace of its own, or says that it did not. `virtual_time`: waiting takes none.
pub fn on_a_host<F: Future<Output = ()>>(virtual_time: bool, test: impl FnOnce(TestHost) -> F + Send) {
    if !is_root() {
        skip("tests on real file systems: they need root for loop devices and mounts");
        return;
    }
    std::thread::scope(|scope| {
        // A thread of its own, because a namespace is a thread's. What it spawns is in the same one.
        let thread = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(virtual_time)
                .build()
                .unwrap();
            runtime.block_on(test(TestHost::new()));
        });
        if let Err(reason) = thread.join() {
            std::panic::resume_unwind(reason);
        }
    });
}

/// A host: its sysfs, its devices, and a directory for kubelet.
pub struct TestHost {
    state: Arc<State>,
}

struct State {
    disks: Mutex<Vec<Disk>>,
    dir: tempfile::TempDir,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Ok(mounts) = Mounts::read() {
            let below: Vec<PathBuf> = mounts
                .iter()
                .map(|mount| mount.mount_point.clone())
                .filter(|path| path.starts_with(self.dir.path()))
                .collect();
            for path in below.iter().rev() {
                // What is gone already is gone.
                let _ = umount2(path, MntFlags::MNT_DETACH);
            }
        }
    }
}

impl TestHost {
    /// A host in the mount namespace of this thread.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["sys/block", "sys/fs/ext4", "dev", "kubelet", "images"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        symlink("/sys/fs/btrfs", dir.path().join("sys/fs/btrfs")).unwrap();
        Self { state: Arc::new(State { disks: Mutex::default(), dir }) }
    }

    pub fn dir(&self) -> &Path {
        self.state.dir.path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    /// A node as it is after a start of the driver.
    pub fn node(&self) -> Node {
        Node::new(&NodeConfig { sysfs_root: self.path("sys"), dev_root: self.path("dev") })
    }

    /// Makes a blank disk.
    pub fn disk(&self, name: &str, size: u64) -> Disk {
        let image = self.path("images").join(name);
        fs::File::create_new(&image).unwrap().set_len(size).unwrap();
        self.disk_of(&image)
    }

    /// Makes a blank disk that is gone when it is dropped. `mkfs.btrfs` looks for its UUID on all disks of the machine.
    pub fn passing_disk(&self, size: u64) -> Disk {
        let image = self.path("images/passing");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        Self::passing_disk_of(&image)
    }

    /// The same of an image that is there.
    pub fn passing_disk_of(image: &Path) -> Disk {
        Disk { inner: Arc::new(Loop::attach(image, 512)) }
    }

    /// Makes a disk of an image that is there.
    pub fn disk_of(&self, image: &Path) -> Disk {
        self.disk_with_sectors(image, 512)
    }

    /// The same with sectors of this many bytes.
    pub fn disk_with_sectors(&self, image: &Path, sector: u32) -> Disk {
        let disk = Disk { inner: Arc::new(Loop::attach(image, sector)) };
        self.state.disks.lock().unwrap().push(disk.clone());
        disk
    }

    /// Makes a disk of a loop device that is there; it is detached at the end.
    pub fn disk_at(&self, device: &Path, image: &Path) -> Disk {
        let inner = Loop { device: device.to_owned(), image: image.to_owned() };
        let disk = Disk { inner: Arc::new(inner) };
        self.state.disks.lock().unwrap().push(disk.clone());
        disk
    }

    /// Puts a disk into a slot, under some name of the kernel's.
    pub fn plug(&self, kernel_name: &str, serial: &str, disk: &Disk) {
        let block = self.path("sys/block").join(kernel_name);
        fs::create_dir(&block).unwrap();
        let real = Path::new("/sys/block").join(disk.name());
        for attribute in ["dev", "size", "diskseq", "ro"] {
            if real.join(attribute).exists() {
                symlink(real.join(attribute), block.join(attribute)).unwrap();
            }
        }
        symlink(disk.device(), self.path("dev").join(kernel_name)).unwrap();
        // Leads to nothing until ext4 is mounted.
        let errors = Path::new("/sys/fs/ext4").join(disk.name());
        symlink(errors, self.path("sys/fs/ext4").join(kernel_name)).unwrap();
        fs::write(block.join("serial"), serial).unwrap();
    }

    /// Makes the device's node one of its own instead of a link to the machine's.
    pub fn own_node(&self, kernel_name: &str, disk: &Disk) {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.path("dev").join(kernel_name);
        fs::remove_file(&path).unwrap();
        let number = fs::metadata(disk.device()).unwrap().rdev();
        nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFBLK, nix::sys::stat::Mode::S_IRWXU, number)
            .unwrap();
    }

    pub fn unplug(&self, kernel_name: &str) {
        fs::remove_dir_all(self.path("sys/block").join(kernel_name)).unwrap();
        fs::remove_file(self.path("dev").join(kernel_name)).unwrap();
        fs::remove_file(self.path("sys/fs/ext4").join(kernel_name)).unwrap();
    }

    /// A blank disk of the least size in a slot.
    pub fn plugged(&self, kernel_name: &str, slot: &str) -> Disk {
        let disk = self.disk(kernel_name, SMALL);
        self.plug(kernel_name, &format!("UCLOUD_DISK_{}", slot.to_uppercase()), &disk);
        disk
    }

    /// A staging directory as kubelet makes it.
    pub fn staging(&self, name: &str) -> PathBuf {
        let path = self.path("kubelet").join(name).join("globalmount");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A target; kubelet makes the directory above it.
    pub fn target(&self, name: &str) -> PathBuf {
        let parent = self.path("kubelet/pods").join(name);
        fs::create_dir_all(&parent).unwrap();
        parent.join("mount")
    }
}

pub fn mounts_at(path: &Path) -> usize {
    Mounts::read().unwrap().at(path).count()
}

/// A copy of this thread's mount namespace, which keeps what is mounted in use until it is dropped.
pub struct OtherNamespace {
    release: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl OtherNamespace {
    pub fn new() -> Self {
        let (release, wait) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            ready.send(()).unwrap();
            // Ends when the sender is dropped.
            let _ = wait.recv();
        });
        is_ready.recv().unwrap();
        Self { release: Some(release), holder: Some(holder) }
    }
}

impl Drop for OtherNamespace {
    /// The kernel takes a namespace apart some time after its last thread.
    fn drop(&mut self) {
        self.release = None;
        let _ = self.holder.take().map(JoinHandle::join);
    }
}

/// A disk on a loop device.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Loop>,
}

struct Loop {
    device: PathBuf,
    image: PathBuf,
}

impl Loop {
    fn attach(image: &Path, sector: u32) -> Self {
        let output =
            run("losetup", &["-f", "--show", "-b", &sector.to_string(), &image.display().to_string()]);
        let device = PathBuf::from(output.trim());
        // A number that was made read-only stays so for its next user, and a test may have been cut off in between.
        run("blockdev", &["--setrw", &device.display().to_string()]);
        Self { device, image: image.to_owned() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("blockdev").arg("--setrw").arg(&self.device).status();
        // Still mounted: the kernel detaches it when the namespace ends.
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

impl Disk {
    pub fn device(&self) -> &Path {
        &self.inner.device
    }

    pub fn image(&self) -> &Path {
        &self.inner.image
    }

    pub fn name(&self) -> &str {
        self.device().file_name().unwrap().to_str().unwrap()
    }

    pub fn grow(&self, size: u64) {
        fs::OpenOptions::new().write(true).open(self.image()).unwrap().set_len(size).unwrap();
        run("losetup", &["-c", &self.device().display().to_string()]);
    }

    /// Everything on it that is not zero, in blocks, read past the caches of file systems.
    pub fn content(&self) -> BTreeMap<u64, Vec<u8>> {
        run("sync", &["-f", &self.image().display().to_string()]);
        let file = fs::File::open(self.image()).unwrap();
        let mut content = BTreeMap::new();
        for (start, end) in extents(&file) {
            for offset in (start..end).step_by(BLOCK) {
                let mut block = vec![0; BLOCK.min(usize::try_from(end - offset).unwrap())];
                file.read_exact_at(&mut block, offset).unwrap();
                if block.iter().any(|byte| *byte != 0) {
                    content.insert(offset, block);
                }
            }
        }
        content
    }

    /// Writes to it as somebody else would.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let device = fs::OpenOptions::new().write(true).open(self.device()).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    /// Makes a sparse copy of it as it is now.
    pub fn copy_to(&self, image: &Path) {
        let file = fs::File::create_new(image).unwrap();
        file.set_len(fs::metadata(self.image()).unwrap().len()).unwrap();
        for (offset, block) in self.content() {
            file.write_all_at(&block, offset).unwrap();
        }
    }
}

/// The parts of a sparse file that hold data, in whole blocks.
fn extents(file: &fs::File) -> Vec<(u64, u64)> {
    let length = file.metadata().unwrap().len();
    let seek = |from: u64, whence| match lseek64(file, i64::try_from(from).unwrap(), whence) {
        Ok(position) => Some(u64::try_from(position).unwrap()),
        Err(Errno::ENXIO) => None,
        Err(error) => panic!("{error}"),
    };
    let mut extents = Vec::new();
    let mut position = 0;
    while let Some(start) = seek(position, Whence::SeekData) {
        position = seek(start, Whence::SeekHole).unwrap();
        let block = BLOCK as u64;
        extents.push((start / block * block, position.next_multiple_of(block).min(length)));
    }
    extents
}

/// With the tools' own hands, as somebody else would.
pub fn make(fs: FsType, device: &Path, uuid: Option<&str>) {
    let marked;
    let mut arguments = vec!["-q"];
    match (fs, uuid) {
        (_, None) => {}
        (FsType::Xfs, Some(uuid)) => {
            marked = format!("uuid={uuid}");
            arguments.extend(["-m", &marked]);
        }
        (_, Some(uuid)) => arguments.extend(["-U", uuid]),
    }
    arguments.push(device.to_str().unwrap());
    run(format::mkfs(fs).name, &arguments);
}

/// The file system's own checker must find nothing to repair.
pub fn check(fs: FsType, disk: &Disk) {
    let device = disk.device().to_str().unwrap();
    match fs {
        FsType::Ext3 | FsType::Ext4 => run("e2fsck", &["-fn", device]),
        FsType::Xfs => run("xfs_repair", &["-n", device]),
        FsType::Btrfs => run("btrfs", &["check", "--readonly", device]),
    };
}

/// Stages, which must be refused, and proves that no byte of the disk changed.
pub async fn refused(node: &Node, volume: &Volume, disk: &Disk) -> StageError {
    let before = disk.content();
    let error = volume.stage(node).await.unwrap_err();
    assert!(disk.content() == before, "the disk was changed although: {error}");
    assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
    error
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// One volume, with all that its calls need.
#[derive(Clone)]
pub struct Volume {
    pub id: DiskId,
    pub staging: PathBuf,
    pub target: PathBuf,
    pub capability: Capability,
    pub context: PublishContext,
    pub volume_context: VolumeContext,
}

impl Volume {
    pub fn fs(host: &TestHost, id: &str, fs: FsType, slot: &str, size: Gib) -> Self {
        let access = Access::Mount(MountAccess { fs, flags: Vec::new() });
        Self::new(host, id, access, slot, size)
    }

    pub fn block(host: &TestHost, id: &str, slot: &str, size: Gib) -> Self {
        Self::new(host, id, Access::Block, slot, size)
    }

    fn new(host: &TestHost, id: &str, access: Access, slot: &str, size: Gib) -> Self {
        // File systems of one UUID on one machine disturb each other, and tests run side by side.
        let id = &format!("{id}{}", host.dir().file_name().unwrap().display()).replace('.', "-");
        Self {
            id: DiskId::parse(id).unwrap(),
            staging: host.staging(id),
            target: host.target(id),
            capability: Capability { access, mode: AccessMode::SingleNodeWriter },
            context: PublishContext { device: Some(slot.to_owned()), size: Some(size) },
            volume_context: VolumeContext::default(),
        }
    }

    pub fn flags(mut self, flags: &[&str]) -> Self {
        if let Access::Mount(access) = &mut self.capability.access {
            access.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        }
        self
    }

    pub fn reader(mut self) -> Self {
        self.capability.mode = AccessMode::SingleNodeReaderOnly;
        self
    }

    pub fn with_fs(mut self, fs: FsType) -> Self {
        self.capability.access = Access::Mount(MountAccess { fs, flags: Vec::new() });
        self
    }

    pub async fn stage(&self, node: &Node) -> Result<(), StageError> {
        self.stage_telling(node, &Progress::default()).await
    }

    pub async fn stage_telling(&self, node: &Node, progress: &Progress) -> Result<(), StageError> {
        let request = csi_udisk::node::StageRequest {
            volume: self.id.clone(),
            staging_path: self.staging.clone(),
            capability: self.capability.clone(),
            context: self.context.clone(),
            volume_context: self.volume_context.clone(),
        };
        node.stage(request, progress).await
    }

    pub async fn unstage(&self, node: &Node) -> Result<(), csi_udisk::node::UnstageError> {
        let request =
            csi_udisk::node::UnstageRequest { volume: self.id.clone(), staging_path: self.staging.clone() };
        node.unstage(request, &Progress::default()).await
    }

    pub async fn publish(&self, node: &Node, read_only: bool) -> Result<(), csi_udisk::node::PublishError> {
        let request = csi_udisk::node::PublishRequest {
            volume: self.id.clone(),
            staging_path: self.staging.clone(),
            target_path: self.target.clone(),
            capability: self.capability.clone(),
            context: self.context.clone(),
            volume_context: self.volume_context.clone(),
            read_only,
        };
        node.publish(request, &Progress::default()).await
    }

    pub async fn unpublish(&self, node: &Node) -> Result<(), csi_udisk::node::UnpublishError> {
        let request =
            csi_udisk::node::UnpublishRequest { volume: self.id.clone(), target_path: self.target.clone() };
        node.unpublish(request, &Progress::default()).await
    }

    pub async fn stats(&self, node: &Node) -> Result<csi_udisk::node::Usage, csi_udisk::node::StatsError> {
        let request = csi_udisk::node::StatsRequest { volume: self.id.clone(), path: self.target.clone() };
        node.stats(request).await
    }

    pub async fn health(
        &self,
        node: &Node,
    ) -> Result<Vec<csi_udisk::node::Problem>, csi_udisk::node::HealthError> {
        let request = csi_udisk::node::HealthRequest {
            volume: self.id.clone(),
            staging_path: Some(self.staging.clone()),
            publish_path: Some(self.target.clone()),
            running: None,
        };
        node.health(request).await
    }

    pub async fn expand(&self, node: &Node, required: u64) -> Result<u64, csi_udisk::node::ExpandError> {
        let request = csi_udisk::node::ExpandRequest {
            volume: self.id.clone(),
            path: self.target.clone(),
            staging_path: None,
            required: Some(required),
        };
        node.expand(request, &Progress::default()).await
    }
}
