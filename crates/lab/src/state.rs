//! The lab's memory: a JSON file that says what was brought up and what is broken on purpose at the moment.
//!
//! The file is the truth, not any process's memory: `mainstay-lab host off h2` in another shell changes the same lab, and
//! after a crash the next run knows what to clean up. It lies in `/run`, because nothing of a lab survives a reboot.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cleanup;
use crate::config::{LabConfig, Net};
use crate::error::{At, LabError, Result};
use crate::process;

/// Changes whenever [`State`] changes its shape.
const FORMAT: u32 = 1;

/// How a host is cut off from a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// The switch drops everything in both directions; the host's card keeps its link and nothing says so to it.
    Silent,
    /// The switch's port goes down: the host's card loses its carrier, as when the cable is pulled.
    Carrier,
}

/// A direction, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the host.
    In,
    /// From the host.
    Out,
}

/// A network that fell apart: hosts of different groups don't hear each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The network that is parted.
    pub net: Net,
    /// The hosts that still hear each other. A host in no group hears everybody.
    pub groups: Vec<Vec<usize>>,
}

/// What is wrong with a host's connection to one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFaults {
    /// Cut off altogether.
    pub cut: Option<Cut>,
    /// Nothing gets through in these directions.
    pub dropped: Vec<Direction>,
    /// This share of all packets is lost, in each direction.
    pub loss_percent: u8,
    /// The switch itself (gateway or storage server) doesn't hear this host; other hosts do.
    pub no_gateway: bool,
}

/// Everything that is wrong with the networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetFaults {
    /// By host and network.
    pub links: BTreeMap<usize, BTreeMap<Net, LinkFaults>>,
    /// Networks that fell apart.
    pub splits: Vec<Split>,
    /// One host's packets don't reach another: network, from, to.
    pub pairs: Vec<(Net, usize, usize)>,
}

impl NetFaults {
    /// One host's faults in one network, to change them.
    pub(crate) fn link_mut(&mut self, host: usize, net: Net) -> &mut LinkFaults {
        self.links.entry(host).or_default().entry(net).or_default()
    }

    /// One host's faults in one network.
    pub fn link(&self, host: usize, net: Net) -> LinkFaults {
        self.links.get(&host).and_then(|l| l.get(&net)).cloned().unwrap_or_default()
    }
}

/// What the lab knows of one host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HostState {
    /// Whether it is powered on.
    pub on: bool,
    /// Whether it hangs.
    pub hung: bool,
    /// The identity of its present boot.
    pub boot_id: String,
    /// Its first process, as this machine counts. Only believed together with the host's cgroup.
    pub init_pid: i32,
}

/// Where a VM's disk is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmState {
    /// The datastore that has the VM's disk.
    pub datastore: String,
}

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// What it was brought up with.
    pub config: LabConfig,
    /// The process that brought it up.
    pub owner_pid: i32,
    /// When that process started, so that a later one of the same number isn't taken for it.
    pub owner_start: u64,
    /// The owner is `mainstay-lab up` in the foreground: it may be told to end.
    pub owner_is_cli: bool,
    /// Bringing up is complete.
    pub ready: bool,
    /// The hosts, `h1` first.
    pub hosts: Vec<HostState>,
    /// What is wrong with the networks.
    pub faults: NetFaults,
    /// The VMs by name.
    pub vms: BTreeMap<String, VmState>,
}

impl State {
    /// The state of a lab of which nothing stands yet.
    pub(crate) fn new(config: LabConfig, owner_is_cli: bool) -> State {
        let me = std::process::id().cast_signed();
        State {
            format: FORMAT,
            hosts: vec![HostState::default(); config.hosts],
            config,
            owner_pid: me,
            owner_start: process::start_time(me).unwrap_or(0),
            owner_is_cli,
            ready: false,
            faults: NetFaults::default(),
            vms: BTreeMap::new(),
        }
    }

    /// Whether the same process brought it up.
    pub(crate) fn same_owner(&self, other: &State) -> bool {
        (self.owner_pid, self.owner_start) == (other.owner_pid, other.owner_start)
    }

    /// Whether the process that brought it up is still there.
    pub fn owner_alive(&self) -> bool {
        process::alive(self.owner_pid) && process::start_time(self.owner_pid) == Some(self.owner_start)
    }
}

/// The place where the machine's one lab is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    dir: PathBuf,
}

/// Held by the process that runs the lab, for as long as it does.
#[derive(Debug)]
pub(crate) struct LabLock {
    _file: File,
}

impl Registry {
    /// The machine's. The same for labs of all names, since two at once would fight over addresses and sockets.
    pub(crate) fn system() -> Registry {
        Registry { dir: PathBuf::from("/run/mainstay-lab") }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn open_lock(&self, name: &str) -> Result<(File, PathBuf)> {
        fs::create_dir_all(&self.dir).at("create", &self.dir)?;
        let path = self.dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .at("open lock file", &path)?;
        Ok((file, path))
    }

    /// Takes the machine's lab lock, waiting for another lab to go.
    pub(crate) fn lock(&self, wait: Duration) -> Result<LabLock> {
        let (mut file, path) = self.open_lock("lock")?;
        let start = Instant::now();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(e)) => return Err(e).at("lock", &path),
            }
            let mut holder = String::new();
            // Only for the message; an unreadable file leaves it empty.
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
            let holder = holder.trim().to_string();
            if start.elapsed() >= wait {
                return Err(LabError::Locked { holder });
            }
            if !said && start.elapsed() > Duration::from_secs(1) {
                eprintln!("mainstay-lab: waiting for another lab to go ({holder})");
                said = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let me = std::process::id();
        let text = format!("process {me}: {}\n", process::command_line(me.cast_signed()));
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .at("write", &path)?;
        Ok(LabLock { _file: file })
    }

    /// The lab that is standing, or was when its process died.
    pub(crate) fn load(&self) -> Result<Option<State>> {
        let path = self.file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("read", &path),
        };
        let state: State = serde_json::from_str(&text)
            .map_err(|e| LabError::State { path: path.clone(), reason: e.to_string() })?;
        if state.format != FORMAT {
            let reason = format!("it is of format {}, this program knows {FORMAT}", state.format);
            return Err(LabError::State { path, reason });
        }
        Ok(Some(state))
    }

    /// Writes the state, whole or not at all.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        fs::create_dir_all(&self.dir).at("create", &self.dir)?;
        let (path, new) = (self.file(), self.dir.join("state.json.new"));
        let text = serde_json::to_string_pretty(state)
            .map_err(|e| LabError::State { path: path.clone(), reason: e.to_string() })?;
        fs::write(&new, text).at("write", &new)?;
        fs::rename(&new, &path).at("rename", &new)
    }

    /// Changes the state, with every other process that wants to change it waiting.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let (file, path) = self.open_lock("state.lock")?;
        file.lock().at("lock", &path)?;
        let mut state = self.load()?.ok_or(LabError::NoLab)?;
        let result = change(&mut state)?;
        self.save(&state)?;
        Ok(result)
    }

    /// Removes all of a lab, its files too unless they are to stay, and forgets it. Only for who holds the lock.
    pub(crate) fn remove_lab(&self, config: &LabConfig, keep_files: bool) -> Result<()> {
        cleanup::remove_all(config)?;
        if !keep_files {
            remove_tree(&config.dir)?;
        }
        self.clear()
    }

    /// Notes that the files of that lab of this process are to stay, whoever cleans up after it.
    pub(crate) fn keep_files(&self, config: &LabConfig) -> Result<()> {
        self.update(|state| {
            if state.owner_pid == std::process::id().cast_signed() && state.config.name == config.name {
                state.config.keep_files = true;
            }
            Ok(())
        })
    }

    /// Forgets the lab.
    pub(crate) fn clear(&self) -> Result<()> {
        let path = self.file();
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &path),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The directory that the lab's lock and state are in.
    #[cfg(test)]
    fn in_dir(dir: &Path) -> Registry {
        Registry { dir: dir.to_path_buf() }
    }
}

/// Removes a directory tree, if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", path),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::in_dir(dir.path());
        assert!(registry.load().unwrap().is_none());
        registry.save(&State::new(LabConfig::default(), true)).unwrap();
        registry
            .update(|s| {
                s.faults.link_mut(2, Net::Storage).cut = Some(Cut::Silent);
                s.vms.insert("vm1".into(), VmState { datastore: "ds1".into() });
                Ok(())
            })
            .unwrap();
        let state = registry.load().unwrap().unwrap();
        assert_eq!(state.faults.link(2, Net::Storage).cut, Some(Cut::Silent));
        assert_eq!(state.faults.link(1, Net::Storage).cut, None);
        assert!(state.owner_alive() && state.owner_is_cli);
        registry.clear().unwrap();
        assert!(matches!(registry.update(|_| Ok(())), Err(LabError::NoLab)));
    }

    #[test]
    fn a_second_lock_is_refused_with_the_holder_and_waits_for_release() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::in_dir(dir.path());
        let first = registry.lock(Duration::ZERO).unwrap();
        let refused = registry.lock(Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        std::thread::scope(|s| {
            let waiting = s.spawn(|| registry.lock(Duration::from_secs(20)));
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_state_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::in_dir(dir.path());
        let mut state = State::new(LabConfig::default(), false);
        state.format = 99;
        registry.save(&state).unwrap();
        assert!(matches!(registry.load(), Err(LabError::State { .. })));
    }
}
