//! What the kernel tells of bridges and devices, below `/sys`. It is memory, so reading it never hangs; what can't be read
//! is not offered.

use std::fs;
use std::path::{Path, PathBuf};

use crate::names::{self, Names};

/// The entries of a directory, by name.
fn entries(directory: PathBuf) -> Vec<(String, PathBuf)> {
    let Ok(found) = fs::read_dir(directory) else { return Vec::new() };
    let mut entries: Vec<(String, PathBuf)> = found
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    entries.sort_unstable();
    entries
}

fn text(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The name of what a link points to.
fn target(link: PathBuf) -> Option<String> {
    fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}

pub(super) fn bridges(sys: &Path) -> Vec<String> {
    let mut found = Names::default();
    for (name, path) in entries(sys.join("class/net")) {
        // The kernel does not tell which ports of Open vSwitch are its bridges: those that are neither a network card nor a
        // VM's, or another program's, tap device.
        let open_vswitch = target(path.join("master")).as_deref() == Some("ovs-system")
            && !path.join("device").exists()
            && !path.join("tun_flags").exists();
        if path.join("bridge").exists() || open_vswitch {
            found.offer(&name);
        }
    }
    found.sorted()
}

pub(super) fn devices(sys: &Path) -> Vec<String> {
    let mut found = Names::default();
    pci(sys).iter().for_each(|address| found.device(&names::pci(address)));
    for (_, path) in entries(sys.join("bus/usb/devices")) {
        usb(&path, &mut found);
    }
    for (uuid, _) in entries(sys.join("bus/mdev/devices")) {
        found.device(&names::mdev(&uuid));
    }
    // Targets and hosts are there as well (`target0:0:0`, `host0`); devices have an address only.
    for (address, _) in entries(sys.join("bus/scsi/devices")) {
        if address.starts_with(|first: char| first.is_ascii_digit()) {
            found.device(&names::scsi(&address));
        }
    }
    found.sorted()
}

/// Without an IOMMU group a device can't be passed through. Those that were set aside for it come first, should there be too
/// many.
fn pci(sys: &Path) -> Vec<String> {
    let is_bridge = |path: &Path| text(path.join("class")).is_some_and(|class| class.starts_with("0x06"));
    let mut passable: Vec<(bool, String)> = entries(sys.join("bus/pci/devices"))
        .into_iter()
        .filter(|(_, path)| path.join("iommu_group").exists() && !is_bridge(path))
        .map(|(address, path)| (target(path.join("driver")).as_deref() != Some("vfio-pci"), address))
        .collect();
    passable.sort_unstable();
    passable.into_iter().map(|(_, address)| address).collect()
}

/// Interfaces of devices are in the same directory, and have no vendor; hubs (class 9) are not passed through.
fn usb(path: &Path, found: &mut Names) {
    let of = |name: &str| text(path.join(name));
    let (Some(vendor), Some(product)) = (of("idVendor"), of("idProduct")) else { return };
    if of("bDeviceClass").as_deref() == Some("09") {
        return;
    }
    found.device(&names::usb(&vendor, &product));
    let number = |name: &str| of(name).and_then(|text| text.parse().ok());
    if let (Some(bus), Some(device)) = (number("busnum"), number("devnum")) {
        found.device(&names::usb_at(bus, device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn file(sys: &Path, path: &str, text: &str) {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().expect("below /sys")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn link(sys: &Path, path: &str, target: &str) {
        file(sys, &format!("{path}.made"), "");
        symlink(target, sys.join(path)).expect("a link");
    }

    #[test]
    fn bridges_of_the_kernel_and_of_open_vswitch_are_found() {
        let sys = tempfile::tempdir().expect("a directory");
        let sys = sys.path();
        file(sys, "class/net/br0/bridge/bridge_id", "8000.1");
        file(sys, "class/net/lo/mtu", "65536");
        file(sys, "class/net/eth0/device/vendor", "0x8086");
        for port in ["ovsbr0", "eth0", "vnet3"] {
            link(sys, &format!("class/net/{port}/master"), "../ovs-system");
        }
        file(sys, "class/net/vnet3/tun_flags", "0x5002");
        link(sys, "class/net/vlan7/master", "../br0");
        assert_eq!(bridges(sys), ["br0", "ovsbr0"]);
        assert_eq!(bridges(&sys.join("nowhere")), [""; 0]);
    }

    #[test]
    fn devices_are_named_as_domains_name_them() {
        let sys = tempfile::tempdir().expect("a directory");
        let sys = sys.path();
        for (address, class) in
            [("0000:00:00.0", "0x060000"), ("0000:03:00.0", "0x020000"), ("0000:04:00.0", "0x030000")]
        {
            file(sys, &format!("bus/pci/devices/{address}/class"), class);
        }
        link(sys, "bus/pci/devices/0000:00:00.0/iommu_group", "..");
        link(sys, "bus/pci/devices/0000:03:00.0/iommu_group", "..");
        for (at, class, device) in [("1-1", "00", "4"), ("1-2", "00", "5"), ("usb1", "09", "1")] {
            for (name, text) in [
                ("idVendor", "046d"),
                ("idProduct", "c52b"),
                ("bDeviceClass", class),
                ("busnum", "1"),
                ("devnum", device),
            ] {
                file(sys, &format!("bus/usb/devices/{at}/{name}"), &format!("{text}\n"));
            }
        }
        file(sys, "bus/usb/devices/1-1:1.0/bInterfaceClass", "03");
        file(sys, "bus/mdev/devices/4b20d080-1b54-4048-85b3-a6a62d165c01/uevent", "");
        file(sys, "bus/scsi/devices/2:0:0:1/vendor", "");
        file(sys, "bus/scsi/devices/host2/uevent", "");
        let expected = [
            "mdev 4b20d080-1b54-4048-85b3-a6a62d165c01",
            "pci 0000:03:00.0",
            "scsi 2:0:0:1",
            "usb 046d:c52b",
            "usb 046d:c52b",
            "usb bus 1 device 4",
            "usb bus 1 device 5",
        ];
        assert_eq!(devices(sys), expected);
    }

    #[test]
    fn devices_set_aside_come_first_when_there_are_too_many() {
        let sys = tempfile::tempdir().expect("a directory");
        let sys = sys.path();
        for number in 0..=crate::NAMES_MAX {
            link(sys, &format!("bus/pci/devices/0000:{number:02x}:00.0/iommu_group"), "..");
        }
        let last = format!("0000:{:02x}:00.0", crate::NAMES_MAX);
        link(sys, &format!("bus/pci/devices/{last}/driver"), "../../vfio-pci");
        let devices = devices(sys);
        assert_eq!(devices.len(), crate::NAMES_MAX);
        assert!(devices.contains(&names::pci(&last)));
    }
}
