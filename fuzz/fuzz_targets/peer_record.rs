//! `messagehub_fuzz::targets::peer_record` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = messagehub_fuzz::targets::peer_record(bytes);
});
