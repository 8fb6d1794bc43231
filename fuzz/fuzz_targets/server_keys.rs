//! `server_keys`: what is verified is read again from its own canonical form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::server_keys::ServerKeys;

fuzz_target!(|json: &str| {
    if let Ok(keys) = ServerKeys::verify(json) {
        assert_eq!(ServerKeys::verify(keys.json().get()).ok(), Some(keys));
    }
});
