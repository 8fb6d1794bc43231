//! `messagehub_fuzz::targets::media_description` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = messagehub_fuzz::targets::media_description(bytes);
});
