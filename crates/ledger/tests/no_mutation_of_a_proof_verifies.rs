//! Each single bit of a proof file, a bundle and a checkpoint matters.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;
use proptest::prelude::*;

fn proof_file() -> Vec<u8> {
    let ProvenRevision { entry, path, .. } = bundle([17], 40).revisions.remove(0);
    let checkpoint = bundle([17], 40).checkpoint;
    ProofFile { entry, path, checkpoint }.to_string().into_bytes()
}

fn accepts_proof(bytes: &[u8]) -> bool {
    ProofFile::parse(bytes).is_ok_and(|proof| proof.verify(&policy()).is_ok())
}

fn accepts_bundle(bytes: &[u8]) -> bool {
    Bundle::decode(bytes).is_ok_and(|bundle| bundle.verify(&policy()).is_ok())
}

fn assert_each_bit_matters(bytes: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(bytes));
    for bit in 0..bytes.len() * 8 {
        let mut mutated = bytes.to_vec();
        mutated[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepts(&mutated), "bit {} of byte {} does not matter", bit % 8, bit / 8);
    }
    for length in 0..bytes.len() {
        assert!(!accepts(&bytes[..length]), "the end from byte {length} does not matter");
    }
    assert!(!accepts(&[bytes, b"\n"].concat()));
}

#[test]
fn of_a_proof_file() {
    assert_each_bit_matters(&proof_file(), accepts_proof);
}

#[test]
fn of_a_bundle() {
    assert_each_bit_matters(&bundle([2, 9, 24], 40).encode(), accepts_bundle);
}

#[test]
fn of_a_bundle_with_an_empty_value() {
    let op = Op {
        kind: OpKind::Put,
        key: b"k",
        value: b"",
        previous: 0,
        create: 2,
        version: 1,
        lease: 0,
    };
    let ops = [op];
    let revision = Revision { revision: 2, time_ms: 5, actor: [0; 16], salt: [3; 16], ops: &ops };
    let Leaf { entry, op_hashes } = revision.leaf();
    assert_eq!(entry.ops_root, op_hashes[0]);
    let shown = Level::of(&revision.record(0), Some(b""));
    let ops = vec![ProvenOp { position: 0, path: Vec::new(), level: shown }];
    let checkpoint = signed(1, revision.leaf_hash());
    let bundle =
        Bundle { checkpoint, revisions: vec![ProvenRevision { entry, path: Vec::new(), ops }] };
    assert_each_bit_matters(&bundle.encode(), accepts_bundle);
}

/// Bytes at which something is cut out, put in or exchanged.
fn mutate(bytes: &[u8], from: usize, to: usize, with: &[u8]) -> Vec<u8> {
    let (from, to) = (from % bytes.len(), to % bytes.len());
    let (from, to) = (from.min(to), from.max(to));
    [&bytes[..from], with, &bytes[to..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn by_cutting_and_pasting(from: usize, to: usize, with in prop::collection::vec(any::<u8>(), 0..40)) {
        for (bytes, accepts) in [
            (proof_file(), accepts_proof as fn(&[u8]) -> bool),
            (bundle([5], 6).encode(), accepts_bundle),
        ] {
            let mutated = mutate(&bytes, from, to, &with);
            prop_assert!(mutated == bytes || !accepts(&mutated));
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = (Entry::decode(&bytes), OpRecord::decode(&bytes), SignedNote::parse(&bytes));
        prop_assert!(!accepts_proof(&bytes) && !accepts_bundle(&bytes));
    }
}

#[test]
fn by_exchanging_what_is_true_elsewhere() {
    let honest = bundle([9, 24], 40);
    let mut swapped = honest.clone();
    let [a, b] = [1, 0].map(|revision| honest.revisions[revision].ops[0].level.clone());
    (swapped.revisions[0].ops[0].level, swapped.revisions[1].ops[0].level) = (a, b);
    let error = swapped.verify(&policy()).unwrap_err();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(9)));
    let mut moved = honest.clone();
    moved.revisions[0].ops[1].position = 2;
    assert!(moved.verify(&policy()).is_err());
    let mut older = honest;
    older.checkpoint = bundle([9], 39).checkpoint;
    assert!(older.verify(&policy()).is_err());
}

#[test]
fn by_leaving_out_a_version_of_a_key() {
    let key = b"key/4".to_vec();
    let whole = bundle([9, 14, 19, 24], 40);
    let mut chained = whole.clone();
    chained.revisions.iter_mut().for_each(|revision| {
        revision.ops.retain(|op| op.record().unwrap().is_some_and(|record| record.key == key))
    });
    let previous: Vec<_> = chained
        .revisions
        .iter()
        .map(|revision| revision.ops[0].record().unwrap().unwrap().previous)
        .collect();
    assert_eq!(previous, [3, 8, 13, 18]);
    // The made-up history names a revision one too low, so even the whole of it is no chain.
    let error = chained.verify_history(&policy(), &key).unwrap_err();
    assert_eq!(error.revision(), Some(14));
    assert!(chained.verify_history(&policy(), b"another key").is_ok());
}

/// The history of key/4, of which revision 19 shows as much as `shown` leaves of it.
fn history(shown: impl Fn(&ProvenOp) -> Level) -> Bundle {
    let honest = |revision: u64| {
        [Op {
            kind: OpKind::Put,
            key: b"key/4",
            value: b"value",
            previous: if revision == 9 { 0 } else { revision - 5 },
            create: 9,
            version: (revision - 4) / 5,
            lease: 0,
        }]
    };
    let leaves: Vec<_> = (2..30)
        .map(|revision| {
            let ops = honest(revision.max(9));
            Revision { revision, time_ms: 1, actor: [0; 16], salt: [1; 16], ops: &ops }.leaf_hash()
        })
        .collect();
    let proven = |revision: u64| {
        let ops = honest(revision);
        let made = Revision { revision, time_ms: 1, actor: [0; 16], salt: [1; 16], ops: &ops };
        let whole = Level::of(&made.record(0), Some(b"value"));
        let mut op = ProvenOp { position: 0, path: Vec::new(), level: whole };
        if revision == 19 {
            op.level = shown(&op);
        }
        let path = inclusion_proof(&leaves[..], revision - 2, 28).unwrap();
        ProvenRevision { entry: made.leaf().entry, path, ops: vec![op] }
    };
    let root = root_at(&leaves[..], 28).unwrap();
    Bundle { checkpoint: signed(28, root), revisions: [14, 19, 24].map(proven).to_vec() }
}

#[test]
fn of_what_is_left_of_a_version_and_no_more_than_that_is_believed() {
    let record = |op: &ProvenOp| op.record().unwrap().unwrap().encode();
    let key = b"key/4";
    for shown in [
        history(|op| op.level.clone()),
        history(|op| Level::Meta(record(op))),
        history(|op| Level::Hash(Hash::of_leaf(&record(op)))),
    ] {
        assert_eq!(Bundle::decode(&shown.encode()).unwrap(), shown);
        let (mut alone, only) = (shown.clone(), shown.revisions[1].clone());
        alone.revisions = vec![only];
        assert_each_bit_matters(&alone.encode(), accepts_bundle);
        shown.verify_history(&policy(), key).unwrap();
        let mut gap = shown;
        gap.revisions.remove(1);
        assert_eq!(gap.verify_history(&policy(), key).unwrap_err().revision(), Some(24));
    }
    let other = history(|_| Level::Hash(Hash::of_leaf(b"another")));
    assert_eq!(other.verify(&policy()).unwrap_err().revision(), Some(19));
}

#[test]
fn of_a_removal_that_claims_a_value() {
    let ops = [Op {
        kind: OpKind::Delete,
        key: b"k",
        value: b"",
        previous: 0,
        create: 0,
        version: 0,
        lease: 0,
    }];
    let removal = Revision { revision: 2, time_ms: 5, actor: [0; 16], salt: [3; 16], ops: &ops };
    let bundle = |shown| {
        let ops = vec![ProvenOp { position: 0, path: Vec::new(), level: shown }];
        let entry = removal.leaf().entry;
        let revisions = vec![ProvenRevision { entry, path: Vec::new(), ops }];
        Bundle { checkpoint: signed(1, removal.leaf_hash()), revisions }.encode()
    };
    let record = removal.record(0).encode();
    assert_each_bit_matters(&bundle(Level::Meta(record.clone())), accepts_bundle);
    assert_eq!(Level::of(&removal.record(0), Some(b"")), Level::Meta(record.clone()));
    assert!(!accepts_bundle(&bundle(Level::Full { record, value: Vec::new() })));
}
