use proptest::prelude::*;
use ruma::{room_id, server_name};

use super::*;

const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

fn key(seed: u8) -> RoomKey {
    let owner = server_name!("example.org").to_owned();
    RoomKey::new(owner, room(), Zeroizing::new([seed; ROOM_KEY_BYTES]), Vec::new())
}

fn open(bytes: &[u8], key: &RoomKey) -> Result<Vec<u8>, SealedError> {
    SealedFrame::parse(bytes)?.open(room(), key)
}

#[test]
fn what_was_sealed_opens_with_its_key_in_its_room() {
    let key = key(1);
    let bytes = key.seal(room(), NONCE, b"frame").unwrap();
    assert_eq!(bytes.len(), 5 + SEALED_OVERHEAD_BYTES);
    assert_eq!(SealedFrame::parse(&bytes).unwrap().key_id(), key.id());
    assert_eq!(open(&bytes, &key).unwrap(), b"frame");
    assert_eq!(open(&key.seal(room(), NONCE, b"").unwrap(), &key).unwrap(), b"");
    let elsewhere = SealedFrame::parse(&bytes).unwrap().open(room_id!("!other:a"), &key);
    assert_eq!(elsewhere, Err(SealedError::Seal));
    assert_eq!(open(&bytes, &super::tests::key(2)), Err(SealedError::OtherKey));
}

#[test]
fn an_id_names_owner_room_and_secret() {
    let secret = || Zeroizing::new([1; ROOM_KEY_BYTES]);
    let (a, b) = (server_name!("a").to_owned(), server_name!("b").to_owned());
    let of = |owner: &OwnedServerName, room_id, secret| {
        RoomKey::new(owner.clone(), room_id, secret, Vec::new()).id()
    };
    let id = of(&a, room(), secret());
    assert_eq!(id, of(&a, room(), secret()));
    assert_ne!(id, of(&b, room(), secret()));
    assert_ne!(id, of(&a, room_id!("!other:a"), secret()));
    assert_ne!(id, of(&a, room(), Zeroizing::new([2; ROOM_KEY_BYTES])));
}

#[test]
fn the_largest_frame_is_sealed_and_a_larger_one_is_not() {
    let largest = vec![0; MAX_FRAME_BYTES];
    let bytes = key(1).seal(room(), NONCE, &largest).unwrap();
    assert_eq!(bytes.len(), MAX_SEALED_FRAME_BYTES);
    assert_eq!(open(&bytes, &key(1)).unwrap(), largest);
    let larger = vec![0; MAX_FRAME_BYTES + 1];
    assert_eq!(key(1).seal(room(), NONCE, &larger), Err(SealedError::TooLarge));
    let bytes = vec![SEALED_VERSION; MAX_SEALED_FRAME_BYTES + 1];
    assert_eq!(open(&bytes, &key(1)), Err(SealedError::TooLarge));
}

#[test]
fn what_is_too_short_or_of_another_version() {
    let bytes = key(1).seal(room(), NONCE, b"").unwrap();
    for length in 0..bytes.len() {
        assert_eq!(open(&bytes[..length], &key(1)), Err(SealedError::TooShort), "{length}");
    }
    assert_eq!(open(br#"{"v":1}"#, &key(1)), Err(SealedError::Version(b'{')));
}

#[test]
fn only_what_every_holder_sees_is_provable() {
    for (error, provable) in [
        (SealedError::TooLarge, true),
        (SealedError::TooShort, true),
        (SealedError::Seal, true),
        (SealedError::Version(1), false),
        (SealedError::OtherKey, false),
    ] {
        assert_eq!(error.is_provable(), provable, "{error}");
    }
}

#[test]
fn a_key_is_not_printed() {
    let text = format!("{:?}", key(0xab));
    assert!(!text.contains("ab, ab") && !text.contains("171"), "{text}");
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = key(1).seal(room(), NONCE, b"a frame of some length").unwrap();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(open(&bytes, &key(1)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(open(&bytes, &key(1)).is_err());
    }
}
