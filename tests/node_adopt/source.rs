//! A volume with data, and copies of its disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use csi_udisk::node::linux::format;
use csi_udisk::node::linux::probe::{Content, ReadAt, probe};
use csi_udisk::node::linux::restamp::Write;
use csi_udisk::volume::{Adoption, DiskId, FsType, FsUuid, Gib};

use crate::common::{Disk, TestHost, Volume, run};

const MIB: u64 = 1 << 20;
/// Of the source; each copy's slot comes after.
const SLOT: (&str, &str, &str) = ("vdb", "UCLOUD_DISK_VDB", "vdb");

/// Little more than the least that its mkfs takes, with room for a copy of the superblock.
pub(crate) const fn size(fs: FsType) -> u64 {
    match fs {
        FsType::Ext3 | FsType::Ext4 => 64 * MIB,
        FsType::Xfs => 320 * MIB,
        FsType::Btrfs => 160 * MIB,
    }
}

/// An image that is read and written like a disk.
pub(crate) struct Image(fs::File);

impl Image {
    pub(crate) fn open(path: &Path) -> Self {
        Self(fs::OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    pub(crate) fn uuid(&self) -> FsUuid {
        match probe(self).unwrap() {
            Content::Fs(found) => found.uuid,
            other @ (Content::Unrecognised | Content::Unfinished(_) | Content::Other(_)) => {
                panic!("{other:?}")
            }
        }
    }

    pub(crate) fn write(&self, write: &Write) {
        self.0.write_all_at(&write.bytes, write.offset).unwrap();
    }
}

impl ReadAt for Image {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// All files below `path` with their content.
pub(crate) fn content(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(path).unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// Enough that directories, extents and attributes have blocks of their own.
pub(crate) fn fill(path: &Path) {
    for directory in 0..4 {
        let directory = path.join(format!("directory {directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..60u8 {
            fs::write(directory.join(format!("{file:0>60}")), vec![file; usize::from(file) * 300]).unwrap();
        }
    }
    run("sync", &["-f", path.to_str().unwrap()]);
}

/// A volume with data, and images of its disk: as an unmount leaves it, and as a power cut does.
pub(crate) struct Source {
    pub(crate) volume: Volume,
    pub(crate) disk: Disk,
    sector: u32,
    pub(crate) clean: PathBuf,
    pub(crate) crashed: PathBuf,
    pub(crate) before: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) after: BTreeMap<PathBuf, Vec<u8>>,
}

impl Source {
    pub(crate) async fn make(host: &TestHost, fs: FsType) -> Self {
        Self::made(host, fs, 512, &["-q"], &[]).await
    }

    /// One whose file system is made by hand, because it is smaller than what the driver formats, and mounted with the
    /// given flags.
    pub(crate) async fn made(
        host: &TestHost,
        fs: FsType,
        sector: u32,
        mkfs: &[&str],
        flags: &[&str],
    ) -> Self {
        let image = host.path("images/source");
        fs::File::create_new(&image).unwrap().set_len(size(fs)).unwrap();
        let disk = host.disk_with_sectors(&image, sector);
        host.plug(SLOT.0, SLOT.1, &disk);
        let volume = Volume::fs(host, "bs-source", fs, SLOT.2, Gib::new(0)).flags(flags);
        let mark = FsUuid::of_disk(&volume.id);
        let with_mark = match fs {
            FsType::Xfs => ["-m".to_owned(), format!("uuid={mark}")],
            FsType::Ext3 | FsType::Ext4 | FsType::Btrfs => ["-U".to_owned(), mark.to_string()],
        };
        let arguments = mkfs.iter().copied().chain(with_mark.iter().map(String::as_str));
        let arguments: Vec<&str> = arguments.chain([disk.device().to_str().unwrap()]).collect();
        run(format::mkfs(fs).name, &arguments);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        fill(&volume.staging);
        let before = content(&volume.staging);
        volume.unstage(&node).await.unwrap();
        let clean = host.path("images/clean");
        copy(disk.image(), &clean);
        volume.stage(&node).await.unwrap();
        let late = volume.staging.join("late");
        fs::write(&late, "written before the power went").unwrap();
        fs::File::open(&late).unwrap().sync_all().unwrap();
        let after = content(&volume.staging);
        let crashed = host.path("images/crashed");
        disk.copy_to(&crashed);
        volume.unstage(&node).await.unwrap();
        Self { volume, disk, sector, clean, crashed, before, after }
    }

    /// A disk with a copy of an image, in a slot of its own, and its volume.
    pub(crate) fn copied(&self, host: &TestHost, image: &Path, name: &str, letter: char) -> (Disk, Volume) {
        let own = host.path("images").join(name);
        copy(image, &own);
        let disk = host.disk_with_sectors(&own, self.sector);
        let slot = format!("vd{letter}");
        host.plug(&slot, &format!("UCLOUD_DISK_{}", slot.to_uppercase()), &disk);
        let mut volume = self.volume.clone();
        volume.id = DiskId::parse(&format!("{}-{name}", self.volume.id)).unwrap();
        volume.staging = host.staging(name);
        volume.target = host.target(name);
        volume.context.device = Some(slot);
        (disk, volume)
    }

    pub(crate) fn adopted(&self, mut volume: Volume) -> Volume {
        volume.volume_context.adoption = Adoption::parse(self.volume.id.as_str());
        volume
    }

    pub(crate) fn mark(&self) -> FsUuid {
        FsUuid::of_disk(&self.volume.id)
    }
}

/// What the judges of each file system say of an image of it.
pub(crate) fn judge(fs: FsType, image: &Path) {
    let image = image.to_str().unwrap();
    match fs {
        FsType::Ext3 | FsType::Ext4 => run("e2fsck", &["-fn", image]),
        FsType::Xfs => run("xfs_repair", &["-n", "-f", image]),
        FsType::Btrfs => run("btrfs", &["check", "--readonly", image]),
    };
}
