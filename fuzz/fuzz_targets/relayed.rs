//! `messagehub_fuzz::targets::relayed` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = messagehub_fuzz::targets::relayed(bytes);
});
