//! Server names: what is read as a key has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::identity::ServerKey;
use ruma::ServerName;

fuzz_target!(|text: &str| {
    if let Ok(name) = <&ServerName>::try_from(text)
        && let Ok(key) = ServerKey::try_from(name)
    {
        assert_eq!(key.server_name(), name);
    }
});
