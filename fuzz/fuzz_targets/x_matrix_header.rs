//! `messagehub_fuzz::targets::x_matrix_header` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = messagehub_fuzz::targets::x_matrix_header(bytes);
});
