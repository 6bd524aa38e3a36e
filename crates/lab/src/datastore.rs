//! The datastores: GlusterFS servers without their management daemon, or a directory that all hosts share.
//!
//! A server is one process per datastore in the switch's namespace, in a cgroup of its own, which is how it is hung and
//! killed. Its data lies in a directory of this machine, which is how the lab lays out disks and reads guests' records.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroup;
use crate::config::{DatastoreConfig, DatastoreKind, LabConfig, Net};
use crate::error::{At, LabError, Result};
use crate::exec::run;

/// The file that fills a datastore up.
const BALLAST: &str = ".lab-ballast";

/// The server's side of a GlusterFS datastore.
///
/// Keepalive frees a vanished client's locks after some 5 to 8 seconds: 2 s of silence, three probes a second apart.
/// Its threads are what every real brick has: a flush that waits for the disk keeps no other request waiting.
fn server_volume(directory: &Path, port: usize) -> String {
    let directory = directory.display();
    format!(
        "volume posix
 type storage/posix
 option directory {directory}
end-volume
volume locks
 type features/locks
 subvolumes posix
end-volume
volume threads
 type performance/io-threads
 option thread-count 16
 subvolumes locks
end-volume
volume server
 type protocol/server
 option transport-type tcp
 option transport.socket.listen-port {port}
 option transport.tcp-user-timeout 5
 option transport.socket.keepalive-time 2
 option transport.socket.keepalive-interval 1
 option transport.socket.keepalive-count 3
 option auth.addr.threads.allow *
 subvolumes threads
end-volume
"
    )
}

/// The host's side.
fn client_volume(config: &LabConfig, port: usize) -> String {
    let (server, timeout) = (Net::Storage.switch_address(), config.ping_timeout.as_secs());
    format!(
        "volume client
 type protocol/client
 option transport-type tcp
 option remote-host {server}
 option remote-port {port}
 option remote-subvolume threads
 option ping-timeout {timeout}
 option frame-timeout 30
end-volume
"
    )
}

/// Where a datastore's client volume file is.
pub(crate) fn client_file(config: &LabConfig, datastore: &str) -> PathBuf {
    config.dir.join(format!("{datastore}.client.vol"))
}

/// The cgroup of a datastore's server.
pub(crate) fn server_cgroup(config: &LabConfig, datastore: &str) -> Result<Cgroup> {
    Ok(Cgroup::named(&config.cgroup_name())?.child(&format!("store-{datastore}")))
}

/// Makes a datastore and starts its server.
pub(crate) fn create(config: &LabConfig, datastore: &DatastoreConfig) -> Result<()> {
    let directory = config.store_dir(&datastore.name);
    fs::create_dir_all(&directory).at("create", &directory)?;
    if let Some(mib) = datastore.size_mib {
        let image = config.dir.join("store").join(format!("{}.img", datastore.name));
        let file = fs::File::create(&image).at("create", &image)?;
        file.set_len(mib << 20).at("resize", &image)?;
        let (image, at) = (image.display().to_string(), directory.display().to_string());
        // No journal and no reserve for root: of a small datastore, nearly all is to be usable.
        run("format a datastore", &["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", &image])?;
        run("mount a datastore", &["mount", "-o", "loop", &image, &at])?;
    }
    if datastore.kind == DatastoreKind::Gluster {
        start_server(config, &datastore.name)?;
    }
    Ok(())
}

/// Starts a GlusterFS datastore's server.
pub(crate) fn start_server(config: &LabConfig, datastore: &str) -> Result<()> {
    let port = config.brick_port(datastore);
    let file = config.dir.join(format!("{datastore}.server.vol"));
    fs::write(&file, server_volume(&config.store_dir(datastore), port)).at("write", &file)?;
    let client = client_file(config, datastore);
    fs::write(&client, client_volume(config, port)).at("write", &client)?;
    let group = server_cgroup(config, datastore)?;
    group.create()?;
    let log = config.dir.join(format!("{datastore}.server.log"));
    let argv = [
        "sh",
        "-c",
        "echo 0 > \"$1/cgroup.procs\" && shift && exec \"$@\"",
        "sh",
        &group.path().display().to_string(),
        "nsenter",
        &format!("--net=/run/netns/{}", config.switch_ns()),
        "glusterfsd",
        "-f",
        &file.display().to_string(),
        "-l",
        &log.display().to_string(),
        "-p",
        &config.dir.join(format!("{datastore}.server.pid")).display().to_string(),
    ];
    run("start a datastore's server", &argv).map(drop)
}

/// What a GlusterFS host runs to mount the datastore.
pub(crate) fn mount_argv(config: &LabConfig, host: usize, datastore: &DatastoreConfig) -> Vec<String> {
    let at = datastore.path().display().to_string();
    match datastore.kind {
        DatastoreKind::Local => {
            let from = config.store_dir(&datastore.name).display().to_string();
            ["mount", "--bind", &from, &at].map(str::to_string).to_vec()
        }
        DatastoreKind::Gluster => {
            let volume = client_file(config, &datastore.name).display().to_string();
            let log = config.host_dir(host).join(format!("gluster-{}.log", datastore.name));
            // No caching of attributes and names: what another host wrote is seen at once.
            let options = ["--direct-io-mode=enable", "--attribute-timeout=0", "--entry-timeout=0"];
            let mut argv = vec!["glusterfs".to_string(), "-f".into(), volume, "-l".into()];
            argv.push(log.display().to_string());
            argv.extend(options.map(str::to_string));
            argv.push(at);
            argv
        }
    }
}

/// Refuses what only GlusterFS can do.
pub(crate) fn require_gluster(datastore: &DatastoreConfig, what: &'static str) -> Result<()> {
    match datastore.kind {
        DatastoreKind::Gluster => Ok(()),
        DatastoreKind::Local => Err(LabError::Unsupported {
            datastore: datastore.name.clone(),
            what,
            reason: "it is a local directory without a server; use DatastoreKind::Gluster",
        }),
    }
}

/// Takes all space of a datastore that has a size of its own.
pub(crate) fn fill(config: &LabConfig, datastore: &DatastoreConfig) -> Result<()> {
    if datastore.size_mib.is_none() {
        return Err(LabError::Unsupported {
            datastore: datastore.name.clone(),
            what: "be filled up",
            reason: "it shares the space of the lab's directory; give it a size with DatastoreConfig::sized",
        });
    }
    let path = config.store_dir(&datastore.name).join(BALLAST);
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).at("open", &path)?;
    let mut block = vec![0xA5u8; 1 << 20];
    // Ever smaller pieces, until not even a block of the file system fits any more.
    while block.len() >= 4096 {
        match file.write(&block) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => block.truncate(block.len() / 2),
            Err(e) => return Err(e).at("fill up", &path),
        }
    }
    file.sync_all().at("flush", &path)
}

/// Gives the space back.
pub(crate) fn drain(config: &LabConfig, datastore: &str) -> Result<()> {
    let path = config.store_dir(datastore).join(BALLAST);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &path),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_files_meet_at_the_same_port_and_volume() {
        let config = LabConfig::default();
        let port = config.brick_port("ds1");
        let (server, client) = (server_volume(Path::new("/x"), port), client_volume(&config, port));
        assert!(server.contains("listen-port 24010") && client.contains("remote-port 24010"));
        assert!(client.contains("remote-subvolume threads") && server.contains("volume threads"));
        assert!(client.contains("ping-timeout 5"));
    }

    #[test]
    fn a_datastore_without_a_size_is_not_filled() {
        let config = LabConfig::default();
        let r = fill(&config, &config.datastores[0]);
        assert!(matches!(r, Err(LabError::Unsupported { .. })), "{r:?}");
    }
}
