//! Texts of rules: `cargo fuzz run rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evenkeel_benches::fuzz::text::run(data));
