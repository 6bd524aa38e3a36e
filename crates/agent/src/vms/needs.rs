//! What a domain's XML means to the cluster: on which datastore the VM is homed, and what it needs of a host.

use super::offers::{bridge, names};
use mainstay_core::ids::{DatastoreName, XmlId};
use mainstay_core::register::{Priority, VmNeeds, VmSpec};
use mainstay_hypervisor as hv;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The cluster's datastores, by where they are mounted on this host.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<(PathBuf, DatastoreName)>);

impl Mounts {
    /// Datastores: path on this host, name.
    pub fn new(mounts: Vec<(PathBuf, DatastoreName)>) -> Mounts {
        Mounts(mounts)
    }

    /// The datastore on which the first disk lies that the VM writes to.
    pub fn home(&self, spec: &hv::Spec) -> Option<DatastoreName> {
        let disk =
            spec.disks.iter().find(|disk| !disk.readonly && matches!(&*disk.device, "disk" | "lun"))?;
        self.of_disk(disk)
    }

    /// What the protocol keeps of a domain.
    pub fn vm_spec(&self, xml: XmlId, spec: &hv::Spec) -> VmSpec {
        let memory_mib = spec.memory_bytes.div_ceil(1 << 20);
        let priority = spec.metadata.priority.unwrap_or_default();
        let reserved = spec.reservation();
        VmSpec {
            xml,
            memory_mib,
            vcpus: spec.vcpus,
            // protect="no" says that its user does not want it restarted.
            priority: if spec.metadata.protect == Some(false) { Priority::Disabled } else { priority },
            cpu_mhz: reserved.cpu_mhz,
            memory_reserved_mib: Some(reserved.memory_mib).filter(|reserved| *reserved != memory_mib),
            overhead_mib: spec.overhead_mib(),
            guest_agent: spec.guest_agent,
            needs: Arc::new(self.needs(spec)),
        }
    }

    fn needs(&self, spec: &hv::Spec) -> VmNeeds {
        let needs = spec.needs();
        let bridges = needs.bridges.iter().map(|name| bridge(name));
        let home = self.home(spec);
        // Also what it only reads: libvirt does not start a VM whose installation medium is missing.
        let disks = spec.disks.iter().filter_map(|disk| self.of_disk(disk));
        let nvram = spec.nvram.iter().filter_map(|path| self.of_path(path));
        let mut datastores: Vec<DatastoreName> =
            disks.chain(nvram).filter(|name| Some(name) != home.as_ref()).collect();
        datastores.sort_unstable();
        datastores.dedup();
        VmNeeds {
            datastores,
            networks: names(needs.networks.into_iter().chain(bridges)),
            cpu_model: needs.cpu_model.map(Arc::from),
            // libvirt shows no aliases: it has written the machine type that one stands for into the definition.
            machine: needs.machine.map(Arc::from),
            devices: needs.devices.into_iter().map(Arc::from).collect(),
        }
    }

    fn of_disk(&self, disk: &hv::Disk) -> Option<DatastoreName> {
        match &disk.source {
            hv::DiskSource::File(path) => self.of_path(path),
            hv::DiskSource::Block(_)
            | hv::DiskSource::Network { .. }
            | hv::DiskSource::Volume { .. }
            | hv::DiskSource::Empty
            | hv::DiskSource::Other(_) => None,
        }
    }

    fn of_path(&self, path: &str) -> Option<DatastoreName> {
        let holds = |(root, _): &&(PathBuf, DatastoreName)| Path::new(path).starts_with(root);
        let longest = |(root, _): &&(PathBuf, DatastoreName)| root.components().count();
        self.0.iter().filter(holds).max_by_key(longest).map(|(_, name)| name.clone())
    }
}
