//! The reference's section "revisions", and the stateful half of its "request validation".
#![allow(clippy::unwrap_used)]

mod fixture;

use chronolith_proto::etcdserverpb::{
    Compare, ResponseOp, TxnRequest, TxnResponse, compare::TargetUnion, response_op::Response,
};
use fixture::{Store, delete, get, op, put, span, text, texts, txn};

#[test]
fn a_put_makes_a_revision_and_a_delete_of_nothing_does_not() {
    let mut store = Store::new();
    assert_eq!(store.revision(), 1);
    assert_eq!(store.put(put("a", "1")).unwrap().prev_kv, None);
    let mut again = put("a", "2");
    again.prev_kv = true;
    let prev = store.put(again).unwrap().prev_kv.unwrap();
    assert_eq!(text(&prev), "a=1 c2 m2 v1");
    assert_eq!(store.get("a"), "a=2 c2 m3 v2");
    assert_eq!(store.delete(delete("missing", "")).unwrap().deleted, 0);
    assert_eq!(store.revision(), 3);
    let mut gone = delete("a", "");
    gone.prev_kv = true;
    let response = store.delete(gone).unwrap();
    assert_eq!((response.deleted, text(&response.prev_kvs[0])), (1, "a=2 c2 m3 v2".into()));
    assert_eq!((store.get("a"), store.revision()), (String::new(), 4));
    store.put(put("a", "3")).unwrap();
    assert_eq!(store.get("a"), "a=3 c5 m5 v1");
    assert_eq!(store.range(&get("a")).unwrap().revision, 5);
}

/// The answers of a transaction: `put@revision`, `range@revision(keys; count)`, `delete@revision(n)`.
fn answers(response: &TxnResponse) -> String {
    let mut texts = vec![if response.succeeded { "then".to_owned() } else { "else".to_owned() }];
    texts.extend(response.responses.iter().map(answer));
    texts.join(" ")
}

fn answer(response: &ResponseOp) -> String {
    match response.response.as_ref().unwrap() {
        Response::ResponsePut(put) => format!("put@{}", put.header.unwrap().revision),
        Response::ResponseRange(range) => {
            let revision = range.header.unwrap().revision;
            format!("range@{revision}({}; {})", texts(&range.kvs), range.count)
        }
        Response::ResponseDeleteRange(delete) => {
            format!("delete@{}({})", delete.header.unwrap().revision, delete.deleted)
        }
        Response::ResponseTxn(nested) => {
            assert_eq!(nested.header, None, "a nested transaction has no header");
            format!("[{}]", answers(nested))
        }
    }
}

fn version_is(key: &'static str, version: i64) -> Compare {
    let target_union = Some(TargetUnion::Version(version));
    Compare { key: key.into(), target_union, ..Default::default() }
}

/// A store as the reference's transcript has it at revision 5.
fn at_revision_five() -> Store {
    let mut store = Store::new();
    store.put(put("a", "1")).unwrap();
    store.put(put("a", "2")).unwrap();
    store.delete(delete("a", "")).unwrap();
    store.put(put("a", "3")).unwrap();
    store
}

#[test]
fn a_transaction_has_one_revision_and_one_without_change_has_none() {
    let mut store = at_revision_five();
    let mut says = |request: &TxnRequest| {
        let answers = answers(&store.txn(request).unwrap());
        (answers, store.revision())
    };
    assert_eq!(says(&txn(vec![])), ("then".into(), 5));
    let range = txn(vec![op(get("a"))]);
    assert_eq!(says(&range), ("then range@5(a=3 c5 m5 v1; 1)".into(), 5));
    let failed = TxnRequest { compare: vec![version_is("a", 9)], ..txn(vec![op(put("x", "x"))]) };
    assert_eq!(says(&failed), ("else".into(), 5));
    let three = txn(vec![op(put("t1", "v")), op(put("t2", "v")), op(put("t3", "v"))]);
    assert_eq!(says(&three), ("then put@6 put@6 put@6".into(), 6));
    let nothing = txn(vec![op(delete("missing", ""))]);
    assert_eq!(says(&nothing), ("then delete@6(0)".into(), 6));
    let own_writes =
        txn(vec![op(put("o1", "x")), op(get("o1")), op(delete("t1", "")), op(span("t", "u"))]);
    let seen = "then put@7 range@7(o1=x c7 m7 v1; 1) delete@7(1) \
                range@7(t2=v c6 m6 v1, t3=v c6 m6 v1; 2)";
    assert_eq!(says(&own_writes), (seen.into(), 7));
    let two = txn(vec![op(delete("t", "u")), op(get("t2"))]);
    assert_eq!(says(&two), ("then delete@8(2) range@8(; 0)".into(), 8));
    let otherwise = TxnRequest {
        compare: vec![version_is("a", 9)],
        failure: vec![op(put("e", "1")), op(get("a"))],
        ..Default::default()
    };
    assert_eq!(says(&otherwise), ("else put@9 range@9(a=3 c5 m5 v1; 1)".into(), 9));
}

#[test]
fn nested_comparisons_look_at_the_state_before_the_transaction() {
    let mut store = Store::new();
    let inner = TxnRequest {
        compare: vec![version_is("n0", 1)],
        success: vec![op(put("n1", "v"))],
        failure: vec![op(put("n2", "v"))],
    };
    let response = store.txn(&txn(vec![op(put("n0", "v")), op(inner)])).unwrap();
    assert_eq!(answers(&response), "then put@2 [else put@2]");
    let found = store.range(&span("n", "o")).unwrap();
    assert_eq!(texts(&found.kvs), "n0=v c2 m2 v1, n2=v c2 m2 v1");
}

#[test]
fn deep_branches_follow_their_own_comparisons() {
    let mut store = at_revision_five();
    let leaf = |key: &'static str, holds: bool| TxnRequest {
        compare: vec![version_is("a", i64::from(holds))],
        success: vec![op(put(format!("{key}-then"), ""))],
        failure: vec![op(put(format!("{key}-else"), ""))],
    };
    let middle = TxnRequest {
        compare: vec![version_is("a", 7)],
        success: vec![op(leaf("never", true))],
        failure: vec![op(leaf("x", false)), op(put("between", "")), op(leaf("y", true))],
    };
    let response = store.txn(&txn(vec![op(leaf("w", true)), op(middle), op(leaf("z", false))]));
    let expected = "then [then put@6] [else [else put@6] put@6 [then put@6]] [else put@6]";
    assert_eq!(answers(&response.unwrap()), expected);
    let keys = store.range(&span("b", "\0")).unwrap();
    let keys: Vec<_> = keys.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    assert_eq!(keys, ["between", "w-then", "x-else", "y-then", "z-else"]);
}

fn refused(store: &mut Store, request: &TxnRequest, expected: &str) {
    let revision = store.revision();
    let keys = texts(&store.range(&span("\0", "\0")).unwrap().kvs);
    assert_eq!(store.txn(request).unwrap_err().to_string(), expected);
    assert_eq!(store.revision(), revision);
    assert_eq!(texts(&store.range(&span("\0", "\0")).unwrap().kvs), keys);
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    let mut store = at_revision_five();
    let leased = chronolith_proto::etcdserverpb::PutRequest { lease: 77, ..put("b", "v") };
    let lease_not_found = "etcdserver: requested lease not found";
    refused(&mut store, &txn(vec![op(put("atom1", "v")), op(leased.clone())]), lease_not_found);
    assert_eq!(store.put(leased).unwrap_err().to_string(), lease_not_found);
    let mut future = get("a");
    future.revision = 1_000;
    let message = "etcdserver: mvcc: required revision is a future revision";
    refused(&mut store, &txn(vec![op(put("atom2", "v")), op(future.clone())]), message);
    refused(&mut store, &txn(vec![op(future)]), message);
    let mut ignoring = put("missing", "");
    ignoring.ignore_value = true;
    let message = "etcdserver: key not found";
    refused(&mut store, &txn(vec![op(put("atom3", "v")), op(ignoring)]), message);
}

#[test]
fn a_kept_value_or_lease_needs_the_key() {
    let mut store = at_revision_five();
    store.leases.ids.insert(7);
    let keep =
        |key: &'static str, value: bool, lease: bool| chronolith_proto::etcdserverpb::PutRequest {
            ignore_value: value,
            ignore_lease: lease,
            ..put(key, "")
        };
    for (value, lease) in [(true, false), (false, true)] {
        let error = store.put(keep("missing", value, lease)).unwrap_err();
        assert_eq!(error.to_string(), "etcdserver: key not found");
    }
    store.put(keep("a", true, false)).unwrap();
    assert_eq!(store.get("a"), "a=3 c5 m6 v2");
    let mut leased = put("a", "4");
    leased.lease = 7;
    store.put(leased).unwrap();
    let mut kept = keep("a", false, true);
    kept.value = "5".into();
    store.put(kept).unwrap();
    assert_eq!(store.get("a"), "a=5 c5 m8 v4 l7");
    store.put(keep("a", true, false)).unwrap();
    assert_eq!(store.get("a"), "a=5 c5 m9 v5", "a put without lease detaches");
}

#[test]
fn a_key_may_be_removed_and_put_again_inside_one_revision() {
    let mut store = at_revision_five();
    // Only a delete to the end of the keys escapes the check of overlaps.
    let request = txn(vec![op(delete("a", "\0")), op(put("a", "new")), op(delete("a", "\0"))]);
    chronolith_mvcc::validate::txn(&request, 128).unwrap();
    let response = store.txn(&request).unwrap();
    assert_eq!(answers(&response), "then delete@6(1) put@6 delete@6(1)");
    assert_eq!((store.get("a"), store.revision()), (String::new(), 6));
    let reborn = txn(vec![op(put("a", "x")), op(delete("a", "\0")), op(put("a", "y"))]);
    store.txn(&reborn).unwrap();
    assert_eq!(store.get("a"), "a=y c7 m7 v1");
    let mut before = get("a");
    before.revision = 5;
    assert_eq!(texts(&store.range(&before).unwrap().kvs), "a=3 c5 m5 v1");
}

#[test]
fn one_run_holds_many_revisions() {
    let mut store = at_revision_five();
    let past = store
        .run(|run, leases, stamp| {
            run.put(&put("a", "4"), leases, stamp)?;
            run.put(&put("b", "1"), leases, stamp)?;
            run.delete_range(&delete("a", ""), leases, stamp)?;
            let mut past = span("a", "z");
            past.revision = 7;
            let inside = txn(vec![op(past), op(span("a", "z")), op(put("b", "2"))]);
            run.txn(&inside, leases, stamp)
        })
        .unwrap();
    let seen = "then range@8(a=4 c5 m6 v2, b=1 c7 m7 v1; 2) range@8(b=1 c7 m7 v1; 1) put@9";
    assert_eq!(answers(&past), seen);
    assert_eq!(texts(&store.range(&span("a", "z")).unwrap().kvs), "b=2 c7 m9 v2");
}

#[test]
fn a_run_that_is_dropped_never_was() {
    let mut store = at_revision_five();
    let mut run = store.mvcc.begin_run().unwrap();
    run.put(&put("b", "1"), &mut store.leases, &store.stamp).unwrap();
    drop(run);
    assert_eq!((store.get("b"), store.revision()), (String::new(), 5));
    store.put(put("b", "2")).unwrap();
    assert_eq!(store.get("b"), "b=2 c6 m6 v1");
}

#[test]
fn a_key_moves_between_leases_and_a_revoke_is_one_revision() {
    let mut store = Store::new();
    store.leases.ids.extend([7, 8]);
    for (key, lease) in [("l1", 7), ("l2", 7), ("l3", 7), ("l1", 0), ("l2", 8)] {
        let mut request = put(key, "v");
        request.lease = lease;
        store.put(request).unwrap();
    }
    let held: Vec<_> = store.leases.keys.iter().map(|(k, l)| (k.as_ref(), *l)).collect();
    assert_eq!(held, [(&b"l2"[..], 8), (b"l3", 7)]);
    let revision = store.revision();
    let keys = ["l3".into(), "l2".into(), "gone".into(), "l3".into()];
    let deleted = store.run(|run, leases, stamp| run.delete_keys(&keys, leases, stamp)).unwrap();
    assert_eq!((deleted, store.revision()), (2, revision + 1));
    assert!(store.leases.keys.is_empty());
    let nothing = store.run(|run, leases, stamp| run.delete_keys(&keys, leases, stamp)).unwrap();
    assert_eq!((nothing, store.revision()), (0, revision + 1));
}

#[test]
fn a_refused_command_moves_no_lease() {
    let mut store = Store::new();
    store.leases.ids.insert(7);
    let mut leased = put("k", "v");
    leased.lease = 7;
    let mut unknown = put("l", "v");
    unknown.lease = 9;
    assert!(store.txn(&txn(vec![op(leased), op(unknown)])).is_err());
    assert!(store.leases.keys.is_empty());
}
