//! Watch streams over the wire: ids, history, progress, fragments, slow readers, compaction.

mod common;

use chronolith_proto::{
    etcdserverpb::{
        CompactionRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
        WatchProgressRequest, request_op::Request, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::event::EventType,
};
use common::{Node, get, prefix, put};
use std::time::Duration;

#[tokio::test]
async fn ids_are_chosen_as_etcd_chooses_them() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    assert_eq!(watch.create(prefix("w")).await.watch_id, 0);
    assert_eq!(watch.create(prefix("w")).await.watch_id, 1);
    watch.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    let cancelled = watch.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == 0, "{cancelled:?}");
    let twice = watch.create(WatchCreateRequest { watch_id: 1, ..prefix("w") }).await;
    assert!(twice.canceled && twice.watch_id == -1, "{twice:?}");
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let chosen = WatchCreateRequest { watch_id: 50, ..prefix("w") };
    assert_eq!(watch.create(chosen).await.watch_id, 50);
    assert_eq!(watch.create(prefix("w")).await.watch_id, 2);
}

#[tokio::test]
async fn unknown_cancels_and_empty_requests_are_met_with_silence() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    watch.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 9 }));
    watch.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    assert!(watch.is_silent().await);
}

#[tokio::test]
async fn a_range_that_holds_no_key_is_refused() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    let empty = WatchCreateRequest { range_end: "a".into(), ..prefix("b") };
    let refused = watch.create(empty).await;
    assert_eq!((refused.watch_id, refused.canceled), (-1, true));
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    let refused = watch.create(WatchCreateRequest { start_revision: -1, ..prefix("b") }).await;
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
}

#[tokio::test]
async fn history_comes_first_then_what_happens_now() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for value in ["1", "2", "3"] {
        kv.put(put("w", value)).await.unwrap();
    }
    let mut watch = node.watch().await;
    let from = WatchCreateRequest { start_revision: 3, prev_kv: true, ..prefix("w") };
    watch.create(from).await;
    kv.put(put("w", "4")).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.extend(watch.next().await.events);
    }
    let values: Vec<_> = heard
        .iter()
        .map(|event| {
            let (now, before) = (event.kv.as_ref().unwrap(), event.prev_kv.as_ref().unwrap());
            (now.mod_revision, now.value.clone(), before.value.clone())
        })
        .collect();
    let expected = [(3, "2", "1"), (4, "3", "2"), (5, "4", "3")];
    assert_eq!(values, expected.map(|(at, now, before)| (at, now.into(), before.into())));
}

#[tokio::test]
async fn filters_hide_puts_or_deletes() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    let no_puts = WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..prefix("w") };
    watch.create(no_puts).await;
    let mut kv = node.kv().await;
    kv.put(put("w", "1")).await.unwrap();
    let delete = chronolith_proto::etcdserverpb::DeleteRangeRequest {
        key: "w".into(),
        ..Default::default()
    };
    kv.delete_range(delete).await.unwrap();
    let heard = watch.next().await.events;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].r#type(), EventType::Delete);
}

#[tokio::test]
async fn progress_is_told_when_asked_for_and_behind_all_events() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let mut watch = node.watch().await;
    watch.create(prefix("w")).await;
    for round in 0..20 {
        kv.put(put("w", &round.to_string())).await.unwrap();
    }
    let last = kv.range(get("w")).await.unwrap().into_inner().header.unwrap().revision;
    watch.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let mut events = 0;
    let progress = loop {
        let answer = watch.next().await;
        match answer.events.len() {
            0 => break answer,
            more => events += more,
        }
    };
    assert_eq!((progress.watch_id, events), (-1, 20));
    assert_eq!(progress.header.unwrap().revision, last);
}

#[tokio::test]
async fn a_quiet_watch_is_told_its_progress_from_time_to_time() {
    let node = Node::start_with(|config| {
        config.watch_progress_interval = Duration::from_millis(50);
    })
    .await;
    let mut watch = node.watch().await;
    watch.create(WatchCreateRequest { progress_notify: true, ..prefix("w") }).await;
    let told = watch.next().await;
    assert_eq!((told.watch_id, told.events.len(), told.created), (0, 0, false));
    assert_eq!(told.header.unwrap().revision, 1);
}

#[tokio::test]
async fn a_large_transaction_is_fragmented_for_who_asked_for_it() {
    let node = Node::start_with(|config| config.limits.request_bytes_max = 64 * 1024).await;
    let limit = 64 * 1024 + 512 * 1024;
    let mut kv = node.kv().await;
    // One revision whose events, with previous values, exceed a message: two puts of 500 KB in all.
    let value = "x".repeat(60 * 1024);
    for round in 0..12 {
        kv.put(put(&format!("w{round:02}"), &value)).await.unwrap();
    }
    let delete = chronolith_proto::etcdserverpb::DeleteRangeRequest {
        key: "w".into(),
        range_end: "x".into(),
        ..Default::default()
    };
    let mut fragments = node.watch().await;
    let mut whole = node.watch().await;
    fragments.create(WatchCreateRequest { fragment: true, prev_kv: true, ..prefix("w") }).await;
    whole.create(WatchCreateRequest { prev_kv: true, ..prefix("w") }).await;
    kv.delete_range(delete).await.unwrap();
    assert_eq!(whole.next().await.events.len(), 12);
    let mut events = 0;
    loop {
        let answer = fragments.next().await;
        assert!(prost::Message::encoded_len(&answer) <= limit);
        events += answer.events.len();
        if !answer.fragment {
            break;
        }
        assert!(events < 12);
    }
    assert_eq!(events, 12);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_up_nobody() {
    let node = Node::start_with(|config| config.limits.watch_queue_bytes_max = 4096).await;
    let mut slow = node.watch().await;
    let mut fast = node.watch().await;
    slow.create(prefix("w")).await;
    fast.create(prefix("w")).await;
    let mut kv = node.kv().await;
    let value = "x".repeat(8 * 1024);
    // Far more than the transport's buffers and the queue hold.
    const PUTS: i64 = 400;
    for round in 0..PUTS {
        kv.put(put(&format!("w{round}"), &value)).await.unwrap();
    }
    for watch in [&mut fast, &mut slow] {
        let mut next = 2;
        while next < 2 + PUTS {
            for event in watch.next().await.events {
                assert_eq!(event.kv.unwrap().mod_revision, next);
                next += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_revision_is_never_split_and_never_out_of_order() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    watch.create(prefix("w")).await;
    let mut kv = node.kv().await;
    let put_op = |key: &str| RequestOp { request: Some(Request::RequestPut(put(key, "v"))) };
    let txn = TxnRequest {
        success: vec![put_op("w3"), put_op("w1"), put_op("w2")],
        ..TxnRequest::default()
    };
    kv.txn(txn).await.unwrap();
    let events = watch.next().await.events;
    let keys: Vec<_> = events.iter().map(|event| event.kv.clone().unwrap().key).collect();
    assert_eq!(keys, ["w3", "w1", "w2"]);
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_cancelled_and_told_where_to_start() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for value in ["1", "2", "3", "4"] {
        kv.put(put("w", value)).await.unwrap();
    }
    kv.compact(CompactionRequest { revision: 4, physical: false }).await.unwrap();
    let mut watch = node.watch().await;
    watch.create(WatchCreateRequest { start_revision: 2, ..prefix("w") }).await;
    let cancelled = watch.next().await;
    assert!(cancelled.canceled && !cancelled.created);
    assert_eq!((cancelled.compact_revision, cancelled.cancel_reason.as_str()), (4, ""));
    assert_eq!(cancelled.header.unwrap().revision, 0);
    let again = WatchCreateRequest { start_revision: 4, ..prefix("w") };
    watch.create(again).await;
    assert_eq!(watch.next().await.events.len(), 2);
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_more_still_hears() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    watch.create(prefix("w")).await;
    watch.half_close();
    node.kv().await.put(put("w", "v")).await.unwrap();
    assert_eq!(watch.next().await.events.len(), 1);
}

#[tokio::test]
async fn a_stream_has_room_for_so_many_watches() {
    let node = Node::start_with(|config| config.limits.watches_per_stream_max = 2).await;
    let mut watch = node.watch().await;
    watch.create(prefix("a")).await;
    watch.create(prefix("b")).await;
    let refused = watch.create(prefix("c")).await;
    assert!(refused.canceled && refused.watch_id == -1);
    assert_eq!(
        refused.cancel_reason,
        "chronolith: too many watches on this stream (limit 2, --max-watches-per-stream)"
    );
    watch.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    assert!(watch.next().await.canceled);
    assert!(!watch.create(prefix("c")).await.canceled, "a cancelled watch makes room");
}

#[tokio::test]
async fn watchers_leave_with_their_connection() {
    let node = Node::start().await;
    let mut watch = node.watch().await;
    watch.create(prefix("w")).await;
    assert_eq!(node.server.store().watch_hub().watchers(), 1);
    drop(watch);
    while node.server.store().watch_hub().watchers() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
