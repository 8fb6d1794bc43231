//! What the hot path costs: `cargo bench -p messagehub-protocol`.
//!
//! The floors are Ed25519 itself: `sign::bytes` and `verify::bytes`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]

mod fixture;

use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

mod hash {
    use messagehub_protocol::{canonical, pdu::RawPdu};

    use super::*;

    /// Reading an event: form, canonical form, content and reference hash.
    #[divan::bench(args = [100, 1_000, 60_000])]
    fn well_formed(bencher: Bencher<'_, '_>, body_bytes: usize) {
        let event = fixture::Room::new().message(body_bytes).json().to_owned();
        bencher
            .with_inputs(|| RawPdu::new(fixture::raw(&event)))
            .bench_values(|raw| raw.well_formed(fixture::rules()).unwrap());
    }

    #[divan::bench(args = [100, 1_000, 60_000])]
    fn parse(bencher: Bencher<'_, '_>, body_bytes: usize) {
        let event = fixture::Room::new().message(body_bytes).json().to_owned();
        bencher.bench_local(|| canonical::parse_object(black_box(event.as_bytes())).unwrap());
    }

    #[divan::bench(args = [100, 1_000, 60_000])]
    fn is_canonical(bencher: Bencher<'_, '_>, body_bytes: usize) {
        let event = fixture::Room::new().message(body_bytes).json().to_owned();
        bencher.bench_local(|| canonical::is_canonical(black_box(event.as_bytes())));
    }
}

mod sign {
    use messagehub_protocol::wire::request;

    use super::*;

    #[divan::bench]
    fn bytes(bencher: Bencher<'_, '_>) {
        let key = fixture::Server::new(1).verify;
        bencher.bench_local(|| key.sign(black_box(&[7; 500])));
    }

    /// A whole new event: content hash, reference hash and signature.
    #[divan::bench]
    fn event(bencher: Bencher<'_, '_>) {
        let room = fixture::Room::new();
        bencher.bench_local(|| room.message(black_box(100)));
    }

    #[divan::bench]
    fn frame(bencher: Bencher<'_, '_>) {
        let room = fixture::Room::new();
        let frame = room.frame(&room.message(100));
        bencher.bench_local(|| black_box(&frame).sign(&room.server.verify).unwrap());
    }

    #[divan::bench]
    fn request(bencher: Bencher<'_, '_>) {
        let server = fixture::Server::new(1);
        let name = server.identity.server_name();
        let parts = fixture::request();
        bencher.bench_local(|| {
            request::sign(black_box(parts), name, name, fixture::now(), &server.verify).unwrap()
        });
    }
}

mod verify {
    use messagehub_protocol::{
        pdu::RawPdu,
        server_keys::{KeyRing, ServerKeys},
        wire::{
            frame::Frame,
            request::{self, RequestSignature},
        },
    };

    use super::*;

    #[divan::bench]
    fn bytes(bencher: Bencher<'_, '_>) {
        let key = fixture::Server::new(1).verify;
        let signature = key.sign(&[7; 500]);
        bencher.bench_local(|| key.as_public_key().verifies(black_box(&[7; 500]), &signature));
    }

    /// The signature of an event that was read already.
    #[divan::bench]
    fn event(bencher: Bencher<'_, '_>) {
        let room = fixture::Room::new();
        let event = fixture::raw(room.message(100).json());
        let ring = room.server.ring();
        bencher
            .with_inputs(|| RawPdu::new(event.clone()).well_formed(fixture::rules()).unwrap())
            .bench_local_values(|event| event.signed(&ring).unwrap());
    }

    #[divan::bench]
    fn server_keys(bencher: Bencher<'_, '_>) {
        let keys = fixture::Server::new(1).keys();
        bencher.bench_local(|| ServerKeys::verify(black_box(keys.json().get())).unwrap());
    }

    /// From a server that is new to us.
    #[divan::bench]
    fn frame_of_a_stranger(bencher: Bencher<'_, '_>) {
        frame(bencher, &KeyRing::new());
    }

    /// From a server whose keys we hold, which is the rule.
    #[divan::bench]
    fn frame_of_a_member(bencher: Bencher<'_, '_>) {
        frame(bencher, &fixture::Server::new(1).ring());
    }

    fn frame(bencher: Bencher<'_, '_>, known: &KeyRing) {
        let room = fixture::Room::new();
        let bytes = room.frame(&room.message(100)).sign(&room.server.verify).unwrap();
        bencher
            .bench_local(|| Frame::open_knowing(black_box(&bytes), fixture::now(), known).unwrap());
    }

    #[divan::bench]
    fn request(bencher: Bencher<'_, '_>) {
        let server = fixture::Server::new(1);
        let (keys, name, parts) =
            (server.keys(), server.identity.server_name(), fixture::request());
        let signature = request::sign(parts, name, name, fixture::now(), &server.verify).unwrap();
        let header = signature.header_value();
        bencher.bench_local(|| {
            let signature = RequestSignature::parse(black_box(&header)).unwrap();
            signature.verify(parts, name, &keys, fixture::now()).unwrap()
        });
    }
}

mod resolve {
    use messagehub_protocol::resolve::resolve;

    use super::*;

    /// A room of so many members in which two branches differ in five of them and the topic.
    #[divan::bench(args = [10, 100, 1_000], sample_count = 20)]
    fn two_branches(bencher: Bencher<'_, '_>, members: usize) {
        let (states, events) = fixture::Room::new().fork(members, 5.min(members));
        bencher.bench_local(|| {
            resolve(fixture::rules(), black_box(&states), black_box(&events)).unwrap()
        });
    }
}
