#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| csi_udisk_fuzz::blank::hold(data));
