//! What the next run of the guard finds (R54): until when leases last, and which VMs are bound to them. Of no use after a reboot.
//!
//! A thread of its own writes the file, since even a directory in memory may be none in some installation. A file that lags behind
//! does no harm: a lease that is missing ends too early, and a missing VM is named again by the agent. Of a hold that was ended or
//! shortened it may tell too much (known limit 6 in docs/internals/protocol/known-limits.md).

use mainstay_words::Time;
use mainstay_words::ids::{BootId, DatastoreName, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The file, in the runtime directory.
pub const KEPT_FILE: &str = "guard.state";

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The boot in which it is true.
    pub boot: BootId,
    /// The ends of leases.
    pub leases: BTreeMap<DatastoreName, Time>,
    /// Until when nothing is frozen, for a suspension of protection.
    #[serde(default)]
    pub holds: BTreeMap<DatastoreName, Time>,
    /// The VMs bound to them.
    pub watched: BTreeMap<DatastoreName, Vec<VmId>>,
}

impl Kept {
    /// Nothing, in that boot.
    pub fn nothing(boot: BootId) -> Kept {
        Kept { boot, leases: BTreeMap::new(), holds: BTreeMap::new(), watched: BTreeMap::new() }
    }

    /// What the file says of that boot; nothing when there is none, or it is damaged.
    pub fn load(runtime_dir: &Path, boot: BootId) -> Kept {
        let path = runtime_dir.join(KEPT_FILE);
        let Ok(text) = std::fs::read_to_string(&path) else { return Kept::nothing(boot) };
        match Kept::parse(&text) {
            Some(kept) if kept.boot == boot => kept,
            Some(_) => Kept::nothing(boot),
            None => {
                tracing::warn!(path = %path.display(), "what a former run of the guard kept is damaged: leases begin anew");
                Kept::nothing(boot)
            }
        }
    }

    fn parse(text: &str) -> Option<Kept> {
        let (sum, body) = text.split_once('\n')?;
        let sum = u32::from_str_radix(sum, 16).ok()?;
        (sum == crc32c::crc32c(body.as_bytes())).then(|| serde_json::from_str(body).ok())?
    }

    fn print(&self) -> Result<String, serde_json::Error> {
        let body = serde_json::to_string(self)?;
        Ok(format!("{:08x}\n{body}", crc32c::crc32c(body.as_bytes())))
    }
}

/// Writes the file, on a thread of its own.
pub struct Keeper {
    work: Sender<Kept>,
}

impl Keeper {
    /// Starts the thread.
    pub fn start(runtime_dir: &Path) -> std::io::Result<Keeper> {
        let (work, receiver) = channel();
        let path = runtime_dir.join(KEPT_FILE);
        std::thread::Builder::new()
            .name("keep".into())
            .stack_size(crate::service::STACK)
            .spawn(move || run(&receiver, &path))?;
        Ok(Keeper { work })
    }

    /// Has it written, soon.
    pub fn keep(&self, kept: &Kept) {
        // The thread ends with this handle only.
        let _ = self.work.send(kept.clone());
    }
}

fn run(work: &Receiver<Kept>, path: &PathBuf) {
    let draft = path.with_extension("state.new");
    let mut well = true;
    while let Ok(mut kept) = work.recv() {
        // Only the latest counts.
        while let Ok(later) = work.try_recv() {
            kept = later;
        }
        let written = kept
            .print()
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&draft, text))
            .and_then(|()| std::fs::rename(&draft, path));
        match written {
            Ok(()) => well = true,
            Err(error) if well => {
                well = false;
                tracing::warn!(path = %path.display(), %error, "leases can't be kept for the next run of the guard");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_in_the_same_boot_only_and_when_whole_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let (boot, other) = (BootId([1; 16]), BootId([2; 16]));
        assert_eq!(Kept::load(directory.path(), boot), Kept::nothing(boot));
        let ds = DatastoreName::new("ds1");
        let kept = Kept {
            boot,
            leases: BTreeMap::from([(ds.clone(), Time(5))]),
            holds: BTreeMap::from([(ds.clone(), Time(9))]),
            watched: BTreeMap::from([(ds, vec![VmId([3; 16])])]),
        };
        let file = directory.path().join(KEPT_FILE);
        let text = kept.print().expect("text");
        std::fs::write(&file, &text).expect("written");
        assert_eq!(Kept::load(directory.path(), boot), kept);
        assert_eq!(Kept::load(directory.path(), other), Kept::nothing(other));
        std::fs::write(&file, text.replace(":5}", ":6}")).expect("written");
        assert_eq!(Kept::load(directory.path(), boot), Kept::nothing(boot));
    }
}
