#![no_main]
#[path = "../../crates/agent/tests/fuzz/agent_config.rs"]
mod agent_config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    agent_config::check(bytes);
});
