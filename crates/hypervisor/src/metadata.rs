//! What the user says about a VM inside its domain XML.
//!
//! ```xml
//! <metadata><mainstay:vm xmlns:mainstay="https://mainstay/1" priority="high" protect="no"/></metadata>
//! ```
//!
//! A value that can't be understood is kept for the alarm and replaced by the default: a typing error must not leave a VM
//! unprotected.

/// The namespace of Mainstay's element.
pub const NAMESPACE: &str = "https://mainstay/1";

pub use mainstay_core::register::Priority;

/// The user's wishes for a VM. `None`: not stated.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Restart priority.
    pub priority: Option<Priority>,
    /// Whether the VM is to be protected.
    pub protect: Option<bool>,
    /// Attributes that could not be understood, as `name="value"`, for an alarm.
    pub not_understood: Vec<String>,
}

/// Reads Mainstay's element from below `<domain>`; the defaults if there is none.
pub(crate) fn parse(domain: roxmltree::Node<'_, '_>) -> Metadata {
    let mut metadata = Metadata::default();
    let element = domain
        .children()
        .filter(|node| node.has_tag_name("metadata"))
        .flat_map(|node| node.children())
        .find(|node| node.tag_name().namespace() == Some(NAMESPACE) && node.tag_name().name() == "vm");
    let Some(element) = element else { return metadata };
    for attribute in element.attributes() {
        let value = attribute.value().trim();
        let understood = match attribute.name() {
            "priority" => {
                metadata.priority = Priority::parse(value);
                metadata.priority.is_some()
            }
            "protect" => {
                metadata.protect = match value {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => None,
                };
                metadata.protect.is_some()
            }
            _ => false,
        };
        if !understood {
            metadata.not_understood.push(format!("{}={:?}", attribute.name(), attribute.value()));
        }
    }
    metadata
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
            Metadata { priority: Some(Priority::High), protect: Some(false), not_understood: vec![] }
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
}
