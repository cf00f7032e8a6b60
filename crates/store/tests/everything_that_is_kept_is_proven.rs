//! Random histories with compactions, erasures and restarts: each version that can be read has a proof
//! with its value, each other operation one of what is left of it, and none shows what was erased.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

use bytes::Bytes;
use chronolith_ledger::{Checkpoint, Level, OpKind, Policy, ProvenOp, SignedNote};
use chronolith_mvcc::Error as VersionError;
use chronolith_store::embedded::{At, Error, Options, Store, Write, verify_directory};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, bool)>),
    Compact(u8),
    Erase(u8, u8, u8),
    Reopen,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec((0u8..4, proptest::bool::weighted(0.7)), 1..4).prop_map(Step::Write),
        2 => (0u8..20).prop_map(Step::Compact),
        2 => (0u8..4, 0u8..30, 0u8..20).prop_map(|(key, from, width)| Step::Erase(key, from, width)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Checkpoint),
    ]
}

fn key(number: u8) -> Bytes {
    format!("key/{number}").into()
}

/// An operation that was carried out: none of value is a removal.
struct Was {
    key: Bytes,
    value: Option<Bytes>,
}

struct World {
    home: tempfile::TempDir,
    options: Options,
    store: Option<Store>,
    history: BTreeMap<i64, Vec<Was>>,
    erased: BTreeSet<(i64, usize)>,
    compact: i64,
    pins: Vec<SignedNote>,
}

impl World {
    fn new(meta_retention: Duration) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = Options { meta_retention, ..Options::default() };
        let store = Some(Store::open_with(home.path(), &options).unwrap());
        let (history, erased, pins) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { home, options, store, history, erased, compact: -1, pins }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(writes) => self.write(&writes),
            Step::Compact(at) => {
                let to = self.compact.max(0) + i64::from(at);
                if to > self.compact && to <= self.store().revision() {
                    self.store().compact(to).unwrap();
                    self.compact = to;
                }
            }
            Step::Erase(number, from, width) => self.erase(&key(number), from.into(), width.into()),
            Step::Reopen => {
                self.store.take().unwrap().close().unwrap();
                self.store = Some(Store::open_with(self.home.path(), &self.options).unwrap());
            }
            Step::Checkpoint => self.pins.push(self.store().checkpoint().unwrap()),
        }
    }

    fn write(&mut self, writes: &[(u8, bool)]) {
        let revision = self.store().revision() + 1;
        let mut done = Vec::new();
        let mut living: BTreeSet<Bytes> =
            self.store().list(b"").unwrap().into_iter().map(|kv| kv.key).collect();
        let mut batch = Vec::new();
        for (place, (number, puts)) in writes.iter().enumerate() {
            let key = key(*number);
            if *puts {
                let value = Bytes::from(format!("secret {revision}.{place}"));
                batch.push(Write::Put(key.clone(), value.clone()));
                living.insert(key.clone());
                done.push(Was { key, value: Some(value) });
            } else {
                batch.push(Write::Delete(key.clone()));
                if living.remove(&key) {
                    done.push(Was { key, value: None });
                }
            }
        }
        self.store().write(batch).unwrap();
        if !done.is_empty() {
            self.history.insert(revision, done);
        }
    }

    fn erase(&mut self, key: &Bytes, from: i64, width: i64) {
        let range = from..=from + width;
        let result = self.store().erase(key.clone(), from, from + width);
        match self.newest(key, i64::MAX) {
            Some((place, Was { value: Some(_), .. })) if range.contains(&place.0) => {
                let error = result.unwrap_err();
                assert!(error.to_string().contains("put another value or delete"), "{error}");
                return;
            }
            _ => {}
        }
        for revision in result.unwrap() {
            assert!(range.contains(&revision));
            let ops = self.history[&revision].iter().enumerate();
            let erased = ops.filter(|(_, was)| was.key == *key && was.value.is_some());
            self.erased.extend(erased.map(|(position, _)| (revision, position)));
        }
        assert!(self.store().erase(key.clone(), from, from + width).unwrap().is_empty());
    }

    fn newest(&self, key: &Bytes, at: i64) -> Option<((i64, usize), &Was)> {
        let ops = self.history.range(..=at).flat_map(|(revision, ops)| {
            ops.iter().enumerate().map(move |(position, was)| ((*revision, position), was))
        });
        ops.filter(|(_, was)| was.key == *key).last()
    }

    fn check(&self) {
        let policy = self.store().policy().unwrap();
        self.store().verify(self.pins.first(), &mut |_, _| {}).unwrap();
        let bundle = self.store().prove_range(2, self.store().revision()).unwrap();
        bundle.verify(&policy).unwrap();
        assert_eq!(bundle.revisions.len(), self.history.len());
        for (proven, (revision, ops)) in bundle.revisions.iter().zip(&self.history) {
            assert_eq!(proven.entry.revision, revision.unsigned_abs());
            assert!(*revision < self.compact || proven.ops.len() == ops.len());
            for op in &proven.ops {
                let place = (*revision, op.position as usize);
                self.check_op(place, &ops[place.1], op);
            }
        }
        self.check_keys(&policy);
        for pin in &self.pins {
            self.store().verify_continues(pin).unwrap();
        }
    }

    fn check_op(&self, place: (i64, usize), was: &Was, op: &ProvenOp) {
        let readable = (self.compact.max(place.0)..=self.store().revision())
            .any(|at| self.newest(&was.key, at).is_some_and(|(newest, _)| newest == place));
        match (&op.level, &was.value) {
            (Level::Hash(_), _) => {
                let readable = readable && was.value.is_some();
                assert!(self.erased.contains(&place) || !readable, "{place:?}");
            }
            (Level::Full { value, .. }, was) => {
                assert!(!self.erased.contains(&place), "{place:?} was erased");
                assert_eq!(Some(&value[..]), was.as_deref());
            }
            (Level::Meta(_), None) => {
                assert_ne!(op.record().unwrap().unwrap().kind, OpKind::Put);
            }
            (Level::Meta(_), Some(_)) => {
                assert!(!self.erased.contains(&place) && !readable, "{place:?}");
                assert_eq!(self.options.meta_retention, Duration::MAX);
            }
        }
        if let Some(record) = op.record().unwrap() {
            assert_eq!(record.key, &was.key[..]);
        }
    }

    /// Every key at every moment reads as it was or says that it was erased, and its history is proven.
    fn check_keys(&self, policy: &Policy) {
        for number in 0..4 {
            let key = key(number);
            for at in self.compact.max(1)..=self.store().revision() {
                let found = self.store().get_at(key.clone(), At::Revision(at));
                match self.newest(&key, at) {
                    Some((place, _)) if self.erased.contains(&place) => {
                        assert!(matches!(found, Err(Error::Request(VersionError::Erased))));
                    }
                    newest => {
                        let value = newest.and_then(|(_, was)| was.value.clone());
                        assert_eq!(found.unwrap().kv.map(|kv| kv.value), value);
                    }
                }
            }
            let versions = self.store().history(&key, usize::MAX).unwrap();
            for version in &versions {
                let place = (version.revision, version.position as usize);
                assert_eq!(version.erased, self.erased.contains(&place));
            }
            let bundle = self.store().prove(&key).unwrap();
            bundle.verify_history(policy, &key).unwrap();
            let proven: usize = bundle.revisions.iter().map(|revision| revision.ops.len()).sum();
            assert!(proven >= versions.len(), "{proven} of {}", versions.len());
        }
    }
}

fn kept_is_proven(steps: Vec<Step>, meta_retention: Duration) {
    let mut world = World::new(meta_retention);
    for (number, step) in steps.into_iter().enumerate() {
        world.step(step);
        if number % 6 == 5 {
            world.check();
        }
    }
    world.check();
    let last = world.store().checkpoint().unwrap();
    world.store.take().unwrap().close().unwrap();
    let pin = world.pins.first().cloned().unwrap_or(last.clone());
    let dir = world.home.path().join("main");
    let report = verify_directory(&dir, None, Some(&pin), &mut |_, _| {}).unwrap();
    let size = Checkpoint::parse(last.text()).unwrap().size;
    assert_eq!(report.revisions + report.hashes_only, size);
    // Nothing on the disk that the engine still reads holds what was erased.
    let newest = |key: &Bytes| world.newest(key, i64::MAX).map(|(place, _)| place);
    for place in &world.erased {
        let was = &world.history[&place.0][place.1];
        assert_ne!(newest(&was.key), Some(*place));
    }
}

/// The removal was not in the engine's log and what was erased after it was: a version came back that
/// the revision log had no change for.
#[test]
fn an_erasure_outlives_a_restart_together_with_the_compaction_before_it() {
    let put = |number| Step::Write(vec![(number, true)]);
    let steps = vec![put(0), put(0), put(0), Step::Compact(4), Step::Erase(0, 2, 0), Step::Reopen];
    kept_is_proven(steps, Duration::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn with_hashes_of_the_rest(steps in proptest::collection::vec(step(), 1..40)) {
        kept_is_proven(steps, Duration::ZERO);
    }

    #[test]
    fn with_all_but_the_values_of_the_rest(steps in proptest::collection::vec(step(), 1..40)) {
        kept_is_proven(steps, Duration::MAX);
    }
}
