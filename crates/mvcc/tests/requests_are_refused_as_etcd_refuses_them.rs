//! The pure half of the reference's section "request validation".
#![allow(clippy::unwrap_used)]

mod fixture;

use chronolith_mvcc::{Result, validate};
use chronolith_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use fixture::{delete, get, op, put, span, txn};

fn says(result: Result<()>) -> String {
    result.err().map_or("OK".into(), |error| error.to_string())
}

const NO_KEY: &str = "etcdserver: key is not provided";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";

fn check(request: &TxnRequest) -> String {
    says(validate::txn(request, validate::DEFAULT_MAX_TXN_OPERATIONS))
}

#[test]
fn a_key_is_needed_everywhere() {
    assert_eq!(says(validate::range(&get(""))), NO_KEY);
    assert_eq!(says(validate::put(&put("", "v"))), NO_KEY);
    assert_eq!(says(validate::delete_range(&delete("", "\0"))), NO_KEY);
    let compare = vec![Compare::default()];
    assert_eq!(check(&TxnRequest { compare, ..Default::default() }), NO_KEY);
    assert_eq!(check(&txn(vec![op(put("", "v"))])), NO_KEY);
    assert_eq!(check(&TxnRequest { failure: vec![op(get(""))], ..Default::default() }), NO_KEY);
}

#[test]
fn a_branch_writes_a_key_once() {
    assert_eq!(check(&txn(vec![op(put("a", "")), op(put("a", ""))])), DUPLICATE);
    assert_eq!(check(&txn(vec![op(put("a", "")), op(delete("a", ""))])), DUPLICATE);
    assert_eq!(check(&txn(vec![op(delete("a", "c")), op(put("b", ""))])), DUPLICATE);
    assert_eq!(check(&txn(vec![op(delete("a", "c")), op(put("c", ""))])), "OK");
    assert_eq!(check(&txn(vec![op(delete("a", "c")), op(delete("b", ""))])), "OK");
    let branches = TxnRequest { failure: vec![op(put("a", ""))], ..txn(vec![op(put("a", ""))]) };
    assert_eq!(check(&branches), "OK");
    assert_eq!(check(&txn(vec![op(put("a", "")), op(branches.clone())])), DUPLICATE);
    assert_eq!(check(&txn(vec![op(branches.clone())])), "OK");
    assert_eq!(check(&txn(vec![op(branches.clone()), op(branches.clone())])), DUPLICATE);
    assert_eq!(check(&txn(vec![op(delete("a", "b")), op(branches)])), DUPLICATE);
    let deep = txn(vec![op(txn(vec![op(delete("a", "b"))])), op(put("a", ""))]);
    assert_eq!(check(&deep), DUPLICATE);
}

#[test]
fn operations_are_counted_along_each_branch() {
    let puts = |n: usize| (0..n).map(|i| op(put(format!("k{i}"), ""))).collect::<Vec<_>>();
    assert_eq!(check(&txn(puts(128))), "OK");
    assert_eq!(check(&txn(puts(129))), TOO_MANY);
    let compare = vec![Compare { key: "k".into(), ..Default::default() }; 129];
    assert_eq!(check(&TxnRequest { compare, ..Default::default() }), TOO_MANY);
    let mut outer: Vec<_> = (0..99).map(|i| op(put(format!("o{i}"), ""))).collect();
    outer.push(op(txn(puts(100))));
    assert_eq!(check(&txn(outer)), TOO_MANY);
    assert_eq!(check(&txn(vec![op(txn(puts(127)))])), "OK");
    assert_eq!(check(&txn(vec![op(txn(puts(128)))])), TOO_MANY);
}

#[test]
fn an_empty_operation_is_not_found() {
    assert_eq!(check(&txn(vec![RequestOp::default()])), "etcdserver: key not found");
}

#[test]
fn sorting_needs_known_orders_and_targets() {
    let message = "etcdserver: invalid sort option";
    assert_eq!(says(validate::range(&RangeRequest { sort_order: 3, ..span("a", "b") })), message);
    assert_eq!(says(validate::range(&RangeRequest { sort_target: 5, ..span("a", "b") })), message);
    assert_eq!(says(validate::range(&RangeRequest { sort_target: 4, ..span("a", "b") })), "OK");
}

#[test]
fn what_is_ignored_must_not_be_given() {
    let value = PutRequest { ignore_value: true, ..put("a", "v") };
    assert_eq!(says(validate::put(&value)), "etcdserver: value is provided");
    let lease = PutRequest { ignore_lease: true, lease: 1, ..put("a", "v") };
    assert_eq!(says(validate::put(&lease)), "etcdserver: lease is provided");
    assert_eq!(says(validate::put(&PutRequest { ignore_value: true, ..put("a", "") })), "OK");
}
