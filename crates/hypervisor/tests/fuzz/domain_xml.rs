//! Fuzz target `domain_xml`: a domain's XML as libvirt or a file on a datastore has it, with the user's wishes in its metadata.

use mainstay_hypervisor::Spec;

/// Whether it is a domain.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let read = text.parse::<Spec>();
    if let Err(error) = &read {
        let words = error.to_string();
        assert!(
            !words.is_empty() && words.len() < 1_000,
            "an error that nobody can read: {} bytes",
            words.len()
        );
    }
    let Ok(spec) = read else { return false };

    // Elements that this version does not know, and their order, are of no matter.
    let trimmed = text.trim_end();
    if let Some(inside) = trimmed.strip_suffix("</domain>") {
        let later = format!("{inside}<novelty kind='x'><uuid>no</uuid></novelty><!-- later --></domain>");
        match later.parse::<Spec>() {
            Ok(again) => assert_eq!(again, spec),
            // One node more than are read.
            Err(error) => assert!(error.to_string().contains("limit"), "{error}"),
        }
    }
    // No beginning of it is a domain: the outermost element has no end.
    if let Some(end) = text.rfind("</") {
        assert!(text[..end].parse::<Spec>().is_err());
    }
    true
}
