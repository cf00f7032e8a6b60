//! What is soon read is read where it is asked for; the rest on threads of its own, so many at once.

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{RangeRequest, TxnRequest, request_op::Request};
use common::*;
use std::{sync::mpsc, thread, time::Duration};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long silence has to last to count as silence.
const SILENCE: Duration = Duration::from_millis(100);

/// Keys in transactions of 100.
async fn fill(store: &Open, keys: usize) {
    let numbers: Vec<usize> = (0..keys).collect();
    for batch in numbers.chunks(100) {
        let puts = batch.iter().map(|number| put(&format!("k{number:06}"), "value"));
        let success = puts.map(|put| op(Request::RequestPut(put))).collect();
        store.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    }
}

fn of_txn(range: RangeRequest) -> TxnRequest {
    TxnRequest { success: vec![op(Request::RequestRange(range))], ..Default::default() }
}

/// Whether the answer to a range was made on this thread, and the number of its keys.
async fn is_made_here(store: &Open, request: RangeRequest) -> (bool, usize) {
    let here = thread::current().id();
    let then = move |response: chronolith_proto::etcdserverpb::RangeResponse| {
        (thread::current().id() == here, response.kvs.len())
    };
    store.range_then(request, then).await.unwrap()
}

#[tokio::test]
async fn a_short_range_is_read_here_and_a_long_one_elsewhere() {
    for engine in ENGINES {
        let store = open_on(*engine);
        fill(&store, 3_000).await;
        assert_eq!(is_made_here(&store, get("k000007")).await, (true, 1));
        let some = RangeRequest { key: "k0000".into(), range_end: "k0001".into(), ..all() };
        assert_eq!(is_made_here(&store, some.clone()).await, (true, 100));
        assert_eq!(is_made_here(&store, all()).await, (false, 3_000));
        // A page of many: the first count goes over all keys, the later ones know their blocks.
        let page = RangeRequest { limit: 10, ..all() };
        assert_eq!(is_made_here(&store, page.clone()).await, (false, 10));
        assert_eq!(is_made_here(&store, page).await, (true, 10));
        let here = thread::current().id();
        let is_here = move |_| thread::current().id() == here;
        assert!(store.txn_then(of_txn(get("k000007")), is_here).await.unwrap());
        assert!(!store.txn_then(of_txn(some), is_here).await.unwrap());
    }
}

#[tokio::test]
async fn the_thread_that_asks_goes_on_while_a_long_range_is_read() {
    let store = open();
    fill(&store, 2_000).await;
    let (release, released) = mpsc::channel::<()>();
    let reading = store.range_then(all(), move |response| {
        released.recv().unwrap();
        response.count
    });
    tokio::pin!(reading);
    assert!(timeout(SILENCE, &mut reading).await.is_err(), "it is not let go yet");
    // On this very thread, the only one that this test has.
    store.put(put("small", "put")).await.unwrap();
    release.send(()).unwrap();
    assert_eq!(timeout(PATIENCE, reading).await.unwrap().unwrap(), 2_000);
}

#[tokio::test]
async fn a_long_range_waits_for_a_place_and_gets_it_when_another_is_given_up() {
    let store = open();
    fill(&store, 2_000).await;
    let mut held = Vec::new();
    let mut releases = Vec::new();
    for _ in 0..4 {
        let (release, released) = mpsc::channel::<()>();
        releases.push(release);
        let store = store.store.clone();
        held.push(tokio::spawn(async move {
            store.range_then(all(), move |_| released.recv().unwrap_or(())).await
        }));
    }
    tokio::time::sleep(SILENCE).await;
    let fifth = store.range(all());
    tokio::pin!(fifth);
    assert!(timeout(SILENCE, &mut fifth).await.is_err(), "all places are taken");
    assert_eq!(store.range(get("k000007")).await.unwrap().count, 1);
    drop(releases.pop());
    assert_eq!(timeout(PATIENCE, fifth).await.unwrap().unwrap().count, 2_000);
    drop(releases);
    for reading in held {
        timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_panics_is_told_of_and_gives_its_place_back() {
    let store = open();
    fill(&store, 2_000).await;
    for _ in 0..10 {
        let told = store.range_then(all(), |_| panic!("a bug in the code of a request")).await;
        let told: Result<(), _> = told;
        assert_eq!(refusal(told), "Internal | chronolith: a reading thread panicked: see the log");
    }
    assert_eq!(store.range(all()).await.unwrap().count, 2_000);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused_and_a_page_of_it_is_given() {
    for engine in ENGINES {
        let store = open_with(|config| {
            config.engine = *engine;
            config.limits.max_response_bytes = 20_000;
        });
        fill(&store, 2_000).await;
        const REFUSED: &str = "ResourceExhausted | grpc: trying to send message larger than max \
            (more than 20000 bytes): ask for the range in pages, with a limit and from behind the last \
            key of the page before";
        assert_eq!(refusal(store.range(all()).await), REFUSED);
        assert_eq!(refusal(store.txn(of_txn(all())).await), REFUSED);
        let page = store.range(RangeRequest { limit: 500, ..all() }).await.unwrap();
        assert_eq!((page.kvs.len(), page.count, page.more), (500, 2_000, true));
        let counted = store.range(RangeRequest { count_only: true, ..all() }).await.unwrap();
        assert_eq!(counted.count, 2_000);
    }
}
