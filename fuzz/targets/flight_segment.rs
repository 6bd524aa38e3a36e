#![no_main]
#[path = "../../crates/recorder/tests/fuzz/flight_segment.rs"]
mod flight_segment;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    flight_segment::check(bytes);
});
