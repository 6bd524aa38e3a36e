//! Does some QEMU hold this disk image (R46)? A look at the locks that QEMU takes on each image it opens; nothing is ever locked here.
//!
//! QEMU (`block/file-posix.c`) puts shared OFD locks on single bytes of the image: byte 100 + p while it *uses* permission p,
//! byte 200 + p while it does *not let others* use it. Whoever wants to open an image asks whether somebody holds a byte that
//! is in his way. We ask the same with `F_OFD_GETLK`. On network storage the server answers, so a QEMU on another host shows as well;
//! a dead one shows until the storage lets go of its locks (R46).

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// QEMU's `RAW_LOCK_PERM_BASE`: locks on these bytes say what is used.
const USED_BASE: i64 = 100;

/// QEMU's `RAW_LOCK_SHARED_BASE`: locks on these bytes say what is not shared.
const UNSHARED_BASE: i64 = 200;

/// QEMU's permissions (`BLK_PERM_*`) that a VM wants on a disk of its own: it reads, writes and resizes it, and lets nobody else write or resize.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// The bytes that would keep a VM from starting, and what a lock on each means.
const BYTES_IN_THE_WAY: [(i64, &str); 5] = [
    (USED_BASE + WRITE, "the storage still shows a QEMU that writes to it"),
    (USED_BASE + RESIZE, "a QEMU may resize it"),
    (UNSHARED_BASE + WRITE, "a QEMU (or qemu-img) lets nobody write to it"),
    (UNSHARED_BASE + RESIZE, "a QEMU (or qemu-img) lets nobody resize it"),
    (UNSHARED_BASE + CONSISTENT_READ, "a QEMU (or qemu-img) lets nobody read it"),
];

/// Whether an image is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLock {
    /// By nobody: a QEMU could open it now.
    Free,
    /// Somebody holds the image.
    Held {
        /// What is known.
        by: String,
    },
    /// Locks say nothing here: a block device's are not seen by other hosts, and some file systems have none.
    Unsupported {
        /// What the system said, in words.
        why: String,
    },
    /// It could not be found out.
    Failed {
        /// Why, and what to do.
        why: String,
    },
}

impl fmt::Display for ImageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageLock::Free => f.write_str("free"),
            ImageLock::Held { by } => write!(f, "held: {by}"),
            ImageLock::Unsupported { why } => write!(f, "unknown: {why}"),
            ImageLock::Failed { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// What a probe found, image by image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Each image that was asked for.
    pub images: Vec<(PathBuf, ImageLock)>,
}

impl Probe {
    /// The image that decides: a held one, else one that could not be looked at, else one without locks. `None`: all are free.
    pub fn obstacle(&self) -> Option<&(PathBuf, ImageLock)> {
        let weight = |lock: &ImageLock| match lock {
            ImageLock::Held { .. } => 3,
            ImageLock::Failed { .. } => 2,
            ImageLock::Unsupported { .. } => 1,
            ImageLock::Free => 0,
        };
        // The first of the heaviest.
        self.images.iter().rev().max_by_key(|(_, lock)| weight(lock)).filter(|(_, lock)| weight(lock) > 0)
    }
}

/// How the result is handed back.
pub type ProbeReply = Box<dyn FnOnce(Probe) + Send>;

/// Probes images on threads of their own: one that hangs on a hung mount is left behind.
#[derive(Clone, Debug)]
pub struct Prober {
    running: Arc<AtomicUsize>,
    running_max: usize,
}

impl Prober {
    /// With at most so many probes at a time.
    pub fn new(running_max: usize) -> Prober {
        Prober { running: Arc::default(), running_max }
    }

    /// Probes each of the images (those that the VM *writes* to: a shared, read-only backing file is always held by its users).
    /// Never waits. `reply` is called once; at once (with `Failed`) when too many probes hang already.
    pub fn probe(&self, images: Vec<PathBuf>, reply: ProbeReply) {
        let refuse = |images: Vec<PathBuf>, why: &str| Probe {
            images: images
                .into_iter()
                .map(|path| (path, ImageLock::Failed { why: why.to_string() }))
                .collect(),
        };
        let running = self.running.fetch_add(1, Ordering::AcqRel);
        let slot = RunningProbe(self.running.clone());
        if running >= self.running_max {
            reply(refuse(images, "too many lock probes hang already: check the storage connection"));
            return;
        }
        // The reply is handed over only when the thread is there, so that it can be answered here if not.
        let (send, receive) = std::sync::mpsc::channel::<(Vec<PathBuf>, ProbeReply)>();
        let spawned = thread::Builder::new().name("lock-probe".into()).spawn(move || {
            let slot = slot;
            if let Ok((images, reply)) = receive.recv() {
                let images = images.into_iter().map(|path| (path.clone(), probe_image(&path))).collect();
                drop(slot);
                reply(Probe { images });
            }
        });
        match spawned {
            Ok(_) => {
                if let Err(unsent) = send.send((images, reply)) {
                    let (images, reply) = unsent.0;
                    reply(refuse(images, "the probe's thread died: this is a fault of the program"));
                }
            }
            Err(error) => {
                let why =
                    format!("no thread for a lock probe ({error}): raise the limit of processes (TasksMax)");
                reply(refuse(images, &why));
            }
        }
    }
}

/// Counts a probe for as long as it lives.
struct RunningProbe(Arc<AtomicUsize>);

impl Drop for RunningProbe {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Looks at one image. Waits for the storage: use [`Prober`] where that matters.
pub fn probe_image(path: &Path) -> ImageLock {
    let failed = |error: Errno| ImageLock::Failed {
        why: match error {
            Errno::NOENT => format!("{} does not exist: check that its datastore is mounted", path.display()),
            Errno::NOTCONN | Errno::STALE | Errno::IO => {
                format!(
                    "{}: {error}: the storage connection is lost; check the storage network",
                    path.display()
                )
            }
            _ => format!("{}: {error}", path.display()),
        },
    };
    // NONBLOCK: a device or pipe must not make the open wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(error) => return failed(error),
    };
    let kind = match rustix::fs::fstat(&file) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(error) => return failed(error),
    };
    for (byte, meaning) in BYTES_IN_THE_WAY {
        // Asking for a write lock conflicts with QEMU's shared locks. GETLK only asks: it takes nothing.
        let mut question = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut question)) {
            Ok(_) if i32::from(question.l_type) == libc::F_UNLCK => {}
            Ok(_) if question.l_pid > 0 => {
                return ImageLock::Held { by: format!("{meaning} (process {})", question.l_pid) };
            }
            Ok(_) => return ImageLock::Held { by: meaning.to_string() },
            Err(nix::Error::EINVAL | nix::Error::ENOLCK | nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => {
                return ImageLock::Unsupported {
                    why: format!("{}: its file system has no locks", path.display()),
                };
            }
            Err(error) => return failed(Errno::from_raw_os_error(error as i32)),
        }
    }
    if kind == FileType::RegularFile {
        ImageLock::Free
    } else {
        ImageLock::Unsupported {
            why: format!("{}: locks on devices are not seen by other hosts", path.display()),
        }
    }
}
