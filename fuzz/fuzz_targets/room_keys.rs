//! `messagehub_fuzz::targets::room_keys` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = messagehub_fuzz::targets::room_keys(bytes);
});
