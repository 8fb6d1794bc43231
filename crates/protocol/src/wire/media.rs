//! What a server says of a file of its own, signed, so that any other may pass the file on.
//!
//! A description is canonical JSON as it stands. Whoever has it, the `server_keys` of the server
//! that it names, and some bytes, knows whether these are the file.

use data_encoding::BASE64_NOPAD;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, MilliSecondsSinceUnixEpoch, ServerName, UInt,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    canonical::{self, JsonError},
    keys::{SIGNATURE_BYTES, VerifyKey},
    limits::{MAX_MEDIA_DESCRIPTION_BYTES, MAX_MEDIA_TEXT_BYTES},
    server_keys::{KeyValidity, ServerKeys},
};

/// Where a member gives the bytes of a file; the server and the media id follow.
pub const MEDIA_PATH: &str = "/_matrix/federation/unstable/net.messagehub/media";

/// Where a member gives the description of a file; the server and the media id follow.
pub const DESCRIPTION_PATH: &str = "/_matrix/federation/unstable/net.messagehub/media_description";

/// [`MEDIA_PATH`] with its parameters.
pub const MEDIA_ENDPOINT: &str =
    "/_matrix/federation/unstable/net.messagehub/media/{server_name}/{media_id}";

/// [`DESCRIPTION_PATH`] with its parameters.
pub const DESCRIPTION_ENDPOINT: &str =
    "/_matrix/federation/unstable/net.messagehub/media_description/{server_name}/{media_id}";

/// Sets descriptions apart from everything else that a verify key signs.
const KIND: &str = "net.messagehub.media";

/// What a server says of a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDescription {
    /// The file's address, `mxc://<server>/<media id>`.
    pub mxc: String,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
    /// Its content type, as its uploader stated it.
    pub content_type: Option<String>,
    /// Its name, as its uploader stated it.
    pub filename: Option<String>,
    /// When the description was made.
    pub created_ts: MilliSecondsSinceUnixEpoch,
}

/// Why a description proves nothing.
#[derive(Debug, Error)]
pub enum MediaDescriptionError {
    /// Above [`MAX_MEDIA_DESCRIPTION_BYTES`].
    #[error("a media description of more than {MAX_MEDIA_DESCRIPTION_BYTES} bytes")]
    TooLarge,
    /// Not JSON with a canonical form.
    #[error("a media description is not canonical JSON: {0}")]
    Json(#[from] JsonError),
    /// A field is missing or has another type.
    #[error("a media description: `{0}` is missing or malformed")]
    Field(&'static str),
    /// It is of another file than the one asked for.
    #[error("a media description of another file")]
    AnotherFile,
    /// The server's keys are of another server than the address names.
    #[error("a media description of another server")]
    AnotherServer,
    /// No key of the server made the signature.
    #[error("a media description: the signature is missing or wrong")]
    Signature,
}

impl MediaDescription {
    /// Signs the description as the server whose file it is. Texts that are too long are left out.
    pub fn sign(&self, server: &ServerName, key: &VerifyKey) -> String {
        let mut object = CanonicalJsonObject::new();
        let mut put = |name: &str, value: CanonicalJsonValue| object.insert(name.to_owned(), value);
        put("kind", KIND.to_owned().into());
        put("mxc", self.mxc.clone().into());
        put("sha256", BASE64_NOPAD.encode(&self.sha256).into());
        put("length", integer(self.length));
        put("created_ts", integer(self.created_ts.get().into()));
        let short = |text: &&String| text.len() <= MAX_MEDIA_TEXT_BYTES;
        if let Some(content_type) = self.content_type.as_ref().filter(short) {
            put("content_type", content_type.clone().into());
        }
        if let Some(filename) = self.filename.as_ref().filter(short) {
            put("filename", filename.clone().into());
        }
        let signature = key.sign(canonical::to_canonical(&object).as_bytes());
        let signature = CanonicalJsonValue::String(BASE64_NOPAD.encode(&signature));
        let by_key = CanonicalJsonObject::from([(key.key_id().to_string(), signature)]);
        let by_server = CanonicalJsonObject::from([(server.to_string(), by_key.into())]);
        object.insert("signatures".to_owned(), by_server.into());
        canonical::to_canonical(&object)
    }

    /// Reads a description, and checks that the server of `keys` signed it and that it is of the
    /// file at `mxc`, which must be an address of that server. A key that has been replaced counts
    /// for what was signed before.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(json: &str, mxc: &str, keys: &ServerKeys) -> Result<Self, MediaDescriptionError> {
        use MediaDescriptionError as Error;
        if json.len() > MAX_MEDIA_DESCRIPTION_BYTES {
            return Err(Error::TooLarge);
        }
        let server = keys.server_name();
        let of_server = mxc.strip_prefix("mxc://").and_then(|rest| rest.split_once('/'));
        if of_server.is_none_or(|(name, _)| name != server.as_str()) {
            return Err(Error::AnotherServer);
        }
        let mut object = canonical::parse_object(json.as_bytes())?;
        let signatures = object.remove("signatures").ok_or(Error::Signature)?;
        let read = read(&object)?;
        if read.mxc != mxc {
            return Err(Error::AnotherFile);
        }
        let signed = canonical::to_canonical(&object);
        let by_key = signatures
            .as_object()
            .and_then(|by_server| by_server.get(server.as_str())?.as_object())
            .ok_or(Error::Signature)?;
        // Whether the key's validity has ended since does not matter: the hash stays the same.
        let is_signed = by_key.iter().any(|(id, signature)| {
            let key = keys.public_key_at(id, read.created_ts, KeyValidity::Ignored);
            let signature = signature
                .as_str()
                .and_then(|text| BASE64_NOPAD.decode(text.as_bytes()).ok())
                .and_then(|bytes| <[u8; SIGNATURE_BYTES]>::try_from(bytes).ok());
            key.zip(signature)
                .is_some_and(|(key, signature)| key.verifies(signed.as_bytes(), &signature))
        });
        if is_signed { Ok(read) } else { Err(Error::Signature) }
    }

    /// Whether bytes are the described file.
    pub fn describes(&self, bytes: &[u8]) -> bool {
        u64::try_from(bytes.len()) == Ok(self.length)
            && Sha256::digest(bytes).as_slice() == self.sha256
    }
}

/// The SHA-256 that an event names for a file: base64 of 32 bytes, with its padding or without.
///
/// Spec: Client-Server API, "Sending encrypted attachments".
pub fn read_sha256(text: &str) -> Option<[u8; 32]> {
    BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()?.try_into().ok()
}

/// A number to find an address by: the first 8 bytes of its SHA-256.
pub fn address_key(mxc: &str) -> i64 {
    let hash = Sha256::digest(mxc.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

fn read(object: &CanonicalJsonObject) -> Result<MediaDescription, MediaDescriptionError> {
    use MediaDescriptionError::Field;
    let text = |name: &'static str| match object.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_str()
            .filter(|text| text.len() <= MAX_MEDIA_TEXT_BYTES)
            .map(|text| Some(text.to_owned()))
            .ok_or(Field(name)),
    };
    let number = |name: &'static str| {
        let number = object.get(name).and_then(CanonicalJsonValue::as_integer);
        number.and_then(|number| UInt::try_from(i64::from(number)).ok()).ok_or(Field(name))
    };
    if object.get("kind").and_then(CanonicalJsonValue::as_str) != Some(KIND) {
        return Err(Field("kind"));
    }
    let mxc = object.get("mxc").and_then(CanonicalJsonValue::as_str).ok_or(Field("mxc"))?;
    Ok(MediaDescription {
        mxc: mxc.to_owned(),
        sha256: text("sha256")?
            .and_then(|text| BASE64_NOPAD.decode(text.as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Field("sha256"))?,
        length: number("length")?.into(),
        content_type: text("content_type")?,
        filename: text("filename")?,
        created_ts: MilliSecondsSinceUnixEpoch(number("created_ts")?),
    })
}

fn integer(number: u64) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(Int::try_from(number).unwrap_or(Int::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::IdentityKey, server_keys::ServerKeysTerms};

    fn keys(identity: u8, verify: u8) -> (ServerKeys, VerifyKey) {
        let identity = IdentityKey::from_seed(&[identity; 32]);
        let key = VerifyKey::from_seed(&[verify; 32]);
        let terms = ServerKeysTerms {
            old_verify_keys: Vec::new(),
            peer_ids: Vec::new(),
            issued_ts: MilliSecondsSinceUnixEpoch(UInt::MIN),
        };
        (ServerKeys::make(&identity, &key, terms), key)
    }

    fn description(server: &ServerName) -> MediaDescription {
        MediaDescription {
            mxc: format!("mxc://{server}/abc"),
            sha256: Sha256::digest(b"bytes").into(),
            length: 5,
            content_type: Some("image/png".to_owned()),
            filename: None,
            created_ts: MilliSecondsSinceUnixEpoch(UInt::MIN),
        }
    }

    #[test]
    fn what_was_signed_is_read_back_and_describes_its_file() {
        let (keys, key) = keys(1, 2);
        let made = description(keys.server_name());
        let json = made.sign(keys.server_name(), &key);
        let read = MediaDescription::verify(&json, &made.mxc, &keys).unwrap();
        assert_eq!(read, made);
        assert!(read.describes(b"bytes"));
        assert!(!read.describes(b"bytez") && !read.describes(b"bytes and more"));
    }

    #[test]
    fn nothing_else_is_believed() {
        let (keys, key) = keys(1, 2);
        let (others, other_key) = self::keys(3, 4);
        let made = description(keys.server_name());
        let json = made.sign(keys.server_name(), &key);
        let verify = |json: &str, mxc: &str, keys| MediaDescription::verify(json, mxc, keys);
        assert!(matches!(
            verify(&json, &made.mxc.replace("abc", "abd"), &keys),
            Err(MediaDescriptionError::AnotherFile)
        ));
        assert!(matches!(
            verify(&json, &made.mxc, &others),
            Err(MediaDescriptionError::AnotherServer)
        ));
        let forged = made.sign(keys.server_name(), &other_key);
        assert!(matches!(verify(&forged, &made.mxc, &keys), Err(MediaDescriptionError::Signature)));
        let changed = json.replace("\"length\":5", "\"length\":6");
        assert!(matches!(
            verify(&changed, &made.mxc, &keys),
            Err(MediaDescriptionError::Signature)
        ));
        for bad in ["", "[]", "{}", r#"{"signatures":{}}"#] {
            assert!(verify(bad, &made.mxc, &keys).is_err(), "{bad}");
        }
        let long = " ".repeat(MAX_MEDIA_DESCRIPTION_BYTES + 1);
        assert!(matches!(verify(&long, &made.mxc, &keys), Err(MediaDescriptionError::TooLarge)));
    }

    #[test]
    fn a_hash_is_read_with_padding_or_without() {
        let hash: [u8; 32] = Sha256::digest(b"x").into();
        let text = BASE64_NOPAD.encode(&hash);
        assert_eq!(read_sha256(&text), Some(hash));
        assert_eq!(read_sha256(&format!("{text}=")), Some(hash));
        assert_eq!(read_sha256("abc"), None);
    }
}
