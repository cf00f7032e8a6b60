//! Leases: granted, kept alive, revoked and expired, with their keys.

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
    TxnRequest, request_op::Request,
};
use chronolith_store::Store;
use common::*;
use std::time::{Duration, Instant};

async fn ttl(store: &Store, id: i64) -> (i64, i64, Vec<String>) {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let answer = store.lease_time_to_live(request).await.unwrap();
    assert_eq!(answer.id, id);
    let keys = answer.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    (answer.ttl, answer.granted_ttl, keys)
}

async fn revoke(store: &Store, id: i64) -> i64 {
    let answer = store.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
    answer.header.unwrap().revision
}

/// Waits until a lease's keys are gone; how long does not matter, that it happens does.
async fn until_gone(store: &Store, key: &str) -> i64 {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let found = store.range(get(key)).await.unwrap();
        if found.count == 0 {
            return found.header.unwrap().revision;
        }
        assert!(Instant::now() < patience, "the lease never expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn grants_follow_etcds_rules() {
    let store = open();
    for (id, asked, granted) in [(1001, 0, 2), (1002, -1, 2), (1003, 1, 2), (-7, 60, 60)] {
        let answer = store.lease_grant(grant(id, asked)).await.unwrap();
        assert_eq!((answer.id, answer.ttl), (id, granted));
        assert_eq!(answer.header.unwrap().revision, 1, "a grant is no revision");
    }
    let longest = store.lease_grant(grant(1004, 9_000_000_000)).await.unwrap();
    assert_eq!(longest.ttl, 9_000_000_000);
    assert_eq!(
        refusal(store.lease_grant(grant(1005, 9_000_000_001)).await),
        "OutOfRange | etcdserver: too large lease TTL"
    );
    assert_eq!(
        refusal(store.lease_grant(grant(1001, 60)).await),
        "FailedPrecondition | etcdserver: lease already exists"
    );
    let chosen = store.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap();
    assert!(chosen.id > 0);
    let leases = store.lease_leases().await.unwrap().leases;
    let ids: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
    for id in [1001, 1002, 1003, 1004, -7, chosen.id] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
    }
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn unknown_leases() {
    let store = open();
    assert_eq!(
        refusal(store.lease_revoke(LeaseRevokeRequest { id: 99 }).await),
        "NotFound | etcdserver: requested lease not found"
    );
    assert_eq!(ttl(&store, 99).await, (-1, 0, vec![]));
    assert_eq!(ttl(&store, 0).await, (-1, 0, vec![]));
    let kept = store.lease_keep_alive(99).await.unwrap();
    assert_eq!((kept.id, kept.ttl), (99, 0));
}

#[tokio::test]
async fn keys_are_attached_moved_and_detached() {
    for engine in ENGINES {
        let store = open_on(*engine);
        store.lease_grant(grant(1, 100)).await.unwrap();
        store.lease_grant(grant(2, 100)).await.unwrap();
        for key in ["l3", "l1", "l2"] {
            store.put(leased(key, "v", 1)).await.unwrap();
        }
        assert_eq!(ttl(&store, 1).await.2, ["l1", "l2", "l3"]);
        store.put(put("l1", "detached")).await.unwrap();
        store.put(leased("l2", "moved", 2)).await.unwrap();
        store.put(PutRequest { ignore_lease: true, ..put("l3", "kept") }).await.unwrap();
        assert_eq!(ttl(&store, 1).await.2, ["l3"]);
        assert_eq!(ttl(&store, 2).await.2, ["l2"]);
        store.delete_range(delete("l2")).await.unwrap();
        assert_eq!(ttl(&store, 2).await.2, [""; 0]);
    }
}

#[tokio::test]
async fn a_refused_transaction_attaches_nothing() {
    let store = open();
    store.lease_grant(grant(1, 100)).await.unwrap();
    let success = vec![
        op(Request::RequestPut(leased("a", "v", 1))),
        op(Request::RequestPut(leased("b", "v", 2))),
    ];
    let refused = store.txn(TxnRequest { success, ..Default::default() }).await;
    assert_eq!(refusal(refused), "NotFound | etcdserver: requested lease not found");
    assert_eq!(ttl(&store, 1).await.2, [""; 0]);
    assert_eq!(store.range(all()).await.unwrap().count, 0);
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_in_one_revision() {
    for engine in ENGINES {
        let store = open_on(*engine);
        store.lease_grant(grant(1, 100)).await.unwrap();
        for key in ["b", "a", "c"] {
            store.put(leased(key, "v", 1)).await.unwrap();
        }
        store.put(put("kept", "v")).await.unwrap();
        assert_eq!(revoke(&store, 1).await, 6, "revisions 2 to 5 were the puts");
        assert_eq!(keys(&store.range(all()).await.unwrap()), ["kept"]);
        store.lease_grant(grant(1, 100)).await.unwrap();
        assert_eq!(ttl(&store, 1).await.2, [""; 0], "a lease of the same id begins without keys");
        assert_eq!(revoke(&store, 1).await, 6, "without keys there is no revision");
    }
}

#[tokio::test]
async fn a_lease_expires_with_all_its_keys_at_once() {
    let store = open();
    store.lease_grant(grant(1, 2)).await.unwrap();
    store.put(leased("lx1", "v", 1)).await.unwrap();
    store.put(leased("lx2", "v", 1)).await.unwrap();
    assert_eq!(until_gone(&store, "lx1").await, 4);
    assert_eq!(store.range(all()).await.unwrap().count, 0);
    assert_eq!(ttl(&store, 1).await, (-1, 0, vec![]));
    assert_eq!(store.lease_keep_alive(1).await.unwrap().ttl, 0);
    let again = store.lease_grant(grant(1, 2)).await.unwrap();
    assert_eq!(again.ttl, 2, "the id is free again");
}

#[tokio::test]
async fn keep_alives_keep_a_lease_and_its_keys() {
    let store = open();
    store.lease_grant(grant(1, 2)).await.unwrap();
    store.lease_grant(grant(2, 2)).await.unwrap();
    store.put(leased("kept", "v", 1)).await.unwrap();
    store.put(leased("dropped", "v", 2)).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        assert_eq!(store.lease_keep_alive(1).await.unwrap().ttl, 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_gone(&store, "dropped").await;
    // Even after its remaining time was recorded (at half of it) a lease is renewed as a whole.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(store.lease_keep_alive(1).await.unwrap().ttl, 2);
    assert_eq!(keys(&store.range(all()).await.unwrap()), ["kept"]);
}

#[tokio::test]
async fn a_thousand_leases_expire_and_a_thousand_stay() {
    let store = open();
    let mut clients = tokio::task::JoinSet::new();
    for id in 1..=1000 {
        let store = store.store.clone();
        clients.spawn(async move {
            store.lease_grant(grant(-id, 600)).await.unwrap();
            store.put(leased(&format!("long/{id}"), "v", -id)).await.unwrap();
            store.lease_grant(grant(id, 2)).await.unwrap();
            store.put(leased(&format!("short/{id}"), "v", id)).await.unwrap();
        });
    }
    clients.join_all().await;
    for id in 1..=1000 {
        until_gone(&store, &format!("short/{id}")).await;
    }
    assert_eq!(store.range(all()).await.unwrap().count, 1000);
    let everything =
        DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    assert_eq!(store.delete_range(everything).await.unwrap().deleted, 1000);
}
