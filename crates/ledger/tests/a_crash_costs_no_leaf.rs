//! Tile files after a crash at any point: cut back to the last sync, and appended to again.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;
use proptest::prelude::*;
use std::{
    fs::{self, OpenOptions},
    path::Path,
};

fn follow(dir: &Path, last: u64) -> Follower {
    let mut follower = Follower::new(TileWriter::open(dir).unwrap());
    for number in follower.watermark() + 1..=last {
        with_revision(number, |revision| follower.follow([revision])).unwrap();
    }
    follower
}

fn expected(size: u64) -> Hash {
    let mut frontier = Frontier::default();
    frontier.extend((0..size).map(|index| leaf_hash(revision_of_leaf(index))));
    frontier.root()
}

fn tear(path: &Path, length: u64, garbage: u8) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().len();
    file.set_len(length.min(before)).unwrap();
    drop(file);
    // A file system may have made the file longer before its data arrived.
    let mut bytes = fs::read(path).unwrap();
    bytes.resize(before as usize, garbage);
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_torn_off_behind_the_sync(
        synced in 0u64..1200, more in 0u64..700, at in 0u64..40_000, garbage: u8, last in 0u64..300,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = follow(dir.path(), synced + 1);
        follower.sync().unwrap();
        drop(follower);
        drop(follow(dir.path(), synced + 1 + more));
        for level in 0..2 {
            let kept = (synced >> (8 * level)) * 32;
            tear(&dir.path().join(format!("L{level}")), kept + at, garbage);
        }
        tear(&dir.path().join("entries"), synced * 70 + at, garbage);
        fs::write(dir.path().join("state.new"), b"half a st").unwrap();
        let follower = follow(dir.path(), synced + 1 + more + last);
        let size = synced + more + last;
        prop_assert_eq!(follower.tiles().frontier().root(), expected(size));
        prop_assert_eq!(root_at(&follower.tiles().files(), size).unwrap(), expected(size));
        let notes = vec![Checkpoint { origin: ORIGIN.into(), size, root: expected(size) }];
        let files = follower.tiles().files();
        let mut audit = Audit::new(&files, size, notes).unwrap();
        for number in 2..size + 2 {
            audit.leaf(number, Some(leaf_hash(number))).unwrap();
        }
        prop_assert!(audit.finish().is_ok());
    }
}

#[test]
fn but_damage_in_front_of_the_sync_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    follow(dir.path(), 300).sync().unwrap();
    let path = dir.path().join("L0");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(TileWriter::open(dir.path()).err().unwrap().verdict(), Verdict::Tampered);
    fs::write(&path, &bytes[..64]).unwrap();
    assert_eq!(TileWriter::open(dir.path()).err().unwrap().verdict(), Verdict::Tampered);
}

#[test]
fn a_run_may_come_twice_but_not_out_of_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = follow(dir.path(), 9);
    with_revision(5, |revision| assert_eq!(follower.follow([revision]).unwrap(), 9));
    let error = with_revision(11, |revision| follower.follow([revision])).unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { expected: 10, given: 11 }));
    assert_eq!(follower.watermark(), 9);
}
