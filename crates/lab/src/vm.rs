//! VMs: making them, and the truth about them, seen from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{At, LabError, Result};
use crate::guest::{self, GuestAgent, GuestCommand, GuestKind, GuestRecord};
use crate::lab::Lab;
use crate::process;
use crate::state::VmState;

/// What a VM is to be like.
#[derive(Debug, Clone)]
pub struct VmOptions {
    /// Memory in MiB. 16 is enough for the lab's guest.
    pub memory_mib: u32,
    /// The datastore of its disk; the lab's first by default.
    pub datastore: Option<String>,
    /// What it runs.
    pub guest: GuestKind,
    /// Whether it is started as well as defined.
    pub start: bool,
    /// Whether libvirt starts it when the host comes up.
    pub autostart: bool,
    /// Whether its disk is marked as shareable, which switches QEMU's image lock off.
    pub shareable: bool,
    /// Its restart priority, in its metadata: `highest` to `lowest`, or `disabled`.
    pub priority: Option<String>,
    /// CPU that it must have of its host, in its metadata. The lab's guest hardly uses any.
    pub cpu_mhz: Option<u64>,
    /// Its guest agent, with a channel to it; none by default.
    pub guest_agent: Option<GuestAgent>,
}

/// A guest agent's channel, as people configure it.
const CHANNEL: &str = "
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";

/// What QEMU makes of that channel: a second serial line instead of a port of a virtio device, for which the lab's guest has no
/// driver. libvirt does not notice.
const CHANNEL_IS_SERIAL: &str = "
  <qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <qemu:device alias='channel0'>
      <qemu:frontend>
        <qemu:property name='driver' type='string' value='isa-serial'/>
        <qemu:property name='index' type='unsigned' value='1'/>
        <qemu:property name='bus' type='remove'/>
        <qemu:property name='nr' type='remove'/>
        <qemu:property name='name' type='remove'/>
      </qemu:frontend>
    </qemu:device>
  </qemu:override>";

impl VmOptions {
    /// What is said to Mainstay in the VM's definition.
    fn metadata(&self) -> String {
        let priority = self.priority.as_ref().map_or(String::new(), |p| format!(" priority='{p}'"));
        let cpu = self.cpu_mhz.map_or(String::new(), |mhz| format!(" cpu_mhz='{mhz}'"));
        if priority.is_empty() && cpu.is_empty() {
            return String::new();
        }
        format!(
            "
  <metadata>
    <mainstay:vm xmlns:mainstay='https://mainstay/1'{priority}><mainstay:reservation{cpu}/></mainstay:vm>
  </metadata>"
        )
    }
}

impl Default for VmOptions {
    fn default() -> Self {
        VmOptions {
            memory_mib: 16,
            datastore: None,
            guest: GuestKind::default(),
            start: true,
            autostart: false,
            shareable: false,
            priority: None,
            cpu_mhz: None,
            guest_agent: None,
        }
    }
}

/// A QEMU process that runs a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runner {
    /// The number of the host on which QEMU runs.
    pub host: usize,
    /// The process, as this machine counts.
    pub pid: i32,
    /// It can't execute at the moment: stopped by a signal, or frozen with its cgroup or its host. (A guest that
    /// QEMU itself has paused is not told apart from one that runs.)
    pub stopped: bool,
}

impl Runner {
    /// The processor time that it has used, in the kernel's ticks (a hundredth of a second, as a rule): while it stands
    /// still, it executes nothing. `None` if the process has gone.
    pub fn cpu_ticks(&self) -> Option<u64> {
        process::cpu_ticks(self.pid)
    }
}

/// How often guests found another copy on their disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitReport {
    /// The sum of all disks' split counters.
    pub on_disk: u64,
    /// Lines about it in all hosts' serial logs, including those of hosts that are off.
    pub in_logs: u64,
}

/// A UUID that follows from the name, so that the same VM has the same one in every lab.
fn uuid_of(vm: &str) -> String {
    // FNV-1a, twice with different beginnings. Version 8 is the one for such home-made UUIDs.
    let hash =
        |seed: u64| vm.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    let (a, b) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9ae1_6a3b_2f90_404f));
    format!(
        "{:08x}-{:04x}-8{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        (b >> 48) & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

impl Lab {
    fn vm(&self, vm: &str) -> Result<VmState> {
        self.state()?.vms.get(vm).cloned().ok_or_else(|| LabError::NoSuchVm { vm: vm.into() })
    }

    /// The names of all VMs that were made.
    pub fn vms(&self) -> Result<Vec<String>> {
        Ok(self.state()?.vms.into_keys().collect())
    }

    /// A VM's disk as this machine reaches it: behind the datastore's server, so it can't hang with it.
    pub fn disk_path(&self, vm: &str) -> Result<PathBuf> {
        Ok(self.config.store_dir(&self.vm(vm)?.datastore).join(vm).join("disk.raw"))
    }

    /// A VM's disk as hosts see it.
    pub fn disk_path_in_host(&self, vm: &str) -> Result<PathBuf> {
        let datastore = self.vm(vm)?.datastore;
        Ok(self.config.datastore(&datastore)?.path().join(vm).join("disk.raw"))
    }

    /// Makes a VM's disk on its datastore.
    pub fn create_disk(&self, vm: &str, options: &VmOptions) -> Result<()> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if vm.is_empty() || vm.len() > 31 || vm.starts_with('.') || !vm.bytes().all(plain) {
            return Err(LabError::Config(format!(
                "VM name '{vm}': 1 to 31 letters, digits, '-', '_' or '.'"
            )));
        }
        let datastore = options.datastore.clone().unwrap_or_else(|| self.config.datastores[0].name.clone());
        self.config.datastore(&datastore)?;
        let directory = self.config.store_dir(&datastore).join(vm);
        fs::create_dir_all(&directory).at("create", &directory)?;
        let binary = self.config.dir.join("guest.bin");
        let program = fs::read(&binary).at("read", &binary)?;
        let image = directory.join("disk.raw");
        guest::write_disk(&image, &program, vm, options.guest, options.guest_agent)?;
        self.registry.update(|s| {
            s.vms.insert(vm.into(), VmState { datastore });
            Ok(())
        })
    }

    /// The XML that defines a VM whose disk exists.
    pub fn domain_xml(&self, vm: &str, options: &VmOptions) -> Result<String> {
        let disk = self.disk_path_in_host(vm)?;
        let (uuid, memory, disk) = (uuid_of(vm), options.memory_mib, disk.display());
        let metadata = options.metadata();
        let (channel, serial_for_it) =
            if options.guest_agent.is_some() { (CHANNEL, CHANNEL_IS_SERIAL) } else { ("", "") };
        let shareable = if options.shareable { "<shareable/>" } else { "" };
        // error_policy stop: a guest whose datastore fails is paused, as people configure it, instead of seeing errors.
        Ok(format!(
            "<domain type='qemu'>
  <name>{vm}</name>
  <uuid>{uuid}</uuid>{metadata}
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>{shareable}
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/var/log/libvirt/{vm}.serial' append='on'/></serial>{channel}
    <watchdog model='ib700' action='reset'/>
    <panic model='isa'/>
    <memballoon model='none'/>
  </devices>{serial_for_it}
</domain>
"
        ))
    }

    /// Makes a VM: its disk, its persistent definition on the host, and (unless told otherwise) a start.
    pub fn define_vm(&self, host: usize, vm: &str, options: &VmOptions) -> Result<()> {
        self.create_disk(vm, options)?;
        self.define_existing(host, vm, options)?;
        if options.start {
            self.host(host)?.virsh(&["start", vm])?;
        }
        Ok(())
    }

    /// Defines a VM whose disk exists on a host, without starting it.
    pub fn define_existing(&self, host: usize, vm: &str, options: &VmOptions) -> Result<()> {
        let xml = self.domain_xml(vm, options)?;
        let host = self.host(host)?;
        host.exec_with_input(&["virsh", "-q", "-c", "qemu:///system", "define", "/dev/stdin"], &xml)?;
        if options.autostart {
            host.virsh(&["autostart", vm])?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------- the truth outside

    /// The QEMU processes that run a VM, wherever they are: the truth, whatever libvirt and agents believe.
    pub fn runners(&self, vm: &str) -> Result<Vec<Runner>> {
        Ok(self.all_runners()?.remove(vm).unwrap_or_default())
    }

    /// The QEMU processes of all VMs that have any, by one look at each host.
    pub fn all_runners(&self) -> Result<BTreeMap<String, Vec<Runner>>> {
        let mut found: BTreeMap<String, Vec<Runner>> = BTreeMap::new();
        for host in self.hosts() {
            for pid in host.pids()? {
                let line = process::command_line(pid);
                let is_qemu = line.split(' ').next().is_some_and(|p| p.contains("qemu-system"));
                let named = line.split(' ').find_map(|w| w.strip_prefix("guest="));
                let Some(vm) = named.and_then(|w| w.split(',').next()) else { continue };
                if !is_qemu {
                    continue;
                }
                let Some(stopped) = process::stands_still(pid) else { continue };
                found.entry(vm.to_string()).or_default().push(Runner { host: host.number(), pid, stopped });
            }
        }
        Ok(found)
    }

    /// The hosts that have a QEMU process for a VM, stopped or not. More than one is a split brain (or a migration).
    pub fn hosts_running(&self, vm: &str) -> Result<Vec<usize>> {
        let mut hosts: Vec<usize> = self.runners(vm)?.iter().map(|r| r.host).collect();
        hosts.dedup();
        Ok(hosts)
    }

    /// What a VM's guest has written about itself.
    pub fn guest_record(&self, vm: &str) -> Result<GuestRecord> {
        guest::read_record(&self.disk_path(vm)?, vm)
    }

    /// Leaves a command for a VM's guest; it looks once per beat.
    pub fn send_command(&self, vm: &str, command: GuestCommand) -> Result<()> {
        guest::write_command(&self.disk_path(vm)?, command)
    }

    /// Waits until a VM's guest has beaten that many times from now on; gives back its record.
    pub fn wait_for_beats(&self, vm: &str, beats: u32, limit: Duration) -> Result<GuestRecord> {
        self.vm(vm)?;
        let first = self.guest_record(vm).ok();
        self.wait_for(&format!("{beats} beats of {vm}"), limit, || {
            let now = self.guest_record(vm).ok()?;
            let base = match &first {
                Some(f) if f.boots == now.boots => f.beats,
                Some(_) | None => 0,
            };
            (now.beats >= base + beats).then_some(now)
        })
    }

    /// What a VM wrote on its serial port in a host, over all its runs there.
    pub fn serial_log(&self, host: usize, vm: &str) -> Result<String> {
        let path = self.host(host)?.dir().join("log").join(format!("{vm}.serial"));
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(e).at("read", &path),
        }
    }

    /// How often any guest found another copy of itself on its disk. Must be 0 in both.
    pub fn splits(&self) -> Result<SplitReport> {
        let mut report = SplitReport { on_disk: 0, in_logs: 0 };
        for vm in self.vms()? {
            report.on_disk += u64::from(guest::read_splits(&self.disk_path(&vm)?)?);
            for host in 1..=self.config.hosts {
                let log = self.serial_log(host, &vm)?;
                report.in_logs += log.lines().filter(|l| l.starts_with("SPLIT ")).count() as u64;
            }
        }
        Ok(report)
    }

    /// The larger of the two counts of [`Lab::splits`].
    pub fn split_count(&self) -> Result<u64> {
        self.splits().map(|s| s.on_disk.max(s.in_logs))
    }

    /// Kills a VM's QEMU processes in a host, as a crash does; says how many there were.
    pub fn kill_vm(&self, host: usize, vm: &str) -> Result<usize> {
        let mut killed = 0;
        for runner in self.runners(vm)?.into_iter().filter(|r| r.host == host) {
            // It may have ended by itself just now.
            killed += usize::from(kill(Pid::from_raw(runner.pid), Signal::SIGKILL).is_ok());
        }
        Ok(killed)
    }

    /// Breaks the promise on purpose: starts another copy of a VM in a host, past libvirt and past the image lock.
    /// It is how one proves that a second copy would be noticed.
    pub fn start_rogue_copy(&self, host: usize, vm: &str) -> Result<()> {
        let disk = format!(
            "file={},format=raw,if=none,id=d0,cache=none,file.locking=off",
            self.disk_path_in_host(vm)?.display()
        );
        let (name, serial) =
            (format!("guest={vm},debug-threads=on"), format!("/var/log/libvirt/{vm}.serial"));
        // The serial log is opened for appending, as libvirt does for the VM proper.
        let chardev = format!("file,id=s0,path={serial},append=on");
        let argv = [
            "qemu-system-x86_64",
            "-name",
            &name,
            "-machine",
            "pc,accel=tcg",
            "-m",
            "16",
            "-display",
            "none",
            "-nodefaults",
            "-chardev",
            &chardev,
            "-serial",
            "chardev:s0",
            "-drive",
            &disk,
            "-device",
            "virtio-blk-pci,drive=d0",
            "-daemonize",
        ];
        self.host(host)?.exec(&argv).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_holds_what_is_set_and_is_left_out_when_nothing_is() {
        assert_eq!(VmOptions::default().metadata(), "");
        let options = VmOptions { priority: Some("high".into()), cpu_mhz: Some(500), ..VmOptions::default() };
        let text = options.metadata();
        assert!(text.contains("xmlns:mainstay='https://mainstay/1' priority='high'"), "{text}");
        assert!(text.contains("<mainstay:reservation cpu_mhz='500'/>"), "{text}");
    }

    #[test]
    fn uuids_follow_from_names_and_are_well_formed() {
        let uuid = uuid_of("vm1");
        assert_eq!(uuid, uuid_of("vm1"));
        assert_ne!(uuid, uuid_of("vm2"));
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}
