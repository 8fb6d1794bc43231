//! The text form of `Authorization: X-Matrix …`.

use data_encoding::BASE64_NOPAD;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, UInt};

use super::{MAX_AUTHORIZATION_BYTES, RequestError, RequestSignature};

/// The authentication scheme, compared without case.
const SCHEME: &str = "X-Matrix";

pub(super) fn write(signature: &RequestSignature) -> String {
    format!(
        r#"{SCHEME} origin="{}",destination="{}",key="{}",sig="{}",origin_server_ts="{}""#,
        signature.origin,
        signature.destination,
        signature.key_id,
        BASE64_NOPAD.encode(&signature.signature),
        signature.origin_server_ts.get(),
    )
}

/// Takes what the spec allows: any order and case of the names, tokens or quoted strings, blanks
/// around commas, unknown parameters. Each known one must be there once.
pub(super) fn parse(header: &str) -> Result<RequestSignature, RequestError> {
    if header.len() > MAX_AUTHORIZATION_BYTES {
        return Err(RequestError::TooLong("Authorization header"));
    }
    let header = header.trim_matches(BLANKS);
    let (scheme, mut rest) = header.split_once(BLANKS).ok_or(RequestError::Header(SCHEME))?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(RequestError::Header(SCHEME));
    }
    let mut found = Parameters::default();
    loop {
        // Empty list elements are legal.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return found.signature();
        }
        let (name, value, behind) = parameter(rest).ok_or(RequestError::Header(SCHEME))?;
        found.insert(name, value)?;
        rest = behind.trim_start_matches(BLANKS);
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(RequestError::Header(SCHEME));
        }
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Splits one `name=value` off: the name, the value without quotation marks, and what follows.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end_matches(BLANKS);
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let rest = rest.trim_start_matches(BLANKS);
    let Some(quoted) = rest.strip_prefix('"') else {
        // Unquoted values may hold colons, as server names with a port and key ids do, and what
        // base64 is made of.
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        let (value, behind) = rest.split_at(end);
        let legal = |byte| is_token(byte) || b":/=".contains(&byte);
        return (!value.is_empty() && value.bytes().all(legal))
            .then(|| (name, value.to_owned(), behind));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[derive(Default)]
struct Parameters {
    values: [Option<String>; NAMES.len()],
}

const NAMES: [&str; 5] = ["origin", "destination", "origin_server_ts", "key", "sig"];

impl Parameters {
    fn insert(&mut self, name: &str, value: String) -> Result<(), RequestError> {
        let Some(index) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            return Ok(());
        };
        match self.values[index].replace(value) {
            None => Ok(()),
            Some(_) => Err(RequestError::Header(NAMES[index])),
        }
    }

    fn signature(self) -> Result<RequestSignature, RequestError> {
        let [origin, destination, ts, key, sig] = self.values;
        let missing = RequestError::Header;
        Ok(RequestSignature {
            origin: origin.and_then(server_name).ok_or(missing("origin"))?,
            destination: destination.and_then(server_name).ok_or(missing("destination"))?,
            origin_server_ts: ts.and_then(timestamp).ok_or(missing("origin_server_ts"))?,
            key_id: key.and_then(key_id).ok_or(missing("key"))?,
            signature: sig
                .and_then(|sig| BASE64_NOPAD.decode(sig.trim_end_matches('=').as_bytes()).ok())
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(missing("sig"))?,
        })
    }
}

fn server_name(text: String) -> Option<OwnedServerName> {
    OwnedServerName::try_from(text).ok()
}

fn key_id(text: String) -> Option<OwnedServerSigningKeyId> {
    OwnedServerSigningKeyId::try_from(text).ok()
}

/// Decimal digits only; what is signed is the number.
fn timestamp(text: String) -> Option<MilliSecondsSinceUnixEpoch> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let millis = digits.then(|| text.parse::<u64>().ok()).flatten()?;
    UInt::try_from(millis).ok().map(MilliSecondsSinceUnixEpoch)
}
