//! One change at a time, in the records, the tiles or the checkpoints; each is found, and where.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;
use std::{fs, path::Path};

const SIZE: u64 = 1500;

fn checkpoints() -> Vec<Checkpoint> {
    let mut frontier = Frontier::default();
    let mut out = Vec::new();
    for index in 0..SIZE {
        if index % 400 == 0 {
            out.push(Checkpoint { origin: ORIGIN.into(), size: index, root: frontier.root() });
        }
        frontier.append(leaf_hash(revision_of_leaf(index)));
    }
    out.push(Checkpoint { origin: ORIGIN.into(), size: SIZE, root: frontier.root() });
    out
}

/// The leaves, computed from records.
fn records() -> Vec<(u64, Hash)> {
    (2..SIZE + 2).map(|number| (number, leaf_hash(number))).collect()
}

fn run(dir: &Path, records: &[(u64, Hash)], checkpoints: Vec<Checkpoint>) -> Result<()> {
    let files = TileFiles::at(dir);
    let mut audit = Audit::new(&files, files.size()?, checkpoints)?;
    records.iter().try_for_each(|(number, leaf)| audit.leaf(*number, Some(*leaf)))?;
    audit.finish()
}

fn found(result: Result<()>) -> (String, Option<u64>) {
    let error = result.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Tampered);
    (error.to_string(), error.revision())
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    run(dir.path(), &records(), checkpoints()).unwrap();
}

#[test]
fn a_record_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    let mut records = records();
    records[777].1 = Hash::of_leaf(b"another");
    let (text, revision) = found(run(dir.path(), &records, checkpoints()));
    assert!(text.contains("record"), "{text}");
    assert_eq!(revision, Some(779));
}

#[test]
fn a_record_was_dropped_doubled_or_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    let mut dropped = records();
    dropped.remove(500);
    assert_eq!(found(run(dir.path(), &dropped, checkpoints())).1, Some(502));
    let mut doubled = records();
    doubled.insert(500, doubled[500]);
    assert_eq!(found(run(dir.path(), &doubled, checkpoints())).1, Some(503));
    let mut exchanged = records();
    (exchanged[500].1, exchanged[900].1) = (exchanged[900].1, exchanged[500].1);
    assert_eq!(found(run(dir.path(), &exchanged, checkpoints())).1, Some(502));
}

#[test]
fn a_leaf_in_the_tiles_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    flip(&dir.path().join("L0"), 600 * 32 + 5);
    let (text, revision) = found(run(dir.path(), &records(), checkpoints()));
    assert!(text.contains("leaf in the tiles"), "{text}");
    assert_eq!(revision, Some(602));
}

#[test]
fn a_node_in_the_tiles_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    flip(&dir.path().join("L1"), 3 * 32);
    let (text, revision) = found(run(dir.path(), &records(), checkpoints()));
    assert!(text.contains("node"), "{text}");
    assert_eq!(revision, Some(3 * 256 + 2));
}

#[test]
fn both_were_changed_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = records();
    let mut forged = entry(952);
    forged[40] ^= 1;
    records[950].1 = Hash::of_leaf(&forged);
    let mut writer = TileWriter::open(dir.path()).unwrap();
    for (number, _) in &records {
        let mut entry = entry(*number);
        entry[40] ^= u8::from(*number == 952);
        writer.append(&entry);
    }
    writer.flush().unwrap();
    // Only the checkpoints know; they bound the damage: good at 800, bad at 1200.
    assert_eq!(found(run(dir.path(), &records, checkpoints())).1, Some(802));
}

#[test]
fn the_end_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), 1000);
    let (text, revision) = found(run(dir.path(), &records()[..1000], checkpoints()));
    assert!(text.contains("cut off"), "{text}");
    assert_eq!(revision, Some(1002));
}

#[test]
fn records_are_gone_and_their_hashes_stayed() {
    let dir = tempfile::tempdir().unwrap();
    write_tiles(dir.path(), SIZE);
    let files = TileFiles::at(dir.path());
    let mut audit = Audit::new(&files, SIZE, checkpoints()).unwrap();
    for (number, leaf) in records() {
        audit.leaf(number, (number > 700).then_some(leaf)).unwrap();
    }
    audit.finish().unwrap();
}
