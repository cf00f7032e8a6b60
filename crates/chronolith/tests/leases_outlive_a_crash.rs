//! Leases are part of what is stored: after a kill -9 they hold their keys, and still run out.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::lease_client::LeaseClient;
use chronolith_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use support::{ENGINES, Node, PATIENCE, Program};

/// etcd's floor for a single node is two seconds; more than that would only make the test slower.
const SHORT_SECONDS: i64 = 2;
const LONG_SECONDS: i64 = 3600;

async fn grant(node: &Node, id: i64, ttl: i64) {
    let mut leases = LeaseClient::new(node.channel());
    leases.lease_grant(LeaseGrantRequest { ttl, id }).await.unwrap();
}

async fn put(node: &Node, key: &str, lease: i64) {
    let request = PutRequest { key: key.to_owned().into(), lease, ..Default::default() };
    KvClient::new(node.channel()).put(request).await.unwrap();
}

async fn is_there(node: &Node, key: &str) -> bool {
    let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    KvClient::new(node.channel()).range(request).await.unwrap().into_inner().count == 1
}

/// Granted seconds and keys; none when there is no such lease.
async fn lease(node: &Node, id: i64) -> Option<(i64, Vec<bytes::Bytes>)> {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let answer = LeaseClient::new(node.channel()).lease_time_to_live(request).await.unwrap();
    let answer = answer.into_inner();
    (answer.ttl >= 0).then_some((answer.granted_ttl, answer.keys))
}

async fn hold_and_run_out(engine: &'static str) {
    let mut node = Node::start(Program::Chronolith { engine });
    grant(&node, 1, LONG_SECONDS).await;
    put(&node, "long", 1).await;
    grant(&node, 2, SHORT_SECONDS).await;
    put(&node, "short", 2).await;
    grant(&node, 3, LONG_SECONDS).await;
    put(&node, "revoked", 3).await;
    let mut leases = LeaseClient::new(node.channel());
    leases.lease_revoke(LeaseRevokeRequest { id: 3 }).await.unwrap();

    node.kill();
    node.restart();
    assert_eq!(lease(&node, 1).await, Some((LONG_SECONDS, vec!["long".into()])));
    assert_eq!(lease(&node, 3).await, None, "a revoked lease came back");
    assert!(!is_there(&node, "revoked").await);
    let start = Instant::now();
    while is_there(&node, "short").await {
        assert!(start.elapsed() < PATIENCE, "the lease does not run out");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(lease(&node, 2).await, None);
    assert!(is_there(&node, "long").await);

    node.kill();
    node.restart();
    assert!(!is_there(&node, "short").await, "an expired key came back");
    assert_eq!(lease(&node, 2).await, None, "an expired lease came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_engine() {
    for engine in ENGINES {
        hold_and_run_out(engine).await;
    }
}
