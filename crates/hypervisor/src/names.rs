//! Names by which what a VM needs is compared with what a host offers, and their bounds.
//!
//! Both sides make the names of devices here, so that they can't drift apart.

use roxmltree::Node;

/// At most so many names in a list of needs or offers: it is sent to other hosts, and comes from files that anybody may
/// have written.
pub const NAMES_MAX: usize = 256;

/// At most so many bytes in a name. A longer one is not offered; a need for it is cut, so no host is found for it.
pub const NAME_MAX: usize = 128;

/// Collects names within the bounds.
#[derive(Default)]
pub(crate) struct Names(Vec<String>);

impl Names {
    /// Takes a name in, if there is room for it.
    pub(crate) fn offer(&mut self, name: &str) {
        if !name.is_empty() && name.len() <= NAME_MAX && self.has_room() && !self.has(name) {
            self.0.push(name.to_owned());
        }
    }

    /// Takes a need in, cut if it is too long.
    pub(crate) fn need(&mut self, name: &str) {
        self.offer(cut(name));
    }

    /// Takes a device in, needed or offered: a second one of the same name is one more of its kind.
    pub(crate) fn device(&mut self, name: &str) {
        if self.has_room() {
            self.0.push(cut(name).to_owned());
        }
    }

    fn has_room(&self) -> bool {
        self.0.len() < NAMES_MAX
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|present| present == name)
    }

    /// In order, so that two lists of the same names are equal.
    pub(crate) fn sorted(mut self) -> Vec<String> {
        self.0.sort_unstable();
        self.0
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default()
}

/// The name of a PCI device, such as `pci 0000:03:00.0`.
pub(crate) fn pci(address: &str) -> String {
    format!("pci {address}")
}

/// The name of a USB device by vendor and product, such as `usb 046d:c52b`.
pub(crate) fn usb(vendor: &str, product: &str) -> String {
    format!("usb {vendor}:{product}")
}

/// `usb bus 1 device 4`
pub(crate) fn usb_at(bus: u64, device: u64) -> String {
    format!("usb bus {bus} device {device}")
}

/// The name of a mediated device, such as `mdev 4b20d080-1b54-4048-85b3-a6a62d165c01`.
pub(crate) fn mdev(uuid: &str) -> String {
    format!("mdev {}", uuid.to_ascii_lowercase())
}

/// The name of a SCSI device, such as `scsi 0:0:1:0`.
pub(crate) fn scsi(address: &str) -> String {
    format!("scsi {address}")
}

/// The device of a `<hostdev>`, or of an `<interface type='hostdev'>`, whose `<source>` this is. One that can't be told is
/// named after its kind: no host offers that, which is better than to place its VM where it can't start.
pub(crate) fn of_source(kind: &str, source: Option<Node<'_, '_>>) -> String {
    source.and_then(|source| named(kind, source)).unwrap_or_else(|| format!("{kind} (not told which)"))
}

fn named(kind: &str, source: Node<'_, '_>) -> Option<String> {
    let child = |name: &str| source.children().find(|node| node.has_tag_name(name));
    let of = |name: &str, attribute: &str| child(name).and_then(|node| node.attribute(attribute));
    let address = |attribute: &str| of("address", attribute).and_then(number);
    match kind {
        "pci" => {
            let (domain, bus) = (address("domain").unwrap_or(0), address("bus")?);
            let (slot, function) = (address("slot")?, address("function").unwrap_or(0));
            Some(pci(&format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")))
        }
        "usb" => match (of("vendor", "id").and_then(number), of("product", "id").and_then(number)) {
            (Some(vendor), Some(product)) => Some(usb(&format!("{vendor:04x}"), &format!("{product:04x}"))),
            _ => Some(usb_at(address("bus")?, address("device")?)),
        },
        "mdev" => of("address", "uuid").map(mdev),
        "scsi" => {
            let host = of("adapter", "name")?.strip_prefix("scsi_host")?;
            let (bus, target, unit) = (address("bus")?, address("target")?, address("unit")?);
            Some(scsi(&format!("{host}:{bus}:{target}:{unit}")))
        }
        "net" => child("interface")?.text().map(|name| format!("net {}", name.trim())),
        _ => None,
    }
}

/// A number as libvirt writes it: decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, source: &str) -> String {
        let text = format!("<source>{source}</source>");
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        of_source(kind, Some(document.root_element()))
    }

    #[test]
    fn devices_are_named_alike_however_they_are_written() {
        let short = "<address bus='3' slot='0x1f'/>";
        let long = "<address type='pci' domain='0x0000' bus='0x03' slot='0x1f' function='0x0'/>";
        assert_eq!((of("pci", short), of("pci", long)), (pci("0000:03:1f.0"), pci("0000:03:1f.0")));
        assert_eq!(of("usb", "<vendor id='0x046d'/><product id='0xc52b'/>"), "usb 046d:c52b");
        assert_eq!(of("usb", "<address bus='1' device='4'/>"), "usb bus 1 device 4");
        assert_eq!(
            of("mdev", "<address uuid='4B20D080-1b54-4048-85b3-a6a62d165c01'/>"),
            mdev("4b20d080-1b54-4048-85b3-a6a62d165c01")
        );
        let scsi = "<adapter name='scsi_host2'/><address bus='0' target='1' unit='3'/>";
        assert_eq!(of("scsi", scsi), "scsi 2:0:1:3");
    }

    #[test]
    fn what_cannot_be_told_has_a_name_that_no_host_offers() {
        for (kind, source) in [
            ("pci", "<address bus='0x03'/>"),
            ("pci", "<address bus='-1' slot='parsec'/>"),
            ("usb", "<vendor id='0x046d'/>"),
            ("scsi_host", ""),
        ] {
            assert_eq!(of(kind, source), format!("{kind} (not told which)"));
        }
        assert_eq!(of_source("pci", None), "pci (not told which)");
    }

    #[test]
    fn lists_are_bounded_and_names_cut_at_a_whole_character() {
        let mut names = Names::default();
        let long = "é".repeat(NAME_MAX);
        names.offer(&long);
        names.offer("");
        names.need(&long);
        names.need(&long);
        (0..NAMES_MAX * 2).for_each(|number| names.offer(&number.to_string()));
        let names = names.sorted();
        assert_eq!((names.len(), names.last().map(String::len)), (NAMES_MAX, Some(NAME_MAX)));
        let mut odd = Names::default();
        odd.need(&format!("x{long}"));
        assert_eq!(odd.sorted().first().map(String::len), Some(NAME_MAX - 1));
    }
}
