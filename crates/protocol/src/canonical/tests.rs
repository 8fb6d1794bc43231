use proptest::{collection, prelude::*};
use ruma::Int;
use serde_json::json;

use super::*;

fn canonical(json: &str) -> Result<String, JsonError> {
    parse_object(json.as_bytes()).map(|object| to_canonical(&object))
}

/// Spec: Appendices, "Canonical JSON", examples.
#[test]
fn the_examples_of_the_spec() {
    let table = [
        ("{}", "{}"),
        ("{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", r#"{"one":1,"two":"Two"}"#),
        (r#"{"b": "2", "a": "1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
                "display_name": "John Doe", "three_pids": [
                    {"medium": "email", "address": "john.doe@example.org"},
                    {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a": null}"#, r#"{"a":null}"#),
    ];
    for (text, form) in table {
        assert_eq!(canonical(text).unwrap(), form);
        assert_eq!(canonicalize(text.as_bytes()).unwrap(), form);
        assert!(is_canonical(form.as_bytes()), "{form}");
        assert_eq!(is_canonical(text.as_bytes()), text == form, "{text}");
    }
}

#[test]
fn escapes_are_the_shortest() {
    let all: String = (0..0x20_u8).chain([b'"', b'\\', b'/', 0x7f]).map(char::from).collect();
    let object = CanonicalJsonObject::from([("a".to_owned(), all.as_str().into())]);
    let form = to_canonical(&object);
    assert_eq!(
        form,
        "{\"a\":\"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\
         \\u000e\\u000f\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017\\u0018\\u0019\
         \\u001a\\u001b\\u001c\\u001d\\u001e\\u001f\\\"\\\\/\u{7f}\"}"
    );
    assert!(is_canonical(form.as_bytes()));
    for other in [
        r"\/", r"\u0008", r"\u0009", r"\u000a", r"\u000A", r"\u000c", r"\u000d", r"\u001F",
        r"\u0020", r"\u0022", r"\u005c", r"\u65e5",
    ] {
        let text = format!(r#"{{"a":"{other}"}}"#);
        let form = canonical(&text).unwrap();
        assert!(!is_canonical(text.as_bytes()), "{text}");
        assert!(is_canonical(form.as_bytes()), "{form}");
    }
}

#[test]
fn keys_are_ordered_by_code_point() {
    // UTF-16 would put the emoji first, and the escaped text the newline after "a".
    let form = "{\"\":0,\"\\n\":1,\"!\":2,\"\\\"\":3,\"a\":4,\"a\\u0001\":5,\"ab\":6,\"\u{ff61}\":7,\"\u{1f600}\":8}";
    assert_eq!(canonical(form).unwrap(), form);
    assert!(is_canonical(form.as_bytes()));
    for swapped in ["{\"!\":1,\"\\n\":2}", "{\"\u{1f600}\":1,\"\u{ff61}\":2}", r#"{"b":1,"a":1}"#] {
        assert!(!is_canonical(swapped.as_bytes()), "{swapped}");
    }
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(canonical(&deep(MAX_JSON_DEPTH - 1)).is_ok());
    assert!(is_canonical(deep(MAX_JSON_DEPTH - 1).as_bytes()));
    assert!(parse_envelope(deep(MAX_JSON_DEPTH + ENVELOPE_DEPTH - 1).as_bytes()).is_ok());
    assert!(parse_envelope(deep(MAX_JSON_DEPTH + ENVELOPE_DEPTH).as_bytes()).is_err());
    let table = [
        ("the same key twice", r#"{"a":1,"a":1}"#.to_owned()),
        ("the same key, once escaped", r#"{"a":1,"\u0061":1}"#.to_owned()),
        ("the same key twice, deep", r#"{"b":[{"a":1,"c":2,"a":1}]}"#.to_owned()),
        ("a fraction", r#"{"a":1.5}"#.to_owned()),
        ("a fraction of nothing", r#"{"a":1.0}"#.to_owned()),
        ("an exponent", r#"{"a":1e3}"#.to_owned()),
        ("an upper-case exponent", r#"{"a":1E3}"#.to_owned()),
        ("minus zero", r#"{"a":-0}"#.to_owned()),
        ("2^53", r#"{"a":9007199254740992}"#.to_owned()),
        ("-2^53", r#"{"a":-9007199254740992}"#.to_owned()),
        ("2^63", r#"{"a":9223372036854775808}"#.to_owned()),
        ("2^64", r#"{"a":18446744073709551616}"#.to_owned()),
        ("a huge integer", format!(r#"{{"a":{}}}"#, "9".repeat(400))),
        ("a leading zero", r#"{"a":01}"#.to_owned()),
        ("a plus sign", r#"{"a":+1}"#.to_owned()),
        ("not a number", r#"{"a":NaN}"#.to_owned()),
        ("infinity", r#"{"a":Infinity}"#.to_owned()),
        ("a lone leading surrogate", r#"{"a":"\ud800"}"#.to_owned()),
        ("a lone trailing surrogate", r#"{"a":"\udc00"}"#.to_owned()),
        ("surrogates in the wrong order", r#"{"a":"\udc00\ud800"}"#.to_owned()),
        ("a lone surrogate in a key", r#"{"\ud800":1}"#.to_owned()),
        ("a control character", "{\"a\":\"\n\"}".to_owned()),
        ("an unknown escape", r#"{"a":"\x41"}"#.to_owned()),
        ("one level too deep", deep(MAX_JSON_DEPTH)),
        ("far too deep", "[".repeat(200_000)),
        ("objects far too deep", r#"{"a":"#.repeat(200_000)),
        ("an array", "[]".to_owned()),
        ("a string", "\"a\"".to_owned()),
        ("nothing", String::new()),
        ("half an object", "{\"a\":1".to_owned()),
        ("something behind", "{}x".to_owned()),
        ("two objects", "{}{}".to_owned()),
        ("a comma behind", r#"{"a":1,}"#.to_owned()),
        ("a comma in an array", r#"{"a":[1,]}"#.to_owned()),
        ("a comment", "{/**/}".to_owned()),
        ("a byte order mark", "\u{feff}{}".to_owned()),
    ];
    for (what, text) in table {
        assert!(canonical(&text).is_err(), "{what}");
        assert!(!is_canonical(text.as_bytes()), "{what}");
        assert!(canonicalize(text.as_bytes()).is_err(), "{what}");
    }
    for bytes in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"a\":\"\xc0\x80\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"\xf8\":1}",
        b"{\"a\":\"\xe6\x97\"}",
    ] {
        assert!(parse_object(bytes).is_err(), "{bytes:02x?}");
        assert!(!is_canonical(bytes), "{bytes:02x?}");
    }
}

#[test]
fn the_largest_integers_stay() {
    let form = r#"{"a":9007199254740991,"b":-9007199254740991,"c":0}"#;
    assert_eq!(canonical(form).unwrap(), form);
    assert!(is_canonical(form.as_bytes()));
}

#[test]
fn errors_say_where_and_not_what() {
    let error = parse_object(br#"{"password":"hunter2","password":"hunter3"}"#).unwrap_err();
    assert!(!error.is_syntax());
    let text = error.to_string();
    assert!(text.contains("column") && !text.contains("hunter") && !text.contains("password"));
    assert!(parse_object(b"{").unwrap_err().is_syntax());
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![".{0,8}", "[\\x00-\\x7f]{0,6}", Just("\u{1f600}\u{ffff}\u{0}".to_owned())]
}

fn value() -> impl Strategy<Value = CanonicalJsonValue> {
    let leaf = prop_oneof![
        Just(CanonicalJsonValue::Null),
        any::<bool>().prop_map(CanonicalJsonValue::Bool),
        (-MAX_INTEGER..=MAX_INTEGER)
            .prop_map(|int| CanonicalJsonValue::Integer(Int::new(int).unwrap())),
        string().prop_map(CanonicalJsonValue::String),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(CanonicalJsonValue::Array),
            collection::btree_map(string(), inner, 0..6).prop_map(CanonicalJsonValue::Object),
        ]
    })
}

fn object() -> impl Strategy<Value = CanonicalJsonObject> {
    collection::btree_map(string(), value(), 0..8)
}

proptest! {
    #[test]
    fn the_canonical_form_encodes_to_itself(object in object()) {
        let form = to_canonical(&object);
        prop_assert!(is_canonical(form.as_bytes()));
        prop_assert_eq!(&parse_object(form.as_bytes()).unwrap(), &object);
        prop_assert_eq!(&canonical(&form).unwrap(), &form);
        prop_assert!(matches!(canonicalize(form.as_bytes()).unwrap(), Cow::Borrowed(_)));
        // The form that ruma hashes and signs.
        prop_assert_eq!(&CanonicalJsonValue::Object(object).to_string(), &form);
    }

    #[test]
    fn plain_text_ends_at_the_first_special_byte(bytes in collection::vec(prop_oneof![0x20..=255u8, Just(0x21), Just(0x23), Just(0x5b), Just(0x5d), any::<u8>()], 0..40)) {
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        let expected = bytes.iter().position(special).unwrap_or(bytes.len());
        prop_assert_eq!(scan::plain_len(&bytes), expected);
    }

    #[test]
    fn any_layout_has_the_same_form(object in object()) {
        let pretty = serde_json::to_string_pretty(&object).unwrap();
        prop_assert_eq!(canonical(&pretty).unwrap(), to_canonical(&object));
    }

    #[test]
    fn the_scan_agrees_with_reading_and_writing(
        object in object(), at: prop::sample::Index, byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\0123456789-eE.+ \nub".to_vec())], insert: bool,
    ) {
        let mut bytes = to_canonical(&object).into_bytes();
        let at = at.index(bytes.len());
        if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
        let form = parse_object(&bytes).map(|object| to_canonical(&object)).ok();
        prop_assert_eq!(is_canonical(&bytes), form.is_some_and(|form| form.as_bytes() == bytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse_object(&bytes);
        let _ = is_canonical(&bytes);
    }

    #[test]
    fn arbitrary_symbols_never_panic(text in "[{}\\[\\]\",:0-9a\\\\ue.\\-]{0,60}") {
        let form = canonical(&text).ok();
        prop_assert_eq!(is_canonical(text.as_bytes()), form.as_deref() == Some(&text));
    }
}

/// What the reader is here for: neither library refuses this by itself.
#[test]
fn what_the_libraries_let_through() {
    let twice = r#"{"a":1,"a":2}"#;
    assert_eq!(serde_json::from_str::<serde_json::Value>(twice).unwrap(), json!({"a": 2}));
    assert!(serde_json::from_str::<CanonicalJsonValue>(twice).is_ok());
    let surrogate = r#"{"a":"\ud800"}"#;
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(surrogate).is_ok());
}
