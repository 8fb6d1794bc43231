//! Canonical JSON: reading and writing, the scan, and ruma's own writer agree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::canonical::{canonicalize, is_canonical, parse_object, to_canonical};
use ruma::CanonicalJsonValue;

fuzz_target!(|json: &[u8]| {
    let Ok(object) = parse_object(json) else {
        assert!(!is_canonical(json));
        return;
    };
    let form = to_canonical(&object);
    assert!(is_canonical(form.as_bytes()));
    assert_eq!(is_canonical(json), form.as_bytes() == json);
    assert_eq!(parse_object(form.as_bytes()).ok().as_ref(), Some(&object));
    assert_eq!(canonicalize(json).ok().as_deref(), Some(form.as_str()));
    assert_eq!(CanonicalJsonValue::Object(object).to_string(), form);
});
