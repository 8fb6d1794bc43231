use data_encoding::BASE64_NOPAD;
use proptest::prelude::*;
use ruma::{
    RoomVersionId, canonical_json::redact, signatures::Verified, state_res::check_pdu_format,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    canonical::{parse_object, to_canonical},
    keys::VerifyKey,
    rules::{list_supported, rules_of},
    testing::{at, draw, person, ring},
};

mod formats;
mod hashes;
mod signatures;

const EVERYBODY: [&str; 3] = ["alice", "bob", "carol"];

fn raw(json: &str) -> RawPdu {
    RawPdu::new(RawValue::from_string(json.to_owned()).unwrap())
}

fn receive(json: &str, version: &RoomVersionId) -> Result<SignedPdu, PduError> {
    raw(json).well_formed(rules_of(version).unwrap())?.signed(&ring(&EVERYBODY))
}

/// The last event of a drawing, and its rules.
fn last(version: &RoomVersionId, dag: &str) -> Arc<Pdu> {
    Arc::clone(draw(version, dag).events.last().unwrap().pdu())
}

fn same(a: &Pdu, b: &Pdu) {
    assert_eq!(a.json(), b.json());
    assert_eq!(a.event_id(), b.event_id());
    assert_eq!(a.room_id(), b.room_id());
    assert_eq!(a.room_id_source, b.room_id_source);
    assert_eq!(a.sender(), b.sender());
    assert_eq!(a.kind(), b.kind());
    assert_eq!(a.state_key(), b.state_key());
    assert_eq!(a.content().get(), b.content().get());
    assert_eq!(a.prev_events(), b.prev_events());
    assert_eq!(a.auth_events(), b.auth_events());
    assert_eq!(a.depth(), b.depth());
    assert_eq!(a.origin_server_ts(), b.origin_server_ts());
    assert_eq!(a.redacts(), b.redacts());
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn versions() -> impl Strategy<Value = RoomVersionId> {
    prop::sample::select(list_supported().cloned().collect::<Vec<_>>())
}

/// The same cases every time; other seeds are for the fuzzer.
fn config() -> ProptestConfig {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(3);
    ProptestConfig { cases: 64, failure_persistence: None, rng_seed, ..Default::default() }
}
