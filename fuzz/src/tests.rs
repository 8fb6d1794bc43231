use std::collections::BTreeSet;

use crate::{
    driver::{self, Budget},
    targets::{TARGETS, Target},
};

/// A regression test of the whole corpus, and a taste of what the driver does for longer.
#[test]
fn every_target_takes_its_corpus_and_what_is_made_from_it() {
    for target in TARGETS {
        let corpus = driver::corpus(target.name).unwrap();
        assert!(corpus.len() >= 2, "{} has next to no corpus", target.name);
        let corpus: Vec<_> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
        let worth = match driver::run(target, corpus, 1, Budget::Inputs(300)) {
            Ok(worth) => worth,
            Err(failure) => panic!("{}: {}", target.name, failure.said),
        };
        assert!(worth.ends >= 3, "{}: everything came to the same end", target.name);
    }
}

#[test]
fn each_target_is_one_for_libfuzzer_too() {
    let manifest = include_str!("../Cargo.toml");
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

#[test]
fn a_failure_is_found_and_told() {
    fn fragile(bytes: &[u8]) -> String {
        assert!(!bytes.contains(&b'{') || bytes.len() < 4, "it broke");
        bytes.len().to_string()
    }
    let target = Target { name: "fragile", run: fragile };
    let failure = driver::run(&target, vec![Vec::new()], 1, Budget::Inputs(100_000)).unwrap_err();
    assert_eq!(failure.said, "it broke");
    assert!(failure.input.contains(&b'{'));
}

#[test]
fn make_corpus() {
    use messagehub_protocol::{keys::*, wire::{media::*, relayed::*}};
    use ruma::{MilliSecondsSinceUnixEpoch, UInt};
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let address = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
    let record = libp2p::core::PeerRecord::new_interop(&keypair, vec![address]).unwrap();
    std::fs::write(format!("{dir}/peer_record/valid"), record.into_signed_envelope().into_protobuf_encoding()).unwrap();
    let identity = IdentityKey::from_seed(&[1; 32]);
    let description = MediaDescription {
        mxc: format!("mxc://{}/file", identity.server_name()),
        sha256: [9; 32], length: 12, content_type: Some("text/plain".to_owned()),
        filename: Some("a.txt".to_owned()),
        created_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_750_000_000_000)),
    };
    std::fs::write(format!("{dir}/media_description/valid"), description.sign(identity.server_name(), &VerifyKey::from_seed(&[2; 32]))).unwrap();
    let request = SealedRequest::parse(&std::fs::read(format!("{dir}/relayed/sealed")).unwrap()).unwrap();
    for seed in 0..10 {
        let opened = request.open(IdentityKey::from_seed(&[3; 32]).server_name(), &VerifyKey::from_seed(&[seed; 32]));
        if let Ok((inner, _)) = opened {
            println!("SEED {seed}");
            std::fs::write(format!("{dir}/relayed/inner_request"), serde_json::to_vec(&inner).unwrap()).unwrap();
        }
    }
}
