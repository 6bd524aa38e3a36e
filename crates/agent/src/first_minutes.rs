//! The first minutes of a boot: libvirt starts what has autostart, and whoever could say whether a VM runs elsewhere is not there
//! yet. So a VM that is known to be protected is not started then, unless somebody answers (R39).
//!
//! What it does not do: keep anybody from starting VMs later. Whoever is without Mainstay for longer has decided so.

use crate::remembered::{Kept, Remembered};
use mainstay_core::ids::VmId;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long after its boot a host is left to Mainstay alone: longer than a host takes from its kernel to its last service.
pub const FIRST_MINUTES: Duration = Duration::from_secs(300);

/// A file of this name beside the agent's socket: somebody wants VMs started all the same. It is gone with the next boot.
pub const OVERRIDE: &str = "start-anyway";

/// Where it is looked.
#[derive(Clone, Debug)]
pub struct FirstMinutes {
    /// The folder in which the agent remembers protected VMs.
    pub state_dir: PathBuf,
    /// The folder of the agent's socket.
    pub runtime_dir: PathBuf,
    /// The kernel's file that tells how long the host has been up.
    pub uptime: PathBuf,
}

impl FirstMinutes {
    /// Of this host, with an agent that has this socket and this `state_dir`.
    pub fn of(socket: &Path, state_dir: &Path) -> FirstMinutes {
        FirstMinutes {
            state_dir: state_dir.to_owned(),
            runtime_dir: socket.parent().unwrap_or(Path::new("/run/mainstay")).to_owned(),
            uptime: "/proc/uptime".into(),
        }
    }

    /// The protected VM that is not to be started now without an answer. Whatever can't be read refuses nothing.
    pub fn refuses(&self, vm: VmId) -> Option<Kept> {
        let young = self.age().is_some_and(|age| age < FIRST_MINUTES);
        if !young || self.runtime_dir.join(OVERRIDE).exists() {
            return None;
        }
        let remembered = Remembered::load(&self.state_dir).ok()?;
        remembered.get(vm).filter(|kept| kept.protected).cloned()
    }

    /// How long the host has been up, time in suspend included.
    fn age(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(&self.uptime).ok()?;
        let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What is said to whoever starts it. `why`: why nobody could be asked, as a clause.
    pub fn words(&self, kept: &Kept, why: &str, remedy: &str) -> String {
        let file = self.runtime_dir.join(OVERRIDE);
        format!(
            "{} is protected and may run on another host, and {why}. In the first {} minutes after a boot it is not started \
             then. {remedy}. If you are sure that it runs nowhere else: mkdir -p {} && touch {}, and start it again",
            kept.name,
            FIRST_MINUTES.as_secs() / 60,
            self.runtime_dir.display(),
            file.display(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::ids::DatastoreName;

    fn vm(number: u8) -> VmId {
        VmId([number; 16])
    }

    /// A host that has been up for so long, remembers VM 1 as protected, and VM 2 as one that was.
    fn host(folder: &Path, uptime: &str) -> FirstMinutes {
        let mut remembered = Remembered::default();
        for (number, protected) in [(1, true), (2, false)] {
            let (vm, name, datastore) = (vm(number), format!("vm{number}").into(), DatastoreName::new("ds1"));
            remembered.insert(Kept { vm, name, datastore, protected, autostart: true });
        }
        crate::remembered::write(folder, &remembered.text()).expect("written");
        std::fs::write(folder.join("uptime"), uptime).expect("written");
        let (state_dir, runtime_dir) = (folder.to_owned(), folder.join("run"));
        FirstMinutes { state_dir, runtime_dir, uptime: folder.join("uptime") }
    }

    fn refused(first: &FirstMinutes) -> Vec<u8> {
        (1..=3).filter(|number| first.refuses(vm(*number)).is_some()).collect()
    }

    #[test]
    fn only_a_protected_vm_is_refused_and_only_in_the_first_minutes() {
        let folder = tempfile::tempdir().expect("a folder");
        for (uptime, expected) in
            [("0.04 0.01\n", vec![1]), ("299.99 1.0\n", vec![1]), ("300.01 1.0\n", vec![])]
        {
            assert_eq!(refused(&host(folder.path(), uptime)), expected, "{uptime}");
        }
    }

    #[test]
    fn what_can_not_be_read_refuses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for uptime in ["", "-3 1", "soon", "1e99 0"] {
            assert_eq!(refused(&host(folder.path(), uptime)), Vec::<u8>::new(), "{uptime}");
        }
        let first = host(folder.path(), "5.0 1.0\n");
        std::fs::write(folder.path().join(crate::remembered::FILE), "{").expect("written");
        assert_eq!(refused(&first), Vec::<u8>::new());
        std::fs::remove_file(folder.path().join(crate::remembered::FILE)).expect("removed");
        assert_eq!(refused(&first), Vec::<u8>::new());
    }

    #[test]
    fn a_person_can_have_it_started_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = host(folder.path(), "5.0 1.0\n");
        let kept = first.refuses(vm(1)).expect("refused");
        let run = first.runtime_dir.display().to_string();
        let words = first.words(&kept, "no agent answers", "Start the agent");
        let expected = format!(
            "vm1 is protected and may run on another host, and no agent answers. In the first 5 minutes after a boot it is \
             not started then. Start the agent. If you are sure that it runs nowhere else: mkdir -p {run} && touch \
             {run}/start-anyway, and start it again"
        );
        assert_eq!(words, expected);
        std::fs::create_dir(&first.runtime_dir).expect("made");
        assert_eq!(refused(&first), [1]);
        std::fs::write(first.runtime_dir.join(OVERRIDE), "").expect("touched");
        assert_eq!(refused(&first), Vec::<u8>::new());
    }
}
