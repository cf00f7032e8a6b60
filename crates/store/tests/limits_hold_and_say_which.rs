//! Every limit is reached, answers with its own error, and lets go again.

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, MemberListRequest, PutRequest,
    TxnRequest, alarm_request::AlarmAction, request_op::Request,
};
use chronolith_store::{Limits, Store};
use common::*;

const NO_SPACE: &str = "ResourceExhausted | etcdserver: mvcc: database space exceeded";

fn alarm(action: AlarmAction, alarm: AlarmType, member_id: u64) -> AlarmRequest {
    AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 }
}

async fn alarms(store: &Store) -> Vec<(u64, AlarmType)> {
    let request = alarm(AlarmAction::Get, AlarmType::None, 0);
    let answer = store.alarm(request).await.unwrap();
    answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect()
}

async fn member(store: &Store) -> u64 {
    store.member_list(MemberListRequest::default()).await.unwrap().members[0].id
}

#[tokio::test]
async fn under_the_space_alarm_only_what_frees_space_is_done() {
    for engine in ENGINES {
        let store = open_on(*engine);
        let member = member(&store).await;
        store.put(put("a", "1")).await.unwrap();
        store.put(put("b", "1")).await.unwrap();
        let raised =
            store.alarm(alarm(AlarmAction::Activate, AlarmType::Nospace, member)).await.unwrap();
        assert_eq!(raised.alarms.len(), 1);
        assert_eq!(refusal(store.put(put("c", "1")).await), NO_SPACE);
        let nested = TxnRequest {
            success: vec![op(Request::RequestPut(put("c", "1")))],
            ..Default::default()
        };
        let nested =
            TxnRequest { failure: vec![op(Request::RequestTxn(nested))], ..Default::default() };
        assert_eq!(refusal(store.txn(nested).await), NO_SPACE);
        assert_eq!(refusal(store.lease_grant(grant(1, 60)).await), NO_SPACE);
        assert_eq!(store.delete_range(delete("a")).await.unwrap().deleted, 1);
        let delete = DeleteRangeRequest { key: "b".into(), ..Default::default() };
        let deletes = TxnRequest {
            success: vec![op(Request::RequestDeleteRange(delete))],
            ..Default::default()
        };
        store.txn(deletes).await.unwrap();
        store.compact(CompactionRequest { revision: 3, physical: true }).await.unwrap();
        assert_eq!(store.range(all()).await.unwrap().count, 0);
        let errors = store.status().await.unwrap().errors;
        assert_eq!(errors, [format!("memberID:{member} alarm:NOSPACE ")]);
        let ended =
            store.alarm(alarm(AlarmAction::Deactivate, AlarmType::Nospace, member)).await.unwrap();
        assert_eq!(ended.alarms.len(), 1);
        let none =
            store.alarm(alarm(AlarmAction::Deactivate, AlarmType::Nospace, member)).await.unwrap();
        assert_eq!(none.alarms.len(), 0, "it was off already");
        store.put(put("c", "1")).await.unwrap();
        assert_eq!(store.status().await.unwrap().errors, [""; 0]);
    }
}

#[tokio::test]
async fn the_quota_raises_the_alarm_and_space_comes_back() {
    let quota = 1 << 20;
    let store = open_with(|config| config.limits.quota_backend_bytes = quota);
    let member = member(&store).await;
    let mut written = 0;
    let refused = loop {
        let request = PutRequest { value: vec![b'v'; 10_000].into(), ..put("same key", "") };
        match store.put(request).await {
            Ok(_) => written += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(refused, "etcdserver: mvcc: database space exceeded");
    assert!((80..110).contains(&written), "{written} versions of 10 kB");
    while alarms(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(alarms(&store).await, [(member, AlarmType::Nospace)]);
    let used = store.status().await.unwrap();
    assert!(used.db_size <= used.db_size_quota && used.db_size > used.db_size_quota / 2);
    let revision = store.header().revision;
    store.compact(CompactionRequest { revision, physical: true }).await.unwrap();
    assert!(store.status().await.unwrap().db_size < 100_000, "what is superseded is gone");
    assert_eq!(refusal(store.put(put("k", "v")).await), NO_SPACE);
    store.alarm(alarm(AlarmAction::Deactivate, AlarmType::Nospace, member)).await.unwrap();
    store.put(put("k", "v")).await.unwrap();
}

#[tokio::test]
async fn under_the_corruption_alarm_nothing_is_served() {
    let store = open();
    store.put(put("a", "1")).await.unwrap();
    store.alarm(alarm(AlarmAction::Activate, AlarmType::Corrupt, 7)).await.unwrap();
    let corrupt = "DataLoss | etcdserver: corrupt cluster";
    assert_eq!(refusal(store.put(put("a", "2")).await), corrupt);
    assert_eq!(refusal(store.range(get("a")).await), corrupt);
    assert_eq!(refusal(store.delete_range(delete("a")).await), corrupt);
    assert_eq!(store.health().unwrap_err().to_string(), "etcdserver: corrupt cluster");
    store.alarm(alarm(AlarmAction::Deactivate, AlarmType::Corrupt, 7)).await.unwrap();
    assert_eq!(values(&store.range(get("a")).await.unwrap()), [("a".into(), "1".into())]);
    store.health().unwrap();
}

#[tokio::test]
async fn no_more_requests_wait_than_may() {
    let limits = Limits { max_requests_in_flight: 3, ..Limits::default() };
    let store = open_with(|config| config.limits = limits);
    let too_many = "ResourceExhausted | etcdserver: too many requests";
    // Polled once, a put is admitted and waits for the log, unless the log was quicker; and it keeps its
    // place until it is polled again.
    let mut waiting = Vec::new();
    while waiting.len() < 3 {
        let mut request = Box::pin(store.put(put("k", "v")));
        if poll_once(request.as_mut()).is_none() {
            waiting.push(request);
        }
    }
    assert_eq!(refusal(store.put(put("k", "v")).await), too_many);
    assert_eq!(refusal(store.range(get("k")).await), too_many);
    for request in waiting {
        request.await.unwrap();
    }
    assert!(store.range(get("k")).await.unwrap().kvs[0].version >= 3);
}

/// Polls once.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn after_shutdown_requests_are_refused_and_the_directory_is_free() {
    let Open { store, dir } = open();
    store.put(put("a", "1")).await.unwrap();
    store.shutdown().await;
    store.shutdown().await;
    let stopped = "Unavailable | etcdserver: server stopped";
    assert_eq!(refusal(store.put(put("a", "2")).await), stopped);
    assert_eq!(refusal(store.range(get("a")).await), stopped);
    let config = chronolith_store::StoreConfig::new(dir.path().join("data"));
    Store::open(config).unwrap();
}

#[tokio::test]
async fn a_request_that_waits_for_work_ends_with_the_store() {
    let store = open();
    for number in 0..20 {
        store.put(put("k", &number.to_string())).await.unwrap();
    }
    let compact = |revision| CompactionRequest { revision, physical: true };
    let waiting = {
        let store = store.store.clone();
        async move { store.compact(compact(10)).await }
    };
    let waiting = tokio::spawn(waiting);
    tokio::task::yield_now().await;
    store.shutdown().await;
    // Done or refused, according to how far it got; never left waiting.
    if let Err(error) = waiting.await.unwrap() {
        assert_eq!(error.to_string(), "etcdserver: server stopped");
    }
}
