//! From a [`Frame`] to bytes.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    FRAME_VERSION, Frame, FrameError, MAX_EDUS, MAX_FRAME_BYTES, MAX_FRAME_SERVER_KEYS, MAX_PDUS,
    METHOD, URI_PREFIX,
};
use crate::{
    canonical::{canonicalize, write_integer, write_string},
    keys::VerifyKey,
};

/// Bytes of the hash of the content that make the transaction id.
const TXN_ID_BYTES: usize = 10;

/// Writes the fields in the order of their keys; `signatures` are put in when all the rest is
/// there.
pub(super) fn sign(frame: &Frame, key: &VerifyKey) -> Result<Vec<u8>, FrameError> {
    let mut text = String::with_capacity(2048);
    text.push_str(r#"{"content":"#);
    let content_from = text.len();
    text.push_str(r#"{"edus":"#);
    write_list(&mut text, &frame.edus, ("edus", MAX_EDUS))?;
    text.push_str(r#","pdus":"#);
    write_list(&mut text, &frame.pdus, ("pdus", MAX_PDUS))?;
    text.push('}');
    let txn_id = BASE32_NOPAD.encode(&Sha256::digest(&text[content_from..])[..TXN_ID_BYTES]);
    text.push_str(r#","destination":"#);
    write_string(&mut text, frame.room_id.as_str());
    text.push_str(r#","method":"#);
    write_string(&mut text, METHOD);
    text.push_str(r#","origin":"#);
    write_string(&mut text, frame.origin.as_str());
    text.push_str(r#","origin_server_ts":"#);
    write_integer(&mut text, frame.origin_server_ts.get().into());
    text.push_str(r#","server_keys":"#);
    write_list(&mut text, &frame.server_keys, ("server_keys", MAX_FRAME_SERVER_KEYS))?;
    let signatures_at = text.len();
    text.push_str(r#","uri":"#);
    write_string(&mut text, &format!("{URI_PREFIX}{txn_id}"));
    text.push_str(&format!(r#","v":{FRAME_VERSION}}}"#));

    let signature = BASE64_NOPAD.encode(&key.sign(text.as_bytes()));
    let signatures =
        format!(r#","signatures":{{"{}":{{"{}":"{signature}"}}}}"#, frame.origin, key.key_id(),);
    text.insert_str(signatures_at, &signatures);
    if text.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    Ok(text.into_bytes())
}

fn write_list(
    text: &mut String,
    items: &[Box<RawValue>],
    (name, most): (&'static str, usize),
) -> Result<(), FrameError> {
    if items.len() > most {
        return Err(FrameError::TooMany(name));
    }
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&canonicalize(item.get().as_bytes())?);
        // Stops before a sum of lists is held that no frame can be.
        if text.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge);
        }
    }
    text.push(']');
    Ok(())
}
