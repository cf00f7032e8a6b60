//! The way of a request through the server: messages, codes and texts on the wire.

mod common;

use bytes::Bytes;
use chronolith_proto::etcdserverpb::{
    HashKvRequest, PutRequest, maintenance_client::MaintenanceClient,
};
use common::{Node, get, put};
use tonic::Code;

#[tokio::test]
async fn what_was_put_is_there() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let written = kv.put(put("k", "v")).await.unwrap().into_inner();
    let found = kv.range(get("k")).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "v");
    assert_eq!(found.kvs[0].mod_revision, written.header.unwrap().revision);
}

#[tokio::test]
async fn many_clients_on_one_connection_each_get_their_own_answer() {
    let node = Node::start().await;
    let kv = node.kv().await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..50 {
        let mut kv = kv.clone();
        clients.spawn(async move {
            for round in 0..20 {
                let (key, value) = (format!("k{client}"), format!("{client}-{round}"));
                kv.put(put(&key, &value)).await.unwrap();
                let found = kv.range(get(&key)).await.unwrap().into_inner();
                assert_eq!(found.kvs[0].value, value);
                assert_eq!(found.kvs[0].version, round + 1);
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn a_message_in_many_frames_arrives_whole() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let value: Vec<u8> = (0..1_500_000u32).map(|at| at as u8).collect();
    let request = PutRequest { value: value.clone().into(), ..put("big", "") };
    kv.put(request).await.unwrap();
    let found = kv.range(get("big")).await.unwrap().into_inner();
    assert!(found.kvs[0].value == value, "{} bytes came back", found.kvs[0].value.len());
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_in_the_words_of_grpc() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let request = PutRequest { value: Bytes::from(vec![0; 2_187_264]), ..put("big", "") };
    let refused = kv.put(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "grpc: received message larger than max (2187274 vs. 2097152)");
    kv.put(put("k", "the connection still works")).await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_store_keeps_its_code_and_text() {
    let node = Node::start().await;
    let refused = node.kv().await.put(put("", "v")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: key is not provided");
}

#[tokio::test]
async fn the_hash_changes_with_the_data_and_knows_its_revision() {
    let node = Node::start().await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    let mut hash = async |revision| maintenance.hash_kv(HashKvRequest { revision }).await;
    let before = hash(0).await.unwrap().into_inner();
    node.kv().await.put(put("k", "v")).await.unwrap();
    let after = hash(0).await.unwrap().into_inner();
    assert_ne!(before.hash, after.hash);
    assert_eq!(after.hash_revision, 2);
    let future = hash(9).await.unwrap_err();
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
}
