//! Domain XML on a datastore: a file per version, named by its content, replaced atomically.

use crate::error::StorageError;
use crate::folder::sync_folder;
use mainstay_formats::layout::{XML_FOLDER, parse_xml_file, xml_file};
use mainstay_words::{HostId, VmId, XmlId};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::SystemTime;

/// Real ones have 5 to 50 KiB.
const XML_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The newest one, and the one before: a protected list may still name it while the change is on its way.
const VERSIONS_KEPT: usize = 2;

/// Stores a version, then removes older ones of that VM. One that is there already needs no space: a host that restarts a VM
/// stores what it has just read, and must be able to on a full datastore.
pub(crate) fn store(
    folder: &Path,
    me: &HostId,
    vm: VmId,
    xml: XmlId,
    text: &str,
) -> Result<(), StorageError> {
    let folder = folder.join(XML_FOLDER);
    let name = xml_file(vm, xml);
    let path = folder.join(&name);
    let draft = folder.join(format!(".{name}.{me}.new"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    if is_there(&path, text) {
        tracing::debug!(path = %path.display(), "this domain XML is stored already");
    } else if let Err(error) = write() {
        let removed = fs::remove_file(&draft);
        tracing::debug!(draft = %draft.display(), ?removed, "storing domain XML failed");
        return Err(StorageError::io("writing", &path, error));
    }
    sync_folder(&folder)?;
    remove_older(&folder, vm, xml);
    Ok(())
}

/// Whether that very text is stored. If so, it is the newest one again, which its time has to tell.
fn is_there(path: &Path, text: &str) -> bool {
    if !fs::read(path).is_ok_and(|stored| stored == text.as_bytes()) {
        return false;
    }
    let touched =
        File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    touched.is_ok()
}

/// Best effort: a file too many does no harm.
fn remove_older(folder: &Path, vm: VmId, newest: XmlId) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut older: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let (of, xml) = parse_xml_file(entry.file_name().to_str()?)?;
            let written =
                entry.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            (of == vm && xml != newest).then(|| (written, entry.path()))
        })
        .collect();
    older.sort();
    older.reverse();
    for (_, path) in older.into_iter().skip(VERSIONS_KEPT - 1) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "an old domain XML stays");
        }
    }
}

/// Reads a version.
pub(crate) fn load(folder: &Path, vm: VmId, xml: XmlId) -> Result<String, StorageError> {
    let folder = folder.join(XML_FOLDER);
    let path = folder.join(xml_file(vm, xml));
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // NFS may remember that a file was not there. Listing the folder makes it look again.
            let listed = fs::read_dir(&folder).map(Iterator::count);
            tracing::debug!(path = %path.display(), ?listed, "domain XML not found at first");
            File::open(&path)
        }
        other => other,
    }
    .map_err(|error| StorageError::io("opening", &path, error))?;
    let mut text = String::new();
    let length = Read::by_ref(&mut file)
        .take(XML_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| StorageError::io("reading", &path, error))?;
    if length as u64 > XML_BYTES_MAX {
        return Err(StorageError::XmlTooLarge { path, max: XML_BYTES_MAX });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_stored_already_is_not_written_again_but_is_the_newest() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join(XML_FOLDER)).expect("its folder");
        let (me, vm) = (HostId::new("host-1"), VmId([1; 16]));
        let put = |xml, text| store(folder.path(), &me, vm, XmlId(xml), text).expect("stored");
        let inode = || {
            let path = folder.path().join(XML_FOLDER).join(xml_file(vm, XmlId(1)));
            fs::metadata(path).map(|metadata| metadata.ino()).ok()
        };
        put(1, "<one/>");
        let first = inode();
        put(2, "<two/>");
        put(1, "<one/>");
        assert_eq!(inode(), first);
        put(3, "<three/>");
        assert_eq!(load(folder.path(), vm, XmlId(1)).expect("the one before"), "<one/>");
        assert!(load(folder.path(), vm, XmlId(2)).is_err());
        put(1, "<other/>");
        assert_eq!(load(folder.path(), vm, XmlId(1)).expect("the newest"), "<other/>");
    }
}
