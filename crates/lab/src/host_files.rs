//! The files that make a host: its init script, libvirt's configuration, the agent's configuration.
//!
//! A host sees this machine's file system, with its own directories laid over the places that a host has to have for
//! itself. What is on them survives a power-off; `/run` does not.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::agent::find_binary;
use crate::config::{DatastoreKind, LabConfig, Net};
use crate::error::{At, Result};

/// Directories that each host has for itself, as (name in the host's directory, place in the host).
pub(crate) const OWN_DIRECTORIES: [(&str, &str); 7] = [
    ("etc-mainstay", "/etc/mainstay"),
    ("lib-mainstay", "/var/lib/mainstay"),
    ("etc-libvirt", "/etc/libvirt"),
    ("lib-libvirt", "/var/lib/libvirt"),
    ("log", "/var/log/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("run", "/run/mainstay"),
];

const QEMU_CONF: &str = "user = \"root\"
group = \"root\"
dynamic_ownership = 0
remember_owner = 0
security_driver = \"none\"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = \"file\"
";

/// libvirt's hook, as it is documented for users.
const HOOK: &str = include_str!("../../../docs/libvirt-hook-qemu");

/// The hook of the lab's hosts: there `mainstay` is not installed, but lies where it was built.
fn hook_script(binary: &Path) -> String {
    let dir = binary.parent().unwrap_or(Path::new("/")).display().to_string();
    let (first, rest) = HOOK.split_once('\n').unwrap_or((HOOK, ""));
    format!("{first}\nPATH='{}':$PATH\n{rest}", dir.replace('\'', r"'\''"))
}

fn libvirtd_conf(host: usize) -> String {
    // host_uuid: taken from the machine, all hosts' would be the same, and libvirt takes them for one host.
    format!(
        "auth_unix_rw = \"none\"
auth_unix_ro = \"none\"
listen_tls = 0
listen_tcp = 1
listen_addr = \"{}\"
auth_tcp = \"none\"
host_uuid = \"{:08x}-7777-4777-8777-777777777777\"
log_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"
",
        Net::Mgmt.address(host),
        host
    )
}

/// The agent's configuration file.
pub(crate) fn agent_toml(config: &LabConfig, host: usize) -> String {
    let mut text = format!(
        "# Written by mainstay-lab.
state_dir = \"/var/lib/mainstay\"

[cluster]
id = \"1ab0001a\"
name = \"lab\"
key_file = \"/etc/mainstay/cluster.key\"

[host]
id = \"host-{host}\"
name = \"h{host}\"
address = \"{}:7780\"
",
        Net::Mgmt.address(host)
    );
    for peer in (1..=config.hosts).filter(|p| *p != host) {
        let address = Net::Mgmt.address(peer);
        let _ = write!(
            text,
            "\n[[peer]]\nid = \"host-{peer}\"\nname = \"h{peer}\"\naddress = \"{address}:7780\"\n"
        );
    }
    for datastore in &config.datastores {
        let (name, path) = (&datastore.name, datastore.path());
        let _ = write!(text, "\n[[datastore]]\nname = \"{name}\"\npath = \"{}\"\n", path.display());
    }
    let _ = write!(
        text,
        "
[libvirt]
uri = \"qemu:///system\"

[timing]
preset = \"{}\"

[migration]
uri = \"qemu+tcp://{{host}}/system\"
unsafe = {}

[api]
socket = \"/run/mainstay/agent.sock\"

[guard]
log = \"{}/guard.log\"

[log]
format = \"json\"
",
        config.timing,
        // What libvirt takes for a local file system is one and the same directory for all hosts of a lab.
        config.datastores.iter().any(|d| d.kind == DatastoreKind::Local),
        config.host_dir(host).display()
    );
    text
}

/// Names of all hosts, so that looking one up never waits for a name server.
fn hosts_file(config: &LabConfig) -> String {
    let mut text = format!("127.0.0.1 localhost\n{} storage\n", Net::Storage.switch_address());
    for host in 1..=config.hosts {
        let _ = writeln!(text, "{} h{host}", Net::Mgmt.address(host));
    }
    text
}

/// What the host's first process does: lays its own directories over this machine's, then does nothing but collect
/// its dead.
fn init_script(config: &LabConfig, host: usize) -> String {
    let dir = config.host_dir(host);
    let dir = dir.display();
    let mut text = "set -eu
# Read before /proc is the host's own: this process as the machine outside counts it.
read -r pid rest < /proc/self/stat
mount --make-rprivate /
mount -t proc proc /proc
# Other hosts' networks would live on in this copy of their mounts after their power-off.
umount -R -l /run/netns 2>/dev/null || :
# Taken away rather than covered: whoever looks for cgroups in the mount table is to find the one that is there.
umount -R -l /sys 2>/dev/null || :
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /run/lock /run/libvirt
"
    .to_string();
    for (name, place) in OWN_DIRECTORIES {
        let _ = writeln!(text, "mkdir -p {place}\nmount --bind {dir}/{name} {place}");
    }
    for datastore in &config.datastores {
        let _ = writeln!(text, "mkdir -p {}", datastore.path().display());
    }
    let _ = write!(
        text,
        "mount --bind {}/hosts /etc/hosts
mount --bind {dir}/boot_id /proc/sys/kernel/random/boot_id
echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
hostname h{host}
echo \"$pid\" > {dir}/ready.new
mv {dir}/ready.new {dir}/ready
trap : TERM INT HUP
while :; do sleep 3600 & wait \"$!\" || :; done
",
        config.dir.display()
    );
    text
}

/// Writes what all hosts share.
pub(crate) fn write_common(config: &LabConfig) -> Result<()> {
    let path = config.dir.join("hosts");
    fs::write(&path, hosts_file(config)).at("write", &path)
}

/// Writes a host's files, once per lab. What the host changes in them later stays.
pub(crate) fn write_host(config: &LabConfig, host: usize, key: &str) -> Result<()> {
    let dir = config.host_dir(host);
    for (name, place) in OWN_DIRECTORIES {
        let path = dir.join(name);
        fs::create_dir_all(&path).at("create", &path)?;
        // The place to bind it to is in this machine's own file system; /run's is made by the init script.
        if !place.starts_with("/run") {
            fs::create_dir_all(place).at("create", Path::new(place))?;
        }
    }
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).at("write", &path)
    };
    write("init.sh", &init_script(config, host))?;
    write("etc-libvirt/qemu.conf", QEMU_CONF)?;
    write("etc-libvirt/libvirtd.conf", &libvirtd_conf(host))?;
    if let Ok(binary) = find_binary(config) {
        let path = dir.join("etc-libvirt/hooks/qemu.d");
        fs::create_dir_all(&path).at("create", &path)?;
        write("etc-libvirt/hooks/qemu.d/mainstay", &hook_script(&binary))?;
        let path = path.join("mainstay");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("make executable", &path)?;
    }
    write("etc-mainstay/agent.toml", &agent_toml(config, host))?;
    let path = dir.join("etc-mainstay/cluster.key");
    fs::write(&path, format!("{key}\n")).at("write", &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).at("protect", &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatastoreConfig;

    #[test]
    fn agent_configuration_names_the_peers_and_datastores() {
        let mut config = LabConfig { timing: "swift".into(), ..LabConfig::default() };
        config.datastores.push(DatastoreConfig::local("ds2"));
        let text = agent_toml(&config, 2);
        for wanted in [
            "id = \"host-2\"\nname = \"h2\"\naddress = \"10.77.0.2:7780\"",
            "[[peer]]\nid = \"host-1\"",
            "[[peer]]\nid = \"host-3\"",
            "[[datastore]]\nname = \"ds2\"\npath = \"/srv/ds2\"",
            "preset = \"swift\"",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        assert_eq!(text.matches("[[peer]]").count(), 2);
        let (top, table) = (text.find("state_dir").unwrap(), text.find('[').unwrap());
        assert!(top < table, "state_dir must come before the first table");
    }

    #[test]
    fn the_hook_finds_the_program_that_the_lab_runs() {
        let script = hook_script(Path::new("/home/o'brien/target/mainstay"));
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh"));
        assert_eq!(lines.next(), Some(r"PATH='/home/o'\''brien/target':$PATH"));
        assert!(script.contains("mainstay hook \"$@\""), "{script}");
    }

    #[test]
    fn hosts_have_identities_of_their_own() {
        assert_ne!(libvirtd_conf(1), libvirtd_conf(2));
    }
}
