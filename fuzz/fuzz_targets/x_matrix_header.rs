//! The `Authorization` and `X-Matrix-Server-Keys` headers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::wire::request::{RequestSignature, read_server_keys_header};
use ruma::server_name;

fuzz_target!(|header: &str| {
    if let Ok(signature) = RequestSignature::parse(header) {
        let again = RequestSignature::parse(&signature.header_value());
        assert_eq!(again.ok(), Some(signature));
    }
    let _ = read_server_keys_header(header, server_name!("example.org"));
});
