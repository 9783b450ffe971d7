#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::sdp_fragment(data));
