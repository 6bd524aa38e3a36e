#![no_main]
#[path = "../../crates/guard/tests/fuzz/guard_link.rs"]
mod guard_link;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guard_link::check(bytes);
});
