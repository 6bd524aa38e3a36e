//! Fuzz target `domain_xml`: a domain's XML as libvirt or a file on a datastore has it, with the user's wishes in its metadata.

use mainstay_hypervisor::{NAME_MAX, NAMES_MAX, Spec};

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
    check_needs(&spec);

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

/// What is told to other hosts is bounded, whatever the document says, and adds up without overflow.
fn check_needs(spec: &Spec) {
    let needs = spec.needs();
    for names in [&needs.networks, &needs.bridges, &needs.devices] {
        assert!(names.len() <= NAMES_MAX && names.is_sorted());
        assert!(names.iter().all(|name| !name.is_empty() && name.len() <= NAME_MAX));
    }
    for name in needs.cpu_model.iter().chain(&needs.machine) {
        assert!(!name.is_empty() && name.len() <= NAME_MAX);
    }
    let memory_mib = spec.memory_bytes.div_ceil(1 << 20);
    assert!(spec.reservation().memory_mib <= memory_mib);
    assert!(spec.overhead_mib() >= 64 + memory_mib / 64);
}
