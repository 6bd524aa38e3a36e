#![no_main]
#[path = "../../crates/sim/tests/fuzz/scenario.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    scenario::check(bytes);
});
