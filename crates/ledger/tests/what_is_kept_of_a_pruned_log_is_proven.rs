//! Whole tiles of leaves and entries dropped from the front: everything behind them is proven as before.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;
use proptest::prelude::*;
use std::{fs, os::unix::fs::MetadataExt, path::Path};

fn entry_of(index: u64) -> [u8; ENTRY_BYTES] {
    let mut entry = [1; ENTRY_BYTES];
    entry[2..10].copy_from_slice(&index.to_be_bytes());
    entry
}

fn written(dir: &Path, size: u64) -> (TileWriter, Vec<Hash>) {
    let mut writer = TileWriter::open(dir).unwrap();
    (writer.frontier().size()..size).for_each(|index| writer.append(&entry_of(index)));
    writer.sync().unwrap();
    (writer, (0..size).map(|index| Hash::of_leaf(&entry_of(index))).collect())
}

fn is_pruned<T: std::fmt::Debug>(found: Result<T>, first: u64) -> bool {
    matches!(found, Err(Error::Pruned { min_index, .. }) if min_index == first)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn from_the_first_leaf_that_is_left(
        size in 1u64..3000, asked in 0u64..3500, more in 0u64..600, picks in prop::collection::vec(any::<u64>(), 12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = written(dir.path(), size);
        let first = writer.prune(asked).unwrap();
        prop_assert_eq!(first, asked.min(size) / 256 * 256);
        drop(writer);
        // Opened again, and written on.
        let (writer, leaves) = written(dir.path(), size + more);
        let (files, size) = (writer.files(), size + more);
        prop_assert_eq!(files.min_index().unwrap(), first);
        let root = root_at(&leaves[..], size).unwrap();
        prop_assert_eq!(writer.frontier().root(), root);
        for pick in picks {
            let index = pick % size;
            if index < first {
                prop_assert!(is_pruned(files.entries(0, index, 1), first));
                prop_assert!(is_pruned(files.entry_bytes(index, 1), first));
                prop_assert!(is_pruned(files.tile(0, index / 256, 256), first));
                prop_assert!(is_pruned(files.entry_bundle(index / 256, 256), first));
            } else {
                prop_assert_eq!(&files.entry_bytes(index, 1).unwrap()[..], &entry_of(index)[..]);
                let path = inclusion_proof(&files, index, size).unwrap();
                prop_assert!(verify_inclusion(&leaves[index as usize], index, size, &path, &root).is_ok());
            }
            let (old, new) = (first.max(1) + pick % (size - first.max(1) + 1), size);
            let old_root = root_at(&leaves[..], old).unwrap();
            prop_assert_eq!(root_at(&files, old).unwrap(), old_root);
            let path = consistency_proof(&files, old, new).unwrap();
            prop_assert!(verify_consistency(old, &old_root, new, &root, &path).is_ok());
        }
    }
}

#[test]
fn the_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = written(dir.path(), 20_000);
    let blocks = |name| fs::metadata(dir.path().join(name)).unwrap().blocks();
    let before = blocks("L0") + blocks("entries");
    writer.prune(19_000).unwrap();
    let after = blocks("L0") + blocks("entries");
    assert!(after * 8 < before, "{before} blocks before, {after} after");
}

#[test]
fn a_crash_between_the_order_and_the_holes_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_, leaves) = written(dir.path(), 1000);
    fs::write(dir.path().join("pruned"), "512\n").unwrap();
    let (writer, _) = written(dir.path(), 1000);
    assert!(is_pruned(writer.files().entries(0, 511, 1), 512));
    assert_eq!(writer.files().entries(0, 512, 1).unwrap(), [leaves[512]]);
}

#[test]
fn zeros_that_nobody_ordered_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = written(dir.path(), 1000);
    writer.prune(256).unwrap();
    let path = dir.path().join("L0");
    let mut bytes = fs::read(&path).unwrap();
    bytes[300 * 32..301 * 32].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = writer.files().entries(0, 256, 100).unwrap_err();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(302)));
}

fn signed_at(size: u64) -> Checkpoint {
    let mut frontier = Frontier::default();
    frontier.extend((0..size).map(|index| leaf_hash(revision_of_leaf(index))));
    Checkpoint { origin: ORIGIN.into(), size, root: frontier.root() }
}

/// Audits a log of 1500 leaves, pruned up to 512, with what compaction left of the rest: the records from
/// revision 1000 on.
fn audited(dir: &Path) -> Result<()> {
    let files = TileFiles::at(dir);
    let checkpoints = [100, 600, 1200, 1500].map(signed_at).to_vec();
    let mut audit = Audit::new(&files, files.size()?, checkpoints)?;
    assert_eq!(audit.next_revision(), 514);
    for revision in audit.next_revision()..1502 {
        audit.leaf(revision, (revision >= 1000).then(|| leaf_hash(revision)))?;
    }
    audit.finish()
}

fn pruned_log(dir: &Path) {
    let mut writer = write_tiles(dir, 1500);
    writer.sync().unwrap();
    writer.prune(513).unwrap();
}

fn flipped(dir: &Path, file: &str, byte: usize) -> (String, Option<u64>) {
    pruned_log(dir);
    let path = dir.join(file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
    let error = audited(dir).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Tampered);
    (error.to_string(), error.revision())
}

#[test]
fn an_audit_goes_from_the_first_leaf_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    pruned_log(dir.path());
    audited(dir.path()).unwrap();
}

#[test]
fn an_audit_names_an_entry_that_was_changed() {
    for (index, what) in [(700, "entry"), (1100, "entry beside the tiles")] {
        let dir = tempfile::tempdir().unwrap();
        let (text, revision) = flipped(dir.path(), "entries", index * ENTRY_BYTES + 50);
        assert!(text.contains(what), "{text}");
        assert_eq!(revision, Some(index as u64 + 2));
    }
}

#[test]
fn an_audit_finds_a_change_above_the_pruned_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (_, revision) = flipped(dir.path(), "L1", 32);
    assert_eq!(revision, Some(514), "the first that was looked at");
}

#[test]
fn entries_that_were_cut_off_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    pruned_log(dir.path());
    let path = dir.path().join("entries");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..1400 * ENTRY_BYTES]).unwrap();
    let error = audited(dir.path()).unwrap_err();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(1402)));
    assert_eq!(TileWriter::open(dir.path()).err().unwrap().verdict(), Verdict::Tampered);
}
