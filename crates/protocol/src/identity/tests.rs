use proptest::prelude::*;
use ruma::server_name;

use super::*;
use crate::keys::IdentityKey;

/// The vector of the design and of `docs/wire.md`.
const KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
const NAME: &str = "bahwqcabaaoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a";

fn key(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

fn parse(name: &str) -> Result<ServerKey, ServerNameError> {
    ServerKey::try_from(<&ServerName>::try_from(name).unwrap())
}

/// The spelling of any CID in base32.
fn spell(cid: &[u8]) -> String {
    format!("b{}", BASE32_NOPAD.encode(cid).to_lowercase())
}

#[test]
fn the_vector_holds_both_ways() {
    let server = ServerKey::from_bytes(key(KEY)).unwrap();
    assert_eq!(server.server_name(), NAME);
    assert_eq!(parse(NAME), Ok(server));
    assert_eq!(NAME.len(), KEY_NAME_LEN);
    assert!(NAME.len() <= 63, "fits a DNS label");
}

#[test]
fn every_other_spelling_is_refused() {
    use ServerNameError::*;
    let bytes = key(KEY);
    let with_prefix = |prefix: &[u8]| spell(&[prefix, &bytes].concat());
    let table = [
        ("upper case", NAME.to_uppercase(), Spelling),
        ("upper case behind the prefix", format!("b{}", NAME[1..].to_uppercase()), Spelling),
        ("one upper-case letter", NAME.replacen('q', "Q", 1), Spelling),
        ("another multibase", format!("z{}", &NAME[1..]), Spelling),
        ("the multibase of upper case", format!("B{}", &NAME[1..]), Spelling),
        ("padding bit 0", format!("{}b", &NAME[..60]), Spelling),
        ("padding bit 1", format!("{}c", &NAME[..60]), Spelling),
        ("padding bit 2", format!("{}e", &NAME[..60]), Spelling),
        ("padding bit 3", format!("{}i", &NAME[..60]), Spelling),
        ("no symbol of base32", NAME.replacen('7', "1", 1), Spelling),
        ("a port", format!("{NAME}:8448"), Length),
        ("too short", NAME[..60].to_owned(), Length),
        ("too long", format!("{NAME}a"), Length),
        ("a subdomain", format!("x.{NAME}"), Length),
        ("CIDv0", with_prefix(&[0x00, 0xed, 0x01, 0x00, 0x20]), NotAKey),
        ("CIDv2", with_prefix(&[0x02, 0xed, 0x01, 0x00, 0x20]), NotAKey),
        ("codec libp2p-key, long", with_prefix(&[0x01, 0xf2, 0x00, 0x00, 0x20]), NotAKey),
        ("codec secp256k1-pub", with_prefix(&[0x01, 0xe7, 0x01, 0x00, 0x20]), NotAKey),
        ("hash sha2-256", with_prefix(&[0x01, 0xed, 0x01, 0x12, 0x20]), NotAKey),
        ("length byte 31", with_prefix(&[0x01, 0xed, 0x01, 0x00, 0x1f]), NotAKey),
        ("a key of 31 bytes", spell(&[&CID_PREFIX[..], &bytes[..31]].concat()), Length),
        ("a key of 33 bytes", spell(&[&CID_PREFIX[..], &bytes, &[0]].concat()), Length),
        ("the original's name", format!("bahwqcera{}", "a".repeat(56)), Length),
        ("a DNS name", "matrix.example.org".to_owned(), Length),
    ];
    for (what, name, error) in table {
        assert_eq!(parse(&name), Err(error), "{what}: {name}");
    }
}

#[test]
fn keys_that_nobody_needs_to_hold_are_refused() {
    let one = {
        let mut y = [0; 32];
        y[0] = 1;
        y
    };
    let zero = [0; 32];
    let minus_one = key("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let order_eight = key("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    // The point with y = 0, spelled as the field prime, and with y = 3, spelled as prime + 3.
    let prime = key("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let prime_and_three = key("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let no_point = key("0200000000000000000000000000000000000000000000000000000000000000");
    for bytes in [one, zero, minus_one, order_eight, prime, prime_and_three, no_point] {
        assert_eq!(ServerKey::from_bytes(bytes), Err(ServerNameError::WeakKey), "{bytes:02x?}");
        let name = spell(&[&CID_PREFIX[..], &bytes].concat());
        assert_eq!(parse(&name), Err(ServerNameError::WeakKey));
        assert!(!is_key_name(<&ServerName>::try_from(name.as_str()).unwrap()));
    }
}

#[test]
fn names_of_dns_are_not_key_names() {
    assert!(is_key_name(<&ServerName>::try_from(NAME).unwrap()));
    assert!(!is_key_name(server_name!("example.org")));
    assert!(!is_key_name(server_name!("127.0.0.1:8448")));
}

proptest! {
    #[test]
    fn a_name_is_read_back(seed: [u8; 32]) {
        let identity = IdentityKey::from_seed(&seed);
        prop_assert_eq!(ServerKey::try_from(identity.server_name()), Ok(identity.server_key()));
        prop_assert_eq!(ServerKey::from_bytes(*identity.server_key().as_bytes()), Ok(identity.server_key()));
    }

    #[test]
    fn what_parses_is_the_one_spelling(at in 0..KEY_NAME_LEN, symbol in "[a-zA-Z0-9.-]") {
        let mut name = NAME.to_owned();
        name.replace_range(at..=at, &symbol);
        if let Ok(Ok(server)) = <&ServerName>::try_from(name.as_str()).map(ServerKey::try_from) {
            prop_assert_eq!(server.server_name(), name);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(name in ".{0,80}") {
        let _ = read_name(&name);
    }
}
