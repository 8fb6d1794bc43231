//! Signatures of users' keys on JSON objects: what encryption between clients rests on.
//!
//! Spec: Appendices, "Signing JSON".

use data_encoding::BASE64_NOPAD;
use ruma::CanonicalJsonObject;

use crate::{
    canonical::{self, JsonError},
    keys::{PublicKey, SIGNATURE_BYTES},
};

/// An object as it is signed: without `signatures` and `unsigned`, in canonical form.
///
/// # Errors
/// It has no canonical form.
pub fn signed_form(json: &str) -> Result<String, JsonError> {
    let mut object = canonical::parse_object(json.as_bytes())?;
    object.remove("signatures");
    object.remove("unsigned");
    Ok(canonical::to_canonical(&object))
}

/// A signature on an object: the entry `signatures` → `signer` → `key_id`.
pub fn signature_of<'a>(
    object: &'a CanonicalJsonObject,
    signer: &str,
    key_id: &str,
) -> Option<&'a str> {
    let by_signer = object.get("signatures")?.as_object()?.get(signer)?.as_object()?;
    by_signer.get(key_id)?.as_str()
}

/// Whether an Ed25519 key, in base64, made a signature, in base64, on what [`signed_form`] gave.
pub fn verifies(signed_form: &str, signature: &str, public_key: &str) -> bool {
    let key = decode::<32>(public_key).and_then(|bytes| PublicKey::from_bytes(&bytes));
    let signature = decode::<SIGNATURE_BYTES>(signature);
    key.zip(signature)
        .is_some_and(|(key, signature)| key.verifies(signed_form.as_bytes(), &signature))
}

/// Base64 of `N` bytes, with its padding or without: some clients pad.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VerifyKey;

    #[test]
    fn a_signature_is_of_one_key_and_one_object() {
        let (key, other) = (VerifyKey::from_seed(&[1; 32]), VerifyKey::from_seed(&[2; 32]));
        let form = signed_form(r#"{"b":1,"a":"x","unsigned":{"n":"y"},"signatures":{}}"#).unwrap();
        assert_eq!(form, r#"{"a":"x","b":1}"#);
        let signature = BASE64_NOPAD.encode(&key.sign(form.as_bytes()));
        let public = |key: &VerifyKey| BASE64_NOPAD.encode(&key.public_key());
        assert!(verifies(&form, &signature, &public(&key)));
        assert!(verifies(&form, &format!("{signature}=="), &public(&key)), "padding");
        assert!(!verifies(&form, &signature, &public(&other)));
        assert!(!verifies(r#"{"a":"x","b":2}"#, &signature, &public(&key)));
        for nonsense in ["", "!", "AAAA"] {
            assert!(!verifies(&form, nonsense, &public(&key)));
            assert!(!verifies(&form, &signature, nonsense));
        }
    }

    #[test]
    fn a_signature_is_found_by_its_signer_and_key() {
        let json = br#"{"signatures":{"@a:b":{"ed25519:K":"s"}}}"#;
        let object = canonical::parse_object(json).unwrap();
        assert_eq!(signature_of(&object, "@a:b", "ed25519:K"), Some("s"));
        assert_eq!(signature_of(&object, "@a:b", "ed25519:L"), None);
        assert_eq!(signature_of(&object, "@b:b", "ed25519:K"), None);
    }
}
