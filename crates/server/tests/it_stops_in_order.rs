//! Shutting down: clients are told, requests finish, nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, lease_client::LeaseClient,
};
use common::{Node, PATIENCE, prefix, put};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, time::timeout};
use tonic::Code;

#[tokio::test]
async fn streams_are_ended_with_etcds_word_for_it() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    watch.create(prefix("w")).await;
    let stopping = tokio::spawn(node.server.shutdown());
    let ended = timeout(PATIENCE, watch.answers.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(ended.message(), "etcdserver: server stopped");
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_clients_do_not_hold_it_up() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    kv.put(put("k", "v")).await.unwrap();
    let address = node.server.address();
    timeout(PATIENCE, node.server.shutdown()).await.unwrap();
    kv.put(put("k", "v")).await.unwrap_err();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_client_that_never_spoke_does_not_hold_it_up() {
    let node = Node::start_with(|config| config.drain_timeout = 2 * PATIENCE).await;
    let silent = tokio::net::TcpStream::connect(node.server.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    timeout(PATIENCE, node.server.shutdown()).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_client_that_never_lets_go_is_cut_off_in_the_end() {
    let node = Node::start_with(|config| {
        config.drain_timeout = Duration::from_millis(50);
    })
    .await;
    let mut half = tokio::net::TcpStream::connect(node.server.address()).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    timeout(PATIENCE, node.server.shutdown()).await.unwrap();
    drop(half);
}

#[tokio::test]
async fn keep_alives_are_answered_in_order_until_the_client_is_done() {
    let node = Node::start().await;
    let mut leases = LeaseClient::new(node.channel().await);
    leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    let requests = [7, 99, 7].map(|id| LeaseKeepAliveRequest { id });
    let answers = leases.lease_keep_alive(tokio_stream::iter(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    let mut heard = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        heard.push((answer.id, answer.ttl));
    }
    assert_eq!(heard, [(7, 60), (99, 0), (7, 60)]);
    node.server.shutdown().await;
}
