#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| csi_udisk_fuzz::note::hold(data));
