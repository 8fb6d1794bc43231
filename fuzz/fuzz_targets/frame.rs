//! Gossip frames. Only the frame of the corpus was signed by somebody, so nothing else may open.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messagehub_fuzz::now;
use messagehub_protocol::wire::frame::Frame;

const SIGNED: &[u8] = include_bytes!("../corpus/frame/valid");

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(Frame::open(bytes, now()).is_ok(), bytes == SIGNED);
});
