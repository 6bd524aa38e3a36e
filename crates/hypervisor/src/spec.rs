//! What a domain needs, read from its XML.
//!
//! Only what placement, protection and storage need; the XML itself is carried along unchanged.

use std::str::FromStr;

use roxmltree::{Document, Node};

use crate::domain::DomainUuid;
use crate::error::XmlError;
use crate::metadata::{self, Metadata};

mod needs;

pub use needs::{Needs, Room};

/// Where a disk's data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A file, by its path.
    File(String),
    /// A block device, by its path.
    Block(String),
    /// Something that QEMU reaches by network itself.
    Network {
        /// rbd, iscsi, nbd, gluster...
        protocol: String,
        /// Name of the image or target.
        name: String,
    },
    /// A volume of a libvirt storage pool.
    Volume {
        /// The pool's name, as libvirt on this host knows it.
        pool: String,
        /// The volume's name within the pool.
        volume: String,
    },
    /// An empty drive (cdrom, floppy).
    Empty,
    /// Another kind (nvme, vhostuser, dir...), by libvirt's name.
    Other(String),
}

/// A disk, cdrom or floppy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where its data are.
    pub source: DiskSource,
    /// `disk`, `cdrom`, `floppy` or `lun`.
    pub device: String,
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// `raw`, `qcow2`..., if stated.
    pub format: Option<String>,
    /// Never written by this domain (also every cdrom).
    pub readonly: bool,
    /// Shared between domains, with QEMU's lock on it switched off.
    pub shareable: bool,
}

/// What a network interface is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A libvirt network.
    Network(String),
    /// A bridge of the host.
    Bridge(String),
    /// A device of the host (macvtap).
    Direct(String),
    /// Another kind (user, hostdev, vhostuser...), by libvirt's name.
    Other(String),
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Where it is connected.
    pub kind: InterfaceKind,
    /// Its address, if stated.
    pub mac: Option<String>,
}

/// Which CPU the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuMode {
    /// The XML names no CPU: the guest gets QEMU's default.
    Default,
    /// Exactly the host's.
    HostPassthrough,
    /// Close to the host's.
    HostModel,
    /// As good as it gets everywhere.
    Maximum,
    /// A named model.
    Custom(String),
    /// Another mode, by libvirt's name.
    Other(String),
}

/// What a domain needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The UUID by which the domain is known.
    pub uuid: DomainUuid,
    /// The domain's name on this host.
    pub name: String,
    /// `kvm`, `qemu`, `test`...
    pub virt_type: String,
    /// Its memory at most (what it may grow to).
    pub memory_bytes: u64,
    /// Its CPUs at most.
    pub vcpus: u32,
    /// Disks in the order of the XML.
    pub disks: Vec<Disk>,
    /// Network interfaces in the order of the XML.
    pub interfaces: Vec<Interface>,
    /// It uses devices of this one host (PCI, USB, mediated...): it can't be placed freely.
    pub host_devices: bool,
    /// Those devices, each by a name that is the same on every host: see [`Needs::devices`].
    pub device_names: Vec<String>,
    /// Machine type, such as `pc-i440fx-7.2`.
    pub machine: Option<String>,
    /// Architecture, such as `x86_64`.
    pub arch: Option<String>,
    /// Which CPU the guest is to see, and so which hosts can take it.
    pub cpu: CpuMode,
    /// libvirt starts it whatever the host's CPU can do (`check='none'`).
    pub cpu_unchecked: bool,
    /// The memory of its graphics cards, as far as it is stated.
    pub video_bytes: u64,
    /// Path of the UEFI variable store, if stated: a file that must follow the VM.
    pub nvram: Option<String>,
    /// It has an emulated TPM, whose state is a directory of its host.
    pub tpm_emulator: bool,
    /// The guest can be asked by its agent.
    pub guest_agent: bool,
    /// The user's wishes.
    pub metadata: Metadata,
}

impl FromStr for Spec {
    type Err = XmlError;

    fn from_str(xml: &str) -> Result<Spec, XmlError> {
        // No DTD (the default), so no entity expansion. The limit on nodes bounds memory for hostile input.
        let options = roxmltree::ParsingOptions { nodes_limit: 100_000, ..Default::default() };
        let document = Document::parse_with_options(xml, options)
            .map_err(|error| XmlError::Malformed { message: error.to_string() })?;
        let root = document.root_element();
        if root.tag_name().name() != "domain" {
            return Err(XmlError::Missing { what: "<domain> as its outermost element" });
        }
        parse_domain(root)
    }
}

fn parse_domain(root: Node<'_, '_>) -> Result<Spec, XmlError> {
    let uuid = text_of(root, "uuid").ok_or(XmlError::Missing { what: "<uuid>" })?.parse()?;
    let name = text_of(root, "name").ok_or(XmlError::Missing { what: "<name>" })?.to_owned();
    let vcpus = text_of(root, "vcpu").unwrap_or("1");
    let vcpus = vcpus.parse().map_err(|_| bad_value("vcpu", vcpus))?;
    let os_type = child(root, "os").and_then(|os| child(os, "type"));
    let devices: Vec<Node<'_, '_>> = root
        .children()
        .filter(|node| node.has_tag_name("devices"))
        .flat_map(|node| node.children())
        .collect();
    let named = |name: &'static str| devices.iter().copied().filter(move |node| node.has_tag_name(name));
    let interfaces: Vec<Interface> = named("interface").map(parse_interface).collect();
    Ok(Spec {
        uuid,
        name,
        virt_type: root.attribute("type").unwrap_or_default().to_owned(),
        memory_bytes: parse_memory(root)?,
        vcpus,
        disks: named("disk").map(parse_disk).collect(),
        host_devices: named("hostdev").next().is_some()
            || interfaces.iter().any(|interface| interface.kind == InterfaceKind::Other("hostdev".into())),
        interfaces,
        device_names: needs::device_names(&devices),
        machine: os_type.and_then(|node| node.attribute("machine")).map(str::to_owned),
        arch: os_type.and_then(|node| node.attribute("arch")).map(str::to_owned),
        cpu: parse_cpu(root),
        cpu_unchecked: child(root, "cpu").and_then(|cpu| cpu.attribute("check")) == Some("none"),
        video_bytes: named("video").map(needs::video_bytes).fold(0, u64::saturating_add),
        nvram: child(root, "os").and_then(|os| text_of(os, "nvram")).map(str::to_owned),
        tpm_emulator: named("tpm")
            .any(|tpm| child(tpm, "backend").and_then(|node| node.attribute("type")) == Some("emulator")),
        guest_agent: named("channel").any(|channel| {
            child(channel, "target").and_then(|node| node.attribute("name")) == Some("org.qemu.guest_agent.0")
        }),
        metadata: metadata::parse(root),
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|candidate| candidate.has_tag_name(name))
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).and_then(|found| found.text()).map(str::trim).filter(|text| !text.is_empty())
}

fn attribute_of(node: Node<'_, '_>, name: &str, attribute: &str) -> Option<String> {
    child(node, name).and_then(|found| found.attribute(attribute)).map(str::to_owned)
}

fn bad_value(what: &'static str, value: &str) -> XmlError {
    XmlError::BadValue { what, value: value.chars().take(64).collect() }
}

/// `<maxMemory>` counts where there are memory slots, since the guest may grow to it only by hot-plug: not counted.
fn parse_memory(root: Node<'_, '_>) -> Result<u64, XmlError> {
    let node = child(root, "memory").ok_or(XmlError::Missing { what: "<memory>" })?;
    let text = node.text().unwrap_or_default().trim();
    let number: u64 = text.parse().map_err(|_| bad_value("memory", text))?;
    let unit = node.attribute("unit").unwrap_or("KiB");
    let factor: u64 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return Err(bad_value("memory unit", unit)),
    };
    number.checked_mul(factor).ok_or_else(|| bad_value("memory", text))
}

fn parse_disk(disk: Node<'_, '_>) -> Disk {
    let source = child(disk, "source");
    let attribute = |name: &str| source.and_then(|node| node.attribute(name)).map(str::to_owned);
    let device = disk.attribute("device").unwrap_or("disk").to_owned();
    let kind = disk.attribute("type").unwrap_or("file");
    let source = match kind {
        "file" => attribute("file").map(DiskSource::File),
        "block" => attribute("dev").map(DiskSource::Block),
        "network" => attribute("protocol")
            .map(|protocol| DiskSource::Network { protocol, name: attribute("name").unwrap_or_default() }),
        "volume" => attribute("pool")
            .map(|pool| DiskSource::Volume { pool, volume: attribute("volume").unwrap_or_default() }),
        other => Some(DiskSource::Other(other.to_owned())),
    };
    Disk {
        source: source.unwrap_or(DiskSource::Empty),
        readonly: child(disk, "readonly").is_some() || device == "cdrom",
        device,
        target: attribute_of(disk, "target", "dev").unwrap_or_default(),
        format: attribute_of(disk, "driver", "type"),
        shareable: child(disk, "shareable").is_some(),
    }
}

fn parse_interface(interface: Node<'_, '_>) -> Interface {
    let attribute = |name: &str| attribute_of(interface, "source", name).unwrap_or_default();
    let kind = match interface.attribute("type").unwrap_or_default() {
        "network" => InterfaceKind::Network(attribute("network")),
        "bridge" => InterfaceKind::Bridge(attribute("bridge")),
        "direct" => InterfaceKind::Direct(attribute("dev")),
        other => InterfaceKind::Other(other.to_owned()),
    };
    Interface { kind, mac: attribute_of(interface, "mac", "address") }
}

fn parse_cpu(root: Node<'_, '_>) -> CpuMode {
    let Some(cpu) = child(root, "cpu") else { return CpuMode::Default };
    let model = text_of(cpu, "model");
    match (cpu.attribute("mode"), model) {
        (Some("host-passthrough"), _) => CpuMode::HostPassthrough,
        (Some("host-model"), _) => CpuMode::HostModel,
        (Some("maximum"), _) => CpuMode::Maximum,
        (Some("custom") | None, Some(model)) => CpuMode::Custom(model.to_owned()),
        (Some("custom") | None, None) => CpuMode::Default,
        (Some(other), _) => CpuMode::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XML: &str = r#"<domain type='kvm' id='3'>
      <name>db1</name><uuid>44c9b1b5-592e-4d43-b810-5d0eb8d81c64</uuid>
      <metadata><m:vm xmlns:m="https://mainstay/1" priority="highest"><m:reservation cpu_mhz="1000" memory_mib="1024"/></m:vm></metadata>
      <memory unit='MiB'>2048</memory><vcpu placement='static' current='1'>4</vcpu>
      <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><nvram>/var/lib/libvirt/qemu/nvram/db1.fd</nvram></os>
      <cpu mode='host-model' check='partial'/>
      <devices>
        <video><model type='qxl' ram='65536' vram='65536' vgamem='16384' heads='1'/></video>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/ds/db1/a.qcow2'/><target dev='vda' bus='virtio'/></disk>
        <disk type='block' device='disk'><source dev='/dev/mapper/lun1'/><target dev='vdb'/><shareable/></disk>
        <disk type='network' device='disk'><source protocol='rbd' name='pool/img'/><target dev='vdc'/><readonly/></disk>
        <disk type='file' device='cdrom'><target dev='sda'/></disk>
        <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>
        <interface type='network'><source network='default'/></interface>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
        <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x03' slot='0x00' function='0x1'/></source></hostdev>
      </devices></domain>"#;

    #[test]
    fn a_full_domain_is_understood() {
        let spec: Spec = XML.parse().expect("valid");
        assert_eq!((spec.name.as_str(), spec.memory_bytes, spec.vcpus), ("db1", 2 << 30, 4));
        assert_eq!(spec.disks[0].source, DiskSource::File("/srv/ds/db1/a.qcow2".into()));
        assert_eq!(spec.disks[0].format.as_deref(), Some("qcow2"));
        assert!(spec.disks[1].shareable && !spec.disks[1].readonly);
        assert_eq!(
            spec.disks[2].source,
            DiskSource::Network { protocol: "rbd".into(), name: "pool/img".into() }
        );
        assert!(spec.disks[2].readonly);
        assert_eq!((&spec.disks[3].source, spec.disks[3].readonly), (&DiskSource::Empty, true));
        assert_eq!(spec.interfaces[0].kind, InterfaceKind::Bridge("br0".into()));
        assert_eq!(spec.interfaces[1].kind, InterfaceKind::Network("default".into()));
        assert!(spec.host_devices && spec.guest_agent && spec.tpm_emulator);
        assert_eq!(spec.cpu, CpuMode::HostModel);
        assert_eq!(spec.metadata.priority, Some(crate::Priority::Highest));
        assert!(spec.nvram.is_some());
        assert_eq!(spec.needs().devices, ["pci 0000:03:00.1"]);
        assert_eq!(spec.reservation(), Room { cpu_mhz: 1000, memory_mib: 1024 });
        assert_eq!(spec.overhead_mib(), 64 + 32 + 4 * 8 + 128);
    }

    #[test]
    fn what_is_missing_or_absurd_is_an_error() {
        let cases = [
            ("", "parsed"),
            ("<network/>", "<domain>"),
            ("<domain><name>a</name><memory>1</memory></domain>", "<uuid>"),
            (&XML.replace("2048", "99999999999999999999"), "memory"),
            (&XML.replace("2048", "18446744073709551615"), "memory"),
            (&XML.replace("'MiB'", "'parsec'"), "memory unit"),
            (&XML.replace(">4<", ">-4<"), "vcpu"),
        ];
        for (xml, part) in cases {
            let error = xml.parse::<Spec>().expect_err(part).to_string();
            assert!(error.contains(part), "{error:?} should mention {part:?}");
        }
    }

    proptest! {
        #[test]
        fn mutated_xml_never_panics(edits in prop::collection::vec((0usize..XML.len(), any::<u8>(), 0u8..3), 1..12)) {
            let mut bytes = XML.as_bytes().to_vec();
            for (position, byte, kind) in edits {
                let position = position % bytes.len().max(1);
                match kind {
                    0 => bytes[position] = byte,
                    1 => bytes.insert(position, byte),
                    _ => { bytes.truncate(position.max(1)); }
                }
            }
            let _ = String::from_utf8_lossy(&bytes).parse::<Spec>();
        }

        #[test]
        fn shuffled_pieces_never_panic(pieces in prop::collection::vec(0usize..200, 0..60)) {
            let parts: Vec<&str> = XML.split_inclusive(['<', '>', '\'']).collect();
            let text: String = pieces.iter().map(|piece| parts[piece % parts.len()]).collect();
            let _ = text.parse::<Spec>();
            let _ = format!("<domain>{text}</domain>").parse::<Spec>();
        }
    }
}
