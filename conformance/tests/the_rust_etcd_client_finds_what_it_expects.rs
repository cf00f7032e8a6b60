//! The crate `etcd-client` against a node in this process; `CHRONOLITH_CONFORMANCE_ENDPOINT` names
//! another server instead (a fresh one: the tests count revisions only relative to each other).
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use chronolith_server::{Config, RunningServer, Server};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Generous, because test machines are shared; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    client: Client,
    /// Keys of one test, so that all of them can share a server.
    prefix: &'static str,
    server: Option<(RunningServer, TempDir)>,
}

impl Node {
    async fn start(prefix: &'static str) -> Node {
        if let Ok(endpoint) = std::env::var("CHRONOLITH_CONFORMANCE_ENDPOINT") {
            let client = Client::connect([endpoint], None).await.unwrap();
            return Node { client, prefix, server: None };
        }
        let directory = TempDir::new().unwrap();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            ..Config::new(directory.path().join("data"))
        };
        let server = Server::start(config).await.unwrap();
        let client = Client::connect([server.address().to_string()], None).await.unwrap();
        Node { client, prefix, server: Some((server, directory)) }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn put(&mut self, name: &str, value: &str) -> i64 {
        let answer = self.client.put(self.key(name), value, None).await.unwrap();
        answer.header().unwrap().revision()
    }

    async fn get(&mut self, name: &str) -> Option<String> {
        let answer = self.client.get(self.key(name), None).await.unwrap();
        answer.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
    }

    async fn stop(self) {
        drop(self.client);
        if let Some((server, _directory)) = self.server {
            server.shutdown().await;
        }
    }
}

#[tokio::test]
async fn it_puts_gets_lists_and_deletes() {
    let mut node = Node::start("kv").await;
    let first = node.put("a", "1").await;
    let options = PutOptions::new().with_prev_key();
    let answer = node.client.put(node.key("a"), "2", Some(options)).await.unwrap();
    assert_eq!(answer.header().unwrap().revision(), first + 1);
    assert_eq!(answer.prev_key().unwrap().value(), b"1");
    node.put("b", "3").await;

    let options = GetOptions::new().with_prefix().with_limit(1);
    let answer = node.client.get(node.key(""), Some(options)).await.unwrap();
    assert_eq!((answer.count(), answer.more()), (2, true));
    let kv = &answer.kvs()[0];
    assert_eq!((kv.value(), kv.version()), (b"2".as_slice(), 2));
    assert_eq!((kv.create_revision(), kv.mod_revision()), (first, first + 1));
    let options = GetOptions::new().with_revision(first);
    let answer = node.client.get(node.key("a"), Some(options)).await.unwrap();
    assert_eq!(answer.kvs()[0].value(), b"1");

    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let answer = node.client.delete(node.key(""), Some(options)).await.unwrap();
    assert_eq!((answer.deleted(), answer.prev_kvs().len()), (2, 2));
    assert_eq!(node.get("a").await, None);
    node.stop().await;
}

#[tokio::test]
async fn it_compares_and_swaps() {
    let mut node = Node::start("txn").await;
    node.put("a", "1").await;
    let swap = |from: &str, to: &str, key: &str| {
        Txn::new()
            .when([Compare::value(key, CompareOp::Equal, from)])
            .and_then([TxnOp::put(key, to, None)])
            .or_else([TxnOp::get(key, None)])
    };
    let key = node.key("a");
    assert!(node.client.txn(swap("1", "2", &key)).await.unwrap().succeeded());
    let lost = node.client.txn(swap("1", "3", &key)).await.unwrap();
    assert!(!lost.succeeded());
    let responses = lost.op_responses();
    let etcd_client::TxnOpResponse::Get(found) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!(found.kvs()[0].value(), b"2");
    node.stop().await;
}

#[tokio::test]
async fn it_watches_and_resumes() {
    let mut node = Node::start("watch").await;
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut watch = node.client.watch(node.key(""), Some(options)).await.unwrap();
    assert!(next(&mut watch).await.created());
    let first = node.put("a", "1").await;
    let event = next(&mut watch).await;
    assert_eq!(event.events()[0].kv().unwrap().mod_revision(), first);
    node.client.delete(node.key("a"), None).await.unwrap();
    let event = next(&mut watch).await;
    assert_eq!(event.events()[0].event_type(), EventType::Delete);
    assert_eq!(event.events()[0].prev_kv().unwrap().value(), b"1");
    watch.cancel(event.watch_id()).await.unwrap();
    assert!(next(&mut watch).await.canceled());

    let options = WatchOptions::new().with_prefix().with_start_revision(first);
    let mut again = node.client.watch(node.key(""), Some(options)).await.unwrap();
    assert!(next(&mut again).await.created());
    let kinds: Vec<_> =
        next(&mut again).await.events().iter().map(|event| event.event_type()).collect();
    assert_eq!(kinds, [EventType::Put, EventType::Delete]);
    drop((watch, again));
    node.stop().await;
}

async fn next(watch: &mut WatchStream) -> etcd_client::WatchResponse {
    timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn its_lease_is_kept_alive_and_revoked() {
    let mut node = Node::start("lease").await;
    let id = node.client.lease_grant(60, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(id);
    node.client.put(node.key("a"), "1", Some(options)).await.unwrap();
    let (mut keeper, mut answers) = node.client.lease_keep_alive(id).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 60);
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = node.client.lease_time_to_live(id, Some(options)).await.unwrap();
    assert_eq!((left.granted_ttl(), left.keys()), (60, [node.key("a").into_bytes()].as_slice()));
    let leases = node.client.leases().await.unwrap();
    assert!(leases.leases().iter().any(|lease| lease.id() == id));
    node.client.lease_revoke(id).await.unwrap();
    assert_eq!(node.get("a").await, None);
    assert_eq!(node.client.lease_time_to_live(id, None).await.unwrap().ttl(), -1);
    drop((keeper, answers));
    node.stop().await;
}

#[tokio::test]
async fn it_compacts_and_is_told_what_is_gone() {
    let mut node = Node::start("compaction").await;
    let first = node.put("a", "1").await;
    let second = node.put("a", "2").await;
    node.client.compact(second, None).await.unwrap();
    let options = GetOptions::new().with_revision(first);
    let Err(Error::GRpcStatus(status)) = node.client.get(node.key("a"), Some(options)).await else {
        panic!("a compacted revision was read");
    };
    assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(node.get("a").await.as_deref(), Some("2"));
    node.stop().await;
}

#[tokio::test]
async fn it_sees_a_member_that_leads_itself() {
    let mut node = Node::start("cluster").await;
    let status = node.client.status().await.unwrap();
    assert!(status.version().starts_with("3."));
    let members = node.client.member_list().await.unwrap();
    assert_eq!(members.members().len(), 1);
    assert_eq!(members.members()[0].id(), status.leader());
    node.stop().await;
}
