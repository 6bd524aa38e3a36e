//! What this host remembers of VMs beyond a boot, in `protected-vms.json` in its `state_dir`: which ones are protected in its
//! cluster, and which had autostart in its libvirt before Mainstay switched it off (R39).
//!
//! Invariant: the file is replaced as a whole, so a reader (libvirt's hook, without an agent) finds the former content or the new
//! one, and never half of one.

use mainstay_core::ids::{DatastoreName, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Its name in the `state_dir`.
pub const FILE: &str = "protected-vms.json";

/// What it is called when it can't be read, until a person has looked at it.
const ASIDE: &str = "protected-vms.json.unreadable";

/// A VM that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The libvirt UUID.
    pub vm: VmId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// The datastore whose protected list has it, or had it last.
    pub datastore: DatastoreName,
    /// Whether it is protected.
    pub protected: bool,
    /// Whether it had autostart on this host: put back when it is not protected any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub autostart: bool,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    vms: BTreeMap<VmId, Kept>,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
struct Document {
    vms: Vec<Kept>,
}

impl Remembered {
    /// Reads it. No file: nothing is remembered yet.
    pub fn load(state_dir: &Path) -> io::Result<Remembered> {
        let text = match fs::read_to_string(state_dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
            text => text?,
        };
        let document: Document = serde_json::from_str(&text)?;
        Ok(Remembered { vms: document.vms.into_iter().map(|kept| (kept.vm, kept)).collect() })
    }

    /// Reads it, or begins anew. What can't be read is set aside: it may still tell a person which VMs had autostart.
    pub(crate) fn load_or_begin(state_dir: &Path) -> Remembered {
        Remembered::load(state_dir).unwrap_or_else(|error| {
            let aside = fs::rename(state_dir.join(FILE), state_dir.join(ASIDE));
            let kept = aside.map_or_else(|error| format!("can't be renamed: {error}"), |()| format!("is {ASIDE} now"));
            tracing::warn!(
                %error,
                "what is remembered of protected VMs can't be read, and is begun anew: {FILE} in state_dir {kept}; autostart of \
                 VMs that had it does not come back by itself"
            );
            Remembered::default()
        })
    }

    /// Its text, for [`write()`].
    pub(crate) fn text(&self) -> String {
        let document = Document { vms: self.vms.values().cloned().collect() };
        // Nothing in it can fail to be written as JSON.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    /// The VM, if it is remembered.
    pub fn get(&self, vm: VmId) -> Option<&Kept> {
        self.vms.get(&vm)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Kept> {
        self.vms.values()
    }

    pub(crate) fn get_mut(&mut self, vm: VmId) -> Option<&mut Kept> {
        self.vms.get_mut(&vm)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Kept> {
        self.vms.values_mut()
    }

    pub(crate) fn insert(&mut self, kept: Kept) {
        self.vms.insert(kept.vm, kept);
    }

    /// Forgets what need not be remembered.
    pub(crate) fn tidy(&mut self) {
        self.vms.retain(|_, kept| kept.protected || kept.autostart);
    }
}

/// Replaces the file. Blocks for as long as the disk takes.
pub(crate) fn write(state_dir: &Path, text: &str) -> io::Result<()> {
    let new = state_dir.join("protected-vms.json.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, state_dir.join(FILE))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(number: u8, autostart: bool) -> Kept {
        let (vm, name) = (VmId([number; 16]), format!("vm{number}").into());
        Kept { vm, name, datastore: DatastoreName::new("ds1"), protected: true, autostart }
    }

    #[test]
    fn what_is_written_is_read_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Remembered::load(folder.path()).expect("no file"), Remembered::default());
        let mut remembered = Remembered::default();
        for number in [1, 2] {
            remembered.insert(kept(number, number == 2));
            write(folder.path(), &remembered.text()).expect("written");
            assert_eq!(Remembered::load(folder.path()).expect("read"), remembered);
        }
        let names =
            fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").file_name());
        assert_eq!(names.collect::<Vec<_>>(), [FILE]);
    }

    #[test]
    fn what_is_neither_protected_nor_has_autostart_to_come_back_is_forgotten() {
        let mut remembered = Remembered::default();
        for number in 1..=4 {
            remembered.insert(Kept { protected: number % 2 == 0, ..kept(number, number > 2) });
        }
        remembered.tidy();
        let left: Vec<_> = remembered.all().map(|kept| &*kept.name).collect();
        assert_eq!(left, ["vm2", "vm3", "vm4"]);
    }

    #[test]
    fn a_file_that_is_no_such_list_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), "{").expect("written");
        Remembered::load(folder.path()).expect_err("half of a file");
        assert_eq!(Remembered::load_or_begin(folder.path()), Remembered::default());
        assert_eq!(fs::read_to_string(folder.path().join(ASIDE)).expect("set aside"), "{");
        assert_eq!(Remembered::load_or_begin(folder.path()), Remembered::default(), "there is none now");
    }
}
