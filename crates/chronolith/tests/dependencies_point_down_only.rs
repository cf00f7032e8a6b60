//! The storeys of the architecture, as a test: a crate may depend on crates of lower storeys only.
//! The one edge allowed inside storey 2 is mvcc → ledger, for the leaf types.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, process::Command};

const STOREYS: [(&str, u8); 14] = [
    ("chronolith-engine", 1),
    ("chronolith-proto", 1),
    ("chronolith-raft", 2),
    ("chronolith-mvcc", 2),
    ("chronolith-ledger", 2),
    ("chronolith-series", 2),
    ("chronolith-audit", 3),
    ("chronolith-store", 3),
    ("chronolith-server", 4),
    ("chronolith-bench", 5),
    ("chronolith-bench-compare", 6),
    ("chronolith-conformance", 6),
    ("chronolith-fuzz", 6),
    ("chronolith", 6),
];

const SIDEWAYS: [(&str, &str); 1] = [("chronolith-mvcc", "chronolith-ledger")];

/// Crates that must run without an async runtime: they can be tested by calling functions.
const WITHOUT_RUNTIME: [&str; 5] = [
    "chronolith-engine",
    "chronolith-proto",
    "chronolith-mvcc",
    "chronolith-ledger",
    "chronolith-series",
];

fn workspace_packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// (crate, its non-dev dependencies)
fn edges() -> BTreeMap<String, Vec<String>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    workspace_packages()
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .map(|dependency| text(&dependency["name"]))
                .collect();
            (text(&package["name"]), normal)
        })
        .collect()
}

fn storey(name: &str) -> Option<u8> {
    STOREYS.iter().find(|(known, _)| *known == name).map(|(_, storey)| *storey)
}

#[test]
fn no_edge_points_up_or_sideways() {
    let mut checked = 0;
    for (from, targets) in edges() {
        let from_storey = storey(&from).unwrap_or_else(|| panic!("{from} has no storey: name it"));
        for target in targets {
            let Some(target_storey) = storey(&target) else { continue };
            let allowed =
                target_storey < from_storey || SIDEWAYS.contains(&(from.as_str(), target.as_str()));
            assert!(allowed, "{from} (storey {from_storey}) must not know {target}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} edges seen: the test looks at the wrong workspace");
}

#[test]
fn the_lower_storeys_hold_no_async_runtime() {
    for (from, targets) in edges() {
        if WITHOUT_RUNTIME.contains(&from.as_str()) {
            assert!(!targets.iter().any(|target| target == "tokio"), "{from} must not use tokio");
        }
    }
}
