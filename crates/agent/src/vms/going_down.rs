//! R44: whether this host is on its way down, by what systemd leaves in `/run`.
//!
//! Why: this agent ends after libvirt, so it sees how libvirt-guests shuts the VMs down, one by one. That looks like a user's
//! shutdown, and is nobody's wish: they are to come back.
//!
//! It does not ask systemd: nothing here may wait. Without systemd it always says no.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What systemd writes there, of a shutdown that is scheduled or has begun. (At boot it says "booting up".)
const GOING_DOWN: &str = "going down";

/// Where it is looked.
#[derive(Clone, Debug)]
pub struct GoingDown {
    /// Written when a shutdown begins, and when one is scheduled.
    nologin: PathBuf,
    /// When a scheduled one begins.
    scheduled: PathBuf,
}

impl Default for GoingDown {
    fn default() -> GoingDown {
        GoingDown::below(Path::new("/run"))
    }
}

impl GoingDown {
    /// With that folder in the place of `/run`.
    pub fn below(run: &Path) -> GoingDown {
        GoingDown { nologin: run.join("nologin"), scheduled: run.join("systemd/shutdown/scheduled") }
    }

    /// Whether a shutdown has begun.
    pub(super) fn has_begun(&self) -> bool {
        let announced = std::fs::read_to_string(&self.nologin).is_ok_and(|text| text.contains(GOING_DOWN));
        announced && !self.is_ahead()
    }

    /// Whether it is scheduled for later.
    fn is_ahead(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(&self.scheduled) else { return false };
        let at = text.lines().find_map(|line| line.strip_prefix("USEC="));
        let at = at.and_then(|text| text.trim().parse().ok()).map(Duration::from_micros);
        // What can't be read is no reason to overrule a user.
        at.is_none_or(|at| SystemTime::now() < UNIX_EPOCH + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_has_begun_when_it_is_announced_and_not_for_later() {
        let run = tempfile::tempdir().expect("a folder");
        let (going_down, begun) = (GoingDown::below(run.path()), |it: &GoingDown| it.has_begun());
        let write = |file: &str, text: &str| std::fs::write(run.path().join(file), text).expect("written");
        assert!(!begun(&going_down));
        write("nologin", "System is booting up. Unprivileged users are not permitted to log in yet.");
        assert!(!begun(&going_down));
        write("nologin", "System is going down. Unprivileged users are not permitted to log in anymore.");
        assert!(begun(&going_down));
        std::fs::create_dir_all(run.path().join("systemd/shutdown")).expect("made");
        for (text, expected) in [
            ("USEC=99999999999999999\nWARN_WALL=1\nMODE=reboot\n", false),
            ("USEC=1700000000000000\nMODE=reboot\n", true),
            ("MODE=reboot\n", false),
            ("USEC=soon\n", false),
        ] {
            write("systemd/shutdown/scheduled", text);
            assert_eq!(begun(&going_down), expected, "{text}");
        }
    }
}
