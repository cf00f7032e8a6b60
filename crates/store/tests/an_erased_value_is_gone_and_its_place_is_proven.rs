//! Erasure of a served store: what is refused, what readers are told, and what outlives a restart.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use chronolith_ledger::{Checkpoint, Level};
use chronolith_mvcc::Error as VersionError;
use chronolith_proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use chronolith_store::{
    Code, EngineKind, Store, StoreConfig, StoreError,
    history::{At, Error, History, Shown},
};
use common::*;
use std::path::Path;

fn config(dir: &Path, engine: EngineKind) -> StoreConfig {
    StoreConfig { engine, checkpoint_every_entries: 50, ..StoreConfig::new(dir) }
}

fn history(store: &Store) -> &History {
    store.history().unwrap()
}

fn at(key: &str, revision: i64) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), revision, ..RangeRequest::default() }
}

fn erased<T: std::fmt::Debug>(found: Result<T, StoreError>) -> bool {
    matches!(found, Err(StoreError::Request(error)) if matches!(*error, VersionError::Erased))
}

/// Revision 2 puts a and b, 3 puts a, 4 puts b, 5 deletes b.
async fn write(store: &Store) {
    let op = |key, value| RequestOp { request: Some(Request::RequestPut(put(key, value))) };
    let success = vec![op("a", "secret"), op("b", "kept")];
    store.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    store.put(put("a", "public")).await.unwrap();
    store.put(put("b", "also secret")).await.unwrap();
    store.delete_range(delete("b")).await.unwrap();
}

/// What is left after `a` was erased at revision 2 and `b` at 4.
async fn check(store: &Store) {
    assert!(erased(store.range(at("a", 2)).await));
    assert!(erased(store.range(at("b", 4)).await));
    let value = async |key, revision| {
        store.range(at(key, revision)).await.unwrap().kvs.pop().map(|kv| kv.value)
    };
    assert_eq!(value("b", 2).await, Some("kept".into()));
    assert_eq!(value("a", 0).await, Some("public".into()));
    assert_eq!(value("b", 0).await, None);
    let whole = RangeRequest { range_end: "c".into(), count_only: true, ..at("a", 2) };
    assert_eq!(store.range(whole).await.unwrap().count, 2, "a count needs no values");
    let history = history(store);
    assert!(matches!(
        history.get_at(b"a", At::Revision(2)),
        Err(Error::Request(VersionError::Erased))
    ));
    let states = |key: &[u8]| -> Vec<_> {
        let versions = history.versions(key, 0, i64::MAX, 9).unwrap();
        versions.iter().map(|it| (it.revision, it.erased, it.put.is_some())).collect()
    };
    assert_eq!(states(b"a"), [(3, false, true), (2, true, false)]);
    assert_eq!(states(b"b"), [(5, false, false), (4, true, false), (2, false, true)]);
    let policy = history.policy().unwrap();
    let bundle = history.prove_version(b"a", 2).unwrap();
    bundle.verify(&policy).unwrap();
    assert!(matches!(bundle.revisions[0].ops[..], [ref op] if matches!(op.level, Level::Hash(_))));
    let kept = history.prove_version(b"b", 2).unwrap();
    kept.verify(&policy).unwrap();
    assert_eq!(kept.revisions[0].ops[0].value(), Some(&b"kept"[..]));
    let bundle = history.prove(Shown::Key(b"b"), history.checkpoint().unwrap(), 1 << 20).unwrap();
    bundle.verify_history(&policy, b"b").unwrap();
    let report = history.verify(None, &mut |_, _| {}).unwrap();
    assert_eq!(report.erased, 2);
}

async fn erase(store: &Store, key: &str, revision: i64) -> Vec<i64> {
    let key = key.to_owned().into();
    store.erase(key, Some(revision..=revision), "asked for".to_owned()).await.unwrap().revisions
}

#[tokio::test]
async fn here_after_a_restart_and_after_a_replay() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        write(&store).await;
        let pinned = history(&store).checkpoint().unwrap();
        let before = Checkpoint::parse(pinned.text()).unwrap();
        assert_eq!(erase(&store, "a", 2).await, [2]);
        assert_eq!(erase(&store, "b", 4).await, [4]);
        assert_eq!(erase(&store, "a", 2).await, [0; 0], "once is enough");
        check(&store).await;
        let crashed = tempfile::tempdir().unwrap();
        copy_as_it_lies(dir.path(), crashed.path());
        store.shutdown().await;
        for dir in [dir.path(), crashed.path()] {
            let store = Store::open(config(dir, *engine)).unwrap();
            check(&store).await;
            let after = Checkpoint::parse(history(&store).checkpoint().unwrap().text()).unwrap();
            assert_eq!(after, before, "erasure makes no revision and changes no leaf");
            history(&store).verify(Some(&pinned), &mut |_, _| {}).unwrap();
            store.shutdown().await;
        }
    }
}

#[tokio::test]
async fn not_the_current_value_and_not_without_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    write(&store).await;
    let error = store.erase("a".into(), None, "asked for".to_owned()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("put another value or delete the key first"), "{error}");
    assert!(error.to_string().contains("erase revision 3"), "{error}");
    let error = store.erase("a".into(), Some(2..=2), " ".to_owned()).await.unwrap_err();
    assert!(error.to_string().contains("needs a reason"), "{error}");
    assert!(!erased(store.range(at("a", 2)).await), "a refused erasure erases nothing");
    let all = store.erase("b".into(), None, "asked for".to_owned()).await.unwrap();
    assert_eq!(all.revisions, [2, 4], "of a deleted key all can go");
    let none = store.erase("nobody".into(), None, "asked for".to_owned()).await.unwrap();
    assert!(none.revisions.is_empty());
    store.shutdown().await;
}

#[tokio::test]
async fn a_compaction_takes_the_name_too_and_sums_agree() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    write(&store).await;
    let sum = async || store.hash_kv(HashKvRequest::default()).await.unwrap().hash;
    let before = sum().await;
    erase(&store, "b", 4).await;
    assert_ne!(sum().await, before, "the sum is over what can be read");
    let compaction = CompactionRequest { revision: 5, physical: true };
    store.compact(compaction).await.unwrap();
    let bundle = history(&store).prove_range(2, 5).unwrap();
    bundle.verify(&history(&store).policy().unwrap()).unwrap();
    let shown = |revision: usize| -> Vec<_> {
        let ops = &bundle.revisions[revision - 2].ops;
        ops.iter().map(|op| op.record().unwrap().map(|record| record.key.to_vec())).collect()
    };
    // All of revision 2 and 4 is superseded, and gone but for the entries.
    assert_eq!((shown(2), shown(4)), (vec![], vec![]));
    assert_eq!(shown(3), [Some(b"a".to_vec())], "the current value of a");
    let report = history(&store).verify(None, &mut |_, _| {}).unwrap();
    assert_eq!((report.hashes_only, report.erased), (2, 0));
    store.shutdown().await;
}
