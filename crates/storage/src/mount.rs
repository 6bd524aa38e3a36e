//! Is a datastore mounted? An unmounted one is an empty directory on the root file system: a host that wrote its heartbeats
//! there would think itself alive while nobody sees it.

use crate::error::StorageError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Checks that `path` is a directory below a mount point other than `/` (a bind mount counts).
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
    if is_below_mount(&real, &mounts) {
        Ok(())
    } else {
        Err(StorageError::NotMounted { path: path.to_path_buf() })
    }
}

fn is_below_mount(path: &Path, mountinfo: &str) -> bool {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .any(|mount| mount != Path::new("/") && path.starts_with(&mount))
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
                          41 27 254:0 /data /srv/bound rw - ext4 /dev/vda rw\n";

    #[test]
    fn only_paths_below_a_mount_count() {
        assert!(is_below_mount(Path::new("/srv/my nfs"), MOUNTS));
        assert!(is_below_mount(Path::new("/srv/my nfs/ds1"), MOUNTS));
        assert!(is_below_mount(Path::new("/srv/bound"), MOUNTS));
        assert!(!is_below_mount(Path::new("/srv"), MOUNTS));
        assert!(!is_below_mount(Path::new("/srv/my nfs2"), MOUNTS));
        assert!(!is_below_mount(Path::new("/srv/unmounted"), MOUNTS));
    }

    #[test]
    fn errors_name_the_path_and_the_remedy() {
        let missing = check_path(Path::new("/no/such/path"), true).map_err(|error| error.to_string());
        assert!(missing.is_err_and(|text| text.starts_with("/no/such/path does not exist: create it")));
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(check_path(file.path(), true), Err(StorageError::NotADirectory { .. })));
    }
}
