//! Requests and answers with a `server_keys` list beside what the specification has (D6).

use http::HeaderValue;
use ruma::api::{
    IncomingRequest, Metadata, OutgoingBody, OutgoingResponse,
    error::{DeserializationError, IntoHttpError},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A request, and the `server_keys` in its body.
#[derive(Debug)]
pub(crate) struct Keyed<R> {
    /// What the specification has.
    pub(crate) request: R,
    /// Unverified.
    pub(crate) server_keys: Vec<Box<RawValue>>,
    /// In which order events are wanted, for operations that give events: a word of ours.
    pub(crate) order: Option<String>,
}

/// An answer, and the `server_keys` of who signed the events in it.
#[derive(Debug)]
pub(crate) struct KeyedAnswer<T> {
    /// What the specification has; a JSON object.
    pub(crate) answer: T,
    /// Canonical JSON objects.
    pub(crate) server_keys: Vec<Box<RawValue>>,
}

impl<R: Metadata> Metadata for Keyed<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Keyed<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = KeyedAnswer<R::OutgoingResponse>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        #[derive(Default, Deserialize)]
        struct Carrier {
            #[serde(default)]
            server_keys: Vec<Box<RawValue>>,
            #[serde(default, rename = "net.messagehub.order")]
            order: Option<String>,
        }
        let body = *request.body();
        let carrier = match body {
            [] => Carrier::default(),
            body => serde_json::from_slice(body)?,
        };
        let Carrier { server_keys, order } = carrier;
        let request = R::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, server_keys, order })
    }
}

impl<T: OutgoingResponse> OutgoingResponse for KeyedAnswer<T> {
    type Body = JsonBody;

    fn try_into_http_response_inner(self) -> Result<http::Response<JsonBody>, IntoHttpError> {
        let (parts, body) = self.answer.try_into_http_response_inner()?.into_parts();
        let mut json: Vec<u8> = body.try_into_buf().map_err(Into::into)?;
        append(&mut json, &self.server_keys)?;
        Ok(http::Response::from_parts(parts, JsonBody(json)))
    }
}

/// Puts one field more before the closing brace of a JSON object.
fn append(json: &mut Vec<u8>, server_keys: &[Box<RawValue>]) -> Result<(), serde_json::Error> {
    if server_keys.is_empty() || json.pop() != Some(b'}') {
        return Ok(());
    }
    if json.len() > 1 {
        json.push(b',');
    }
    json.extend_from_slice(br#""server_keys":"#);
    serde_json::to_writer(&mut *json, server_keys)?;
    json.push(b'}');
    Ok(())
}

/// An answer of an operation of ours: any value as JSON.
#[derive(Debug)]
pub(crate) struct JsonAnswer<T>(pub(crate) T);

impl<T: Serialize> OutgoingResponse for JsonAnswer<T> {
    type Body = JsonBody;

    fn try_into_http_response_inner(self) -> Result<http::Response<JsonBody>, IntoHttpError> {
        Ok(http::Response::new(JsonBody(serde_json::to_vec(&self.0)?)))
    }
}

/// A body that is JSON already.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Vec<u8>);

impl OutgoingBody for JsonBody {
    type Error = IntoHttpError;

    fn content_type(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("application/json"))
    }

    fn try_into_buf<T: Default + bytes::BufMut + AsRef<[u8]>>(self) -> Result<T, IntoHttpError> {
        let mut buffer = T::default();
        buffer.put_slice(&self.0);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_becomes_a_field_of_the_object() {
        let keys = [RawValue::from_string("{\"a\":1}".to_owned()).unwrap()];
        for (before, after) in [
            ("{}", r#"{"server_keys":[{"a":1}]}"#),
            (r#"{"pdus":[]}"#, r#"{"pdus":[],"server_keys":[{"a":1}]}"#),
        ] {
            let mut json = before.as_bytes().to_vec();
            append(&mut json, &keys).unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), after);
        }
        let mut untouched = b"{}".to_vec();
        append(&mut untouched, &[]).unwrap();
        assert_eq!(untouched, b"{}");
    }
}
