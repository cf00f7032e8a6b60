//! The embedded store on RocksDB: what its sibling test asks of the store in memory, where the engine makes
//! a difference.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use chronolith_ledger::Verdict;
use chronolith_store::embedded::{At, Options, Store, Write, verify_directory};
use common::copy_as_it_lies;
use std::path::Path;

fn options() -> Options {
    Options { on_disk: true, ..Options::default() }
}

fn open(dir: &Path) -> Store {
    Store::open_with(dir, &options()).unwrap()
}

fn silently(_: u64, _: u64) {}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.put("a", "1").unwrap(), 2);
    assert_eq!(store.batch_put([("b", "2"), ("c", "3")]).unwrap(), 3);
    assert_eq!(store.delete("b").unwrap(), Some(4));
    let signed = store.checkpoint().unwrap();
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!((store.revision(), store.checkpoint().unwrap()), (4, signed));
    assert_eq!(store.get("c").unwrap().unwrap().value, "3");
    let then = store.get_at("b", At::Revision(3)).unwrap();
    assert_eq!(then.kv.unwrap().value, "2");
}

/// Also what proves that a write is durable when it returns: the copy is what a crash would leave.
#[test]
fn a_crash_costs_nothing_that_was_answered() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    for number in 0..300 {
        store.put(format!("key/{}", number % 9), number.to_string()).unwrap();
    }
    copy_as_it_lies(&dir.path().join("main"), &crashed.path().join("main"));
    store.close().unwrap();
    let store = open(crashed.path());
    assert_eq!(store.revision(), 301);
    let report = store.verify(None, &mut silently).unwrap();
    assert_eq!((report.revisions, report.versions), (300, 300));
}

#[test]
fn a_batch_of_a_hundred_thousand_is_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let pairs = (0..100_000).map(|number| (format!("{number:06}"), "v"));
    assert_eq!(store.batch_put(pairs).unwrap(), 2);
    store.prove("099999").unwrap().verify(&store.policy().unwrap()).unwrap();
    assert_eq!(store.verify(None, &mut silently).unwrap().versions, 100_000);
}

#[test]
fn compaction_restoring_and_verifying_a_closed_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..50 {
        let _ = store
            .submit([Write::Put(format!("k{}", number % 5).into(), number.to_string().into())])
            .unwrap();
    }
    let pinned = store.checkpoint().unwrap();
    store.compact(30).unwrap();
    store.put("k0", "bad").unwrap();
    let restored = store.restore_prefix("k", At::Revision(51), false).unwrap();
    assert_eq!(restored.writes, [Write::Put("k0".into(), "45".into())]);
    store.verify(Some(&pinned), &mut silently).unwrap();
    store.prove_range(31, 53).unwrap().verify(&store.policy().unwrap()).unwrap();
    store.close().unwrap();
    let main = dir.path().join("main");
    verify_directory(&main, None, Some(&pinned), &mut silently).unwrap();
    // A leaf in the tiles: found here as well.
    let path = main.join("tlog/L0");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40 * 32] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = verify_directory(&main, None, Some(&pinned), &mut silently).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Tampered, "{error}");
}
