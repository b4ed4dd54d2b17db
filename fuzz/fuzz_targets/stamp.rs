#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| watchpost::fuzz::stamp(bytes));
