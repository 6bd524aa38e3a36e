#![no_main]
#[path = "../../crates/hypervisor/tests/fuzz/domain_xml.rs"]
mod domain_xml;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    domain_xml::check(bytes);
});
