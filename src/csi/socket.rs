//! The unix socket that the driver is reached by: taken over safely, private to its group, removed at the end.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Sidecars may run as another user of the same group; everybody else stays out.
const MODE: u32 = 0o660;
/// Before the file has its final mode nobody but the owner may connect.
const MODE_WHILE_BINDING: u32 = 0o600;
const BACKLOG: u32 = 1024;
/// A listener whose queue is full makes `connect` wait; that is somebody who listens, too.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{} exists and is not a socket; remove it or choose another --endpoint", .0.display())]
    NotASocket(PathBuf),
    #[error("another process serves {}; stop it or choose another --endpoint", .0.display())]
    InUse(PathBuf),
    #[error("cannot {doing} {}: {cause}", .path.display())]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
}

/// A bound socket that nobody is accepted on yet.
#[derive(Debug)]
pub struct Socket {
    // Before the listener, so that the file goes first: a client then finds no socket instead of a dead one.
    file: SocketFile,
    listener: UnixListener,
}

impl Socket {
    /// Binds `path`. A socket left behind by a process that died is removed; anything else that is there is
    /// left alone and is an error. The directory must exist.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let io_error = |doing| move |cause| SocketError::Io { doing, path: path.to_owned(), cause };
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream().map_err(io_error("make a socket for"))?;
        // The file gets the mode of the unbound socket (less the umask): a chmod after bind alone would
        // leave a moment in which everybody can connect.
        socket
            .as_fd()
            .try_clone_to_owned()
            .and_then(|fd| File::from(fd).set_permissions(Permissions::from_mode(MODE_WHILE_BINDING)))
            .map_err(io_error("set the mode of"))?;
        socket.bind(path).map_err(io_error("bind"))?;
        let file = SocketFile(Place::remember(path).map_err(io_error("read"))?);
        std::fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(io_error("set the mode of"))?;
        let listener = socket.listen(BACKLOG).map_err(io_error("listen on"))?;
        Ok(Self { file, listener })
    }

    pub fn path(&self) -> &Path {
        &self.file.0.path
    }

    /// Where clients find it, to see later whether they still do.
    pub fn place(&self) -> Place {
        self.file.0.clone()
    }

    /// Accepts until `stop`; then the socket is closed and its file removed.
    pub fn accept(self, stop: CancellationToken) -> ReceiverStream<io::Result<UnixStream>> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            stop.run_until_cancelled(self.accept_all(sender)).await;
        });
        ReceiverStream::new(receiver)
    }

    /// tonic would call accept again at once and in silence when it fails; out of file descriptors, that
    /// spins. So errors are said once and answered with growing pauses.
    async fn accept_all(self, sender: mpsc::Sender<io::Result<UnixStream>>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if pause > FIRST_PAUSE {
                        tracing::info!(socket = %self.path().display(), "connections are accepted again");
                    }
                    pause = FIRST_PAUSE;
                    if sender.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tracing::error!(socket = %self.path().display(), %error, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io_error = |doing| move |cause| SocketError::Io { doing, path: path.to_owned(), cause };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(Err(error)) => return Err(io_error("find out whether somebody serves")(error)),
        Ok(Ok(_)) | Err(_) => return Err(SocketError::InUse(path.to_owned())),
    }
    tracing::info!(socket = %path.display(), "removing the socket of a process that is gone");
    std::fs::remove_file(path).map_err(io_error("remove"))
}

/// The path of a bound socket, and the file that it made there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn remember(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// True when somebody removed the file or put another there: then nobody finds the socket any more. A directory that
    /// cannot be read for the moment says nothing of that.
    pub fn is_lost(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(now) => !self.is_file(&now),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Whether the file is certainly there.
    fn is_ours(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|now| self.is_file(&now))
    }

    fn is_file(&self, found: &Metadata) -> bool {
        found.dev() == self.device && found.ino() == self.inode
    }
}

/// The file of a bound socket; removed when dropped, unless another process has put its own there since.
#[derive(Debug)]
struct SocketFile(Place);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Self(place) = self;
        if place.is_ours()
            && let Err(error) = std::fs::remove_file(&place.path)
        {
            tracing::warn!(socket = %place.path.display(), %error, "the socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_owner_and_group_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _socket = Socket::bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = Socket::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_served_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _first = Socket::bind(&path).await.unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::InUse(p)) if p == path));
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        std::fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        for path in [&file, &link, &dir.path().to_owned()] {
            assert!(matches!(Socket::bind(path).await, Err(SocketError::NotASocket(_))), "{path:?}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = Socket::bind(Path::new("/nonexistent/dir/s")).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot bind /nonexistent/dir/s: No such file"), "{error}");
    }

    #[tokio::test]
    async fn the_file_goes_with_the_socket_but_not_the_one_of_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(Socket::bind(&path).await.unwrap());
        assert!(!path.exists());

        let first = Socket::bind(&path).await.unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = Socket::bind(&path).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_is_lost_when_its_file_is_gone_or_another_and_not_when_nobody_can_look() {
        let dir = tempfile::tempdir().unwrap();
        let (below, aside) = (dir.path().join("d"), dir.path().join("aside"));
        std::fs::create_dir(&below).unwrap();
        let socket = Socket::bind(&below.join("s")).await.unwrap();
        let place = socket.place();
        assert!(!place.is_lost());
        std::fs::rename(&below, &aside).unwrap();
        assert!(place.is_lost());
        // A link to itself: looking fails, and not because nothing is there.
        std::os::unix::fs::symlink(&below, &below).unwrap();
        assert!(!place.is_lost());
        std::fs::remove_file(&below).unwrap();
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("s"), "").unwrap();
        assert!(place.is_lost());
    }

    #[tokio::test]
    async fn nobody_is_accepted_after_the_stop() {
        use tokio_stream::StreamExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let stop = CancellationToken::new();
        let mut connections = Socket::bind(&path).await.unwrap().accept(stop.clone());
        let _client = UnixStream::connect(&path).await.unwrap();
        assert!(connections.next().await.unwrap().is_ok());
        stop.cancel();
        assert!(connections.next().await.is_none());
        assert!(!path.exists());
        assert!(UnixStream::connect(&path).await.is_err());
    }
}
