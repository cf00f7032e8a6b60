//! What a put and a get cost, on the memory engine, in runs of 64:
//! `cargo run --release -p chronolith-mvcc --example costs`.
//!
//! Times are CPU time of the one thread, measured after the keys are loaded.

use bytes::Bytes;
use chronolith_engine::{Durability, MemoryEngine};
use chronolith_mvcc::{
    CatchUpLimits, EventBatch, Leases, Mvcc, Result, Stamp, WatchSink, WatchSpec, WatcherId,
};
use chronolith_proto::etcdserverpb::{PutRequest, RangeRequest};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const KEYS: u64 = 100_000;
const RUN: u64 = 64;
const VALUE_BYTES: usize = 256;

struct NoLeases;

impl Leases for NoLeases {
    fn contains(&self, _: i64) -> bool {
        false
    }

    fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
}

/// Takes everything, as a sink with room does.
struct Taker;

impl WatchSink for Taker {
    fn offer(&self, _: WatcherId, batch: &Arc<EventBatch>) -> bool {
        black_box(batch.encoded_events().len());
        true
    }
}

fn key(number: u64) -> Bytes {
    // Multiplying by an odd number visits all keys in a scattered order.
    format!("registry/objects/{:012}", number.wrapping_mul(7_919) % KEYS).into()
}

fn puts(mvcc: &mut Mvcc, keys: &[Bytes], value: &Bytes) -> Result<Duration> {
    let requests: Vec<PutRequest> = keys
        .iter()
        .map(|key| PutRequest { key: key.clone(), value: value.clone(), ..Default::default() })
        .collect();
    let start = Instant::now();
    for run_of_requests in requests.chunks(RUN as usize) {
        let mut run = mvcc.begin_run()?;
        for request in run_of_requests {
            black_box(run.put(request, &mut NoLeases, &Stamp::default())?);
        }
        run.commit(Durability::NoWal)?;
    }
    Ok(start.elapsed())
}

fn report(what: &str, times: u64, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / times as f64;
    println!("{what:<44} {each:>8.3} µs   {:>10.0}/s", 1e6 / each);
}

fn main() -> Result<()> {
    let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new()))?;
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    report("put, new keys", KEYS, puts(&mut mvcc, &keys, &value)?);
    report("put, second version", KEYS, puts(&mut mvcc, &keys, &value)?);

    let reader = mvcc.reader();
    let gets: Vec<RangeRequest> =
        keys.iter().map(|key| RangeRequest { key: key.clone(), ..Default::default() }).collect();
    let start = Instant::now();
    for get in &gets {
        black_box(reader.range(get)?);
    }
    report("get", KEYS, start.elapsed());

    let list = RangeRequest {
        key: "registry/".into(),
        range_end: "registry0".into(),
        ..Default::default()
    };
    let start = Instant::now();
    assert_eq!(reader.range(&list)?.count, KEYS as i64);
    report("list of all keys, each", KEYS, start.elapsed());
    let limited = RangeRequest { limit: 100, ..list };
    let start = Instant::now();
    assert_eq!(reader.range(&limited)?.kvs.len(), 100);
    report("first 100 keys and the count of all, once", 1, start.elapsed());
    let start = Instant::now();
    for get in gets.iter().take(1_000) {
        let from_here = RangeRequest { key: get.key.clone(), ..limited.clone() };
        black_box(reader.range(&from_here)?);
    }
    report("100 keys from anywhere, and the count", 1_000, start.elapsed());

    let hub = Arc::clone(reader.watch_hub());
    for _ in 0..100 {
        let all = WatchSpec { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let id = hub.watch(all, Arc::new(Taker))?;
        assert!(hub.catch_up(id, &CatchUpLimits::default())?.synced);
    }
    report("put, heard by 100 watchers", KEYS, puts(&mut mvcc, &keys, &value)?);

    let mut run = mvcc.begin_run()?;
    run.compact(run.revision())?;
    run.commit(Durability::NoWal)?;
    let start = Instant::now();
    while mvcc.scrub_step(1_000)? {}
    report("compaction, each superseded version", 2 * KEYS, start.elapsed());
    Ok(())
}
