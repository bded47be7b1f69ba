//! Hosts whose disks are loop devices of this machine. Needs root.
//!
//! ```text
//! DIR/disks/<id>.img                        a sparse file per disk or snapshot
//! DIR/hosts/<host>/system.img               the system disk
//! DIR/hosts/<host>/sys/block/<vdX>/serial…  what the guest's sysfs would say
//! DIR/hosts/<host>/dev/<vdX>                the device
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::loop_device::LoopDevice;
use super::sparse;
use super::tree::{Tree, missing_is_fine};
use super::{BackendError, BoxFuture, HostBackend, Slot};
use crate::sandbox::cloud::model::Device;
use crate::volume::Gib;

/// Marks a directory as ours, and is locked while it is in use.
const MARKER: &str = ".udisk-sandbox";
const SYSTEM_DISK_BYTES: u64 = 16 << 20;

/// How the hosts behave.
#[derive(Debug, Clone, Copy)]
pub struct LoopOptions {
    /// The kernel gives other letters than the cloud, as it happens after some plugging and unplugging.
    pub shuffled_letters: bool,
    pub seed: u64,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { shuffled_letters: true, seed: 1 }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct LoopHosts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    created_dir: bool,
    state: Mutex<State>,
    /// Held by whoever changes what hosts show. It guards the lock on the directory, which is there until the end.
    turn: Mutex<Option<Flock<File>>>,
}

#[derive(Debug)]
struct State {
    options: LoopOptions,
    rng: fastrand::Rng,
    /// By host and kernel name.
    plugged: BTreeMap<(String, String), Plugged>,
}

#[derive(Debug, Clone)]
struct Plugged {
    /// Empty for the system disk.
    disk: String,
    device: LoopDevice,
}

impl LoopHosts {
    /// Takes a directory that is new, empty or left over from an earlier run, whose remains are cleaned away.
    pub fn open(dir: &Path, options: LoopOptions) -> Result<Self, BackendError> {
        let failed = |error| BackendError::new(format!("preparing {}", dir.display()), error);
        Inner::open(dir, options).map(|inner| Self { inner: Arc::new(inner) }).map_err(failed)
    }

    /// Whether this process can have loop devices; if not, why.
    pub fn supported() -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("it needs root for loop devices".to_owned());
        }
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
        control.map(|_| ()).map_err(|error| format!("it needs loop devices, but /dev/loop-control: {error}"))
    }

    /// The directory that stands for a host's `/`: it holds `sys/block` and `dev`.
    pub fn root_of(&self, host: &str) -> PathBuf {
        self.inner.host_dir(host)
    }

    /// The file behind a disk or a snapshot.
    pub fn backing_file(&self, disk: &str) -> PathBuf {
        self.inner.backing(disk)
    }

    /// Runs a blocking job on a thread for such, to its end even if nobody waits for it.
    fn run<'a>(
        &self,
        doing: impl FnOnce() -> String + Send + 'a,
        job: impl FnOnce(&Inner) -> io::Result<()> + Send + 'static,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || job(&inner));
        Box::pin(async move {
            let outcome = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            outcome.map_err(|error| BackendError::new(doing(), error))
        })
    }
}

impl Drop for LoopHosts {
    fn drop(&mut self) {
        // Blocking, but short; leaving loop devices behind would be worse.
        self.inner.clean_up();
    }
}

impl HostBackend for LoopHosts {
    fn add_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        let name = host.to_owned();
        self.run(move || format!("adding host {host}"), move |inner| inner.add_host(&name))
    }

    fn remove_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        let name = host.to_owned();
        self.run(move || format!("removing host {host}"), move |inner| inner.remove_host(&name))
    }

    fn create<'a>(&'a self, disk: &'a str, size: Gib) -> BoxFuture<'a, Result<(), BackendError>> {
        let path = self.inner.backing(disk);
        self.run(move || format!("creating {disk}"), move |_| File::create(path)?.set_len(size.bytes()))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str, size: Gib) -> BoxFuture<'a, Result<(), BackendError>> {
        let (source, target) = (self.inner.backing(from), self.inner.backing(to));
        self.run(
            move || format!("copying {from} to {to}"),
            move |_| sparse::copy(&source, &target, size.bytes()),
        )
    }

    fn delete<'a>(&'a self, disk: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        let path = self.inner.backing(disk);
        self.run(move || format!("deleting {disk}"), move |_| missing_is_fine(fs::remove_file(path)))
    }

    fn plug<'a>(
        &'a self,
        slot: &'a Slot,
        disk: &'a str,
        _size: Gib,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let (own_slot, own_disk) = (slot.clone(), disk.to_owned());
        self.run(
            move || format!("plugging {disk} into {}", slot.host),
            move |inner| inner.plug(&own_slot, &own_disk),
        )
    }

    fn unplug<'a>(&'a self, slot: &'a Slot, disk: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        let (host, own_disk) = (slot.host.clone(), disk.to_owned());
        self.run(
            move || format!("unplugging {disk} from {}", slot.host),
            move |inner| inner.unplug(&host, &own_disk),
        )
    }

    fn resize<'a>(
        &'a self,
        disk: &'a str,
        size: Gib,
        seen_by: Option<&'a Slot>,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let (host, own_disk) = (seen_by.map(|slot| slot.host.clone()), disk.to_owned());
        self.run(
            move || format!("resizing {disk}"),
            move |inner| inner.resize(&own_disk, size, host.as_deref()),
        )
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            // A panic in there is printed by the runtime; there is nothing else to do about it here.
            let _ = tokio::task::spawn_blocking(move || inner.clean_up()).await;
        })
    }
}

impl Inner {
    fn open(dir: &Path, options: LoopOptions) -> io::Result<Self> {
        let created_dir = !dir.exists();
        fs::create_dir_all(dir)?;
        // The kernel names backing files by their real path.
        let dir = fs::canonicalize(dir)?;
        let marker = dir.join(MARKER);
        if !marker.exists() && fs::read_dir(&dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the directory is not ours and not empty",
            ));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&marker)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| io::Error::new(io::Error::from(error).kind(), "another sandbox uses it"))?;
        let state = State { options, rng: fastrand::Rng::with_seed(options.seed), plugged: BTreeMap::new() };
        let inner = Self { dir, created_dir, state: Mutex::new(state), turn: Mutex::new(Some(lock)) };
        inner.sweep()?;
        fs::create_dir_all(inner.dir.join("disks"))?;
        fs::create_dir_all(inner.dir.join("hosts"))?;
        Ok(inner)
    }

    fn host_dir(&self, host: &str) -> PathBuf {
        self.dir.join("hosts").join(host)
    }

    fn tree(&self, host: &str) -> Tree {
        Tree::new(self.host_dir(host))
    }

    fn backing(&self, disk: &str) -> PathBuf {
        self.dir.join("disks").join(format!("{disk}.img"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to change what hosts show, until the end has come.
    fn turn(&self) -> io::Result<MutexGuard<'_, Option<Flock<File>>>> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.is_none() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the sandbox has ended"));
        }
        Ok(turn)
    }

    fn add_host(&self, host: &str) -> io::Result<()> {
        let _turn = self.turn()?;
        self.tree(host).make()?;
        let image = self.host_dir(host).join("system.img");
        let file = File::create(&image)?;
        file.set_len(SYSTEM_DISK_BYTES)?;
        // Not blank, and bootable by its look: whoever takes it for a data disk must find out.
        file.write_all_at(format!("system disk of {host}").as_bytes(), 0)?;
        file.write_all_at(&[0x55, 0xaa], 510)?;
        self.show(host, "vda", "UCLOUD_DISK_VDA", "", &image)
    }

    fn remove_host(&self, host: &str) -> io::Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state();
        let (gone, kept) =
            std::mem::take(&mut state.plugged).into_iter().partition(|((owner, _), _)| owner == host);
        state.plugged = kept;
        let gone: BTreeMap<_, Plugged> = gone;
        drop(state);
        let mut outcome = Ok(());
        for plugged in gone.values() {
            outcome = outcome.and(plugged.device.clear());
        }
        outcome.and(self.tree(host).remove())
    }

    fn plug(&self, slot: &Slot, disk: &str) -> io::Result<()> {
        // One at a time, so that two disks do not choose the same letter.
        let _turn = self.turn()?;
        if self.find(&slot.host, disk).is_some() {
            return Ok(());
        }
        let kernel_name = self.kernel_name(slot);
        self.show(&slot.host, &kernel_name, &slot.serial, disk, &self.backing(disk))
    }

    /// The letter that the guest's kernel gives.
    fn kernel_name(&self, slot: &Slot) -> String {
        /// Letters are shuffled among so many free ones: close to the order of arrival, but not in it.
        const NEAR: usize = 4;
        let mut state = self.state();
        let State { options, rng, plugged } = &mut *state;
        if !options.shuffled_letters {
            return slot.device.clone();
        }
        let taken = |name: &String| plugged.contains_key(&(slot.host.clone(), name.clone()));
        let letters = (1..).map(|place| Device::new(place).to_string());
        let free: Vec<String> = letters.filter(|name| !taken(name)).take(NEAR).collect();
        rng.choice(free).unwrap_or_else(|| slot.device.clone())
    }

    fn show(
        &self,
        host: &str,
        kernel_name: &str,
        serial: &str,
        disk: &str,
        backing: &Path,
    ) -> io::Result<()> {
        let device = LoopDevice::over(backing)?;
        let plugged = Plugged { disk: disk.to_owned(), device: device.clone() };
        self.state().plugged.insert((host.to_owned(), kernel_name.to_owned()), plugged);
        self.tree(host).show(kernel_name, serial, &device)
    }

    fn find(&self, host: &str, disk: &str) -> Option<(String, LoopDevice)> {
        self.state()
            .plugged
            .iter()
            .find(|((owner, _), plugged)| owner == host && plugged.disk == disk)
            .map(|((_, kernel_name), plugged)| (kernel_name.clone(), plugged.device.clone()))
    }

    fn unplug(&self, host: &str, disk: &str) -> io::Result<()> {
        let _turn = self.turn()?;
        let Some((kernel_name, device)) = self.find(host, disk) else { return Ok(()) };
        self.tree(host).hide(&kernel_name, &device)?;
        // If the guest still has it mounted, the kernel keeps the device until it lets go.
        device.clear()?;
        self.state().plugged.remove(&(host.to_owned(), kernel_name));
        Ok(())
    }

    fn resize(&self, disk: &str, size: Gib, host: Option<&str>) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.backing(disk))?.set_len(size.bytes())?;
        let Some((host, (kernel_name, device))) = host.and_then(|host| Some((host, self.find(host, disk)?)))
        else {
            return Ok(());
        };
        device.grow()?;
        self.tree(host).resize(&kernel_name, &device)
    }

    /// Ends every loop device over a file of ours, known or not, and removes the files.
    fn sweep(&self) -> io::Result<()> {
        for device in LoopDevice::below(&self.dir)? {
            device.clear()?;
        }
        missing_is_fine(fs::remove_dir_all(self.dir.join("hosts")))?;
        missing_is_fine(fs::remove_dir_all(self.dir.join("disks")))
    }

    fn clean_up(&self) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lock) = turn.take() else { return };
        self.state().plugged.clear();
        if let Err(error) = self.sweep() {
            tracing::warn!(dir = %self.dir.display(), %error, "the sandbox left something behind");
            return;
        }
        // What is left is ours or already gone.
        let _ = fs::remove_file(self.dir.join(MARKER));
        if self.created_dir {
            let _ = fs::remove_dir(&self.dir);
        }
        drop(lock);
    }
}
