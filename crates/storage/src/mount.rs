//! Is a datastore mounted? An unmounted one is an empty directory on the root file system: a host that wrote its heartbeats
//! there would think itself alive while nobody sees it. The same goes for a directory in a tmpfs, where `/srv` or `/mnt` may be one.
//!
//! It does not find out every unmounted datastore: below a disk partition of its own (`/srv`, say) an empty directory looks like
//! a datastore that was mounted there.

use crate::error::StorageError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// File systems that live in one host's memory.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];

/// Checks that `path` is a directory below a mount point other than `/` (a bind mount counts), and not in memory.
pub(crate) fn check_path(path: &Path, allow_unmounted: bool) -> Result<(), StorageError> {
    let real = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::NotThere { path: path.to_path_buf() },
        _ => StorageError::io("opening", path, error),
    })?;
    let metadata = fs::metadata(&real).map_err(|error| StorageError::io("opening", path, error))?;
    if !metadata.is_dir() {
        return Err(StorageError::NotADirectory { path: path.to_path_buf() });
    }
    if allow_unmounted {
        return Ok(());
    }
    let table = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(table).map_err(|error| StorageError::io("reading", table, error))?;
    match mount_of(&real, &mounts) {
        None => Err(StorageError::NotMounted { path: path.to_path_buf() }),
        Some((mount, file_system)) if IN_MEMORY.contains(&file_system.as_str()) => {
            Err(StorageError::InMemory { path: path.to_path_buf(), mount, file_system })
        }
        Some(_) => Ok(()),
    }
}

/// The mount point other than `/` that `path` is below, and the type of what is mounted there.
fn mount_of(path: &Path, mountinfo: &str) -> Option<(PathBuf, String)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, described) = line.split_once(" - ")?;
        let mount = unescape(mount.split(' ').nth(4)?);
        Some((mount, described.split(' ').next().unwrap_or_default().to_string()))
    });
    mounts
        .filter(|(mount, _)| mount != Path::new("/") && path.starts_with(mount))
        // The innermost one; of several at the same place the last one, which covers the others.
        .max_by_key(|(mount, _)| mount.components().count())
}

/// The kernel writes blanks and backslashes as `\040` and the like.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                          40 27 0:50 / /srv/my\\040nfs rw shared:1 - nfs4 server:/x rw\n\
                          41 27 254:0 /data /srv/bound rw - ext4 /dev/vda rw\n\
                         42 27 0:60 / /mnt rw - tmpfs tmpfs rw\n\
                         43 42 0:61 / /mnt/ds1 rw - fuse.glusterfs server:/x rw\n\
                         44 27 0:62 / /twice rw - tmpfs tmpfs rw\n\
                         45 44 0:63 / /twice rw - nfs4 server:/y rw\n";

    #[test]
    fn only_paths_below_a_mount_count_and_the_innermost_mount_decides() {
        let on = |path: &str| mount_of(Path::new(path), MOUNTS).map(|(_, file_system)| file_system);
        let on = |path: &str| on(path).unwrap_or_else(|| "nothing".into());
        assert_eq!([on("/srv/my nfs"), on("/srv/my nfs/ds1"), on("/srv/bound")], ["nfs4", "nfs4", "ext4"]);
        assert_eq!([on("/srv"), on("/srv/my nfs2"), on("/srv/unmounted")], ["nothing"; 3]);
        assert_eq!([on("/mnt/ds1/x"), on("/mnt/ds2"), on("/twice/x")], ["fuse.glusterfs", "tmpfs", "nfs4"]);
    }

    #[test]
    fn errors_name_the_path_and_the_remedy() {
        let missing = check_path(Path::new("/no/such/path"), true).map_err(|error| error.to_string());
        assert!(missing.is_err_and(|text| text.starts_with("/no/such/path does not exist: create it")));
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(check_path(file.path(), true), Err(StorageError::NotADirectory { .. })));
    }
}
