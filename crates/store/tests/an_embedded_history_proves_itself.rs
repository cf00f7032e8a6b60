//! The embedded store through its own doors: writing, time travel, restoring, proofs, reopening.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use bytes::Bytes;
use chronolith_ledger::{Bundle, ProofFile, Verdict};
use chronolith_proto::etcdserverpb::{
    Compare, PutRequest, RequestOp, TxnRequest, compare, request_op::Request,
};
use chronolith_store::embedded::{At, Error, Options, Store, Write, verify_directory};
use common::copy_as_it_lies;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn value(store: &Store, key: &str, at: i64) -> Option<Bytes> {
    store.get_at(key.to_owned(), At::Revision(at)).unwrap().kv.map(|kv| kv.value)
}

fn silently(_: u64, _: u64) {}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.put("a", "1").unwrap(), 2);
    assert_eq!(store.batch_put([("b", "2"), ("c", "3")]).unwrap(), 3);
    assert_eq!(store.delete("b").unwrap(), Some(4));
    assert_eq!(store.delete("b").unwrap(), None, "nothing to remove is no revision");
    let root = store.checkpoint().unwrap();
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.revision(), 4);
    assert_eq!(store.get("c").unwrap().unwrap().value, "3");
    assert!(store.get("b").unwrap().is_none());
    assert_eq!(store.checkpoint().unwrap(), root, "the same history has the same root");
}

#[test]
fn a_store_that_was_not_closed_loses_nothing_and_catches_up_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..700 {
        let _ = store
            .submit([Write::Put(format!("key/{}", number % 9).into(), number.to_string().into())])
            .unwrap();
    }
    store.put("last", "one").unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.revision(), 702);
    let report = store.verify(None, &mut silently).unwrap();
    assert_eq!((report.revisions, report.versions, report.unsigned), (701, 701, 701));
    let signed = store.checkpoint().unwrap();
    assert_eq!(store.verify(Some(&signed), &mut silently).unwrap().unsigned, 0);
}

#[test]
fn a_batch_of_a_hundred_thousand_is_one_revision_and_all_of_it_is_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pairs = (0..100_000).map(|number| (format!("{number:06}"), "v"));
    assert_eq!(store.batch_put(pairs).unwrap(), 2);
    let proof = store.prove("099999").unwrap();
    assert_eq!(proof.revisions[0].entry.ops, 100_000);
    proof.verify_history(&store.policy().unwrap(), b"099999").unwrap();
    assert_eq!(store.verify(None, &mut silently).unwrap().versions, 100_000);
    assert!(
        matches!(store.batch_put([("", "v")]), Err(Error::Request(_))),
        "and none with an empty key"
    );
    assert_eq!(store.revision(), 2);
}

#[test]
fn moments_are_revisions_or_times() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put("k", "1").unwrap();
    let first = store.history("k", 9).unwrap()[0].stamp.unwrap().time_ms;
    while store.history("k", 1).unwrap()[0].stamp.unwrap().time_ms == first {
        store.put("k", "2").unwrap();
    }
    let then = store.get_at("k", At::Time(first)).unwrap();
    assert!(store.get_at("k", At::Revision(then.revision)).unwrap() == then);
    assert_ne!(then.revision, store.revision());
    assert_eq!(store.get_at("k", At::Time(first - 1)).unwrap().kv, None);
    assert_eq!(store.get_at("k", At::Time(u64::MAX)).unwrap().revision, store.revision());
    assert!(store.get_at("k", At::Revision(store.revision() + 1)).is_err());
}

#[test]
fn a_prefix_is_restored_by_new_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let good = store.batch_put([("app/a", "1"), ("app/b", "2"), ("other", "3")]).unwrap();
    store.put("app/a", "bad").unwrap();
    store.delete("app/b").unwrap();
    store.put("app/c", "new").unwrap();
    store.put("other", "4").unwrap();
    let before = store.revision();
    let plan = store.restore_prefix("app/", At::Revision(good), true).unwrap();
    assert_eq!((plan.revision, store.revision()), (None, before), "a dry run writes nothing");
    let expected = [
        Write::Put("app/a".into(), "1".into()),
        Write::Put("app/b".into(), "2".into()),
        Write::Delete("app/c".into()),
    ];
    assert_eq!(plan.writes, expected);
    let done = store.restore_prefix("app/", At::Revision(good), false).unwrap();
    assert_eq!((done.revision, &done.writes), (Some(before + 1), &plan.writes));
    assert_eq!(value(&store, "app/a", before + 1).unwrap(), "1");
    assert_eq!(value(&store, "app/a", before).unwrap(), "bad", "the past stays");
    assert_eq!(store.get("other").unwrap().unwrap().value, "4");
    let again = store.restore_prefix("app/", At::Revision(good), false).unwrap();
    assert_eq!((again.revision, again.writes.len()), (None, 0));
}

#[test]
fn a_transaction_is_in_the_history_with_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let put = |key: &'static str| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            value: "v".into(),
            ..Default::default()
        })),
    };
    let absent = Compare {
        key: "lock".into(),
        target: compare::CompareTarget::Create.into(),
        target_union: Some(compare::TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let request = TxnRequest {
        compare: vec![absent],
        success: vec![put("lock")],
        failure: vec![put("taken")],
    };
    assert!(store.txn(&request).unwrap().succeeded);
    assert!(!store.txn(&request).unwrap().succeeded);
    assert!(store.get("taken").unwrap().is_some());
    store.verify(None, &mut silently).unwrap();
}

#[test]
fn proofs_hold_without_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..300 {
        let _ = store
            .submit([
                Write::Put("k".into(), number.to_string().into()),
                Write::Put(number.to_string().into(), "x".into()),
            ])
            .unwrap();
    }
    store.delete("k").unwrap();
    store.put("k", "again").unwrap();
    let (bundle, proof) =
        (store.prove("k").unwrap().encode(), store.prove_revision(150).unwrap().to_string());
    let range = store.prove_range(10, 20).unwrap();
    let policy = store.policy().unwrap();
    store.close().unwrap();
    drop(dir);
    let bundle = Bundle::decode(&bundle).unwrap();
    bundle.verify_history(&policy, b"k").unwrap();
    assert_eq!(bundle.revisions.len(), 302);
    let mut gap = bundle.clone();
    gap.revisions.remove(100);
    assert_eq!(gap.verify_history(&policy, b"k").unwrap_err().revision(), Some(103));
    let checkpoint = ProofFile::parse(proof.as_bytes()).unwrap().verify(&policy).unwrap();
    assert_eq!(checkpoint.revision(), 303);
    assert_eq!(range.revisions.len(), 11);
    range.verify(&policy).unwrap();
}

#[test]
fn databases_of_one_directory_know_nothing_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| Store::open_with(dir.path(), &Options::named(name)).unwrap();
    let (a, b) = (open("a"), open("b"));
    a.put("k", "of a").unwrap();
    assert_eq!((a.revision(), b.revision()), (2, 1));
    assert!(b.get("k").unwrap().is_none());
    let proof = a.prove("k").unwrap();
    assert!(proof.verify(&b.policy().unwrap()).is_err(), "each has its own key and origin");
    assert_eq!(Store::databases(dir.path()).unwrap(), ["a", "b"]);
    assert!(matches!(Store::open_with(dir.path(), &Options::named("a")), Err(Error::InUse(_))));
    assert!(Store::open_with(dir.path(), &Options::named("../a")).is_err());
}

#[test]
fn compaction_keeps_hashes_and_what_is_kept_stays_provable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..50 {
        let _ = store
            .submit([Write::Put(format!("k{}", number % 5).into(), number.to_string().into())])
            .unwrap();
    }
    let pinned = store.checkpoint().unwrap();
    store.compact(30).unwrap();
    store.put("k0", "after").unwrap();
    store.verify_continues(&pinned).unwrap();
    let report = store.verify(Some(&pinned), &mut silently).unwrap();
    // 28 revisions before the compact one, of which 4 hold the state at it: the others keep all but the
    // value, as this store is asked to.
    assert_eq!((report.revisions, report.reduced, report.hashes_only), (51, 24, 0));
    let bundle = store.prove_range(2, 52).unwrap();
    bundle.verify(&store.policy().unwrap()).unwrap();
    assert_eq!(
        bundle.revisions.iter().flat_map(|it| &it.ops).filter_map(|op| op.value()).count(),
        27
    );
    store.close().unwrap();
    verify_directory(&dir.path().join("main"), None, Some(&pinned), &mut silently).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.get("k0").unwrap().unwrap().value, "after");
}

#[test]
fn an_old_copy_brought_back_is_told_by_a_pinned_checkpoint() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path()).unwrap();
    store.put("k", "1").unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    copy_as_it_lies(&dir.path().join("main"), &old.path().join("main"));
    let store = Store::open(dir.path()).unwrap();
    store.put("k", "2").unwrap();
    let pinned = store.checkpoint().unwrap();
    store.close().unwrap();
    // The copy is consistent by itself, and only the pin knows better.
    let main = old.path().join("main");
    verify_directory(&main, None, None, &mut silently).unwrap();
    let error = verify_directory(&main, None, Some(&pinned), &mut silently).unwrap_err();
    assert_eq!((error.verdict(), error.revision()), (Verdict::Tampered, Some(3)));
    // A fork from the copy, as long as the pinned history: found as well.
    let fork = Store::open(old.path()).unwrap();
    fork.put("k", "another").unwrap();
    let error = fork.verify_continues(&pinned).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Tampered);
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Reopen,
    Restore(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0u8..6, prop::option::of(any::<u8>())), 1..5).prop_map(Step::Write),
        1 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Restore),
    ]
}

type Model = BTreeMap<u8, u8>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a list of all states that ever were.
    #[test]
    fn every_moment_reads_as_it_was(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut states: Vec<Model> = vec![Model::new(), Model::new()];
        for step in steps {
            let mut state = states.last().unwrap().clone();
            match step {
                Step::Write(changes) => {
                    let mut effective = false;
                    let writes: Vec<_> = changes.iter().map(|(key, value)| match value {
                        Some(value) => { state.insert(*key, *value); effective = true; Write::Put(vec![*key].into(), vec![*value].into()) }
                        None => { effective |= state.remove(key).is_some(); Write::Delete(vec![*key].into()) }
                    }).collect();
                    store.write(writes).unwrap();
                    if effective { states.push(state) }
                }
                Step::Reopen => { drop(store); store = Store::open(dir.path()).unwrap() }
                Step::Restore(to) => {
                    let to = usize::from(to) % states.len();
                    let restored = store.restore_prefix(b"", At::Revision(to as i64), false).unwrap();
                    prop_assert_eq!(restored.revision.is_some(), states[to] != state);
                    if restored.revision.is_some() { states.push(states[to].clone()) }
                }
            }
            prop_assert_eq!(store.revision() as usize, states.len() - 1);
        }
        for (revision, state) in states.iter().enumerate().skip(1) {
            for key in 0..6 {
                let found = store.get_at(vec![key], At::Revision(revision as i64)).unwrap().kv;
                prop_assert_eq!(found.map(|kv| kv.value[0]), state.get(&key).copied());
            }
        }
        store.checkpoint().unwrap();
        store.verify(None, &mut silently).unwrap();
    }
}
