#![no_main]
#[path = "../../crates/formats/tests/fuzz/message.rs"]
mod message;
#[path = "../../crates/formats/tests/fuzz/strange.rs"]
mod strange;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    message::check(bytes);
});
