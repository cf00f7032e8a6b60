//! Golden vectors. If one of these fails, every proof ever given out has become worthless: change the
//! format's version byte instead.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn of_an_op_record() {
    let record = with_revision(4, |revision| hex(&revision.record(1).encode()));
    assert_eq!(record, GOLDEN_RECORD);
}

#[test]
fn of_an_entry() {
    let entry = with_revision(4, |revision| hex(&revision.leaf().entry.encode()));
    assert_eq!(entry, GOLDEN_ENTRY);
}

#[test]
fn of_a_revision_with_one_operation() {
    assert_eq!(leaf_hash(5).to_string(), GOLDEN_LEAF);
}

#[test]
fn of_a_history() {
    let mut frontier = Frontier::default();
    frontier.extend((2..=1001).map(leaf_hash));
    assert_eq!(frontier.root().to_string(), GOLDEN_ROOT);
}

#[test]
fn of_a_checkpoint() {
    assert_eq!(signed(1000, Hash([7; 32])).to_string(), include_str!("golden/checkpoint"));
}

#[test]
fn of_a_proof_file() {
    let mut bundle = bundle([4], 6);
    let ProvenRevision { entry, path, .. } = bundle.revisions.remove(0);
    let proof = ProofFile { entry, path, checkpoint: bundle.checkpoint };
    assert_eq!(proof.to_string(), include_str!("golden/revision-4.tlog-proof"));
    assert_eq!(ProofFile::parse(include_bytes!("golden/revision-4.tlog-proof")).unwrap(), proof);
}

#[test]
fn of_a_bundle() {
    assert_eq!(Hash::of_leaf(&bundle([2, 4, 5], 6).encode()).to_string(), GOLDEN_BUNDLE);
}

#[test]
fn of_an_actor_reference() {
    let reference = actor_reference(b"salt", "alice", "192.0.2.7", "request 1");
    assert_eq!(hex(&reference), GOLDEN_ACTOR);
}

#[test]
fn by_way_of_a_second_encoding() {
    with_revision(4, |revision| {
        let entry = revision.leaf().entry;
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        for position in 0..revision.ops.len() {
            let bytes = revision.record(position).encode();
            assert_eq!(OpRecord::decode(&bytes).unwrap().encode(), bytes);
        }
    });
    let bytes = bundle([2, 4, 5], 6).encode();
    assert_eq!(Bundle::decode(&bytes).unwrap().encode(), bytes);
}

const GOLDEN_RECORD: &str = "01000000056b65792f31000000000000000000000000000000020000000000000004000000000000000089006e0a29eeace1e8e4ae9aa0107525233bafdbb7cfa269dd8905c3a4e7905064f608974686d4fb2bcac639ef838867";
const GOLDEN_ENTRY: &str = "010000000000000000040000018bcfe568040000000509090909090909090909090909090909ac270c0de9f499911d4d76ea37934f19adbd446cc9d2c15c51a0dc227241f327";
const GOLDEN_LEAF: &str = "905839cdf386a2a95fb85e518c2040fc57ddc67d09b119db7214c9ea0ec206b8";
const GOLDEN_ROOT: &str = "32b2c3b0769e3fc2463433148b43e9f05a4ac896caa8b08f8cda8b43eadab1e3";
const GOLDEN_BUNDLE: &str = "4335525df038e959cd378e01b3dcbc3b32a7a83219a660d31be5b119bed5f8e2";
const GOLDEN_ACTOR: &str = "3023051687e2cd4222101372b3fb4bd9";
