//! A small true history, ways to bend its proofs, and the one judgement that matters: whatever verifies
//! must be true. Shared by the test of the same name and by the fuzzer.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

use chronolith_ledger::{
    Bundle, Checkpoint, Entry, Hash, KeyKind, Leaf, Level, Op, OpKind, OpRecord, Policy, ProofFile,
    ProvenOp, ProvenRevision, Revision, SignedNote, SigningKey, VerifierKey, inclusion_proof,
    leaf_index, root_at,
};
use std::collections::BTreeMap;

const ORIGIN: &str = "example.org/truth/main";
const REVISIONS: u64 = 41;
const KEYS: u64 = 6;

/// Choices, from a seed or from a fuzzer.
pub trait Choices {
    fn next(&mut self) -> u64;

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Splitmix64: the same seed, the same choices.
pub struct Seeded(pub u64);

impl Choices for Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A fuzzer's bytes; zeros when they have run out.
pub struct Given<'a>(pub &'a [u8]);

impl Choices for Given<'_> {
    fn next(&mut self) -> u64 {
        let mut number = [0; 8];
        let taken = self.0.len().min(3);
        number[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        u64::from_le_bytes(number)
    }
}

/// One operation as it was.
struct TrueOp {
    key: Vec<u8>,
    record: Vec<u8>,
    value: Vec<u8>,
}

impl TrueOp {
    fn whole(&self) -> Level {
        let record = OpRecord::decode(&self.record).unwrap();
        Level::of(&record, Some(&self.value))
    }
}

/// One revision as it was.
struct TrueRevision {
    leaf: Leaf,
    ops: Vec<TrueOp>,
}

/// The history.
pub struct Truth {
    revisions: BTreeMap<u64, TrueRevision>,
    leaves: Vec<Hash>,
    key: SigningKey,
    witness: SigningKey,
}

/// What is known of a key while the history is made.
#[derive(Clone, Copy, Default)]
struct Known {
    newest: u64,
    create: u64,
    version: u64,
}

impl Truth {
    pub fn new(variant: u8) -> Self {
        let mut known = [Known::default(); KEYS as usize];
        let revisions: BTreeMap<_, _> = (2..=REVISIONS)
            .map(|number| (number, Self::revision(number, variant, &mut known)))
            .collect();
        let leaves =
            revisions.values().map(|made| Hash::of_leaf(&made.leaf.entry.encode())).collect();
        let key = SigningKey::from_seed(ORIGIN, KeyKind::Log, &[variant; 32]).unwrap();
        let witness =
            SigningKey::from_seed("witness.example.org", KeyKind::Cosigner, &[variant + 1; 32])
                .unwrap();
        Self { revisions, leaves, key, witness }
    }

    /// One to four different keys, one in five removed.
    fn revision(number: u64, variant: u8, known: &mut [Known]) -> TrueRevision {
        let places = (0..=number % 4).map(|step| (number * 7 + step) % KEYS);
        let made: Vec<_> =
            places.map(|place| Self::change(number, place, variant, known)).collect();
        let ops: Vec<_> = made
            .iter()
            .map(|(kind, key, value, previous, now)| Op {
                kind: *kind,
                key,
                value,
                previous: *previous,
                create: now.create,
                version: now.version,
                lease: 0,
            })
            .collect();
        let salt = *Hash::of_leaf(&[number as u8, variant]).0.first_chunk().unwrap();
        let revision = Revision {
            revision: number,
            time_ms: number * 10,
            actor: [variant; 16],
            salt,
            ops: &ops,
        };
        let true_op = |(at, op): (usize, &Op<'_>)| TrueOp {
            key: op.key.to_vec(),
            record: revision.record(at).encode(),
            value: op.value.to_vec(),
        };
        TrueRevision { leaf: revision.leaf(), ops: ops.iter().enumerate().map(true_op).collect() }
    }

    #[allow(clippy::type_complexity, reason = "used once, above")]
    fn change(
        number: u64,
        place: u64,
        variant: u8,
        known: &mut [Known],
    ) -> (OpKind, Vec<u8>, Vec<u8>, u64, Known) {
        let state = &mut known[place as usize];
        let previous = std::mem::replace(&mut state.newest, number);
        let removed = state.version > 0 && (number + place).is_multiple_of(5);
        if removed {
            (state.create, state.version) = (0, 0);
        } else {
            state.create = if state.version == 0 { number } else { state.create };
            state.version += 1;
        }
        let kind = if removed { OpKind::Delete } else { OpKind::Put };
        let value = match (removed, number % 9) {
            (true, _) | (_, 4) => Vec::new(),
            _ => format!("{variant}: value {number} of {place}").into_bytes(),
        };
        (kind, format!("key/{place}").into_bytes(), value, previous, *state)
    }

    pub fn policy(&self) -> Policy {
        let witness = self.witness.verifier().clone();
        Policy::with_cosigners(self.key.verifier().clone(), vec![witness], 1).unwrap()
    }

    fn note(&self, size: u64) -> SignedNote {
        let root = root_at(&self.leaves[..], size).unwrap();
        let note = Checkpoint { origin: ORIGIN.to_owned(), size, root }.sign(&self.key).unwrap();
        let cosigned = self.witness.sign(note.text(), 1_700_000_000);
        note.with_signature(cosigned).unwrap()
    }

    fn proven(&self, number: u64, size: u64, shown: impl Fn(&TrueOp) -> bool) -> ProvenRevision {
        let made = &self.revisions[&number];
        let hashes = &made.leaf.op_hashes[..];
        let op = |at: usize| ProvenOp {
            position: at as u32,
            path: inclusion_proof(hashes, at as u64, hashes.len() as u64).unwrap(),
            level: match (at as u64 + number) % 5 {
                2 => Level::Meta(made.ops[at].record.clone()),
                3 => Level::Hash(hashes[at]),
                _ => made.ops[at].whole(),
            },
        };
        let path = inclusion_proof(&self.leaves[..], leaf_index(number).unwrap(), size).unwrap();
        let ops = (0..made.ops.len()).filter(|at| shown(&made.ops[*at])).map(op).collect();
        ProvenRevision { entry: made.leaf.entry, path, ops }
    }

    /// Some revisions with everything they did.
    pub fn range(&self, from: u64, to: u64, size: u64) -> Bundle {
        let revisions = (from..=to).map(|number| self.proven(number, size, |_| true)).collect();
        Bundle { checkpoint: self.note(size), revisions }
    }

    /// Everything that happened to a key.
    pub fn history(&self, place: u64, size: u64) -> Bundle {
        let key = format!("key/{place}").into_bytes();
        let changed = self.changed(&key).into_iter().filter(|number| *number <= size + 1);
        let proven = |number| self.proven(number, size, |op| op.key == key);
        Bundle { checkpoint: self.note(size), revisions: changed.map(proven).collect() }
    }

    pub fn proof_file(&self, number: u64, size: u64) -> ProofFile {
        let ProvenRevision { entry, path, .. } = self.proven(number, size, |_| false);
        ProofFile { entry, path, checkpoint: self.note(size) }
    }

    /// The revisions that changed a key.
    fn changed(&self, key: &[u8]) -> Vec<u64> {
        let touched = |made: &TrueRevision| made.ops.iter().any(|op| op.key == key);
        self.revisions.iter().filter(|(_, made)| touched(made)).map(|(number, _)| *number).collect()
    }

    /// Fails if a bundle verifies and says anything that is not so. Whether it verified.
    pub fn judge_bundle(&self, bytes: &[u8]) -> bool {
        let Ok(bundle) = Bundle::decode(bytes) else { return false };
        assert_eq!(bundle.encode(), bytes, "two encodings of one bundle");
        let Ok(checkpoint) = bundle.verify(&self.policy()) else { return false };
        self.assert_checkpoint(&checkpoint);
        for revision in &bundle.revisions {
            self.assert_entry(&revision.entry);
            let made = &self.revisions[&revision.entry.revision];
            for op in &revision.ops {
                let truth = &made.ops[op.position as usize];
                let so = [
                    truth.whole(),
                    Level::Meta(truth.record.clone()),
                    Level::Hash(Hash::of_leaf(&truth.record)),
                ];
                assert!(so.contains(&op.level), "another operation was accepted: {:?}", op.level);
            }
        }
        (0..KEYS).for_each(|place| self.judge_history(&bundle, place));
        true
    }

    /// What is accepted as a key's history is a stretch of it without a hole.
    fn judge_history(&self, bundle: &Bundle, place: u64) {
        let key = format!("key/{place}").into_bytes();
        if bundle.verify_history(&self.policy(), &key).is_err() {
            return;
        }
        let shows = |revision: &&ProvenRevision| {
            let mut records = revision.ops.iter().filter_map(|op| op.record().unwrap());
            records.any(|record| record.key == key)
        };
        let hides = |number: u64| {
            let mut revisions = bundle.revisions.iter();
            let found = revisions.find(|revision| revision.entry.revision == number);
            found.is_some_and(|found| found.ops.iter().any(|op| matches!(op.level, Level::Hash(_))))
        };
        let shown: Vec<_> =
            bundle.revisions.iter().filter(shows).map(|found| found.entry.revision).collect();
        let truth = self.changed(&key);
        let stretch = shown.windows(2).all(|pair| {
            let before = truth.iter().rev().find(|number| **number < pair[1]).unwrap();
            *before == pair[0] || hides(*before)
        });
        assert!(stretch, "a history with a hole was accepted: {shown:?} of {truth:?}");
    }

    /// Fails if a proof file verifies and says anything that is not so. Whether it verified.
    pub fn judge_proof(&self, bytes: &[u8]) -> bool {
        let Ok(proof) = ProofFile::parse(bytes) else { return false };
        assert_eq!(proof.to_string().as_bytes(), bytes, "two encodings of one proof file");
        let Ok(checkpoint) = proof.verify(&self.policy()) else { return false };
        self.assert_checkpoint(&checkpoint);
        self.assert_entry(&proof.entry);
        true
    }

    fn assert_checkpoint(&self, checkpoint: &Checkpoint) {
        let root = root_at(&self.leaves[..], checkpoint.size).unwrap();
        assert_eq!(checkpoint.root, root, "another checkpoint was accepted");
    }

    fn assert_entry(&self, entry: &Entry) {
        assert_eq!(
            *entry, self.revisions[&entry.revision].leaf.entry,
            "another entry was accepted"
        );
    }
}

/// Bends bytes: bits, cuts, repeats, exchanges, and stretches of something else that is true.
pub fn bend_bytes(bytes: &mut Vec<u8>, other: &[u8], choose: &mut dyn Choices) {
    if bytes.is_empty() {
        return;
    }
    let at = choose.below(bytes.len());
    let to = (at + 1 + choose.below(80)).min(bytes.len());
    match choose.below(9) {
        0 => bytes[at] ^= 1 << choose.below(8),
        1 => bytes[at] = choose.next() as u8,
        2 => bytes[at] = bytes[at].wrapping_add(1),
        3 => drop(bytes.drain(at..to)),
        4 => bytes.insert(at, choose.next() as u8),
        5 => bytes.truncate(at),
        6 => {
            let stretch = bytes[at..to].to_vec();
            let target = choose.below(bytes.len());
            bytes.splice(target..target, stretch);
        }
        7 => {
            let target = choose.below(bytes.len());
            bytes.swap(at, target);
        }
        _ => {
            let from = choose.below(other.len());
            let end = (from + to - at).min(other.len());
            bytes.splice(at..to, other[from..end].iter().copied());
        }
    }
}

/// Bends one part of a bundle that is in its proper form; `other` is true as well, or of another log.
pub fn bend_bundle(bundle: &mut Bundle, other: &Bundle, choose: &mut dyn Choices) {
    match choose.below(6) {
        0 => bend_note(&mut bundle.checkpoint, &other.checkpoint, choose),
        1 => bend_rows(bundle, other, choose),
        2 | 3 => {
            let at = choose.below(bundle.revisions.len());
            let from = choose.below(other.revisions.len());
            if let (Some(revision), Some(other)) =
                (bundle.revisions.get_mut(at), other.revisions.get(from))
            {
                bend_revision(revision, other, choose);
            }
        }
        _ => bend_operation(bundle, other, choose),
    }
    bundle.revisions.sort_by_key(|revision| revision.entry.revision);
    bundle.revisions.dedup_by_key(|revision| revision.entry.revision);
}

fn bend_rows(bundle: &mut Bundle, other: &Bundle, choose: &mut dyn Choices) {
    let at = choose.below(bundle.revisions.len());
    let other = other.revisions.get(choose.below(other.revisions.len()));
    match (choose.below(3), other) {
        (0, _) if !bundle.revisions.is_empty() => drop(bundle.revisions.remove(at)),
        (1, Some(other)) if !bundle.revisions.is_empty() => bundle.revisions[at] = other.clone(),
        (_, Some(other)) => bundle.revisions.push(other.clone()),
        _ => {}
    }
}

fn bend_revision(revision: &mut ProvenRevision, other: &ProvenRevision, choose: &mut dyn Choices) {
    let entry = &mut revision.entry;
    match choose.below(9) {
        0 => entry.revision = bend_number(entry.revision, choose).max(2),
        1 => entry.time_ms = bend_number(entry.time_ms, choose),
        2 => entry.ops = (bend_number(u64::from(entry.ops), choose) as u32).max(1),
        3 => entry.actor[choose.below(16)] ^= 1 << choose.below(8),
        4 => bend_hash(&mut entry.ops_root, &other.entry.ops_root, choose),
        5 => revision.entry = other.entry,
        6 => revision.ops.clone_from(&other.ops),
        7 => revision.path.clone_from(&other.path),
        _ => bend_path(&mut revision.path, &other.path, choose),
    }
}

fn bend_operation(bundle: &mut Bundle, other: &Bundle, choose: &mut dyn Choices) {
    let ops: Vec<_> = other.revisions.iter().flat_map(|revision| &revision.ops).collect();
    let other = ops.get(choose.below(ops.len())).copied();
    let at = choose.below(bundle.revisions.len());
    let Some(revision) = bundle.revisions.get_mut(at) else { return };
    let at = choose.below(revision.ops.len());
    let (Some(op), Some(other)) = (revision.ops.get_mut(at), other) else { return };
    let of = |level: &Level| match level {
        Level::Full { record, value } => (record.clone(), Some(value.clone())),
        Level::Meta(record) => (record.clone(), None),
        Level::Hash(hash) => (hash.0.to_vec(), None),
    };
    let ((mut record, mut value), (other_record, other_value)) = (of(&op.level), of(&other.level));
    match choose.below(12) {
        0 => op.position = bend_number(u64::from(op.position), choose) as u32,
        1 => bend_path(&mut op.path, &other.path, choose),
        2 => bend_bytes(&mut record, &other_record, choose),
        3 => record = other_record,
        4 => value = None,
        5 => value = other_value,
        6 => bend_bytes(value.get_or_insert_default(), &other_record, choose),
        // Two hashes as a record: what a tree without separate leaves and nodes would take for a leaf.
        7 => record = op.path.iter().take(2).flat_map(|hash| hash.0).collect(),
        8 => {
            revision.ops.remove(at);
            return;
        }
        9 => {
            op.level = Level::Hash(Hash::of_leaf(&record));
            return;
        }
        10 => {
            let path = [&op.path[..], &other.path].concat();
            op.level = path.first().map_or(Level::Meta(record), |hash| Level::Hash(*hash));
            return;
        }
        _ => *op = other.clone(),
    }
    op.level = match (&op.level, value) {
        (Level::Hash(hash), _) => {
            let mut hash = *hash;
            bend_hash(&mut hash, &Hash([7; 32]), choose);
            Level::Hash(hash)
        }
        (_, Some(value)) => Level::Full { record, value },
        (_, None) => Level::Meta(record),
    };
    revision.ops.sort_by_key(|op| op.position);
    revision.ops.dedup_by_key(|op| op.position);
}

fn bend_number(number: u64, choose: &mut dyn Choices) -> u64 {
    match choose.below(5) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => 0,
        3 => number ^ (1 << choose.below(64)),
        _ => choose.next() % 64,
    }
}

fn bend_hash(hash: &mut Hash, other: &Hash, choose: &mut dyn Choices) {
    match choose.below(2) {
        0 => hash.0[choose.below(32)] ^= 1 << choose.below(8),
        _ => *hash = *other,
    }
}

fn bend_path(path: &mut Vec<Hash>, other: &[Hash], choose: &mut dyn Choices) {
    let spare = other.first().copied().unwrap_or_else(Hash::of_empty_tree);
    let (at, to) = (choose.below(path.len()), choose.below(path.len()));
    match choose.below(5) {
        0 if path.len() < 64 => path.insert(at, spare),
        1 if !path.is_empty() => drop(path.remove(at)),
        2 if !path.is_empty() => path.swap(at, to),
        3 if !path.is_empty() => bend_hash(&mut path[at], &spare, choose),
        _ => path.truncate(at),
    }
}

fn bend_note(note: &mut SignedNote, other: &SignedNote, choose: &mut dyn Choices) {
    let (mut text, mut signatures) = (note.text().to_owned(), note.signatures().to_vec());
    let at = choose.below(signatures.len());
    match choose.below(7) {
        0 => *note = other.clone(),
        1 => other.text().clone_into(&mut text),
        2 => signatures.clone_from(&other.signatures().to_vec()),
        3 => drop(signatures.remove(at)),
        4 => signatures.reverse(),
        5 => signatures.push(signatures[at].clone()),
        _ => {
            let byte = choose.below(signatures[at].bytes.len());
            signatures[at].bytes[byte] ^= 1 << choose.below(8);
        }
    }
    if let Ok(bent) = SignedNote::new(text, signatures) {
        *note = bent;
    }
}

/// Everything that reads text or bytes: no panic, and what reads back is written the same way.
pub fn judge_parsers(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
    if let Ok(record) = chronolith_ledger::OpRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
    if let Ok(note) = SignedNote::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SigningKey::parse(text) {
        assert_eq!(key.to_secret_text(), text);
    }
}
