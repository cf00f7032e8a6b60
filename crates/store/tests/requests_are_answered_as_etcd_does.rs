//! The store's part of etcd's answers: headers, codes, texts, limits. (What mvcc answers is tested there.)

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, ResponseHeader, TxnRequest,
    request_op::Request, response_op::Response,
};
use common::*;

fn puts(keys: &[&str]) -> Vec<chronolith_proto::etcdserverpb::RequestOp> {
    keys.iter().map(|key| op(Request::RequestPut(put(key, "v")))).collect()
}

#[tokio::test]
async fn revisions_and_headers() {
    let store = open();
    let fresh = store.range(get("a")).await.unwrap().header.unwrap();
    assert_eq!(fresh.revision, 1);
    assert!(fresh.cluster_id != 0 && fresh.member_id != 0 && fresh.raft_term != 0, "{fresh:?}");
    let written = store.put(put("a", "1")).await.unwrap().header.unwrap();
    assert_eq!(written, ResponseHeader { revision: 2, ..fresh });
    let again = PutRequest { prev_kv: true, ..put("a", "2") };
    let again = store.put(again).await.unwrap();
    assert_eq!((again.header.unwrap().revision, &again.prev_kv.unwrap().value[..]), (3, &b"1"[..]));
    let missing = store.delete_range(delete("nothing")).await.unwrap();
    assert_eq!((missing.header.unwrap().revision, missing.deleted), (3, 0));
    let gone = DeleteRangeRequest { prev_kv: true, ..delete("a") };
    let gone = store.delete_range(gone).await.unwrap();
    assert_eq!((gone.header.unwrap().revision, gone.deleted, gone.prev_kvs.len()), (4, 1, 1));
    let found = store.range(RangeRequest { serializable: true, ..get("a") }).await.unwrap();
    assert_eq!((found.header.unwrap().revision, found.count), (4, 0));
}

#[tokio::test]
async fn a_transaction_has_one_revision_and_headers_inside() {
    let store = open();
    let success = puts(&["t1", "t2", "t3"]);
    let answer = store.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 2);
    for response in answer.responses {
        let Some(Response::ResponsePut(put)) = response.response else { panic!("a put went in") };
        let inner = ResponseHeader { revision: 2, ..Default::default() };
        assert_eq!(put.header, Some(inner), "only the revision inside");
    }
    let reads = vec![op(Request::RequestRange(get("t1")))];
    let answer = store.txn(TxnRequest { success: reads, ..Default::default() }).await.unwrap();
    assert_eq!(answer.header.unwrap().revision, 2);
    assert_ne!(answer.header.unwrap().member_id, 0);
}

#[tokio::test]
async fn refusals_have_etcds_codes_and_texts() {
    let store = open();
    let no_key = "InvalidArgument | etcdserver: key is not provided";
    assert_eq!(refusal(store.range(get("")).await), no_key);
    assert_eq!(refusal(store.put(put("", "v")).await), no_key);
    assert_eq!(refusal(store.delete_range(delete("")).await), no_key);
    let twice = TxnRequest { success: puts(&["a", "a"]), ..Default::default() };
    assert_eq!(
        refusal(store.txn(twice).await),
        "InvalidArgument | etcdserver: duplicate key given in txn request"
    );
    let names: Vec<String> = (0..129).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = |count| TxnRequest { success: puts(&names[..count]), ..Default::default() };
    assert_eq!(
        refusal(store.txn(many(129)).await),
        "InvalidArgument | etcdserver: too many operations in txn request"
    );
    store.txn(many(128)).await.unwrap();
    assert_eq!(
        refusal(store.put(leased("a", "v", 42)).await),
        "NotFound | etcdserver: requested lease not found"
    );
    let missing = PutRequest { ignore_value: true, ..put("missing", "") };
    assert_eq!(refusal(store.put(missing).await), "InvalidArgument | etcdserver: key not found");
    let future = RangeRequest { revision: 1000, ..get("a") };
    let future_text = "OutOfRange | etcdserver: mvcc: required revision is a future revision";
    assert_eq!(refusal(store.range(future).await), future_text);
    let compact = |revision| CompactionRequest { revision, ..Default::default() };
    assert_eq!(refusal(store.compact(compact(1000)).await), future_text);
    store.compact(compact(2)).await.unwrap();
    assert_eq!(
        refusal(store.compact(compact(2)).await),
        "OutOfRange | etcdserver: mvcc: required revision has been compacted"
    );
}

#[tokio::test]
async fn the_limit_on_a_request_is_etcds() {
    let store = open();
    let sized = |bytes: usize| PutRequest {
        key: "big".into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    };
    store.put(sized(1_048_576)).await.unwrap();
    store.put(sized(1_572_664)).await.unwrap();
    assert_eq!(
        refusal(store.put(sized(1_572_864)).await),
        "InvalidArgument | etcdserver: request is too large"
    );
}
