//! A small history that each test file looks at in its own way.
#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "shared by test files, each using a part"
)]

use chronolith_ledger::*;
use std::path::Path;

pub(crate) const ORIGIN: &str = "example.org/cluster/main";

pub(crate) struct OwnedOp {
    pub(crate) kind: OpKind,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) previous: u64,
}

/// Revision `number` of a made-up history: one to five operations over a handful of keys.
pub(crate) fn ops(number: u64) -> Vec<OwnedOp> {
    (0..=number % 5)
        .map(|op| {
            let removed = (number + op) % 7 == 3;
            let value =
                if removed { Vec::new() } else { format!("value {number}.{op}").into_bytes() };
            let kind = if removed { OpKind::Delete } else { OpKind::Put };
            let previous = number.saturating_sub(5).max(1) - 1;
            OwnedOp { kind, key: format!("key/{op}").into_bytes(), value, previous }
        })
        .collect()
}

pub(crate) fn with_revision<T>(number: u64, use_it: impl FnOnce(Revision<'_>) -> T) -> T {
    let owned = ops(number);
    let ops: Vec<_> = owned
        .iter()
        .map(|op| {
            let live = u64::from(op.kind == OpKind::Put);
            let OwnedOp { kind, key, value, previous } = op;
            let (previous, create, version) = (*previous, 2 * live, number * live);
            Op { kind: *kind, key, value, previous, create, version, lease: 0 }
        })
        .collect();
    let salt = *Hash::of_leaf(&number.to_be_bytes()).0.first_chunk().unwrap();
    let time_ms = 1_700_000_000_000 + number;
    use_it(Revision { revision: number, time_ms, actor: [9; 16], salt, ops: &ops })
}

pub(crate) fn leaf_hash(number: u64) -> Hash {
    with_revision(number, |revision| revision.leaf_hash())
}

pub(crate) fn entry(number: u64) -> [u8; ENTRY_BYTES] {
    with_revision(number, |revision| revision.leaf().entry.encode())
}

pub(crate) fn log_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, KeyKind::Log, &[1; 32]).unwrap()
}

pub(crate) fn witness_key(number: u8) -> SigningKey {
    SigningKey::from_seed(&format!("witness{number}.example.org"), KeyKind::Cosigner, &[number; 32])
        .unwrap()
}

/// The log's key and two witnesses, all of which must have signed.
pub(crate) fn policy() -> Policy {
    let witnesses = [2, 3].map(|number| witness_key(number).verifier().clone());
    Policy::with_cosigners(log_key().verifier().clone(), witnesses.to_vec(), 2).unwrap()
}

pub(crate) fn signed(size: u64, root: Hash) -> SignedNote {
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root };
    let mut note = checkpoint.sign(&log_key()).unwrap();
    for witness in [2, 3].map(witness_key) {
        let signature = witness.sign(note.text(), 1_700_000_000);
        note = note.with_signature(signature).unwrap();
    }
    note
}

/// Writes the first `size` leaves of the history.
pub(crate) fn write_tiles(dir: &Path, size: u64) -> TileWriter {
    let mut writer = TileWriter::open(dir).unwrap();
    for index in writer.frontier().size()..size {
        writer.append(&entry(revision_of_leaf(index)));
    }
    writer.flush().unwrap();
    writer
}

pub(crate) fn proven(number: u64, size: u64, leaves: &[Hash]) -> ProvenRevision {
    with_revision(number, |revision| {
        let leaf = revision.leaf();
        let op = |position: usize| ProvenOp {
            position: position as u32,
            path: inclusion_proof(
                &leaf.op_hashes[..],
                position as u64,
                leaf.op_hashes.len() as u64,
            )
            .unwrap(),
            level: match position % 4 {
                2 => Level::of(&revision.record(position), None),
                3 => Level::Hash(leaf.op_hashes[position]),
                _ => Level::of(&revision.record(position), Some(revision.ops[position].value)),
            },
        };
        let path = inclusion_proof(leaves, leaf_index(number).unwrap(), size).unwrap();
        ProvenRevision { entry: leaf.entry, path, ops: (0..revision.ops.len()).map(op).collect() }
    })
}

pub(crate) fn bundle(numbers: impl IntoIterator<Item = u64>, size: u64) -> Bundle {
    let leaves: Vec<_> = (0..size).map(|index| leaf_hash(revision_of_leaf(index))).collect();
    let revisions = numbers.into_iter().map(|number| proven(number, size, &leaves)).collect();
    Bundle { checkpoint: signed(size, root_at(&leaves[..], size).unwrap()), revisions }
}
