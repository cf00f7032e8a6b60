//! The reference's section "watch", and what its "compaction" says about watches.
#![allow(clippy::unwrap_used)]

mod fixture;

use bytes::Bytes;
use chronolith_mvcc::{CatchUpLimits, WatchHub, WatchSpec};
use chronolith_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::Event,
};
use fixture::{Store, delete, op, put, txn, watcher::Watcher};
use prost::Message;
use std::sync::Arc;

fn hub(store: &Store) -> Arc<WatchHub> {
    Arc::clone(store.mvcc.reader().watch_hub())
}

fn watch(store: &Store, change: impl FnOnce(&mut WatchSpec)) -> Watcher {
    let mut spec = WatchSpec { key: "w".into(), range_end: "x".into(), ..Default::default() };
    change(&mut spec);
    Watcher::new(&hub(store), spec, usize::MAX)
}

/// `PUT key=value +modified-version(previous value)`, revisions counted from `base`.
fn say(event: &Event, base: i64) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let kv = event.kv.as_ref().unwrap();
    let prev = event.prev_kv.as_ref().map(|kv| format!("({})", text(&kv.value)));
    let what = format!("{} {}", event.r#type().as_str_name(), text(&kv.key));
    let value = if kv.version == 0 { String::new() } else { format!("={}", text(&kv.value)) };
    format!("{what}{value} +{}-{}{}", kv.mod_revision - base, kv.version, prev.unwrap_or_default())
}

fn heard(store: &Store, watcher: &mut Watcher, base: i64) -> Vec<String> {
    watcher.sync(&hub(store), &CatchUpLimits::default());
    watcher.heard.drain(..).map(|event| say(&event, base)).collect()
}

/// What the transcript does: w1=a, w1=b, delete w1, {w2, w1}, {w3, delete w1..w3}.
fn transcript(store: &mut Store) {
    let steps: [&dyn Fn(&mut Store); 5] = [
        &|store| drop(store.put(put("w1", "a")).unwrap()),
        &|store| drop(store.put(put("w1", "b")).unwrap()),
        &|store| drop(store.delete(delete("w1", "")).unwrap()),
        &|store| drop(store.txn(&txn(vec![op(put("w2", "v")), op(put("w1", "z"))])).unwrap()),
        &|store| drop(store.txn(&txn(vec![op(put("w3", "v")), op(delete("w", "w3"))])).unwrap()),
    ];
    for step in steps {
        step(store);
    }
}

const PLAIN: [&str; 8] = [
    "PUT w1=a +1-1",
    "PUT w1=b +2-2",
    "DELETE w1 +3-0",
    "PUT w2=v +4-1",
    "PUT w1=z +4-1",
    "PUT w3=v +5-1",
    "DELETE w1 +5-0",
    "DELETE w2 +5-0",
];

const WITH_PREVIOUS: [&str; 8] = [
    "PUT w1=a +1-1",
    "PUT w1=b +2-2(a)",
    "DELETE w1 +3-0(b)",
    "PUT w2=v +4-1",
    "PUT w1=z +4-1",
    "PUT w3=v +5-1",
    "DELETE w1 +5-0(z)",
    "DELETE w2 +5-0(v)",
];

#[test]
fn live_and_replayed_events_are_the_same() {
    let mut store = Store::new();
    let mut live = [watch(&store, |_| {}), watch(&store, |spec| spec.prev_kv = true)];
    for watcher in &mut live {
        assert!(watcher.catch_up(&hub(&store), &CatchUpLimits::default()), "nothing to catch up");
        assert!(hub(&store).is_synced(watcher.id));
    }
    transcript(&mut store);
    let [plain, with_prev] = &mut live;
    assert_eq!(heard(&store, plain, 1), PLAIN);
    assert_eq!(heard(&store, with_prev, 1), WITH_PREVIOUS);
    let from_start = |spec: &mut WatchSpec| spec.start_revision = 2;
    assert_eq!(heard(&store, &mut watch(&store, from_start), 1), PLAIN);
    let previous = |spec: &mut WatchSpec| (spec.start_revision, spec.prev_kv) = (2, true);
    assert_eq!(heard(&store, &mut watch(&store, previous), 1), WITH_PREVIOUS);
}

#[test]
fn filters_leave_kinds_out() {
    let mut store = Store::new();
    transcript(&mut store);
    let mut no_put = watch(&store, |spec| (spec.start_revision, spec.no_put) = (2, true));
    let deletes: Vec<_> = PLAIN.into_iter().filter(|event| event.starts_with("DELETE")).collect();
    assert_eq!(heard(&store, &mut no_put, 1), deletes);
    let mut no_delete = watch(&store, |spec| (spec.start_revision, spec.no_delete) = (2, true));
    let puts: Vec<_> = PLAIN.into_iter().filter(|event| event.starts_with("PUT")).collect();
    assert_eq!(heard(&store, &mut no_delete, 1), puts);
}

#[test]
fn a_future_start_waits_for_its_revision() {
    let mut store = Store::new();
    transcript(&mut store);
    let mut future = watch(&store, |spec| spec.start_revision = 8);
    assert_eq!(heard(&store, &mut future, 1), [""; 0]);
    store.put(put("wz", "v")).unwrap();
    assert_eq!(heard(&store, &mut future, 1), [""; 0]);
    store.put(put("wz", "v")).unwrap();
    assert_eq!(heard(&store, &mut future, 1), ["PUT wz=v +7-2"]);
}

#[test]
fn a_run_of_many_revisions_is_cut_where_a_watcher_starts() {
    let mut store = Store::new();
    let mut future = watch(&store, |spec| spec.start_revision = 3);
    assert_eq!(heard(&store, &mut future, 1), [""; 0]);
    store
        .run(|run, leases, stamp| {
            (0..3).try_for_each(|value| {
                run.put(&put("w", value.to_string()), leases, stamp).map(drop)
            })
        })
        .unwrap();
    assert_eq!(heard(&store, &mut future, 1), ["PUT w=1 +2-2", "PUT w=2 +3-3"]);
}

#[test]
fn requests_mean_what_etcd_lets_them_mean() {
    let mut store = Store::new();
    let register = |key: &'static str, range_end: &'static str, start_revision| {
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            ..Default::default()
        };
        WatchSpec::from_request(&request)
    };
    let sink = || Arc::new(Nobody);
    let refused = |spec| hub(&store).watch(spec, sink()).unwrap_err().to_string();
    assert_eq!(refused(register("b", "a", 0)), "mvcc: watcher range is empty");
    assert_eq!(refused(register("b", "b", 0)), "mvcc: watcher range is empty");
    let message = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused(register("b", "", -1)), message);
    let mut smallest = Watcher::new(&hub(&store), register("", "", 0), 9);
    let mut all = Watcher::new(&hub(&store), register("", "\0", 0), 9);
    store.put(put("anything", "v")).unwrap();
    assert_eq!(heard(&store, &mut smallest, 1), [""; 0]);
    assert_eq!(heard(&store, &mut all, 1), ["PUT anything=v +1-1"]);
}

struct Nobody;

impl chronolith_mvcc::WatchSink for Nobody {
    fn offer(&self, _: chronolith_mvcc::WatcherId, _: &Arc<chronolith_mvcc::EventBatch>) -> bool {
        panic!("a refused watcher is offered nothing")
    }
}

#[test]
fn a_compaction_ends_watches_that_need_what_it_took() {
    let mut store = Store::new();
    for value in ["0", "1", "2", "3", "4"] {
        store.put(put("w1", value)).unwrap();
    }
    store.compact(4).unwrap();
    let hub = hub(&store);
    let mut below = watch(&store, |spec| spec.start_revision = 3);
    assert!(below.catch_up(&hub, &CatchUpLimits::default()));
    assert_eq!(below.compacted, Some(4));
    assert!(!hub.cancel(below.id), "it is gone");
    let mut at = watch(&store, |spec| spec.start_revision = 4);
    let mut after = watch(&store, |spec| spec.start_revision = 5);
    while store.mvcc.scrub_step(2).unwrap() {}
    assert_eq!(heard(&store, &mut at, 1), ["PUT w1=2 +3-3", "PUT w1=3 +4-4", "PUT w1=4 +5-5"]);
    assert_eq!(heard(&store, &mut after, 1), ["PUT w1=3 +4-4", "PUT w1=4 +5-5"]);
}

#[test]
fn a_deletion_at_the_compact_revision_is_still_heard() {
    let mut store = Store::new();
    transcript(&mut store);
    store.compact(4).unwrap();
    while store.mvcc.scrub_step(100).unwrap() {}
    let mut at = watch(&store, |spec| (spec.start_revision, spec.prev_kv) = (4, true));
    let expected = [&["DELETE w1 +3-0"], &WITH_PREVIOUS[3..]].concat();
    assert_eq!(heard(&store, &mut at, 1), expected, "what was before is compacted");
}

#[test]
fn a_cancelled_watcher_hears_nothing_more() {
    let mut store = Store::new();
    let (mut one, mut other) = (watch(&store, |_| {}), watch(&store, |_| {}));
    assert_eq!(heard(&store, &mut one, 1), [""; 0]);
    assert_eq!(heard(&store, &mut other, 1), [""; 0]);
    assert!(hub(&store).cancel(one.id));
    assert!(!hub(&store).cancel(one.id));
    store.put(put("w", "v")).unwrap();
    one.take(9);
    assert!(one.heard.is_empty());
    assert_eq!(heard(&store, &mut other, 1), ["PUT w=v +1-1"]);
    assert!(hub(&store).cancel(other.id));
    assert_eq!(hub(&store).watchers(), 0);
}

#[test]
fn progress_is_of_synced_watchers_only() {
    let mut store = Store::new();
    let mut one = watch(&store, |_| {});
    let hub = hub(&store);
    assert_eq!(hub.progress(&[one.id]), None, "a new watcher has not caught up yet");
    one.sync(&hub, &CatchUpLimits::default());
    store.put(put("other", "v")).unwrap();
    assert_eq!(hub.progress(&[one.id]), Some(2));
    let late = watch(&store, |spec| spec.start_revision = 1);
    assert_eq!(hub.progress(&[one.id, late.id]), None);
    assert_eq!(hub.progress(&[]), Some(2));
}

#[test]
fn the_shared_bytes_are_the_messages() {
    let mut store = Store::new();
    transcript(&mut store);
    for prev_kv in [false, true] {
        let spec = WatchSpec {
            key: "w".into(),
            range_end: "\0".into(),
            start_revision: 2,
            prev_kv,
            ..Default::default()
        };
        let id = hub(&store).watch(spec, Arc::new(Nobody)).unwrap();
        let batch = hub(&store).catch_up(id, &CatchUpLimits::default()).unwrap().events;
        let response = WatchResponse::decode(batch.encoded_events().clone()).unwrap();
        assert_eq!(response.events, batch.to_messages());
        assert_eq!(response.events.len(), 8);
        for event in batch.events() {
            let message = Event::decode(event.encoded(prev_kv).clone()).unwrap();
            assert_eq!(message, event.to_message(prev_kv));
        }
    }
}

#[test]
fn limits_bound_a_call_but_never_split_a_revision() {
    let mut store = Store::new();
    transcript(&mut store);
    let mut watcher = watch(&store, |spec| spec.start_revision = 2);
    let one = CatchUpLimits { max_events: 1, ..Default::default() };
    let mut sizes = vec![];
    while !watcher.catch_up(&hub(&store), &one) {
        watcher.take(1);
        sizes.push(std::mem::take(&mut watcher.heard).len());
    }
    watcher.take(1);
    sizes.push(watcher.heard.len());
    assert_eq!(sizes, [0, 1, 1, 1, 2, 3]);
    let few = CatchUpLimits { max_revisions: 2, ..Default::default() };
    let mut missing = watch(&store, |spec| {
        (spec.key, spec.range_end, spec.start_revision) = ("none".into(), Bytes::new(), 2);
    });
    let mut calls = 0;
    while !missing.catch_up(&hub(&store), &few) {
        calls += 1;
    }
    assert_eq!(calls, 3, "five revisions looked at, two a call");
}

/// Commits to nothing: these tests look at watchers.
struct Nothing;

impl chronolith_mvcc::Commitment for Nothing {
    fn salt(&self, revision: &[u8; 16], _: usize, _: usize) -> [u8; 16] {
        *revision
    }

    fn digest(&self, _: &[u8; 16], _: &[u8]) -> [u8; 32] {
        [0; 32]
    }

    fn hash(&self, _: &chronolith_mvcc::OpMeta<'_>) -> [u8; 32] {
        [0; 32]
    }
}

#[test]
fn who_would_need_an_erased_value_is_told_where_to_start_again() {
    let mut store = Store::new();
    let base = store.revision();
    transcript(&mut store);
    store.mvcc = store.mvcc.committed_by(Arc::new(Nothing), chronolith_mvcc::Retention::Hashes);
    let mut run = store.mvcc.begin_run().unwrap();
    assert_eq!(run.erase(&"w1".into(), base + 2, base + 2).unwrap(), [base + 2]);
    run.commit(chronolith_engine::Durability::NoWal).unwrap();
    let start = |from| move |spec: &mut WatchSpec| spec.start_revision = base + from;
    let mut early = watch(&store, start(1));
    let heard_early = heard(&store, &mut early, base);
    assert_eq!(early.compacted, Some(base + 3), "the first revision with all it did");
    assert!(heard_early.iter().all(|event| !event.contains("=b")));
    let mut late = watch(&store, |spec| (spec.start_revision, spec.prev_kv) = (base + 3, true));
    let events = heard(&store, &mut late, base);
    assert_eq!(events[0], "DELETE w1 +3-0", "what was before it is not known any more");
    assert_eq!(late.compacted, None);
    let mut elsewhere = watch(&store, |spec| {
        (spec.key, spec.range_end, spec.start_revision) = ("w2".into(), "x".into(), base + 1);
    });
    assert_eq!(heard(&store, &mut elsewhere, base)[0], "PUT w2=v +4-1");
    assert_eq!(elsewhere.compacted, None, "another key's erasure is nobody's business");
}
