//! `/dev/watchdog`, if the user asked for it: the host is reset when the guard stops working.
//!
//! Petted by the thread that keeps deadlines and by nobody else: what it proves is that leases are being watched.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An open watchdog. Dropped without [`Watchdog::close`], it goes on counting down.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    path: PathBuf,
    well: bool,
}

impl Watchdog {
    /// Opens it, which starts its countdown.
    pub fn open(path: &Path) -> io::Result<Watchdog> {
        // Never waits, also when it is a FIFO in a test.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Watchdog { file, path: path.to_path_buf(), well: true })
    }

    /// Starts its countdown anew.
    pub fn pet(&mut self) {
        match self.file.write_all(b".") {
            Ok(()) => self.well = true,
            Err(error) if self.well => {
                self.well = false;
                tracing::error!(path = %self.path.display(), %error, "the watchdog can't be petted: the host will be reset by it");
            }
            Err(_) => {}
        }
    }

    /// Tells it that the guard ends on purpose ("magic close").
    pub fn close(mut self) {
        if let Err(error) = self.file.write_all(b"V") {
            tracing::error!(path = %self.path.display(), %error, "the watchdog can't be stopped: the host will be reset by it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_a_byte_each_time_and_the_magic_one_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("watchdog");
        assert!(Watchdog::open(&path).is_err(), "it is never created");
        File::create(&path).expect("a stand-in");
        let mut watchdog = Watchdog::open(&path).expect("open");
        watchdog.pet();
        watchdog.pet();
        watchdog.close();
        assert_eq!(std::fs::read(&path).expect("bytes"), b"..V");
    }
}
