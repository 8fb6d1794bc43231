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
