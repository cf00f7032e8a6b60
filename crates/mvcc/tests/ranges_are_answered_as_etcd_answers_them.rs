//! The reference's sections "range options" and "compare".
#![allow(clippy::unwrap_used)]

mod fixture;

use chronolith_mvcc::Result;
use chronolith_proto::etcdserverpb::{
    Compare, RangeRequest, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
};
use fixture::{Store, delete, get, op, put, span, txn};

/// The reference's five keys: k0 and k1 written twice, revisions 2 to 8.
fn five_keys() -> Store {
    let mut store = Store::new();
    let values = [("k0", "5"), ("k1", "3"), ("k2", "9"), ("k3", "3"), ("k4", "1")];
    for (key, value) in values.into_iter().chain([("k1", "3"), ("k0", "7")]) {
        store.put(put(key, value)).unwrap();
    }
    store
}

/// `key=value(create,mod,version)...` with revisions counted from the first write, then more, count.
fn answer(store: &Store, request: &RangeRequest) -> Result<String> {
    let result = store.range(request)?;
    assert_eq!(result.revision, 8);
    let kvs = result.kvs.iter().map(|kv| {
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
        let (create, modified) = (kv.create_revision - 1, kv.mod_revision - 1);
        format!("{key}={value}({create},{modified},{}) ", kv.version)
    });
    let more = if result.more { "more " } else { "" };
    Ok(format!("{}{more}{}", kvs.collect::<String>(), result.count))
}

fn with(change: impl FnOnce(&mut RangeRequest)) -> RangeRequest {
    let mut request = span("k", "l");
    change(&mut request);
    request
}

const ALL: &str = "k0=7(1,7,2) k1=3(2,6,2) k2=9(3,3,1) k3=3(4,4,1) k4=1(5,5,1) 5";

#[test]
fn limits_cut_after_counting() {
    let store = five_keys();
    let limited = |limit| answer(&store, &with(|request| request.limit = limit)).unwrap();
    assert_eq!(limited(0), ALL);
    assert_eq!(limited(2), "k0=7(1,7,2) k1=3(2,6,2) more 5");
    assert_eq!(limited(5), ALL);
    assert_eq!(limited(-1), ALL);
    assert_eq!(limited(i64::MAX), ALL);
}

#[test]
fn sorting_comes_before_the_limit_unless_no_order_is_given() {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let k = ["k0=7(1,7,2)", "k1=3(2,6,2)", "k2=9(3,3,1)", "k3=3(4,4,1)", "k4=1(5,5,1)"];
    let cases = [
        (Key, None, [0, 1, 2]),
        (Key, Ascend, [0, 1, 2]),
        (Key, Descend, [4, 3, 2]),
        (Version, None, [2, 3, 0]),
        (Version, Ascend, [2, 3, 4]),
        (Version, Descend, [0, 1, 2]),
        (Create, None, [0, 1, 2]),
        (Create, Ascend, [0, 1, 2]),
        (Create, Descend, [4, 3, 2]),
        (Mod, None, [2, 3, 1]),
        (Mod, Ascend, [2, 3, 4]),
        (Mod, Descend, [0, 1, 4]),
        (Value, None, [1, 3, 0]),
        (Value, Ascend, [4, 1, 3]),
        (Value, Descend, [2, 0, 1]),
    ];
    let store = five_keys();
    for (target, order, expected) in cases {
        let request = with(|request| {
            request.limit = 3;
            request.set_sort_order(order);
            request.set_sort_target(target);
        });
        let expected = expected.map(|index| k[index]).join(" ") + " more 5";
        assert_eq!(answer(&store, &request).unwrap(), expected, "{target:?} {order:?}");
    }
}

#[test]
fn descending_keys_need_no_limit() {
    let request = with(|request| request.set_sort_order(SortOrder::Descend));
    let expected = "k4=1(5,5,1) k3=3(4,4,1) k2=9(3,3,1) k1=3(2,6,2) k0=7(1,7,2) 5";
    assert_eq!(answer(&five_keys(), &request).unwrap(), expected);
}

#[test]
fn revision_filters_come_after_counting_and_before_the_limit() {
    let store = five_keys();
    let says = |change: fn(&mut RangeRequest)| answer(&store, &with(change)).unwrap();
    assert_eq!(says(|r| r.min_mod_revision = 7), "k0=7(1,7,2) k1=3(2,6,2) 5");
    assert_eq!(says(|r| r.max_mod_revision = 5), "k2=9(3,3,1) k3=3(4,4,1) 5");
    let limited = |r: &mut RangeRequest| (r.min_create_revision, r.limit) = (4, 1);
    assert_eq!(says(limited), "k2=9(3,3,1) more 5");
    assert_eq!(says(|r| r.max_create_revision = 3), "k0=7(1,7,2) k1=3(2,6,2) 5");
    assert_eq!(says(|r| r.min_mod_revision = 100), "5");
    assert_eq!(says(|r| (r.count_only, r.min_mod_revision) = (true, 5)), "5");
}

#[test]
fn keys_only_and_count_only() {
    let store = five_keys();
    let says = |change: fn(&mut RangeRequest)| answer(&store, &with(change)).unwrap();
    assert_eq!(says(|r| r.count_only = true), "5");
    assert_eq!(says(|r| (r.count_only, r.limit) = (true, 1)), "5");
    let keys = "k0=(1,7,2) k1=(2,6,2) k2=(3,3,1) k3=(4,4,1) k4=(5,5,1) 5";
    assert_eq!(says(|r| r.keys_only = true), keys);
    assert_eq!(says(|r| (r.keys_only, r.count_only) = (true, true)), "5");
    assert_eq!(answer(&store, &RangeRequest { count_only: true, ..get("k1") }).unwrap(), "1");
    let key = RangeRequest { keys_only: true, ..get("k1") };
    assert_eq!(answer(&store, &key).unwrap(), "k1=(2,6,2) 1");
}

#[test]
fn a_past_revision_shows_the_past() {
    let store = five_keys();
    let past = with(|request| request.revision = 4);
    assert_eq!(answer(&store, &past).unwrap(), "k0=5(1,1,1) k1=3(2,2,1) k2=9(3,3,1) 3");
    let one = RangeRequest { revision: 4, ..get("k1") };
    assert_eq!(answer(&store, &one).unwrap(), "k1=3(2,2,1) 1");
    assert_eq!(answer(&store, &RangeRequest { revision: 4, ..get("k4") }).unwrap(), "0");
    let future = RangeRequest { revision: 9, ..get("k1") };
    let message = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(answer(&store, &future).unwrap_err().to_string(), message);
    let future = with(|request| request.revision = 9);
    assert_eq!(answer(&store, &future).unwrap_err().to_string(), message);
    let negative = with(|request| (request.revision, request.limit) = (-5, 1));
    assert_eq!(answer(&store, &negative).unwrap(), "k0=7(1,7,2) more 5");
}

#[test]
fn range_ends_mean_what_etcd_lets_them_mean() {
    let store = five_keys();
    assert_eq!(answer(&store, &span("k3", "k1")).unwrap(), "0");
    assert_eq!(answer(&store, &span("k3", "k3")).unwrap(), "0");
    assert_eq!(answer(&store, &span("k3", "\0")).unwrap(), "k3=3(4,4,1) k4=1(5,5,1) 2");
    let all = RangeRequest { limit: 1, ..span("\0", "\0") };
    assert_eq!(answer(&store, &all).unwrap(), "k0=7(1,7,2) more 5");
}

#[test]
fn keys_with_zero_bytes_keep_their_place() {
    let mut store = Store::new();
    let keys = [&b"a"[..], b"a\0", b"a\0\0", b"a\0\xff", b"a\x01", b"b", b"\0", b"\0\0"];
    for key in keys {
        store.put(put(key, key)).unwrap();
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let found = store.range(&span("\0", "\0")).unwrap();
    assert_eq!(found.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), sorted);
    assert!(found.kvs.iter().all(|kv| kv.key == kv.value));
    let inside = store.range(&span(&b"a\0"[..], &b"a\x01"[..])).unwrap();
    assert_eq!(inside.count, 3);
    assert_eq!(store.range(&get(&b"a\0"[..])).unwrap().kvs[0].value, &b"a\0"[..]);
}

#[test]
fn a_key_with_many_versions_does_not_hide_its_neighbours() {
    let mut store = Store::new();
    for key in ["a", "c"] {
        store.put(put(key, "")).unwrap();
    }
    for value in 0..50 {
        store.put(put("b", value.to_string())).unwrap();
    }
    for revision in [3, 4, 7, 8, 9, 30, 53] {
        let found = store.range(&RangeRequest { revision, ..span("a", "d") }).unwrap();
        let keys: Vec<_> = found.kvs.iter().map(|kv| &kv.key[..]).collect();
        let expected: &[&[u8]] = if revision < 4 { &[b"a", b"c"] } else { &[b"a", b"b", b"c"] };
        assert_eq!(keys, expected, "at {revision}");
        if let Some(b) = found.kvs.iter().find(|kv| &kv.key[..] == b"b") {
            assert_eq!(b.value, (revision - 4).to_string());
        }
    }
    store.delete(delete("b", "")).unwrap();
    assert_eq!(store.range(&span("a", "d")).unwrap().count, 2);
}

/// The section's store: m is missing, k has value b, and there are k1 to k3 with values 1 to 3.
fn compared() -> Store {
    let mut store = Store::new();
    for (key, value) in [("k", "b"), ("r1", "1"), ("r2", "2"), ("r3", "3")] {
        store.put(put(key, value)).unwrap();
    }
    store
}

fn holds(store: &mut Store, compare: Compare) -> bool {
    let request = TxnRequest { compare: vec![compare], ..txn(vec![op(get("k"))]) };
    let read = store.mvcc.reader().txn(&request, usize::MAX).unwrap();
    let written = store.txn(&request).unwrap();
    assert_eq!(read.response, written, "both ways to evaluate a transaction agree");
    written.succeeded
}

fn compare(key: &'static str, target: CompareTarget, result: CompareResult) -> Compare {
    let mut compare = Compare { key: key.into(), ..Default::default() };
    compare.set_target(target);
    compare.set_result(result);
    compare
}

#[test]
fn comparisons_hold_when_etcds_hold() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let store = &mut compared();
    let mut says = |key, target, result, union: TargetUnion| {
        let target_union = Some(union);
        holds(store, Compare { target_union, ..compare(key, target, result) })
    };
    let value = |value: &'static str| TargetUnion::Value(value.into());
    assert!(says("m", Version, Equal, TargetUnion::Version(0)));
    assert!(says("m", Create, Equal, TargetUnion::CreateRevision(0)));
    assert!(says("m", Mod, Equal, TargetUnion::ModRevision(0)));
    assert!(says("m", Mod, Less, TargetUnion::ModRevision(1)));
    assert!(!says("m", Value, Equal, value("")));
    assert!(!says("m", Value, NotEqual, value("x")));
    assert!(says("m", Lease, Equal, TargetUnion::Lease(0)));
    assert!(says("k", Value, Equal, value("b")));
    assert!(says("k", Value, Greater, value("a")));
    assert!(says("k", Value, Less, value("c")));
    assert!(
        !says("k", Mod, Equal, TargetUnion::Version(2)),
        "a union that does not fit counts as 0"
    );
    assert!(holds(store, compare("m", Version, Equal)), "so does no union");
}

#[test]
fn a_comparison_of_a_range_holds_for_every_key() {
    use CompareResult::{Equal, Greater, NotEqual};
    use CompareTarget::{Value, Version};
    let store = &mut compared();
    let mut says = |key, end: &'static str, target, result, union| {
        let ranged = Compare { range_end: end.into(), ..compare(key, target, result) };
        holds(store, Compare { target_union: Some(union), ..ranged })
    };
    let value = |value: &'static str| TargetUnion::Value(value.into());
    assert!(says("r", "s", Version, Greater, TargetUnion::Version(0)));
    assert!(!says("r", "s", Value, Greater, value("2")));
    assert!(says("x", "y", Version, Equal, TargetUnion::Version(0)));
    assert!(!says("x", "y", Version, Equal, TargetUnion::Version(1)));
    assert!(!says("x", "y", Value, NotEqual, value("x")));
}

#[test]
fn unknown_comparisons_hold() {
    let store = &mut compared();
    let unknown_result = Compare { key: "k".into(), result: 9, ..Default::default() };
    assert!(holds(store, unknown_result));
    let unknown_target = Compare { key: "k".into(), target: 9, ..Default::default() };
    assert!(holds(store, unknown_target));
}
