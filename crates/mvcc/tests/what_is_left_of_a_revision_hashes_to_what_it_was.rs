//! Random histories of puts, removals, transactions, compactions that are broken off, restarts and
//! erasures. At each moment, what is left of each operation must hash to what the whole operation did;
//! what can be read must be there; what was erased must be gone.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

use bytes::Bytes;
use chronolith_engine::{Durability, Engine, MemoryEngine};
use chronolith_mvcc::*;
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A hash that nobody should use: it tells all inputs of these tests apart.
struct Toy;

fn fold(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0_u64; 4];
    for (lane, hash) in hash.iter_mut().enumerate() {
        *hash = 0xcbf2_9ce4_8422_2325 ^ lane as u64;
        for part in parts {
            for byte in part.len().to_be_bytes().iter().chain(*part) {
                *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut out = [0; 32];
    for (place, number) in out.chunks_exact_mut(8).zip(hash) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    out
}

impl Commitment for Toy {
    fn salt(&self, revision: &[u8; 16], count: usize, position: usize) -> [u8; 16] {
        match count {
            1 => *revision,
            _ => *fold(&[revision, &position.to_be_bytes()]).first_chunk().unwrap(),
        }
    }

    fn digest(&self, salt: &[u8; 16], value: &[u8]) -> [u8; 32] {
        fold(&[salt, value])
    }

    fn hash(&self, op: &OpMeta<'_>) -> [u8; 32] {
        fold(&[format!("{op:?}").as_bytes()])
    }
}

struct NoLeases;

impl Leases for NoLeases {
    fn contains(&self, _: i64) -> bool {
        false
    }

    fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
}

#[derive(Clone, Debug)]
enum Step {
    /// A transaction: keys to put, keys to delete.
    Write(Vec<u8>, Vec<u8>),
    /// One key several times in one revision.
    Again(u8),
    Compact(u8),
    Scrub(usize),
    Restart,
    Erase(u8, u8, u8),
    Retain(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || proptest::collection::vec(0u8..5, 0..4);
    prop_oneof![
        8 => (keys(), keys()).prop_map(|(puts, deletes)| Step::Write(puts, deletes)),
        1 => (0u8..5).prop_map(Step::Again),
        2 => any::<u8>().prop_map(Step::Compact),
        4 => (1usize..30).prop_map(Step::Scrub),
        1 => Just(Step::Restart),
        2 => (0u8..5, any::<u8>(), 0u8..30).prop_map(|(key, from, width)| Step::Erase(key, from, width)),
        1 => (0u8..4).prop_map(Step::Retain),
    ]
}

fn key(number: u8) -> Bytes {
    format!("k{number}").into()
}

/// An operation as it was.
struct Was {
    change: Change,
    hash: [u8; 32],
    salt: [u8; 16],
}

struct World {
    engine: Arc<dyn Engine>,
    mvcc: Option<Mvcc>,
    retention: Retention,
    time_ms: u64,
    history: BTreeMap<i64, Vec<Was>>,
    erased: BTreeSet<(i64, usize)>,
    compact: i64,
    /// The last compaction was carried out, with the retention of now.
    is_clean: bool,
    compacted_since: bool,
}

fn op_hash(change: &Change, salt: [u8; 16]) -> [u8; 32] {
    let put = change.put.as_ref().map(|put| PutMeta {
        create_revision: put.create_revision,
        version: put.version,
        lease: put.lease,
        salt,
        digest: Toy.digest(&salt, &put.value),
    });
    let (kind, key, previous) = (change.kind, &change.key[..], change.previous);
    Toy.hash(&OpMeta { kind, key, previous, put })
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: Arc::new(MemoryEngine::new()),
            mvcc: None,
            retention: Retention::Hashes,
            time_ms: 0,
            history: BTreeMap::new(),
            erased: BTreeSet::new(),
            compact: -1,
            is_clean: true,
            compacted_since: true,
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        let mvcc = Mvcc::open(Arc::clone(&self.engine)).unwrap();
        self.mvcc = Some(mvcc.committed_by(Arc::new(Toy), self.retention));
    }

    fn run(&mut self, work: impl FnOnce(&mut Run<'_>, &Stamp)) {
        self.time_ms += 10;
        let salt = *fold(&[&self.time_ms.to_be_bytes()]).first_chunk().unwrap();
        let stamp = Stamp { time_ms: self.time_ms, actor: [1; 16], salt };
        let mvcc = self.mvcc.as_mut().unwrap();
        let mut run = mvcc.begin_run().unwrap();
        work(&mut run, &stamp);
        let applied = run.commit(Durability::NoWal).unwrap();
        for revision in applied.revisions() {
            let changes = revision.to_revised().changes;
            let count = changes.len();
            let was = |(position, change): (usize, Change)| {
                let salt = Toy.salt(&salt, count, position);
                Was { hash: op_hash(&change, salt), salt, change }
            };
            let was = changes.into_iter().enumerate().map(was).collect();
            self.history.insert(revision.revision, was);
        }
    }

    fn current(&self) -> i64 {
        self.mvcc.as_ref().unwrap().reader().current_revision()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(puts, deletes) => {
                let value = Bytes::from(format!("value at {}", self.time_ms));
                let put = |number: &u8| {
                    let (key, value) = (key(*number), value.clone());
                    Request::RequestPut(PutRequest { key, value, ..Default::default() })
                };
                let delete = |number: &u8| {
                    let key = key(*number);
                    Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
                };
                let requests = puts.iter().map(put).chain(deletes.iter().map(delete));
                let success =
                    requests.map(|request| RequestOp { request: Some(request) }).collect();
                let request = TxnRequest { success, ..Default::default() };
                self.run(|run, stamp| drop(run.txn(&request, &mut NoLeases, stamp).unwrap()));
            }
            Step::Again(number) => self.step(Step::Write(vec![number; 3], vec![])),
            Step::Compact(at) => {
                let to = self.compact.max(0) + i64::from(at) % 12;
                if to > self.compact && to <= self.current() {
                    self.run(|run, _| run.compact(to).unwrap());
                    (self.compact, self.is_clean, self.compacted_since) = (to, false, true);
                }
            }
            Step::Scrub(records) => {
                let more = self.mvcc.as_mut().unwrap().scrub_step(records).unwrap();
                self.is_clean = !more && self.compacted_since;
            }
            Step::Restart => self.restart(),
            Step::Retain(choice) => {
                self.retention = match choice {
                    0 => Retention::Hashes,
                    1 => Retention::Meta { keep_ms: u64::MAX },
                    choice => Retention::Meta { keep_ms: u64::from(choice) * 30 },
                };
                (self.is_clean, self.compacted_since) = (false, false);
                self.restart();
            }
            Step::Erase(number, from, width) => self.erase(number, from, width),
        }
    }

    fn erase(&mut self, number: u8, from: u8, width: u8) {
        let key = key(number);
        let from = i64::from(from) % (self.current() + 1);
        let to = from + i64::from(width);
        let newest = self.newest(&key);
        let mut result = Ok(Vec::new());
        self.run(|run, _| result = run.erase(&key, from, to));
        match newest {
            Some((revision, true)) if (from..=to).contains(&revision) => {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::StillCurrent { revision: at } if at == revision));
            }
            _ => {
                for revision in result.unwrap() {
                    assert!((from..=to).contains(&revision));
                    let ops = self.history[&revision].iter().enumerate();
                    let erased =
                        ops.filter(|(_, was)| was.change.key == key && was.change.put.is_some());
                    self.erased.extend(erased.map(|(position, _)| (revision, position)));
                }
                let mut again = Ok(Vec::new());
                self.run(|run, _| again = run.erase(&key, from, to));
                assert!(again.unwrap().is_empty(), "there is nothing left to erase");
            }
        }
    }

    /// The newest change of a key, and whether it left a value.
    fn newest(&self, key: &Bytes) -> Option<(i64, bool)> {
        let changes = self.history.values().flatten().map(|was| &was.change);
        changes.filter(|change| change.key == *key).last().map(|it| (it.revision, it.put.is_some()))
    }

    /// Whether a reader of the compact revision or a later one can see what an operation did.
    fn is_visible(&self, revision: i64, position: usize, was: &Was) -> bool {
        if revision >= self.compact {
            return true;
        }
        let later = self.history.range(revision..=self.compact).flat_map(|(at, ops)| {
            ops.iter().enumerate().map(move |(position, was)| ((*at, position), was))
        });
        let mut later = later.filter(|(place, _)| *place > (revision, position));
        was.change.put.is_some() && !later.any(|(_, other)| other.change.key == was.change.key)
    }

    fn check(&self) {
        let reader = self.mvcc.as_ref().unwrap().reader();
        let remains: BTreeMap<_, _> = reader
            .remains(0, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|it| (it.revision, it))
            .collect();
        for (revision, ops) in &self.history {
            let visible =
                |(position, was): (usize, &Was)| self.is_visible(*revision, position, was);
            let some_visible = ops.iter().enumerate().any(visible);
            let Some(found) = remains.get(revision) else {
                assert!(!some_visible, "revision {revision} is gone");
                continue;
            };
            assert_eq!(found.changes.len(), ops.len());
            for (position, (was, left)) in ops.iter().zip(&found.changes).enumerate() {
                let place = (*revision, position);
                let visible = self.is_visible(*revision, position, was);
                let is_erased = self.erased.contains(&place);
                self.check_op(place, was, left, &found.stamp);
                match left {
                    Remnant::Whole { .. } => assert!(!is_erased, "{place:?} is still there"),
                    Remnant::Meta { .. } => {
                        assert!(!visible && !is_erased, "{place:?}");
                        let meta = matches!(self.retention, Retention::Meta { .. });
                        assert!(meta || !self.is_clean, "{place:?} outstayed its time");
                    }
                    Remnant::Erased { .. } => assert!(is_erased, "{place:?} was not erased"),
                    Remnant::Hash(_) => assert!(!visible, "{place:?} can be read"),
                    Remnant::Missing { .. } => panic!("{place:?} is missing"),
                }
            }
            // With hashes only, a revision that nobody can see any part of is gone.
            let hashes = self.retention == Retention::Hashes && self.is_clean;
            assert!(some_visible || !hashes, "revision {revision} should be gone");
        }
        self.check_reads(&reader);
    }

    fn check_op(&self, place: (i64, usize), was: &Was, left: &Remnant, stamp: &Stamp) {
        let count = self.history[&place.0].len();
        let hash = match left {
            Remnant::Whole { change, salt } => {
                assert_eq!(change, &was.change);
                let salt = salt.unwrap_or_else(|| Toy.salt(&stamp.salt, count, place.1));
                if change.put.is_some() {
                    assert_eq!(salt, was.salt);
                }
                op_hash(change, salt)
            }
            Remnant::Meta { key, previous, put } => {
                let put = Some(*put);
                Toy.hash(&OpMeta { kind: Kind::Put, key, previous: *previous, put })
            }
            Remnant::Erased { hash, .. } | Remnant::Hash(hash) => *hash,
            Remnant::Missing { .. } => return,
        };
        assert_eq!(hash, was.hash, "{place:?}: {left:?}");
    }

    /// Each key at each revision that can be read.
    fn check_reads(&self, reader: &Reader) {
        for revision in self.compact.max(1)..=self.current() {
            for number in 0..5 {
                let key = key(number);
                let changes = self.history.range(..=revision).flat_map(|(at, ops)| {
                    ops.iter().enumerate().map(move |(position, was)| ((*at, position), was))
                });
                let newest = changes.filter(|(_, was)| was.change.key == key).last();
                let request = RangeRequest { key, revision, ..Default::default() };
                let found = reader.range(&request);
                match newest {
                    Some((place, was)) if self.erased.contains(&place) => {
                        assert!(was.change.put.is_some());
                        assert!(matches!(found, Err(Error::Erased)), "{found:?}");
                    }
                    newest => {
                        let put = newest.and_then(|(_, was)| was.change.put.as_ref());
                        let value = found.unwrap().kvs.pop().map(|kv| kv.value);
                        assert_eq!(value, put.map(|put| put.value.clone()));
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_each_moment(steps in proptest::collection::vec(step(), 1..50)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        while world.mvcc.as_mut().unwrap().scrub_step(3).unwrap() {}
        world.is_clean = world.compacted_since;
        world.check();
    }
}
