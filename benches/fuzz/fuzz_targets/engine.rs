//! The whole engine, its state kept across packets: `cargo fuzz run engine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evenkeel_benches::fuzz::run(data));
