//! What this host can give to VMs besides room.
//!
//! Why: placement must know before a failure where each VM can run, and libvirt only tells when it refuses to start one.
//!
//! Not listed: datastores, which the agent knows. What a list does not hold because it is full ([`crate::NAMES_MAX`]) is not
//! offered: a VM that needs it then counts as not placeable here, and that is told; the other way round it would fail to start.

mod sysfs;

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};
use virt_sys as sys;

use crate::error::CallFailure;
use crate::libvirt::Connection;
use crate::names::Names;

/// What a host can give. The names are those of [`crate::Needs`]; lists are sorted, and bounded by [`crate::NAMES_MAX`] and
/// [`crate::NAME_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HostOffers {
    /// Active libvirt networks.
    pub networks: Vec<String>,
    /// Bridges, the kernel's and Open vSwitch's.
    pub bridges: Vec<String>,
    /// CPU models that its processors can show to a guest: with KVM if there is `/dev/kvm`, else those that QEMU emulates.
    pub cpu_models: Vec<String>,
    /// Machine types that its QEMUs know, and the aliases of them.
    pub machine_types: Vec<String>,
    /// Devices that may be passed through: PCI devices in an IOMMU group, USB devices, mediated and SCSI devices. A USB device
    /// has two names, by what it is and by where it is plugged in. A name that stands twice is two of a kind.
    pub devices: Vec<String>,
    /// Its CPU in MHz, all processors together; 0: not known.
    pub cpu_mhz: u64,
}

/// Makes about five calls; the first of them may take seconds, while libvirtd tries its QEMUs out.
pub(crate) fn read(connection: &Connection) -> Result<HostOffers, CallFailure> {
    let connect = connection.connect();
    let failed = |error: virt::error::Error| connection.failure(&error);
    let capabilities = connect.get_capabilities().map_err(failed)?;
    let node = connect.get_node_info().map_err(failed)?;
    Ok(HostOffers {
        networks: networks(connection)?,
        bridges: sysfs::bridges(Path::new("/sys")),
        cpu_models: cpu_models(&domain_capabilities(connection)?),
        machine_types: machine_types(&capabilities),
        devices: sysfs::devices(Path::new("/sys")),
        cpu_mhz: u64::from(node.mhz) * u64::from(node.cpus),
    })
}

fn networks(connection: &Connection) -> Result<Vec<String>, CallFailure> {
    let mut names = Names::default();
    let listed = connection.connect().list_all_networks(sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE);
    match listed.map_err(|error| connection.failure(&error)) {
        Ok(networks) => networks.iter().filter_map(|network| network.get_name().ok()).for_each(|name| {
            names.offer(&name);
        }),
        // libvirt was installed without its networks.
        Err(failure) if without(&failure) => {}
        Err(failure) => return Err(failure),
    }
    Ok(names.sorted())
}

/// Whether a part of libvirt is not there, rather than that it failed.
fn without(failure: &CallFailure) -> bool {
    !failure.connection_lost && matches!(failure.code, sys::VIR_ERR_NO_SUPPORT | sys::VIR_ERR_NO_CONNECT)
}

/// `None` where there is no QEMU, or the driver can't tell.
fn domain_capabilities(connection: &Connection) -> Result<Option<String>, CallFailure> {
    let kinds = if Path::new("/dev/kvm").exists() { &["kvm", "qemu"][..] } else { &["qemu"] };
    for kind in kinds {
        let told = connection.connect().get_domain_capabilities(None, None, None, Some(kind), 0);
        match told.map_err(|error| connection.failure(&error)) {
            Ok(text) => return Ok(Some(text)),
            Err(failure) if failure.connection_lost => return Err(failure),
            Err(failure) => tracing::debug!(kind, why = failure.message, "libvirt tells no CPU models"),
        }
    }
    Ok(None)
}

/// `None` for what libvirt would not write.
fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { nodes_limit: 200_000, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).ok()
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn cpu_models(capabilities: &Option<String>) -> Vec<String> {
    let mut names = Names::default();
    let Some(document) = capabilities.as_deref().and_then(parse) else { return Vec::new() };
    let modes = children(document.root_element(), "cpu").flat_map(|cpu| children(cpu, "mode"));
    for mode in modes.filter(|mode| mode.attribute("name") == Some("custom")) {
        for model in children(mode, "model").filter(|model| model.attribute("usable") == Some("yes")) {
            names.offer(model.text().unwrap_or_default().trim());
        }
    }
    names.sorted()
}

/// Those of the host's own architecture first, should there be too many.
fn machine_types(capabilities: &str) -> Vec<String> {
    let mut names = Names::default();
    let Some(document) = parse(capabilities) else { return Vec::new() };
    let root = document.root_element();
    let own = children(root, "host")
        .flat_map(|host| children(host, "cpu"))
        .flat_map(|cpu| children(cpu, "arch"))
        .find_map(|arch| arch.text());
    let archs: Vec<Node<'_, '_>> =
        children(root, "guest").flat_map(|guest| children(guest, "arch")).collect();
    let (first, others): (Vec<_>, Vec<_>) = archs.into_iter().partition(|arch| arch.attribute("name") == own);
    for arch in first.into_iter().chain(others) {
        // Also in `<domain type='kvm'>`, where those of that kind may stand.
        let machines = arch.descendants().filter(|node| node.has_tag_name("machine"));
        for machine in machines {
            names.offer(machine.attribute("canonical").unwrap_or_default());
            names.offer(machine.text().unwrap_or_default().trim());
        }
    }
    names.sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOMAIN_CAPABILITIES: &str = "<domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/>
        <mode name='host-model'><model fallback='forbid'>Haswell</model></mode>
        <mode name='custom' supported='yes'><model usable='yes' vendor='Intel'>Nehalem</model>
        <model usable='no'>EPYC</model><model usable='unknown'>x</model><model usable='yes'>qemu64</model></mode></cpu></domainCapabilities>";

    const CAPABILITIES: &str = "<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
        <guest><arch name='armv7l'><machine>virt-7.2</machine></arch></guest>
        <guest><arch name='x86_64'><machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine><machine>pc-q35-7.2</machine>
        <domain type='qemu'/><domain type='kvm'><machine canonical='pc-q35-7.2'>q35</machine></domain></arch></guest></capabilities>";

    #[test]
    fn only_usable_custom_models_are_offered() {
        assert_eq!(cpu_models(&Some(DOMAIN_CAPABILITIES.into())), ["Nehalem", "qemu64"]);
        assert_eq!(cpu_models(&None), [""; 0]);
    }

    #[test]
    fn machine_types_come_with_their_aliases() {
        assert_eq!(machine_types(CAPABILITIES), ["pc", "pc-i440fx-7.2", "pc-q35-7.2", "q35", "virt-7.2"]);
    }

    #[test]
    fn own_architecture_has_precedence_when_there_are_too_many() {
        let many: String = (0..400).map(|number| format!("<machine>arm-{number}</machine>")).collect();
        let text = CAPABILITIES.replace("<machine>virt-7.2</machine>", &many);
        let types = machine_types(&text);
        assert_eq!(types.len(), crate::NAMES_MAX);
        assert!(types.iter().any(|name| name == "q35"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(pieces in prop::collection::vec(0usize..200, 0..60)) {
            let both = format!("{CAPABILITIES}{DOMAIN_CAPABILITIES}");
            let parts: Vec<&str> = both.split_inclusive(['<', '>', '\'']).collect();
            let text: String = pieces.iter().map(|piece| parts[piece % parts.len()]).collect();
            for text in [text.clone(), format!("<a>{text}</a>")] {
                let _ = (machine_types(&text), cpu_models(&Some(text)));
            }
        }
    }
}
