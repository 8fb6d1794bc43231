//! The walls between the crates (design section 2), read from what cargo resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::Faults;

/// What each crate of ours may depend on directly, of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("messagehub-protocol", &[]),
    ("messagehub-store", &["messagehub-protocol"]),
    ("messagehub-homeserver", &["messagehub-protocol", "messagehub-store"]),
    ("messagehub-api", &["messagehub-protocol", "messagehub-store", "messagehub-homeserver"]),
    ("messagehub-net", &["messagehub-protocol", "messagehub-homeserver"]),
];

/// What a crate must not reach, however indirectly.
const ABSENT: &[(&str, &[&str])] = &[
    ("messagehub-protocol", &["tokio", "axum", "rusqlite", "libp2p", "libp2p-swarm"]),
    ("messagehub-store", &["axum", "libp2p-swarm"]),
    ("messagehub-homeserver", &["axum", "libp2p-swarm"]),
    ("messagehub-api", &["libp2p-swarm"]),
    ("messagehub-net", &["axum"]),
];

/// Normal dependencies only; what tests use is their affair.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks the walls.
pub(crate) fn check(root: &Path) -> Faults {
    match graph(root) {
        Ok((graph, names)) => walls(&graph, &names),
        Err(fault) => vec![fault],
    }
}

fn walls(graph: &Graph, names: &BTreeMap<String, String>) -> Faults {
    let mut faults = Vec::new();
    let id_of = |name: &str| names.iter().find(|(_, n)| *n == name).map(|(id, _)| id.clone());
    for (name, allowed) in ARROWS {
        let Some(id) = id_of(name) else { continue };
        for dependency in graph.get(&id).into_iter().flatten().filter_map(|id| names.get(id)) {
            if dependency.starts_with("messagehub-") && !allowed.contains(&dependency.as_str()) {
                faults.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    for (name, absent) in ABSENT {
        let Some(id) = id_of(name) else { continue };
        for reached in reachable(graph, &id).iter().filter_map(|id| names.get(id)) {
            if absent.contains(&reached.as_str()) {
                faults.push(format!("{name} must not reach {reached}"));
            }
        }
    }
    faults
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(id) = next.pop() {
        for dependency in graph.get(&id).into_iter().flatten() {
            if seen.insert(dependency.clone()) {
                next.push(dependency.clone());
            }
        }
    }
    seen
}

/// The resolved graph by package id, and the name of each id.
fn graph(root: &Path) -> Result<(Graph, BTreeMap<String, String>), String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let graph = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let normal = list(&node["deps"])
                .iter()
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .map(|dep| text(&dep["pkg"]))
                .collect();
            (text(&node["id"]), normal)
        })
        .collect();
    Ok((graph, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_dependency_is_found_however_deep() {
        let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
        let graph = Graph::from([edge("messagehub-protocol", "middle"), edge("middle", "tokio")]);
        let names = ["messagehub-protocol", "middle", "tokio"];
        let names = names.map(|name| (name.to_owned(), name.to_owned())).into();
        assert_eq!(walls(&graph, &names), ["messagehub-protocol must not reach tokio"]);
    }
}
