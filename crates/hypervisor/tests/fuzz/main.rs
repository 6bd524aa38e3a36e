//! The short run of the fuzz target `domain_xml`, and what deep, long and self-referring documents cost.

mod domain_xml;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;

use mainstay_hypervisor::Spec;
use std::time::{Duration, Instant};

#[test]
fn domains() {
    short_run::run("domain_xml", &[], 20_000, domain_xml::check);
}

#[test]
fn deep_long_and_self_referring_documents_are_refused_soon_and_with_a_small_stack() {
    let begun = Instant::now();
    let read = || {
        let length = 1 << 20;
        let deep = "<a>".repeat(length / 3);
        let deep_and_whole = format!("<domain>{}{}</domain>", "<a>".repeat(90_000), "</a>".repeat(90_000));
        let wide = format!("<domain>{}</domain>", "<a/>".repeat(length / 4));
        let attributes: String = (0..2_000).map(|number| format!(" a{number}='x'")).collect();
        let attributes = format!("<domain{attributes}/>");
        let namespaces: String = (0..2_000).map(|number| format!(" xmlns:a{number}='x{number}'")).collect();
        let namespaces = format!("<domain{namespaces}><b/></domain>");
        let entities =
            "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><domain><name>&b;</name></domain>";
        for text in [&deep, &deep_and_whole, &wide, &attributes, &namespaces, entities] {
            assert!(text.parse::<Spec>().is_err());
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(read).expect("a thread");
    thread.join().expect("it does not panic");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
