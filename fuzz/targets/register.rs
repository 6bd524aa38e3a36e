#![no_main]
#[path = "../../crates/formats/tests/fuzz/register.rs"]
mod register;
#[path = "../../crates/formats/tests/fuzz/strange.rs"]
mod strange;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    register::check(bytes);
});
