//! What the user says about a VM inside its domain XML.
//!
//! ```xml
//! <metadata>
//!   <mainstay:vm xmlns:mainstay="https://mainstay/1" priority="high" protect="no">
//!     <mainstay:reservation cpu_mhz="1000" memory_mib="2048"/>
//!   </mainstay:vm>
//! </metadata>
//! ```
//!
//! The reservation may also stand beside `<mainstay:vm>`; libvirt, however, wants one element per namespace there, and its
//! tools replace all others of it.
//!
//! A value that can't be understood is kept for the alarm and replaced by the default: a typing error must not leave a VM
//! unprotected.

/// The namespace of Mainstay's element.
pub const NAMESPACE: &str = "https://mainstay/1";

pub use mainstay_words::register::Priority;
use roxmltree::Node;

/// What a VM must have of a host, as far as its user states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reservation {
    /// CPU, in MHz.
    pub cpu_mhz: Option<u64>,
    /// Memory, in MiB.
    pub memory_mib: Option<u64>,
}

/// More than any host has: 10 THz and 1 PiB. A larger number is a typing error, and sums of many stay far from overflow.
const CPU_MHZ_MAX: u64 = 10_000_000;
const MEMORY_MIB_MAX: u64 = 1 << 30;

/// The user's wishes for a VM. `None`: not stated.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// How early the VM is restarted. `None`: the domain XML says nothing of it.
    pub priority: Option<Priority>,
    /// Whether the VM is to be protected.
    pub protect: Option<bool>,
    /// What it must have of a host.
    pub reservation: Reservation,
    /// Attributes that could not be understood, as `name="value"`, for an alarm.
    pub not_understood: Vec<String>,
}

/// Reads Mainstay's elements from below `<domain>`; the defaults if there are none.
pub(crate) fn parse(domain: Node<'_, '_>) -> Metadata {
    let mut metadata = Metadata::default();
    let ours = |node: &Node<'_, '_>, name: &str| {
        node.tag_name().namespace() == Some(NAMESPACE) && node.tag_name().name() == name
    };
    let beside: Vec<Node<'_, '_>> = domain
        .children()
        .filter(|node| node.has_tag_name("metadata"))
        .flat_map(|node| node.children())
        .collect();
    let vm = beside.iter().find(|node| ours(node, "vm"));
    if let Some(element) = vm {
        metadata.read(*element, Metadata::vm_attribute);
    }
    let inside = vm.and_then(|element| element.children().find(|node| ours(node, "reservation")));
    let reservation = inside.or_else(|| beside.iter().copied().find(|node| ours(node, "reservation")));
    if let Some(element) = reservation {
        metadata.read(element, Metadata::reservation_attribute);
    }
    metadata
}

impl Metadata {
    /// Has `understand` take in each attribute, and keeps those that it refuses.
    fn read(&mut self, element: Node<'_, '_>, understand: fn(&mut Metadata, &str, &str) -> bool) {
        for attribute in element.attributes() {
            if !understand(self, attribute.name(), attribute.value().trim()) {
                self.not_understood.push(format!("{}={:?}", attribute.name(), attribute.value()));
            }
        }
    }

    fn vm_attribute(&mut self, name: &str, value: &str) -> bool {
        match name {
            "priority" => {
                self.priority = Priority::parse(value);
                self.priority.is_some()
            }
            "protect" => {
                self.protect = match value {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => None,
                };
                self.protect.is_some()
            }
            _ => false,
        }
    }

    fn reservation_attribute(&mut self, name: &str, value: &str) -> bool {
        let (place, max) = match name {
            "cpu_mhz" => (&mut self.reservation.cpu_mhz, CPU_MHZ_MAX),
            "memory_mib" => (&mut self.reservation.memory_mib, MEMORY_MIB_MAX),
            _ => return false,
        };
        *place = value.parse().ok().filter(|number| *number <= max);
        place.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(element: &str) -> Metadata {
        let text = format!("<domain><metadata>{element}</metadata></domain>");
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        parse(document.root_element())
    }

    #[test]
    fn priority_and_protect_are_read() {
        let metadata = of(r#"<other/><m:vm xmlns:m="https://mainstay/1" priority="high" protect="no"/>"#);
        assert_eq!(
            metadata,
            Metadata { priority: Some(Priority::High), protect: Some(false), ..Metadata::default() }
        );
        assert_eq!(of(r#"<m:vm xmlns:m="https://else/1" priority="high"/>"#), Metadata::default());
    }

    #[test]
    fn typing_errors_fall_back_and_are_reported() {
        let metadata =
            of(r#"<m:vm xmlns:m="https://mainstay/1" priority="urgent" protect="never" colour="red"/>"#);
        assert_eq!((metadata.priority, metadata.protect), (None, None));
        assert_eq!(metadata.not_understood.len(), 3);
    }

    #[test]
    fn reservation_is_read_inside_and_beside_and_absurd_ones_are_reported() {
        let open = r#"<m:vm xmlns:m="https://mainstay/1">"#;
        let inside = of(&format!(r#"{open}<m:reservation cpu_mhz=" 1000 " memory_mib="2048"/></m:vm>"#));
        let beside = of(r#"<m:reservation xmlns:m="https://mainstay/1" cpu_mhz="1000" memory_mib="2048"/>"#);
        assert_eq!(inside, beside);
        assert_eq!(inside.reservation, Reservation { cpu_mhz: Some(1000), memory_mib: Some(2048) });
        for absurd in ["-1", "1.5", "2 GiB", "18446744073709551615", "1073741825", ""] {
            let read = of(&format!(r#"{open}<m:reservation memory_mib="{absurd}" disk="1"/></m:vm>"#));
            assert_eq!(
                (read.reservation, read.not_understood.len()),
                (Reservation::default(), 2),
                "{absurd:?}"
            );
        }
        assert_eq!(of(r#"<reservation memory_mib="1"/>"#), Metadata::default());
    }
}
