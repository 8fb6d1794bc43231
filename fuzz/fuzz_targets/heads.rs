//! Heads requests and answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_protocol::wire::heads::{HeadsRequest, HeadsResponse};

fuzz_target!(|json: &[u8]| {
    if let Ok(request) = HeadsRequest::parse(json) {
        let again = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(HeadsRequest::parse(&again).ok(), Some(request));
    }
    if let Ok(response) = HeadsResponse::parse(json) {
        let again = serde_json::to_vec(&response).expect("what was read can be written");
        assert_eq!(HeadsResponse::parse(&again).ok(), Some(response));
    }
});
