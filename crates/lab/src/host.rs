//! One host: power, hanging, and running things inside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::config::{DatastoreConfig, Net};
use crate::error::{At, LabError, Result};
use crate::exec::{self, Output, TOOL_LIMIT};
use crate::lab::Lab;
use crate::state::HostState;
use crate::{datastore, network, process};

/// Joins the host's cgroup, so that power-off reaches it, then becomes the command.
const JOIN: &str = "echo 0 > \"$1/cgroup.procs\" && shift && exec \"$@\"";

/// What happens at power-on.
#[derive(Debug, Clone)]
pub struct PowerOn {
    /// Start the agent as well.
    pub agent: bool,
    /// Start libvirtd; `false` is a host whose libvirt does not come up.
    pub libvirtd: bool,
    /// Datastores that are missing at start; [`Host::mount_datastore`] brings them later.
    pub without_datastores: Vec<String>,
}

impl Default for PowerOn {
    fn default() -> Self {
        PowerOn { agent: false, libvirtd: true, without_datastores: Vec::new() }
    }
}

/// One host of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) number: usize,
}

impl<'a> Host<'a> {
    /// Its number; 1 is `h1`.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its name: `h1`.
    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    /// Its id in the cluster: `host-1`.
    pub fn id(&self) -> String {
        format!("host-{}", self.number)
    }

    /// Its address in a network.
    pub fn address(&self, net: Net) -> String {
        net.address(self.number)
    }

    /// Its directory on this machine: `agent.log`, `log/` (its /var/log/libvirt), `run/` (its /run/mainstay),
    /// `etc-mainstay/`, `lib-mainstay/`, `etc-libvirt/`.
    pub fn dir(&self) -> PathBuf {
        self.lab.config.host_dir(self.number)
    }

    /// The agent's socket, as reached from this machine.
    pub fn agent_socket(&self) -> PathBuf {
        self.dir().join("run/agent.sock")
    }

    /// What the lab knows of it.
    pub fn state(&self) -> Result<HostState> {
        Ok(self.lab.state()?.hosts[self.number - 1].clone())
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut HostState)) -> Result<()> {
        let index = self.number - 1;
        self.lab.registry.update(|s| {
            change(&mut s.hosts[index]);
            Ok(())
        })
    }

    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        Ok(Cgroup::named(&self.lab.config.cgroup_name())?.child(&self.name()))
    }

    /// The identity of its present boot (`/proc/sys/kernel/random/boot_id` inside it); new at every power-on.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.state()?.boot_id)
    }

    /// Whether it is powered on.
    pub fn is_on(&self) -> Result<bool> {
        Ok(self.state()?.on)
    }

    /// All its processes, as this machine counts them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Ok(self.cgroup()?.pids())
    }

    // ------------------------------------------------------------------------------------------------- power

    /// Powers it on: datastores and libvirtd, without the agent. Nothing happens if it is on.
    pub fn power_on(&self) -> Result<()> {
        self.power_on_with(&PowerOn::default())
    }

    /// Powers it on as told. Nothing happens if it is on.
    pub fn power_on_with(&self, how: &PowerOn) -> Result<()> {
        if self.is_on()? {
            return Ok(());
        }
        let faults = self.lab.state()?.faults;
        network::plug_host(&self.lab.config, self.number, &faults)?;
        let boot_id = process::random_uuid();
        self.prepare_boot(&boot_id)?;
        let init_pid = self.start_init()?;
        self.update(|h| *h = HostState { on: true, hung: false, boot_id, init_pid })?;
        for d in &self.lab.config.datastores {
            if how.without_datastores.contains(&d.name) {
                continue;
            }
            let unreachable = faults.link(self.number, Net::Storage).cut.is_some();
            match self.mount(d) {
                Err(_) if unreachable => {}
                other => other?,
            }
        }
        if how.libvirtd {
            self.start_libvirtd()?;
        }
        if how.agent {
            self.start_agent()?;
        }
        Ok(())
    }

    /// What a machine loses without power, and the new boot's identity.
    fn prepare_boot(&self, boot_id: &str) -> Result<()> {
        let dir = self.dir();
        let run = dir.join("run");
        // Emptied, not replaced: nothing binds it now, but its path must stay.
        for entry in fs::read_dir(&run).at("list", &run)?.flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .at("remove", &path)?;
        }
        let pids = dir.join("pids");
        crate::state::remove_tree(&pids)?;
        fs::create_dir_all(&pids).at("create", &pids)?;
        let (id_file, ready) = (dir.join("boot_id"), dir.join("ready"));
        fs::write(&id_file, format!("{boot_id}\n")).at("write", &id_file)?;
        match fs::remove_file(&ready) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &ready),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Starts the host's first process and waits until it has set the host up.
    fn start_init(&self) -> Result<i32> {
        let config = &self.lab.config;
        let (dir, group) = (self.dir(), self.cgroup()?);
        group.create()?;
        let script = dir.join("init.sh").display().to_string();
        let log = dir.join("init.log");
        let argv = [
            "sh",
            "-c",
            &format!("exec </dev/null >'{}' 2>&1; {JOIN}", log.display()),
            "sh",
            &group.path().display().to_string(),
            "setsid",
            "--fork",
            "nsenter",
            &format!("--net=/run/netns/{}", config.host_ns(self.number)),
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
            "--fork",
            "--kill-child",
            "sh",
            &script,
        ];
        exec::run("start a host", &argv)?;
        let (ready, start, limit) = (dir.join("ready"), Instant::now(), Duration::from_secs(20));
        loop {
            if let Some(pid) = fs::read_to_string(&ready).ok().and_then(|t| t.trim().parse().ok()) {
                return Ok(pid);
            }
            if start.elapsed() > limit || (start.elapsed() > Duration::from_secs(1) && !group.populated()) {
                let dump = fs::read_to_string(&log).unwrap_or_default();
                return Err(LabError::Timeout { what: format!("{} to start", self.name()), limit, dump });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Power loss: its network dies first, then all its processes at once. Nobody hears a goodbye. Nothing happens if
    /// it is off.
    pub fn power_off(&self) -> Result<()> {
        if !self.is_on()? {
            return Ok(());
        }
        network::ports_down(&self.lab.config, self.number)?;
        self.cgroup()?.kill()?;
        self.cgroup()?.remove()?;
        network::unplug_host(&self.lab.config, self.number)?;
        self.update(|h| *h = HostState::default())
    }

    /// The whole host stops: no process runs, though its kernel still answers pings, as with a real host that hangs
    /// in user space.
    pub fn hang(&self) -> Result<()> {
        self.require_on()?;
        self.update(|h| h.hung = true)?;
        self.cgroup()?.set_frozen(true)
    }

    /// Goes on where it stopped.
    pub fn unhang(&self) -> Result<()> {
        self.require_on()?;
        self.cgroup()?.set_frozen(false)?;
        self.update(|h| h.hung = false)
    }

    fn require_on(&self) -> Result<HostState> {
        let state = self.state()?;
        if state.on { Ok(state) } else { Err(LabError::HostOff { host: self.number }) }
    }

    // ---------------------------------------------------------------------------------------- running things

    /// The command line that runs something in the host.
    fn inside(&self, argv: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let state = self.require_on()?;
        if state.hung {
            return Err(LabError::HostHung { host: self.number });
        }
        let group = self.cgroup()?;
        let mut line: Vec<String> = ["sh", "-c", JOIN, "sh"].map(str::to_string).to_vec();
        line.push(group.path().display().to_string());
        line.extend(["nsenter", "-t"].map(str::to_string));
        line.push(state.init_pid.to_string());
        line.extend(["-m", "-u", "-i", "-n", "-p", "-C", "--"].map(str::to_string));
        line.extend(argv.iter().map(|a| a.as_ref().to_string()));
        Ok(line)
    }

    /// Runs a command in the host and gives back what came out, whatever its exit status.
    pub fn output(&self, argv: &[impl AsRef<str>], limit: Duration) -> Result<Output> {
        exec::output(&format!("in {}", self.name()), &self.inside(argv)?, None, limit)
    }

    /// Runs a command in the host that must succeed; gives back what it printed.
    pub fn exec(&self, argv: &[impl AsRef<str>]) -> Result<String> {
        self.exec_within(argv, TOOL_LIMIT)
    }

    /// [`Host::exec`] with a limit of its own.
    pub fn exec_within(&self, argv: &[impl AsRef<str>], limit: Duration) -> Result<String> {
        exec::run_with(&format!("in {}", self.name()), &self.inside(argv)?, None, limit)
    }

    /// [`Host::exec`] with text on standard input.
    pub fn exec_with_input(&self, argv: &[impl AsRef<str>], input: &str) -> Result<String> {
        exec::run_with(&format!("in {}", self.name()), &self.inside(argv)?, Some(input), TOOL_LIMIT)
    }

    /// Runs a command in the host at this terminal (a shell, say); gives back its exit code.
    pub fn interact(&self, argv: &[impl AsRef<str>]) -> Result<i32> {
        let line = self.inside(argv)?;
        let status = Command::new(&line[0]).args(&line[1..]).status().map_err(|e| LabError::Tool {
            what: format!("in {}", self.name()),
            command: line.join(" "),
            status: "not started".into(),
            stderr: e.to_string(),
        })?;
        Ok(status.code().unwrap_or(1))
    }

    /// Starts a daemon in the host, with its output appended to `<name>.log` in the host's directory.
    pub fn spawn_daemon(&self, name: &str, argv: &[impl AsRef<str>]) -> Result<()> {
        let pid_file = self.dir().join("pids").join(name);
        // From an earlier one of that name; what counts is what the new one writes.
        let _ = fs::remove_file(&pid_file);
        let path = self.daemon_log(name);
        let log = File::options().create(true).append(true).open(&path).at("open", &path)?;
        // A fork of its own after entering: otherwise nsenter would stay as its parent and stop along with it.
        let mut words: Vec<String> = ["setsid", "--fork", "sh", "-c"].map(str::to_string).to_vec();
        words.push("echo $$ > \"$0.new\" && mv \"$0.new\" \"$0\" && exec \"$@\"".into());
        words.push(pid_file.display().to_string());
        words.extend(argv.iter().map(|a| a.as_ref().to_string()));
        let line = self.inside(&words)?;
        let failed = |e: std::io::Error| LabError::Tool {
            what: format!("start {name} in {}", self.name()),
            command: line.join(" "),
            status: "not started".into(),
            stderr: e.to_string(),
        };
        let copy = log.try_clone().map_err(failed)?;
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(failed)?;
        child.wait().map_err(failed)?;
        let start = Instant::now();
        while !pid_file.exists() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(LabError::NotRunning { daemon: name.into(), host: self.number, log: path });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Where a daemon's output goes.
    pub fn daemon_log(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.log"))
    }

    /// The process of a daemon that [`Host::spawn_daemon`] started, as this machine counts; none if it has ended.
    pub fn daemon_pid(&self, name: &str) -> Result<Option<i32>> {
        self.pid_in(&self.dir().join("pids").join(name))
    }

    /// The process whose number, as the host counts, is in a file; none if it has ended.
    pub(crate) fn pid_in(&self, file: &Path) -> Result<Option<i32>> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let Ok(inner) = text.trim().parse::<i32>() else { return Ok(None) };
        let pids = self.pids()?;
        Ok(pids.into_iter().find(|p| process::alive(*p) && process::inner_pid(*p) == Some(inner)))
    }

    /// Sends a signal to such a daemon.
    pub(crate) fn signal_daemon(&self, name: &str, signal: Signal) -> Result<()> {
        let missing =
            || LabError::NotRunning { daemon: name.into(), host: self.number, log: self.daemon_log(name) };
        let pid = self.daemon_pid(name)?.ok_or_else(missing)?;
        kill(Pid::from_raw(pid), signal).map_err(|_| missing())
    }

    /// Waits until such a daemon is gone; kills it when it takes too long, and says whether it had to.
    pub(crate) fn await_daemon_end(&self, name: &str, patience: Duration) -> Result<bool> {
        let start = Instant::now();
        while self.daemon_pid(name)?.is_some() {
            if start.elapsed() > patience {
                self.signal_daemon(name, Signal::SIGKILL)?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    /// Signals those of the host's processes that fit; says how many.
    pub(crate) fn signal_matching(&self, signal: Signal, fits: impl Fn(i32) -> bool) -> Result<usize> {
        let mut count = 0;
        for pid in self.pids()?.into_iter().filter(|p| process::alive(*p) && fits(*p)) {
            // It may have ended just now, which is as good as not having been there.
            count += usize::from(kill(Pid::from_raw(pid), signal).is_ok());
        }
        Ok(count)
    }

    // -------------------------------------------------------------------------------------------- datastores

    /// Mounts a datastore that was missing at start or was unmounted.
    pub fn mount_datastore(&self, name: &str) -> Result<()> {
        self.mount(self.lab.config.datastore(name)?)
    }

    fn mount(&self, d: &DatastoreConfig) -> Result<()> {
        let argv = datastore::mount_argv(&self.lab.config, self.number, d);
        self.exec_within(&argv, Duration::from_secs(15))?;
        // GlusterFS's client reports success before the kernel has answered; what counts is the mount table.
        let (start, limit) = (Instant::now(), Duration::from_secs(10));
        while !self.has_datastore(&d.name)? {
            if start.elapsed() > limit {
                let log = self.dir().join(format!("gluster-{}.log", d.name));
                let dump = fs::read_to_string(log).unwrap_or_default();
                return Err(LabError::Timeout {
                    what: format!("{} to mount {}", self.name(), d.name),
                    limit,
                    dump,
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether the datastore is mounted in the host, read from the kernel without touching the datastore.
    pub fn has_datastore(&self, name: &str) -> Result<bool> {
        let path = self.lab.config.datastore(name)?.path().display().to_string();
        let pid = self.require_on()?.init_pid;
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        Ok(table.lines().any(|l| l.split(' ').nth(4) == Some(path.as_str())))
    }

    /// Unmounts a datastore from the host, even if it is in use.
    pub fn unmount_datastore(&self, name: &str) -> Result<()> {
        let path = self.lab.config.datastore(name)?.path().display().to_string();
        self.exec(&["umount", "-l", path.as_str()]).map(drop)
    }
}
