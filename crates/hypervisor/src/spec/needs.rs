//! What a VM needs of the host that is to run it: things that the host must have, and room.
//!
//! Why not all that is in the XML: what is listed here keeps hosts from being chosen. So only that is listed without which
//! libvirt refuses to start the VM, and which [`crate::HostOffers`] can tell.
//!
//! Not listed: datastores (the agent knows which paths are theirs), and the lower device of a macvtap.

use roxmltree::Node;

use super::{CpuMode, InterfaceKind, Spec, child};
use crate::names::{self, Names};

/// What a VM needs of a host besides room. The names are those of [`crate::HostOffers`]; lists are sorted, and bounded by
/// [`crate::NAMES_MAX`] and [`crate::NAME_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// libvirt networks that its interfaces are on.
    pub networks: Vec<String>,
    /// Bridges of the host that its interfaces are on.
    pub bridges: Vec<String>,
    /// The CPU model that the host's processors must be able to show.
    ///
    /// `None` where libvirt starts the VM on any host: with a CPU of the host's own kind (`host-model`,
    /// `host-passthrough`, `maximum`), because the guest then boots with whatever is there (live migration asks for more,
    /// and libvirt checks that itself); with `check='none'`, which is also what libvirt writes into a definition without a
    /// CPU; and without KVM, where the processor does not matter.
    pub cpu_model: Option<String>,
    /// Its machine type. libvirt replaces an alias (`pc`, `q35`) by what it means when the VM is defined.
    pub machine: Option<String>,
    /// Devices of the host that are passed through to it, each by name: `pci 0000:03:00.0`, `usb 046d:c52b`,
    /// `usb bus 1 device 4`, `mdev <uuid>`, `scsi 0:0:1:0`. A name that stands twice is two of a kind. One that may be missing (`startupPolicy='optional'`) is left out.
    pub devices: Vec<String>,
}

/// CPU and memory of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Room {
    /// CPU, in MHz.
    pub cpu_mhz: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

impl Spec {
    /// What it needs of a host besides room.
    pub fn needs(&self) -> Needs {
        let (mut networks, mut bridges) = (Names::default(), Names::default());
        for interface in &self.interfaces {
            match &interface.kind {
                InterfaceKind::Network(name) => networks.need(name),
                InterfaceKind::Bridge(name) => bridges.need(name),
                InterfaceKind::Direct(_) | InterfaceKind::Other(_) => {}
            }
        }
        Needs {
            networks: networks.sorted(),
            bridges: bridges.sorted(),
            cpu_model: self.cpu_model_needed(),
            machine: one(self.machine.as_deref()),
            devices: self.device_names.clone(),
        }
    }

    fn cpu_model_needed(&self) -> Option<String> {
        match &self.cpu {
            CpuMode::Custom(model) if self.virt_type == "kvm" && !self.cpu_unchecked => one(Some(model)),
            CpuMode::Custom(_)
            | CpuMode::Default
            | CpuMode::HostPassthrough
            | CpuMode::HostModel
            | CpuMode::Maximum
            | CpuMode::Other(_) => None,
        }
    }

    /// The room that it must have: what its user reserved, else all of its memory and no CPU. Never more memory than it has.
    ///
    /// `<cputune>` and `<memtune><min_guarantee>` are not asked: the former divides CPU up and promises none, the latter
    /// QEMU's driver does not know.
    pub fn reservation(&self) -> Room {
        let memory_mib = self.memory_bytes.div_ceil(1 << 20);
        let wished = self.metadata.reservation;
        Room {
            cpu_mhz: wished.cpu_mhz.unwrap_or(0),
            memory_mib: wished.memory_mib.map_or(memory_mib, |mib| mib.min(memory_mib)),
        }
    }

    /// An estimate, on the safe side, of what its QEMU takes on top of the guest's memory, in MiB: 64, and 1/64 of the
    /// memory, and 8 for each CPU, and the memory of its graphics cards as far as it is stated.
    ///
    /// Where the numbers come from: a QEMU 7.2 with next to nothing in its guest was measured at 42 MiB, of which 20 are
    /// its own and the rest libraries that all QEMUs share; I/O buffers come on top. Page tables of host and guest together
    /// take 2/512 of the memory, and more while pages are not yet huge or are logged as dirty in a migration. A CPU is a
    /// thread whose stack may grow to 8 MiB. (KubeVirt, which has run many, reckons 30 MiB, 1/512, 8 MiB per CPU.)
    pub fn overhead_mib(&self) -> u64 {
        let memory_mib = self.memory_bytes.div_ceil(1 << 20);
        let video_mib = self.video_bytes.div_ceil(1 << 20);
        let parts = [memory_mib.div_ceil(64), u64::from(self.vcpus).saturating_mul(8), video_mib];
        parts.iter().fold(64, |sum, part| sum.saturating_add(*part))
    }
}

/// A single name within the bounds.
fn one(name: Option<&str>) -> Option<String> {
    let mut names = Names::default();
    names.need(name.unwrap_or_default());
    names.sorted().pop()
}

/// The names of what is passed through, of the elements in `<devices>`.
pub(super) fn device_names(devices: &[Node<'_, '_>]) -> Vec<String> {
    let mut found = Names::default();
    for device in devices {
        let source = child(*device, "source");
        let kind = if device.has_tag_name("hostdev") {
            device.attribute("type").unwrap_or("device")
        } else if device.has_tag_name("interface") && device.attribute("type") == Some("hostdev") {
            "pci"
        } else {
            continue;
        };
        // A LUN that QEMU reaches by network itself is no device of the host.
        let by_network = source.and_then(|source| source.attribute("protocol")) == Some("iscsi");
        let optional = source.and_then(|source| source.attribute("startupPolicy")) == Some("optional");
        if !by_network && !optional {
            found.device(&names::of_source(kind, source));
        }
    }
    found.sorted()
}

/// `vgamem` lies within `ram` or `vram`. Without an attribute QEMU's default counts as part of the base amount.
pub(super) fn video_bytes(video: Node<'_, '_>) -> u64 {
    let Some(model) = child(video, "model") else { return 0 };
    let kib =
        |name: &str| model.attribute(name).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    kib("ram").saturating_add(kib("vram")).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(attributes: &str, inside: &str, devices: &str) -> Spec {
        let text = format!(
            "<domain {attributes}><name>a</name><uuid>44c9b1b5-592e-4d43-b810-5d0eb8d81c64</uuid><memory unit='MiB'>1000</memory>
             <vcpu>2</vcpu>{inside}<devices>{devices}</devices></domain>"
        );
        text.parse().expect("a domain")
    }

    fn reserving(attributes: &str) -> Spec {
        let vm = format!(r#"<m:vm xmlns:m="https://mainstay/1"><m:reservation {attributes}/></m:vm>"#);
        spec("type='kvm'", &format!("<metadata>{vm}</metadata>"), "")
    }

    #[test]
    fn needs_of_a_domain_with_everything() {
        let devices = "<interface type='network'><source network='lan'/></interface>
            <interface type='network'><source network='dmz'/></interface><interface type='network'><source network='lan'/></interface>
            <interface type='bridge'><source bridge='br0'/></interface><interface type='bridge'/><interface type='user'/>
            <interface type='hostdev'><source><address type='pci' bus='0x05' slot='0x10' function='0x2'/></source></interface>
            <hostdev mode='subsystem' type='usb'><source><vendor id='0x046D'/><product id='0xc52b'/></source></hostdev>
            <hostdev mode='subsystem' type='usb'><source startupPolicy='optional'><vendor id='1'/><product id='2'/></source></hostdev>
            <hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn'/></hostdev>";
        let inside = "<os><type machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom' match='exact' check='partial'><model>Haswell</model></cpu>";
        assert_eq!(
            spec("type='kvm'", inside, devices).needs(),
            Needs {
                networks: vec!["dmz".into(), "lan".into()],
                bridges: vec!["br0".into()],
                cpu_model: Some("Haswell".into()),
                machine: Some("pc-q35-7.2".into()),
                devices: vec!["pci 0000:05:10.2".into(), "usb 046d:c52b".into()],
            }
        );
    }

    #[test]
    fn cpu_model_counts_only_where_libvirt_insists_on_it() {
        let model =
            |virt_type: &str, cpu: &str| spec(&format!("type='{virt_type}'"), cpu, "").needs().cpu_model;
        let named = "<model>Haswell</model>";
        assert_eq!(model("kvm", &format!("<cpu>{named}</cpu>")), Some("Haswell".into()));
        assert_eq!(model("qemu", &format!("<cpu mode='custom'>{named}</cpu>")), None);
        assert_eq!(model("kvm", &format!("<cpu mode='custom' check='none'>{named}</cpu>")), None);
        assert_eq!(model("kvm", &format!("<cpu mode='host-model'>{named}</cpu>")), None);
        assert_eq!(model("kvm", "<cpu mode='host-passthrough'/>"), None);
        assert_eq!(model("kvm", ""), None);
    }

    #[test]
    fn room_is_all_of_the_memory_unless_reserved() {
        assert_eq!(spec("", "", "").reservation(), Room { cpu_mhz: 0, memory_mib: 1000 });
        assert_eq!(reserving("cpu_mhz='1500'").reservation(), Room { cpu_mhz: 1500, memory_mib: 1000 });
        assert_eq!(reserving("memory_mib='0'").reservation(), Room { cpu_mhz: 0, memory_mib: 0 });
        let more_than_it_has = reserving("memory_mib='5000'").reservation();
        assert_eq!(more_than_it_has.memory_mib, 1000);
        assert_eq!(reserving("memory_mib='much'").reservation().memory_mib, 1000);
    }

    #[test]
    fn overhead_is_the_sum_that_its_docs_state() {
        assert_eq!(spec("", "", "").overhead_mib(), 64 + 16 + 2 * 8);
        let video = "<video><model type='qxl' ram='65536' vram='32768' vgamem='16384'/></video><video><model vram='x'/></video>";
        assert_eq!(spec("", "", video).overhead_mib(), 64 + 16 + 2 * 8 + 96);
        let absurd = "<video><model vram='18446744073709551615' ram='18446744073709551615'/></video>";
        assert!(spec("", "", absurd).overhead_mib() > 1 << 40);
    }

    proptest! {
        #[test]
        fn names_stay_within_their_bounds(name in "[a-zé]{0,300}", count in 0usize..400) {
            let each = |number: usize| format!(
                "<interface type='network'><source network='{name}{number}'/></interface>
                 <hostdev type='{name}'><source><address uuid='{number}'/></source></hostdev>
                 <hostdev type='mdev'><source><address uuid='{name}{number}'/></source></hostdev>"
            );
            let devices: String = (0..count).map(each).collect();
            let needs = spec("type='kvm'", &format!("<cpu><model>{name}</model></cpu>"), &devices).needs();
            for list in [&needs.networks, &needs.devices] {
                prop_assert!(list.len() <= crate::NAMES_MAX && list.is_sorted());
                prop_assert!(list.iter().all(|name| !name.is_empty() && name.len() <= crate::NAME_MAX));
            }
            prop_assert!(needs.cpu_model.is_none_or(|model| model.len() <= crate::NAME_MAX));
        }
    }
}
