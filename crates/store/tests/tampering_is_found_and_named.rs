//! The tamper matrix: one change at a time to a closed database, and what verification says of it.
//!
//! An adversary who only edits bytes is stopped by checksums. One who writes with our own engine leaves
//! no bad checksum behind: that is what the log is for.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use bytes::Bytes;
use chronolith_engine::{Durability, Engine, KeyRange, MemoryEngine, WriteBatch};
use chronolith_ledger::{Checkpoint, SignedNote, Verdict};
use chronolith_store::embedded::{Error, Report, Store, Write, verify_directory};
use common::copy_as_it_lies;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const REVISIONS: i64 = 601;

/// A closed database of 600 written revisions, signed in the middle and at the end.
struct Victim {
    home: TempDir,
    pinned: SignedNote,
}

impl Victim {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        for revision in 2..=REVISIONS {
            let value = format!("value of {revision};");
            let key = format!("key/{}", revision % 50);
            let _ = store.submit([Write::Put(key.into(), value.into())]).unwrap();
            if revision == 300 {
                store.checkpoint().unwrap();
            }
        }
        let pinned = store.checkpoint().unwrap();
        store.close().unwrap();
        Self { home, pinned }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("main")
    }

    fn verify(&self) -> Result<Report, Error> {
        verify_directory(&self.dir(), None, Some(&self.pinned), &mut |_, _| {})
    }

    /// The verification must say tampered; what it says, and the first bad revision.
    fn found(&self) -> (String, Option<u64>) {
        let error = self.verify().expect_err("this must be found");
        assert_eq!(error.verdict(), Verdict::Tampered, "{error}");
        (error.to_string(), error.revision())
    }

    /// Changes the engine with the engine's own means.
    fn alter(&self, change: impl FnOnce(&MemoryEngine, &mut WriteBatch)) {
        let engine = MemoryEngine::open(self.dir().join("engine")).unwrap();
        let mut batch = WriteBatch::new();
        change(&engine, &mut batch);
        engine.write(batch, Durability::Sync).unwrap();
        engine.close().unwrap();
    }
}

fn records(engine: &MemoryEngine, column: &str) -> Vec<(Bytes, Bytes)> {
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(engine.column(column).unwrap(), KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    let mut found = Vec::new();
    while cursor.valid() {
        found.push((cursor.key_bytes(), cursor.value_bytes()));
        cursor.next().unwrap();
    }
    found
}

/// The stored version that a revision made.
fn version(engine: &MemoryEngine, revision: i64) -> (Bytes, Bytes) {
    let ends = format!("value of {revision};");
    let made = |value: &Bytes| value.ends_with(ends.as_bytes());
    records(engine, "versions").into_iter().find(|(_, value)| made(value)).unwrap()
}

fn log_key(revision: i64) -> Bytes {
    Bytes::copy_from_slice(&revision.to_be_bytes())
}

fn flip(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn engine_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("engine")).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn nothing_was_changed() {
    let victim = Victim::new();
    let report = victim.verify().unwrap();
    assert_eq!((report.revisions, report.versions, report.unsigned), (600, 600, 0));
}

#[test]
fn a_byte_in_an_engine_file() {
    let victim = Victim::new();
    flip(&engine_file(&victim.dir()), |length| length / 2);
    let (text, _) = victim.found();
    assert!(text.contains("engine/"), "names the file: {text}");
}

#[test]
fn a_value() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        let (key, value) = version(engine, 123);
        let mut forged = value.to_vec();
        *forged.last_mut().unwrap() = b'!';
        batch.put(engine.column("versions").unwrap(), key, forged);
    });
    let (text, revision) = victim.found();
    assert!(text.contains("record"), "{text}");
    assert_eq!(revision, Some(123));
}

#[test]
fn who_or_when_in_the_revision_log() {
    for byte in [7, 20] {
        let victim = Victim::new();
        victim.alter(|engine, batch| {
            let log = engine.column("log").unwrap();
            let mut entry = engine.get(log, &log_key(77)).unwrap().unwrap().to_vec();
            entry[byte] ^= 1;
            batch.put(log, log_key(77), entry);
        });
        assert_eq!(victim.found().1, Some(77));
    }
}

#[test]
fn a_dropped_revision() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        batch.delete(engine.column("log").unwrap(), log_key(200));
        batch.delete(engine.column("versions").unwrap(), version(engine, 200).0);
    });
    assert_eq!(victim.found().1, Some(200));
}

#[test]
fn a_dropped_version() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        batch.delete(engine.column("versions").unwrap(), version(engine, 200).0);
    });
    assert_eq!(victim.found().1, Some(200));
}

#[test]
fn a_version_that_no_revision_made() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        let (key, value) = version(engine, 599);
        let mut other = key.to_vec();
        other[4] = b'z';
        batch.put(engine.column("versions").unwrap(), other, value);
    });
    let (text, _) = victim.found();
    assert!(text.contains("more than the revisions made"), "{text}");
}

#[test]
fn two_revisions_exchanged() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        let log = engine.column("log").unwrap();
        let (a, b) =
            (engine.get(log, &log_key(150)).unwrap(), engine.get(log, &log_key(250)).unwrap());
        batch.put(log, log_key(150), b.unwrap());
        batch.put(log, log_key(250), a.unwrap());
    });
    assert_eq!(victim.found().1, Some(150));
}

#[test]
fn a_salt() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        let log = engine.column("log").unwrap();
        let mut entry = engine.get(log, &log_key(90)).unwrap().unwrap().to_vec();
        // Behind the time (8) and the actor (16).
        entry[24..40].fill(0);
        batch.put(log, log_key(90), entry);
    });
    assert_eq!(victim.found().1, Some(90));
}

#[test]
fn a_leaf_in_the_tiles() {
    let victim = Victim::new();
    flip(&victim.dir().join("tlog/L0"), |_| 350 * 32);
    let (text, revision) = victim.found();
    assert!(text.contains("tiles"), "{text}");
    assert_eq!(revision, Some(352));
}

#[test]
fn a_node_in_the_tiles() {
    let victim = Victim::new();
    flip(&victim.dir().join("tlog/L1"), |_| 32);
    assert!(victim.found().0.contains("tile") || victim.found().1 == Some(258));
}

#[test]
fn each_byte_of_a_checkpoint() {
    let victim = Victim::new();
    let path = victim.dir().join("tlog/checkpoint");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        flip(&path, |_| at);
        assert!(victim.verify().is_err(), "byte {at} of the checkpoint does not matter");
        fs::write(&path, &whole).unwrap();
    }
    victim.verify().unwrap();
}

#[test]
fn the_tail_cut_off_everywhere_at_once() {
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        for revision in 590..=REVISIONS {
            batch.delete(engine.column("log").unwrap(), log_key(revision));
            batch.delete(engine.column("versions").unwrap(), version(engine, revision).0);
        }
    });
    // Opening notices by itself, while the tiles and the checkpoint are still there.
    let error = Store::open(victim.home.path()).err().unwrap();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(590)));
    assert_eq!(victim.found().1, Some(590));
    // Without them, the pin does.
    fs::remove_dir_all(victim.dir().join("tlog")).unwrap();
    let (text, _) = victim.found();
    assert!(text.contains("no checkpoint any more"), "{text}");
    let reopened = Store::open(victim.home.path()).unwrap();
    let error = reopened.verify_continues(&victim.pinned).unwrap_err();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(590)));
}

#[test]
fn a_history_rewritten_and_signed_anew() {
    // Whoever has the log's key can sign anything; who kept a checkpoint finds it out.
    let victim = Victim::new();
    victim.alter(|engine, batch| {
        let (key, value) = version(engine, 123);
        let mut forged = value.to_vec();
        *forged.last_mut().unwrap() = b'!';
        batch.put(engine.column("versions").unwrap(), key, forged);
    });
    fs::remove_dir_all(victim.dir().join("tlog")).unwrap();
    let store = Store::open(victim.home.path()).unwrap();
    let forged = store.checkpoint().unwrap();
    assert_eq!(Checkpoint::parse(forged.text()).unwrap().size, 600);
    assert_eq!(store.verify_continues(&victim.pinned).unwrap_err().verdict(), Verdict::Tampered);
    store.close().unwrap();
    victim.found();
}

#[test]
fn a_backup() {
    let victim = Victim::new();
    let backup = tempfile::tempdir().unwrap();
    copy_as_it_lies(&victim.dir(), backup.path());
    verify_directory(backup.path(), None, Some(&victim.pinned), &mut |_, _| {}).unwrap();
    flip(&engine_file(backup.path()), |length| length - 40);
    let cut = verify_directory(backup.path(), None, Some(&victim.pinned), &mut |_, _| {});
    assert_eq!(cut.unwrap_err().verdict(), Verdict::Tampered);
}
