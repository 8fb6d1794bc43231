use proptest::prelude::*;
use ruma::{UInt, server_name};

use super::*;
use crate::{
    keys::IdentityKey,
    limits::{FRESHNESS_MS, MAX_REPLAY_ORIGINS, MAX_REPLAY_PER_ORIGIN},
    server_keys::ServerKeysTerms,
};

const NOW: u64 = 1_750_000_000_000;

fn ts(millis: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(millis).unwrap())
}

fn keys_of(seed: u8, issued_ts: u64) -> (ServerKeys, VerifyKey) {
    let verify = VerifyKey::from_seed(&[seed + 100; 32]);
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: Vec::new(),
        issued_ts: ts(issued_ts),
    };
    (ServerKeys::make(&IdentityKey::from_seed(&[seed; 32]), &verify, terms), verify)
}

const PARTS: RequestParts<'_> = RequestParts {
    method: "PUT",
    uri: "/_matrix/federation/v1/send/1?a=%20b",
    body: br#"{"pdus": [], "edus": []}"#,
};

/// A header from server 1 to server 2, made at `NOW`.
fn header() -> String {
    let (keys, verify) = keys_of(1, NOW);
    sign(PARTS, keys.server_name(), us().server_name(), ts(NOW), &verify).unwrap().header_value()
}

fn us() -> IdentityKey {
    IdentityKey::from_seed(&[2; 32])
}

fn verify(header: &str, parts: RequestParts<'_>, now: u64) -> Result<VerifiedOrigin, RequestError> {
    let (keys, _) = keys_of(1, NOW);
    RequestSignature::parse(header)?.verify(parts, us().server_name(), &keys, ts(now))
}

#[test]
fn a_signed_request_is_verified() {
    let origin = verify(&header(), PARTS, NOW + 5).unwrap();
    assert_eq!(origin.server_name(), keys_of(1, NOW).0.server_name());
    assert_eq!(origin.origin_server_ts(), ts(NOW));
    // Layout and order of the body are not signed.
    let body = br#"{"edus":[],"pdus":[]}"#;
    assert_eq!(verify(&header(), RequestParts { body, ..PARTS }, NOW).unwrap(), origin);
}

#[test]
fn a_request_without_a_body_has_no_content() {
    let get = RequestParts { method: "GET", body: b"", ..PARTS };
    let (keys, key) = keys_of(1, NOW);
    let signature = sign(get, keys.server_name(), us().server_name(), ts(NOW), &key).unwrap();
    assert!(verify(&signature.header_value(), get, NOW).is_ok());
    let empty = RequestParts { body: b"{}", ..get };
    assert!(matches!(verify(&signature.header_value(), empty, NOW), Err(RequestError::Signature)));
}

#[test]
fn whatever_is_changed_is_noticed() {
    for parts in [
        RequestParts { method: "POST", ..PARTS },
        RequestParts { uri: "/_matrix/federation/v1/send/2?a=%20b", ..PARTS },
        RequestParts { uri: "/_matrix/federation/v1/send/1?a=+b", ..PARTS },
        RequestParts { body: br#"{"pdus":[],"edus":[1]}"#, ..PARTS },
        RequestParts { body: b"", ..PARTS },
    ] {
        assert!(matches!(verify(&header(), parts, NOW), Err(RequestError::Signature)), "{parts:?}");
    }
    let later = header().replace(&NOW.to_string(), &(NOW + 1).to_string());
    assert!(matches!(verify(&later, PARTS, NOW), Err(RequestError::Signature)));
}

#[test]
fn keys_time_and_destination_are_checked() {
    let signature = RequestSignature::parse(&header()).unwrap();
    let (keys, _) = keys_of(1, NOW);
    let check = |us: &ServerName, keys: &ServerKeys, now| {
        signature.verify(PARTS, us, keys, ts(now)).map(drop)
    };
    let name = us();
    let name = name.server_name();
    assert!(check(name, &keys, NOW - FRESHNESS_MS).is_ok());
    assert!(check(name, &keys, NOW + FRESHNESS_MS).is_ok());
    use RequestError::{AnotherDestination, NotFresh, UnknownKey};
    assert!(matches!(check(name, &keys, NOW - FRESHNESS_MS - 1), Err(NotFresh)));
    assert!(matches!(check(name, &keys, NOW + FRESHNESS_MS + 1), Err(NotFresh)));
    assert!(matches!(check(keys.server_name(), &keys, NOW), Err(AnotherDestination)));
    assert!(matches!(check(server_name!("example.org"), &keys, NOW), Err(AnotherDestination)));
    let day = 24 * 60 * 60 * 1000;
    for other in [keys_of(3, NOW), keys_of(1, NOW - 8 * day), keys_of(1, NOW + day)] {
        assert!(matches!(check(name, &other.0, NOW), Err(UnknownKey)));
    }
}

#[test]
fn a_body_without_a_canonical_form_is_refused() {
    for body in [&b"{"[..], b"[]", br#"{"a":1,"a":1}"#, br#"{"a":1.0}"#, b"\xff"] {
        let error = verify(&header(), RequestParts { body, ..PARTS }, NOW).unwrap_err();
        assert!(matches!(error, RequestError::Body(_)));
    }
    let uri = "x".repeat(MAX_URI_BYTES + 1);
    let parts = RequestParts { uri: &uri, ..PARTS };
    assert!(matches!(verify(&header(), parts, NOW), Err(RequestError::TooLong(_))));
}

/// An event of the full depth can be sent, in the envelope that `/send` puts around it.
#[test]
fn the_deepest_event_can_be_sent() {
    let levels = crate::limits::MAX_JSON_DEPTH - 1;
    let event = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(crate::canonical::parse_object(event.as_bytes()).is_ok());
    let body = format!("{{\"pdus\": [{event}]}}");
    let (keys, key) = keys_of(1, NOW);
    let parts = RequestParts { body: body.as_bytes(), ..PARTS };
    let signature = sign(parts, keys.server_name(), us().server_name(), ts(NOW), &key).unwrap();
    assert!(verify(&signature.header_value(), parts, NOW).is_ok());
}

#[test]
fn the_header_is_read_as_the_spec_allows() {
    let header = header();
    let signature = RequestSignature::parse(&header).unwrap();
    assert_eq!(signature.header_value(), header);
    let (_, parameters) = header.split_once(' ').unwrap();
    let mut reversed: Vec<_> = parameters.split(',').collect();
    reversed.reverse();
    for other in [
        format!("x-matrix {parameters}"),
        format!("X-MATRIX   {}", reversed.join(" , ")),
        format!("  X-Matrix\t{parameters},"),
        format!("X-Matrix ,,{parameters}"),
        format!("X-Matrix {}", parameters.replace('"', "")),
        format!("X-Matrix {}", parameters.replace("origin=", "Origin = ")),
        format!("X-Matrix extra=1,{parameters},more=\"a,b=\\\"c\""),
        header.replace(r#"",origin_server_ts"#, r#"==",origin_server_ts"#),
        header.replace("ed25519", r"\e\d25519"),
    ] {
        assert_eq!(RequestSignature::parse(&other).unwrap(), signature, "{other}");
    }
}

#[test]
fn other_headers_are_refused() {
    let header = header();
    let without = |name: &str| {
        let (_, parameters) = header.split_once(' ').unwrap();
        let kept: Vec<_> =
            parameters.split(',').filter(|part| !part.starts_with(&format!("{name}="))).collect();
        format!("X-Matrix {}", kept.join(","))
    };
    let table = [
        String::new(),
        "X-Matrix".to_owned(),
        "X-Matrix ".to_owned(),
        "Bearer abc".to_owned(),
        header.replace("X-Matrix", "X-Matrix2"),
        without("origin"),
        without("destination"),
        without("key"),
        without("sig"),
        without("origin_server_ts"),
        format!(r#"{header},origin="example.org""#),
        format!("{header},{}", r#"Key="ed25519:a""#),
        format!("{header} {}", r#"x="y""#),
        format!("{header},x"),
        format!("{header},=x"),
        format!("{header},x="),
        format!(r#"{header},x="y"#),
        format!(r#"{header},x="y\"#),
        format!("{header},x=a{{b"),
        header.replace(&NOW.to_string(), "-1"),
        header.replace(&NOW.to_string(), "+1"),
        header.replace(&NOW.to_string(), "1e3"),
        header.replace(&NOW.to_string(), "9007199254740992"),
        header.replace(&NOW.to_string(), &"9".repeat(30)),
        header.replace("sig=\"", "sig=\"AAAA"),
        header.replace("sig=\"", "sig=\"!"),
        header.replace("ed25519:", ""),
        header.replace("origin=\"b", "origin=\" b"),
        format!("{header},x=\"{}\"", "y".repeat(MAX_AUTHORIZATION_BYTES)),
    ];
    for other in table {
        assert!(RequestSignature::parse(&other).is_err(), "{other}");
    }
}

#[test]
fn the_longest_names_fit_the_header() {
    let name = format!("{}.x:65535", "a".repeat(251));
    let name = <&ServerName>::try_from(name.as_str()).unwrap();
    let (_, key) = keys_of(1, NOW);
    let header = sign(PARTS, name, name, ts(NOW), &key).unwrap().header_value();
    assert!(header.len() <= MAX_AUTHORIZATION_BYTES, "{}", header.len());
    assert!(RequestSignature::parse(&header).is_ok());
}

#[test]
fn server_keys_come_in_a_header() {
    let (keys, _) = keys_of(1, NOW);
    let header = server_keys_header(&keys);
    let read = |header: &str| read_server_keys_header(header, keys.server_name(), None);
    assert_eq!(read(&header).unwrap(), keys);
    let padded = BASE64.encode(keys.json().get().as_bytes());
    assert_eq!(read(&padded).unwrap(), keys);
    let again = read_server_keys_header(&header, keys.server_name(), Some(&keys)).unwrap();
    assert_eq!(again, keys);
    let newer = keys_of(1, NOW + 1).0;
    let brought = server_keys_header(&newer);
    let brought = read_server_keys_header(&brought, keys.server_name(), Some(&keys)).unwrap();
    assert_eq!(brought, newer);
    let other = server_keys_header(&keys_of(3, NOW).0);
    assert!(matches!(read(&other), Err(RequestError::ServerKeys(ServerKeysError::AnotherServer))));
    assert!(matches!(read("!"), Err(RequestError::Header(_))));
    assert!(matches!(read("/w"), Err(RequestError::Header(_))), "not UTF-8");
    assert!(matches!(read(&"A".repeat(11_000)), Err(RequestError::TooLong(_))));
}

fn id(n: usize) -> RequestId {
    let mut id = RequestId::default();
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}

#[test]
fn a_request_is_taken_once() {
    let mut filter = ReplayFilter::default();
    let origin = verify(&header(), PARTS, NOW).unwrap();
    assert!(filter.check(&origin, ts(NOW)).is_ok());
    assert!(matches!(filter.check(&origin, ts(NOW)), Err(RequestError::Replayed)));
    assert!(matches!(filter.check(&origin, ts(NOW + FRESHNESS_MS)), Err(RequestError::Replayed)));
    assert!(matches!(
        filter.check(&origin, ts(NOW + FRESHNESS_MS + 1)),
        Err(RequestError::NotFresh)
    ));
    // Another origin, time or id is another request.
    let other = server_name!("example.org");
    assert!(filter.check_id(other, ts(NOW), origin.id(), ts(NOW)).is_ok());
    assert!(filter.check_id(origin.server_name(), ts(NOW + 1), origin.id(), ts(NOW)).is_ok());
    assert!(filter.check_id(origin.server_name(), ts(NOW), id(1), ts(NOW)).is_ok());
}

#[test]
fn what_one_origin_makes_us_forget_is_not_taken_again() {
    let (mut filter, origin) = (ReplayFilter::default(), server_name!("example.org"));
    let mut check = |n: u64| {
        let at = ts(NOW + n / 100);
        filter.check_id(origin, at, id(usize::try_from(n).unwrap()), at).is_ok()
    };
    let sent = 2 * MAX_REPLAY_PER_ORIGIN as u64;
    assert!((0..sent).all(&mut check));
    assert!(!(0..sent).any(&mut check));
}

#[test]
fn many_origins_push_no_other_out() {
    let mut filter = ReplayFilter::default();
    let names: Vec<_> =
        (0..=MAX_REPLAY_ORIGINS).map(|n| ServerName::parse(format!("s{n}")).unwrap()).collect();
    let mut check = |name: &ServerName, now| filter.check_id(name, ts(now), id(0), ts(now));
    for name in &names[..MAX_REPLAY_ORIGINS] {
        check(name, NOW).unwrap();
    }
    let last = &names[MAX_REPLAY_ORIGINS];
    assert!(matches!(check(last, NOW), Err(RequestError::Busy)));
    assert!(matches!(check(&names[0], NOW), Err(RequestError::Replayed)));
    assert!(check(last, NOW + FRESHNESS_MS + 1).is_ok(), "all others are stale");
}

#[test]
fn a_request_can_be_sent_again_with_another_time() {
    let times = UniqueTimes::default();
    let given: Vec<_> =
        [NOW, NOW, NOW, NOW + 1, NOW - 9, NOW + 9].map(|now| times.next(ts(now))).into();
    assert_eq!(given, [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 4, NOW + 9].map(ts));
}

#[test]
fn debug_output_holds_nothing_to_send_again() {
    let signature = RequestSignature::parse(&header()).unwrap();
    let sig = BASE64_NOPAD.encode(&signature.signature);
    assert!(header().contains(&sig));
    assert!(!format!("{signature:?}").contains(&format!("{:?}", signature.signature)));
}

proptest! {
    #[test]
    fn arbitrary_headers_never_panic(header in any::<String>()) {
        let _ = RequestSignature::parse(&header);
        let _ = read_server_keys_header(&header, server_name!("example.org"), None);
    }

    #[test]
    fn damaged_headers_never_panic_nor_pass(at in any::<prop::sample::Index>(), c: char) {
        let header = header();
        let mut chars: Vec<_> = header.chars().collect();
        let at = at.index(chars.len());
        chars[at] = c;
        let damaged: String = chars.into_iter().collect();
        if let Ok(origin) = verify(&damaged, PARTS, NOW) {
            // Only case, blanks and unknown parameters are free.
            prop_assert_eq!(origin, verify(&header, PARTS, NOW).unwrap());
        }
    }
}
