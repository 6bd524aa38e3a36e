//! The lab as a whole: bringing it up, finding one that stands, waiting for things, taking it down.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cleanup;
use crate::config::LabConfig;
use crate::datastore;
use crate::error::{At, LabError, Result};
use crate::guest;
use crate::host::{Host, PowerOn};
use crate::host_files;
use crate::network;
use crate::preflight::{self, Missing};
use crate::process;
use crate::state::{LabLock, Registry, State, remove_tree};
use crate::time_limit::TimeLimit;

/// How often [`Lab::wait_until`] looks.
const POLL: Duration = Duration::from_millis(20);

/// A standing lab. Dropping the one that brought it up takes it down, unless [`LabConfig::keep`] is set.
#[derive(Debug)]
pub struct Lab {
    pub(crate) config: LabConfig,
    pub(crate) registry: Registry,
    /// Only with the lab that brought itself up, not with one that was attached to.
    lock: Option<LabLock>,
    /// Ends the lab after [`LabConfig::time_limit`], while it is kept here.
    _limit: Option<TimeLimit>,
}

impl Lab {
    /// What is missing on this machine for a lab; empty if nothing is.
    pub fn check_prerequisites() -> Vec<Missing> {
        preflight::check()
    }

    /// For live tests: `true` if they can run. If not, prints why, or panics when the environment has `CI=true`,
    /// where a test that is skipped in silence would be worse than one that fails.
    ///
    /// # Panics
    /// If something is missing and `CI=true`.
    pub fn ready_for_live_tests() -> bool {
        let missing = Lab::check_prerequisites();
        if missing.is_empty() {
            return true;
        }
        let text = LabError::Prerequisites(missing).to_string();
        assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "CI=true forbids skipping: {text}");
        eprintln!("SKIPPED: {text}");
        false
    }

    /// Brings a lab up: all hosts powered on, datastores mounted, libvirt answering; agents only if asked for.
    ///
    /// Waits for another lab to go ([`LabConfig::lock_wait`]) and cleans up after one whose process died.
    pub fn new(config: LabConfig) -> Result<Lab> {
        Lab::bring_up(config, false)
    }

    /// [`Lab::new`] for a command-line program, which may be told to end by another one's `down`.
    pub fn new_for_cli(config: LabConfig) -> Result<Lab> {
        Lab::bring_up(config, true)
    }

    fn bring_up(config: LabConfig, owner_is_cli: bool) -> Result<Lab> {
        config.validate()?;
        let missing = preflight::check();
        if !missing.is_empty() {
            return Err(LabError::Prerequisites(missing));
        }
        let registry = Registry::system();
        let lock = registry.lock(config.lock_wait)?;
        if let Some(old) = registry.load()? {
            let standing = old.config.keep && old.ready && Cgroup::named(&old.config.cgroup_name())?.exists();
            if standing {
                return Err(LabError::Standing { name: old.config.name });
            }
            // Its process died: nobody else would remove its files, for from here on nobody knows of them.
            registry.remove_lab(&old.config, old.config.keep_files)?;
        }
        cleanup::refuse_foreign(&config)?;
        // From here on, whatever happens, the state says what there may be to clean up, and dropping does it.
        registry.save(&State::new(config.clone(), owner_is_cli))?;
        let limit = config.time_limit.map(|limit| TimeLimit::start(&config, limit));
        let lab = Lab { config, registry, lock: Some(lock), _limit: limit };
        match lab.build() {
            Ok(()) => Ok(lab),
            Err(e) => {
                // The reason is what counts; should cleaning fail as well, the next run does it.
                let _ = lab.tear_down(true);
                Err(e)
            }
        }
    }

    fn build(&self) -> Result<()> {
        let config = &self.config;
        remove_tree(&config.dir)?;
        fs::create_dir_all(&config.dir).at("create", &config.dir)?;
        Cgroup::named(&config.cgroup_name())?.create()?;
        host_files::write_common(config)?;
        let key = (process::random_uuid() + &process::random_uuid()).replace('-', "");
        for host in 1..=config.hosts {
            host_files::write_host(config, host, &key)?;
            self.link_socket(host)?;
        }
        guest::assemble(&config.dir)?;
        network::create_switch(config)?;
        for d in &config.datastores {
            datastore::create(config, d)?;
        }
        let on = PowerOn { agent: config.start_agents, ..PowerOn::default() };
        let first_probe = !self.load_capability_cache()?;
        // Without a cache of what QEMU can do, the first host finds out (nearly two seconds of work) and the others
        // copy it, instead of all finding out at once.
        let rest = if first_probe {
            self.host(1)?.power_on_with(&on)?;
            self.host(1)?.virsh(&["domcapabilities", "--virttype", "qemu"])?;
            self.save_capability_cache()?;
            2..=config.hosts
        } else {
            1..=config.hosts
        };
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let starting: Vec<_> = rest
                .map(|h| {
                    scope.spawn({
                        let on = &on;
                        move || self.host(h)?.power_on_with(on)
                    })
                })
                .collect();
            starting
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(LabError::Config("a host's start panicked".into()))))
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        self.registry.update(|s| {
            s.ready = true;
            Ok(())
        })
    }

    /// The lab that is standing, brought up by another process.
    pub fn attach() -> Result<Lab> {
        let registry = Registry::system();
        let state = registry.load()?.filter(|s| s.ready).ok_or(LabError::NoLab)?;
        if !Cgroup::named(&state.config.cgroup_name())?.exists() {
            return Err(LabError::NoLab);
        }
        Ok(Lab { config: state.config, registry, lock: None, _limit: None })
    }

    /// Removes the lab that is standing or was left behind, from any process. Gives back its name; none if there was
    /// nothing to remove. If `mainstay-lab up` holds it in the foreground, that program is told to end.
    pub fn down_standing() -> Result<Option<String>> {
        let registry = Registry::system();
        let Some(state) = registry.load()? else { return Ok(None) };
        let name = state.config.name.clone();
        let mut told = false;
        let start = Instant::now();
        loop {
            match registry.lock(Duration::ZERO) {
                Ok(_lock) => {
                    // Whatever is left of a lab now, nobody runs it.
                    if let Some(left) = registry.load()? {
                        registry.remove_lab(&left.config, left.config.keep_files)?;
                    }
                    return Ok(Some(name));
                }
                // Another lab may have come as soon as this one was gone: that one is not ours to wait for.
                Err(LabError::Locked { .. })
                    if told && !registry.load()?.is_some_and(|s| s.same_owner(&state)) =>
                {
                    return Ok(Some(name));
                }
                Err(LabError::Locked { .. }) if told && start.elapsed() < Duration::from_secs(60) => {}
                Err(LabError::Locked { .. }) if !told && state.owner_is_cli && state.owner_alive() => {
                    let owner = nix::unistd::Pid::from_raw(state.owner_pid);
                    // It may end by itself in this moment; then its lab is gone just as well.
                    let _ = nix::sys::signal::kill(owner, nix::sys::signal::Signal::SIGTERM);
                    told = true;
                }
                Err(e) => return Err(e),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Takes the lab down: processes, namespaces, mounts, cgroups, sockets and (see [`LabConfig::keep_files`]) files.
    pub fn down(mut self) -> Result<()> {
        let result = self.tear_down(self.config.keep_files);
        self.lock = None;
        result
    }

    /// Takes the lab down and, whatever [`LabConfig::keep_files`] says, removes its files or moves them to `kept`, out of the way
    /// of the next lab. Nobody may do that afterwards: by then the directory can be another lab's.
    pub fn down_with_files(mut self, kept: Option<&std::path::Path>) -> Result<()> {
        let keep = |kept: &std::path::Path| {
            remove_tree(kept)?;
            fs::rename(&self.config.dir, kept).at("move", &self.config.dir)
        };
        let result = cleanup::remove_all(&self.config)
            .and_then(|()| kept.map_or_else(|| remove_tree(&self.config.dir), keep))
            .and_then(|()| self.registry.clear());
        self.lock = None;
        result
    }

    fn tear_down(&self, keep_files: bool) -> Result<()> {
        self.registry.remove_lab(&self.config, keep_files)
    }

    /// What is to be said of the lab of that configuration, which this process or another one holds.
    pub(crate) fn described(config: LabConfig) -> String {
        Lab { config, registry: Registry::system(), lock: None, _limit: None }.dump()
    }

    /// What it was brought up with.
    pub fn config(&self) -> &LabConfig {
        &self.config
    }

    /// The lab as it stands: hosts, faults, VMs.
    pub fn state(&self) -> Result<State> {
        self.registry.load()?.ok_or(LabError::NoLab)
    }

    /// Host `h<number>`; the first is 1.
    pub fn host(&self, number: usize) -> Result<Host<'_>> {
        if (1..=self.config.hosts).contains(&number) {
            Ok(Host { lab: self, number })
        } else {
            Err(LabError::NoSuchHost { host: number, hosts: self.config.hosts })
        }
    }

    /// All hosts, `h1` first.
    pub fn hosts(&self) -> Vec<Host<'_>> {
        (1..=self.config.hosts).map(|number| Host { lab: self, number }).collect()
    }

    /// Where the lab's files are.
    pub fn dir(&self) -> &std::path::Path {
        &self.config.dir
    }

    /// Waits until something is so; gives back how long it took. At the end of its patience, the error holds the lab's
    /// state and the tails of all logs.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Duration> {
        let start = Instant::now();
        self.wait_for(what, limit, || condition().then_some(()))?;
        Ok(start.elapsed())
    }

    /// Waits until there is something to give back.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = attempt() {
                return Ok(found);
            }
            if start.elapsed() >= limit {
                let mut dump = String::new();
                let _ = write!(dump, "{}", self.dump());
                return Err(LabError::Timeout { what: what.into(), limit, dump });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Makes `/run/mainstay/hosts/hN.sock` lead to the host's agent.
    fn link_socket(&self, host: usize) -> Result<()> {
        let link = cleanup::socket_link(host);
        if let Some(dir) = link.parent() {
            fs::create_dir_all(dir).at("create", dir)?;
        }
        let target = self.config.host_dir(host).join("run/agent.sock");
        std::os::unix::fs::symlink(&target, &link).at("link", &link)
    }

    /// What libvirt found out about QEMU, kept across labs. libvirt checks itself whether it still holds.
    fn capability_cache(&self) -> PathBuf {
        std::path::Path::new("/var/cache/mainstay-lab/libvirt-qemu").to_path_buf()
    }

    fn load_capability_cache(&self) -> Result<bool> {
        let kept = self.capability_cache();
        if !has_entries(&kept.join("capabilities")) {
            return Ok(false);
        }
        for host in 1..=self.config.hosts {
            copy_tree(&kept, &self.config.host_dir(host).join("cache/qemu"))?;
        }
        Ok(true)
    }

    fn save_capability_cache(&self) -> Result<()> {
        let found = self.config.host_dir(1).join("cache/qemu");
        copy_tree(&found, &self.capability_cache())?;
        for host in 2..=self.config.hosts {
            copy_tree(&found, &self.config.host_dir(host).join("cache/qemu"))?;
        }
        Ok(())
    }
}

fn has_entries(dir: &std::path::Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// Copies plain files and directories; anything else (sockets, say) is left out.
fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::create_dir_all(to).at("create", to)?;
    for entry in fs::read_dir(from).at("list", from)?.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else if source.is_file() {
            fs::copy(&source, &target).at("copy", &source)?;
        }
    }
    Ok(())
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lock.is_none() || self.config.keep {
            return;
        }
        // Already taken down, by `down` or by another process.
        if !matches!(self.registry.load(), Ok(Some(_))) {
            return;
        }
        let keep_files = self.config.keep_files || std::thread::panicking();
        if let Err(e) = self.tear_down(keep_files) {
            eprintln!("mainstay-lab: {e}");
        } else if keep_files {
            eprintln!("mainstay-lab: logs and disks are kept in {}", self.config.dir.display());
        }
    }
}
