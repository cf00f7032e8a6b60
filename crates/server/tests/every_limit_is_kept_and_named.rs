//! Each limit, reached; and what a client hears there.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use bytes::{BufMut, Bytes, BytesMut};
use chronolith_proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use common::{Node, PATIENCE, SILENCE, get, prefix, put};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tonic::Code;

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let node = Node::start_with(|config| config.limits.connections_max = 2).await;
    let mut first = node.kv().await;
    let mut second = node.kv().await;
    first.put(put("a", "1")).await.unwrap();
    second.put(put("a", "2")).await.unwrap();
    let third = node.http("GET", "/livez");
    tokio::pin!(third);
    assert!(timeout(SILENCE, &mut third).await.is_err(), "it has to wait");
    drop(first);
    assert_eq!(timeout(PATIENCE, third).await.unwrap().0, 200);
}

#[tokio::test]
async fn requests_beyond_the_limit_in_flight_are_refused() {
    let node = Node::start_with(|config| config.limits.requests_in_flight_max = 1).await;
    let kv = node.kv().await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..200 {
        let mut kv = kv.clone();
        clients.spawn(async move { kv.put(put(&format!("k{client}"), "v")).await });
    }
    let (done, refused): (Vec<_>, Vec<_>) =
        clients.join_all().await.into_iter().partition(Result::is_ok);
    assert!(!done.is_empty() && !refused.is_empty(), "{} done", done.len());
    for status in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "chronolith: too many requests in flight (limit 1, --max-requests-in-flight)"
        );
    }
    let (_, _, metrics) = node.http("GET", "/metrics").await;
    assert!(metrics.contains("\nchronolith_server_requests_in_flight 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_proposal_beyond_the_limit_is_refused_in_etcds_words() {
    let node = Node::start_with(|config| config.limits.request_bytes_max = 1024).await;
    let refused = node.kv().await.put(put("k", &"x".repeat(2_000))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: request is too large");
}

/// A connection without a client library in the way.
struct Raw {
    client: h2::client::SendRequest<Bytes>,
}

impl Raw {
    async fn connect(node: &Node) -> Self {
        let socket = TcpStream::connect(node.server.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Raw { client: client.ready().await.unwrap() }
    }

    /// Opens a Put; the body is the caller's to send.
    fn put(&mut self) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let request = http::Request::post("http://x/etcdserverpb.KV/Put")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        self.client.send_request(request, false).unwrap()
    }
}

fn message(put: &PutRequest) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(prost::Message::encoded_len(put)).unwrap());
    prost::Message::encode(put, &mut out).unwrap();
    out.freeze()
}

#[tokio::test]
async fn incomplete_requests_are_held_up_to_a_budget() {
    let node = Node::start_with(|config| config.limits.receive_bytes_max = 20_000).await;
    let mut raw = Raw::connect(&node).await;
    let whole = message(&put("k", &"x".repeat(15_000)));
    let (first, mut first_body) = raw.put();
    first_body.send_data(whole.slice(..10), false).unwrap();
    // The first one's bytes have to be counted before the second one's arrive.
    tokio::time::sleep(SILENCE).await;
    let (second, mut second_body) = raw.put();
    second_body.send_data(whole.slice(..10), false).unwrap();
    let refused = timeout(PATIENCE, second).await.unwrap().unwrap();
    assert_eq!(refused.headers()["grpc-status"], "8");
    assert_eq!(
        refused.headers()["grpc-message"],
        "chronolith: too many request bytes being received (limit 20000, --max-receive-bytes)"
    );
    first_body.send_data(whole.slice(10..), true).unwrap();
    let answered = timeout(PATIENCE, first).await.unwrap().unwrap();
    assert!(!answered.headers().contains_key("grpc-status"), "{answered:?}");
    let found = node.kv().await.range(get("k")).await.unwrap().into_inner();
    assert_eq!(found.count, 1);
}

#[tokio::test]
async fn a_connection_has_room_for_so_many_streams() {
    let node = Node::start_with(|config| config.limits.streams_per_connection_max = 3).await;
    let mut raw = Raw::connect(&node).await;
    // The server's settings have to arrive first.
    tokio::time::sleep(SILENCE).await;
    let open: Vec<_> = (0..3).map(|_| raw.put()).collect();
    let (mut fourth, mut body) = raw.put();
    body.send_data(message(&put("k", "v")), true).unwrap();
    assert!(timeout(SILENCE, &mut fourth).await.is_err(), "a fourth stream has to wait");
    drop(open);
    timeout(PATIENCE, fourth).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let node = Node::start_with(|config| config.limits.receive_bytes_max = 20_000).await;
    let whole = message(&put("k", &"x".repeat(15_000)));
    for _ in 0..5 {
        let mut raw = Raw::connect(&node).await;
        let (_, mut body) = raw.put();
        body.send_data(whole.slice(..10), false).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // All their bytes were given back: there is room for a whole request in many frames.
    let mut raw = Raw::connect(&node).await;
    let (answer, mut body) = raw.put();
    body.send_data(whole.slice(..10), false).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    body.send_data(whole.slice(10..), true).unwrap();
    let answered = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert!(!answered.headers().contains_key("grpc-status"), "{answered:?}");
}

#[tokio::test]
async fn a_slow_reader_is_not_buffered_for_without_end() {
    let node = Node::start_with(|config| config.limits.watch_queue_bytes_max = 4096).await;
    let mut slow = node.watch().await;
    slow.create(prefix("w")).await;
    let mut kv = node.kv().await;
    let value = "x".repeat(64 * 1024);
    for round in 0..100 {
        kv.put(put(&format!("w{round}"), &value)).await.unwrap();
    }
    let hub = node.server.store().watch_hub();
    assert_eq!(hub.watchers(), 1, "it lags, and stays");
}

/// All keys.
fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused_before_it_is_made() {
    let node = Node::start_with(|config| config.limits.response_bytes_max = 100_000).await;
    let mut kv = node.kv().await;
    for number in 0..150 {
        kv.put(put(&format!("k{number:03}"), &"x".repeat(1_000))).await.unwrap();
    }
    let refused = kv.range(all()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.message(),
        "grpc: trying to send message larger than max (more than 100000 bytes): ask for the range in \
         pages, with a limit and from behind the last key of the page before"
    );
    let page = kv.range(RangeRequest { limit: 90, ..all() }).await.unwrap().into_inner();
    assert!(page.kvs.len() == 90 && page.more && page.count == 150);
    let keys = kv.range(RangeRequest { keys_only: true, ..all() }).await.unwrap().into_inner();
    assert_eq!(keys.kvs.len(), 150);
    // One that writes is carried out, and its answer is what cannot be sent.
    let range = RequestOp { request: Some(Request::RequestRange(all())) };
    let write = RequestOp { request: Some(Request::RequestPut(put("written", "yes"))) };
    let txn = TxnRequest { success: vec![range, write], ..TxnRequest::default() };
    let refused = kv.txn(txn).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("grpc: trying to send message larger than max (15"));
    assert!(refused.message().ends_with(" vs. 100000)"), "{}", refused.message());
    assert_eq!(kv.range(get("written")).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn a_range_of_many_keys_arrives_whole() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for batch in 0..30 {
        let put = |number: usize| {
            let put = put(&format!("k{batch:03}{number:03}"), &"x".repeat(500));
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (0..100).map(put).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
    let found = kv.range(all()).await.unwrap().into_inner();
    assert_eq!((found.kvs.len(), found.count, found.more), (3_000, 3_000, false));
    assert!(found.kvs.is_sorted_by(|a, b| a.key < b.key));
    assert!(found.kvs.iter().all(|kv| kv.value.len() == 500));
    assert_eq!(found.header.unwrap().revision, 31);
}
