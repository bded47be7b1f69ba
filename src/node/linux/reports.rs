//! How far a program is, as it tells itself.
//!
//! It comes in datagrams: a program whose driver has ended gets an error for the next one, where a pipe would send it a
//! signal that ends it, and a file in memory would grow without a reader.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use tokio::net::UnixDatagram;

/// No program's report is longer.
const LONGEST_REPORT: usize = 4096;

/// The reports of one program.
pub(super) struct Reports<'a> {
    reader: UnixDatagram,
    /// The program's end, until the program has it.
    writer: Option<OwnedFd>,
    told: &'a mut (dyn FnMut(&str) + Send),
}

impl<'a> Reports<'a> {
    /// Also returns the number that the program knows its end by.
    pub(super) fn open(told: &'a mut (dyn FnMut(&str) + Send)) -> io::Result<(Self, RawFd)> {
        let (reader, writer) = UnixDatagram::pair()?;
        // A copy that the program inherits. Another one that is started in this moment does too; it does not know of it.
        let writer = OwnedFd::from(writer.into_std()?);
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty()))?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
        let number = writer.as_raw_fd();
        Ok((Self { reader, writer: Some(writer), told }, number))
    }

    /// To be called once the program was started.
    pub(super) fn handed_over(&mut self) {
        self.writer = None;
    }

    /// Tells what has come already.
    pub(super) fn rest(&mut self) {
        let mut bytes = [0; LONGEST_REPORT];
        while let Ok(length) = self.reader.try_recv(&mut bytes) {
            (self.told)(String::from_utf8_lossy(&bytes[..length]).trim());
        }
    }

    /// Tells all that comes. Never returns.
    pub(super) async fn follow(&mut self) -> Infallible {
        let mut bytes = [0; LONGEST_REPORT];
        loop {
            match self.reader.recv(&mut bytes).await {
                Ok(length) => (self.told)(String::from_utf8_lossy(&bytes[..length]).trim()),
                // It is only for information.
                Err(_) => std::future::pending().await,
            }
        }
    }
}
