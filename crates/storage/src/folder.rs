//! The cluster's folder on a datastore, and the laying out of register files.
//!
//! Files are laid out once, with real zeros, so that a full datastore never fails a register write later. Several hosts may do
//! that at the same time. Safety argument: a file gets its name by `link` only when it is complete, and `link` never replaces an existing
//! file; so zeros are never written to a file that others can see. A file system without `link` gets the file by `fallocate`, or else by
//! extending it; neither changes bytes that are there already.

use crate::aligned::AlignedBuffer;
use crate::error::StorageError;
use crate::mount::check_path;
use mainstay_formats::ClusterId;
use mainstay_formats::layout::{TOP_FOLDER, XML_FOLDER};
use mainstay_words::HostId;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Zeros are written in pieces of this size.
const LAYOUT_CHUNK: usize = 1024 * 1024;

/// What tells a file from another one that came to stand at the same path.
pub(crate) type Identity = (u64, u64);

pub(crate) fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The cluster's folder.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    identity: Identity,
}

impl Folder {
    /// Finds the folder, or creates it.
    pub(crate) fn open(
        datastore: &Path,
        cluster: &ClusterId,
        cluster_name: &str,
        allow_unmounted: bool,
    ) -> Result<Folder, StorageError> {
        check_path(datastore, allow_unmounted)?;
        let top = datastore.join(TOP_FOLDER);
        create_folder(&top)?;
        let path = match find_folder(&top, cluster)? {
            Some(path) => path,
            None => {
                let path = top.join(cluster.folder_name(cluster_name));
                create_folder(&path)?;
                // Another host with another name for this cluster may have been as fast.
                find_folder(&top, cluster)?.unwrap_or(path)
            }
        };
        create_folder(&path.join(XML_FOLDER))?;
        let metadata = fs::metadata(&path).map_err(|error| StorageError::io("opening", &path, error))?;
        Ok(Folder { path, identity: identity(&metadata) })
    }

    /// Whether the path still leads to this folder: not to the empty directory below a mount point, say.
    pub(crate) fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

fn create_folder(path: &Path) -> Result<(), StorageError> {
    match fs::create_dir(path) {
        Ok(()) => sync_folder(path.parent().unwrap_or(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A read-only datastore with the folder in place can still be read.
        Err(error) if path.is_dir() => {
            tracing::debug!(path = %path.display(), %error, "folder exists, creating it was refused");
            Ok(())
        }
        Err(error) => Err(StorageError::io("creating", path, error)),
    }
}

/// The folder is found by the cluster's id alone: a host that has another *name* for the cluster must not open a second one.
pub(crate) fn find_folder(top: &Path, cluster: &ClusterId) -> Result<Option<PathBuf>, StorageError> {
    let failed = |error| StorageError::io("listing", top, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(top).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if ClusterId::from_folder_name(name).is_some_and(|(id, _)| id == *cluster) {
            found.push(name.to_string());
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(top.join(name))),
        [_, ..] => Err(StorageError::SeveralFolders { top: top.to_path_buf(), names: found.join(", ") }),
    }
}

/// Makes entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StorageError> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Ok(()) => Ok(()),
        // Some network file systems can't sync a directory; their servers do it by themselves.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
        Err(error) => Err(StorageError::io("syncing", path, error)),
    }
}

/// Sees to it that the file exists with at least that size. Never changes bytes that are there.
pub(crate) fn lay_out(folder: &Path, name: &str, size: u64, me: &HostId) -> Result<(), StorageError> {
    let path = folder.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() >= size => return Ok(()),
        Ok(_) => return extend(&path, size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StorageError::io("opening", &path, error)),
    }
    // Hidden, and with this host's id in its name: nobody else touches it.
    let draft = folder.join(format!(".{name}.{me}.new"));
    write_zeros(&draft, size)?;
    let linked = fs::hard_link(&draft, &path);
    fs::remove_file(&draft).map_err(|error| StorageError::io("removing", &draft, error))?;
    match linked {
        Ok(()) => sync_folder(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if is_unsupported(&error) => extend(&path, size),
        Err(error) => Err(StorageError::io("creating", &path, error)),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK | Errno::INVAL)
    )
}

fn write_zeros(path: &Path, size: u64) -> Result<(), StorageError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        let zeros = AlignedBuffer::zeroed(LAYOUT_CHUNK);
        let mut left = size;
        while left > 0 {
            let piece = left.min(LAYOUT_CHUNK as u64);
            file.write_all(&zeros.as_slice()[..piece as usize])?;
            left -= piece;
        }
        file.sync_all()
    };
    write().map_err(|error| {
        // A half-written draft on a full datastore should not take its space.
        let removed = fs::remove_file(path);
        tracing::debug!(path = %path.display(), ?removed, "laying out failed");
        StorageError::io("laying out", path, error)
    })
}

/// For file systems without `link`, and for files that were left too short.
fn extend(path: &Path, size: u64) -> Result<(), StorageError> {
    let failed = |error: Errno| StorageError::io("laying out", path, error);
    let file =
        rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o640))
            .map_err(failed)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            tracing::warn!(path = %path.display(), "no room could be reserved for this file: if the datastore fills up, writing to it fails");
            let length = rustix::fs::fstat(&file).map_err(failed)?.st_size;
            // Sizes are constants, so hosts that race here extend to the same length; nobody ever shortens.
            if u64::try_from(length).unwrap_or(0) < size {
                rustix::fs::ftruncate(&file, size).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    rustix::fs::fsync(&file).map_err(failed)
}
