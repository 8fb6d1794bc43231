//! Canonical JSON: the bytes that are hashed and signed.
//!
//! Reading is strict, because two nodes that read one text differently would disagree for ever.
//! `serde_json` and ruma's values alone would take the last of two equal keys, count nesting from
//! wherever they happen to begin, and check the inside of a raw value only in parts; here each of
//! those is an error, and so are fractions, exponents, `-0` and integers beyond ±(2^53 − 1).
//!
//! Spec: Appendices, "Canonical JSON".

use std::{borrow::Cow, fmt};

use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::limits::{ENVELOPE_DEPTH, MAX_JSON_DEPTH};

mod scan;

pub(crate) use scan::canonical_envelope;
pub use scan::is_canonical;

/// Largest integer of canonical JSON; the smallest is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Why a text is not JSON that has a canonical form. The text says where, never what it held.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct JsonError(#[from] serde_json::Error);

impl JsonError {
    /// Whether the text is no JSON at all, as against JSON without a canonical form or of another
    /// shape.
    pub fn is_syntax(&self) -> bool {
        self.0.is_syntax() || self.0.is_eof()
    }
}

/// Reads an object that is nested at most [`MAX_JSON_DEPTH`] deep. White space and the order of
/// keys are free; all the rest must have a canonical form.
///
/// # Errors
///
/// [`JsonError`] for anything else, with the position.
pub fn parse_object(json: &[u8]) -> Result<CanonicalJsonObject, JsonError> {
    parse_to_depth(json, MAX_JSON_DEPTH)
}

/// As [`parse_object`], for a request body or a frame, which may hold events of the full depth.
///
/// # Errors
///
/// As [`parse_object`].
pub fn parse_envelope(json: &[u8]) -> Result<CanonicalJsonObject, JsonError> {
    parse_to_depth(json, MAX_JSON_DEPTH + ENVELOPE_DEPTH)
}

/// The canonical form of an object.
pub fn to_canonical(object: &CanonicalJsonObject) -> String {
    let mut out = String::with_capacity(1024);
    write_object(&mut out, object);
    out
}

/// The canonical form of an object's text, without a copy where it is canonical already.
///
/// # Errors
///
/// As [`parse_object`].
pub fn canonicalize(json: &[u8]) -> Result<Cow<'_, str>, JsonError> {
    canonicalize_to_depth(json, MAX_JSON_DEPTH)
}

/// As [`canonicalize`], for a request body or a frame, which may hold events of the full depth.
///
/// # Errors
///
/// As [`parse_object`].
pub fn canonicalize_envelope(json: &[u8]) -> Result<Cow<'_, str>, JsonError> {
    canonicalize_to_depth(json, MAX_JSON_DEPTH + ENVELOPE_DEPTH)
}

fn canonicalize_to_depth(json: &[u8], depth: usize) -> Result<Cow<'_, str>, JsonError> {
    match scan::canonical_object(json, depth) {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => Ok(Cow::Owned(to_canonical(&parse_to_depth(json, depth)?))),
    }
}

fn parse_to_depth(json: &[u8], depth: usize) -> Result<CanonicalJsonObject, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let object = reader.deserialize_map(Object { depth_left: depth })?;
    reader.end()?;
    Ok(object)
}

/// Appends the canonical form of a value.
pub(crate) fn write_value(out: &mut String, value: &CanonicalJsonValue) {
    match value {
        CanonicalJsonValue::Null => out.push_str("null"),
        CanonicalJsonValue::Bool(true) => out.push_str("true"),
        CanonicalJsonValue::Bool(false) => out.push_str("false"),
        CanonicalJsonValue::Integer(integer) => write_integer(out, i64::from(*integer)),
        CanonicalJsonValue::String(string) => write_string(out, string),
        CanonicalJsonValue::Array(items) => {
            write_list(out, ('[', ']'), items, write_value);
        }
        CanonicalJsonValue::Object(object) => write_object(out, object),
    }
}

fn write_object(out: &mut String, object: &CanonicalJsonObject) {
    write_list(out, ('{', '}'), object, |out, (key, value)| {
        write_string(out, key);
        out.push(':');
        write_value(out, value);
    });
}

fn write_list<T>(
    out: &mut String,
    (open, close): (char, char),
    items: impl IntoIterator<Item = T>,
    mut write_item: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_item(out, item);
    }
    out.push(close);
}

/// Appends an integer in decimal.
pub(crate) fn write_integer(out: &mut String, integer: i64) {
    use fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = write!(out, "{integer}");
}

/// Appends a string with its quotation marks and the shortest escapes.
pub(crate) fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut rest = string;
    loop {
        // All bytes that are escaped are ASCII, so every cut is between characters.
        let (plain, special) = rest.split_at(scan::plain_len(rest.as_bytes()));
        out.push_str(plain);
        let Some(&byte) = special.as_bytes().first() else {
            break;
        };
        write_escape(out, byte);
        rest = &special[1..];
    }
    out.push('"');
}

fn write_escape(out: &mut String, byte: u8) {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.push('\\');
    match byte {
        b'"' | b'\\' => out.push(char::from(byte)),
        0x08 => out.push('b'),
        b'\t' => out.push('t'),
        b'\n' => out.push('n'),
        0x0c => out.push('f'),
        b'\r' => out.push('r'),
        _ => {
            out.push_str("u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xf)]);
        }
    }
}

/// Reads one object; `depth_left` counts it too.
struct Object {
    depth_left: usize,
}

/// Reads any value that may stand `depth_left` levels deep.
#[derive(Clone, Copy)]
struct Value {
    depth_left: usize,
}

impl<'de> Visitor<'de> for Object {
    type Value = CanonicalJsonObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| A::Error::custom("nested too deeply"))?;
        let mut object = CanonicalJsonObject::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Value { depth_left })?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("the same key twice in one object"));
            }
        }
        Ok(object)
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = CanonicalJsonValue;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = CanonicalJsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of canonical JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        let integer = value.try_into().map_err(|_| E::custom("an integer beyond 2^53 - 1"))?;
        Ok(CanonicalJsonValue::Integer(integer))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        let integer = value.try_into().map_err(|_| E::custom("an integer beyond 2^53 - 1"))?;
        Ok(CanonicalJsonValue::Integer(integer))
    }

    // The reader gives fractions, exponents, `-0` and integers beyond 64 bits as floats.
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom("a number that is not an integer within 2^53 - 1"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| A::Error::custom("nested too deeply"))?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Value { depth_left })? {
            items.push(item);
        }
        Ok(CanonicalJsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Object { depth_left: self.depth_left }.visit_map(map).map(CanonicalJsonValue::Object)
    }
}

#[cfg(test)]
mod tests;
