//! `put_all` against a transaction of the same puts: the same bytes in the engine, the same history, the
//! same events.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

use bytes::Bytes;
use chronolith_engine::{Durability, Engine, KeyRange, MemoryEngine};
use chronolith_mvcc::{Error, Leases, Mvcc, Revised, Stamp};
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use proptest::prelude::*;
use std::sync::Arc;

struct NoLeases;

impl Leases for NoLeases {
    fn contains(&self, _: i64) -> bool {
        false
    }

    fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
}

type Pairs = Vec<(Bytes, Bytes)>;

#[derive(Clone, Debug)]
enum Step {
    Put(Pairs),
    Delete(u8),
    Compact(i64),
    Count,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![Just(vec![0]), Just(vec![0, 0xff]), (1u8..9).prop_map(|key| vec![key])];
    let pair = (key, any::<u16>());
    let pair = pair.prop_map(|(key, value)| (Bytes::from(key), value.to_string().into()));
    prop_oneof![
        5 => prop::collection::vec(pair, 0..20).prop_map(Step::Put),
        1 => (0u8..9).prop_map(Step::Delete),
        1 => (1i64..30).prop_map(Step::Compact),
        1 => Just(Step::Count),
    ]
}

struct Side {
    engine: Arc<dyn Engine>,
    mvcc: Mvcc,
    told: Vec<Revised>,
    at_once: bool,
}

impl Side {
    fn new(at_once: bool) -> Self {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let mvcc = Mvcc::open(Arc::clone(&engine)).unwrap();
        Self { engine, mvcc, told: Vec::new(), at_once }
    }

    fn put(&mut self, pairs: Pairs, stamp: &Stamp) {
        let applied = match self.at_once {
            true => self.mvcc.put_all(pairs, stamp, Durability::NoWal).unwrap(),
            false => {
                let put = |(key, value)| RequestOp {
                    request: Some(Request::RequestPut(PutRequest {
                        key,
                        value,
                        ..Default::default()
                    })),
                };
                let success = pairs.into_iter().map(put).collect();
                let request = TxnRequest { success, ..Default::default() };
                let mut run = self.mvcc.begin_run().unwrap();
                run.txn(&request, &mut NoLeases, stamp).unwrap();
                run.commit(Durability::NoWal).unwrap()
            }
        };
        let size: usize = applied
            .revisions()
            .flat_map(|it| it.changes())
            .map(|change| change.key.len() + change.value.map_or(0, |value| value.len()))
            .sum();
        assert_eq!(applied.size_bytes(), size);
        self.told.extend(applied.revisions().map(|it| it.to_revised()));
    }

    fn step(&mut self, step: Step, stamp: &Stamp) -> Option<i64> {
        match step {
            Step::Put(pairs) => self.put(pairs, stamp),
            Step::Delete(key) => {
                let request = DeleteRangeRequest { key: vec![key].into(), ..Default::default() };
                let mut run = self.mvcc.begin_run().unwrap();
                run.delete_range(&request, &mut NoLeases, stamp).unwrap();
                run.commit(Durability::NoWal).unwrap();
            }
            Step::Compact(revision) => {
                let mut run = self.mvcc.begin_run().unwrap();
                let compacted = run.compact(revision).is_ok();
                run.commit(Durability::NoWal).unwrap();
                // One side has removed what the other one still has.
                while self.at_once && compacted && self.mvcc.scrub_step(3).unwrap() {}
            }
            Step::Count => {
                let zero = || Bytes::from_static(&[0]);
                let request =
                    RangeRequest { key: zero(), range_end: zero(), limit: 1, ..Default::default() };
                return Some(self.mvcc.reader().range(&request).unwrap().count);
            }
        }
        None
    }

    fn records(&mut self) -> Vec<(Bytes, Bytes)> {
        while self.mvcc.scrub_step(100).unwrap() {}
        let snapshot = self.engine.snapshot().unwrap();
        let mut records = Vec::new();
        for name in ["versions", "log", "meta"] {
            let column = self.engine.column(name).unwrap();
            let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
            cursor.seek_to_first().unwrap();
            while cursor.valid() {
                records.push((cursor.key_bytes(), cursor.value_bytes()));
                cursor.next().unwrap();
            }
        }
        records
    }
}

proptest! {
    #[test]
    fn of_any_pairs_in_any_state(steps in prop::collection::vec(step(), 1..30)) {
        let (mut bulk, mut plain) = (Side::new(true), Side::new(false));
        for (number, step) in steps.into_iter().enumerate() {
            // Clocks go back at times.
            let time_ms = 100 - number as u64 * 7 % 5;
            let stamp = Stamp { time_ms, actor: [1; 16], salt: [number as u8; 16] };
            prop_assert_eq!(bulk.step(step.clone(), &stamp), plain.step(step, &stamp));
        }
        prop_assert_eq!(&bulk.told, &plain.told);
        prop_assert_eq!(bulk.records(), plain.records());
    }
}

#[test]
fn an_empty_key_is_refused_and_nothing_is_written() {
    let mut side = Side::new(true);
    let pairs = vec![("a".into(), "1".into()), (Bytes::new(), "2".into())];
    let refused = side.mvcc.put_all(pairs, &Stamp::default(), Durability::NoWal);
    assert!(matches!(refused, Err(Error::EmptyKey)));
    assert_eq!((side.mvcc.reader().current_revision(), side.records().len()), (1, 0));
}
