//! Events of every room version, up to where their signers' keys are needed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::{
    pdu::{Pdu, RawPdu},
    rules::{list_supported, rules_of},
};
use ruma::RoomVersionId;
use serde_json::value::RawValue;

fuzz_target!(|json: &str| {
    let Ok(raw) = RawValue::from_string(json.to_owned()) else {
        return;
    };
    for version in list_supported() {
        check(&raw, version);
    }
});

fn check(raw: &RawValue, version: &RoomVersionId) {
    let rules = rules_of(version).expect("a supported version has rules");
    let Ok(event) = RawPdu::new(raw.to_owned()).well_formed(rules) else {
        return;
    };
    let _ = event.required_signers();
    let (id, json) = (event.pdu().event_id().to_owned(), event.pdu().json().to_owned());
    // What is stored is read again as the same event.
    let again = RawValue::from_string(json.clone()).expect("an event is JSON");
    let again = RawPdu::new(again).well_formed(rules).expect("an event stays well-formed");
    assert_eq!(again.pdu().event_id(), id);
    let trusted = Pdu::from_trusted(json, id, rules).expect("an event can be stored");
    assert_eq!(trusted.room_id(), event.pdu().room_id());
}
