//! A fuzzer for the verifier: proofs of a small history are bent in all their parts, byte by byte and
//! part by part, and whatever still verifies must be true of that history.
//!
//! Deterministic: `CHRONOLITH_FUZZ_SEED` (default 1) and `CHRONOLITH_FUZZ_ROUNDS` (default 3,000 for each
//! test) choose what is tried; a failure names its seed and round. `fuzz/` has the same with coverage.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "common/truth.rs"]
mod truth;

use chronolith_ledger::{Bundle, OpRecord, SignedNote};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use truth::{Choices, Seeded, Truth, bend_bundle, bend_bytes, judge_parsers};

const ROUNDS: u64 = 3_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Calls `round` with choices of its own each time, and names the round that fails.
fn rounds(round: impl Fn(&mut Seeded) + std::panic::RefUnwindSafe) {
    let seed = setting("CHRONOLITH_FUZZ_SEED", 1);
    for number in 0..setting("CHRONOLITH_FUZZ_ROUNDS", ROUNDS) {
        let outcome =
            std::panic::catch_unwind(|| round(&mut Seeded(seed.rotate_left(32) ^ number)));
        assert!(outcome.is_ok(), "failed with CHRONOLITH_FUZZ_SEED={seed} in round {number}");
    }
}

/// True bundles of several kinds and sizes.
fn bundles(truth: &Truth) -> Vec<Bundle> {
    let ranges = [(2, 2, 1), (2, 9, 8), (30, 41, 40), (17, 25, 33)];
    let ranges = ranges.map(|(from, to, size)| truth.range(from, to, size));
    let histories = [(0, 40), (3, 40), (5, 32)].map(|(place, size)| truth.history(place, size));
    ranges.into_iter().chain(histories).collect()
}

#[test]
fn true_bundles_and_proofs_verify() {
    let truth = Truth::new(1);
    for bundle in bundles(&truth) {
        assert!(truth.judge_bundle(&bundle.encode()));
        (0..6).for_each(|place| {
            let key = format!("key/{place}");
            bundle.verify_history(&truth.policy(), key.as_bytes()).unwrap();
        });
    }
    for number in 2..=41 {
        assert!(truth.judge_proof(truth.proof_file(number, 40).to_string().as_bytes()));
    }
}

#[test]
fn of_bundles_bent_part_by_part() {
    let (truth, forged) = (Truth::new(1), Truth::new(2));
    let (honest, others) = (bundles(&truth), [bundles(&truth), bundles(&forged)].concat());
    let verified = AtomicU64::new(0);
    rounds(|choose| {
        let mut bundle = honest[choose.below(honest.len())].clone();
        for _ in 0..=choose.below(3) {
            let other = &others[choose.below(others.len())];
            bend_bundle(&mut bundle, other, choose);
        }
        verified.fetch_add(truth.judge_bundle(&bundle.encode()).into(), Relaxed);
    });
    // Leaving something out is no lie, so some verify; without them the judgement would judge nothing.
    let (verified, all) = (verified.into_inner(), setting("CHRONOLITH_FUZZ_ROUNDS", ROUNDS));
    assert!(verified > all / 50 && verified < all / 2, "{verified} of {all} verified");
}

#[test]
fn of_bundles_bent_byte_by_byte() {
    let truth = Truth::new(1);
    let honest: Vec<_> = bundles(&truth).iter().map(Bundle::encode).collect();
    rounds(|choose| {
        let mut bytes = honest[choose.below(honest.len())].clone();
        for _ in 0..=choose.below(3) {
            let other = &honest[choose.below(honest.len())];
            bend_bytes(&mut bytes, other, choose);
        }
        let verified = truth.judge_bundle(&bytes);
        assert!(!verified || honest.contains(&bytes), "bytes do not matter");
    });
}

#[test]
fn of_proof_files() {
    let truth = Truth::new(1);
    let proof = |number, size| truth.proof_file(number, size).to_string().into_bytes();
    let honest = [proof(2, 1), proof(2, 40), proof(41, 40), proof(17, 33), proof(17, 40)];
    rounds(|choose| {
        let mut bytes = honest[choose.below(honest.len())].clone();
        for _ in 0..=choose.below(2) {
            let other = &honest[choose.below(honest.len())];
            bend_bytes(&mut bytes, other, choose);
        }
        let verified = truth.judge_proof(&bytes);
        assert!(!verified || honest.contains(&bytes), "bytes do not matter");
    });
}

#[test]
fn of_everything_else_that_is_read() {
    let truth = Truth::new(1);
    let bundle = truth.range(2, 9, 33);
    let key =
        chronolith_ledger::SigningKey::from_seed("a/b", chronolith_ledger::KeyKind::Log, &[3; 32])
            .unwrap();
    let note: &SignedNote = &bundle.checkpoint;
    let mut honest = vec![
        note.to_string().into_bytes(),
        note.text().to_owned().into_bytes(),
        key.verifier().to_string().into_bytes(),
        key.to_secret_text().into_bytes(),
        bundle.revisions[0].entry.encode().to_vec(),
    ];
    honest.extend(
        bundle
            .revisions
            .iter()
            .flat_map(|revision| &revision.ops)
            .filter_map(|op| Some(op.record().ok()??.encode())),
    );
    honest.iter().for_each(|bytes| judge_parsers(bytes));
    assert!(OpRecord::decode(honest.last().unwrap()).is_ok());
    rounds(|choose| {
        let mut bytes = honest[choose.below(honest.len())].clone();
        for _ in 0..=choose.below(3) {
            let other = &honest[choose.below(honest.len())];
            bend_bytes(&mut bytes, other, choose);
        }
        judge_parsers(&bytes);
    });
}
