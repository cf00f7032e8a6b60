//! Random commands in random runs, with compaction, removal and reopening in between, compared with a
//! model that keeps the whole map of every revision.
#![allow(clippy::unwrap_used)]

mod fixture;

use bytes::Bytes;
use chronolith_engine::{Durability, Engine, KeyRange};
use chronolith_mvcc::{Change, Kind, Put, Stamp};
use chronolith_proto::{
    etcdserverpb::RangeRequest,
    mvccpb::{Event, KeyValue},
};
use fixture::{
    Store, commands,
    commands::{Command, KNOWN_LEASES},
    engines::{Home, memory},
    model::{Model, kind_of},
    span,
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    /// Commands that are one batch.
    Run(Vec<Command>),
    Range(RangeRequest),
    /// Removal of compacted records, so many at most.
    Scrub(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(commands::command(), 1..6).prop_map(Step::Run),
        4 => commands::range().prop_map(Step::Range),
        2 => (1usize..12).prop_map(Step::Scrub),
        1 => Just(Step::Reopen),
    ]
}

fn check_on(home: fn() -> Home, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let mut runner = TestRunner::new(config);
    runner.run(&vec(step(), 0..24), |steps| Pair::new(home()).all(&steps)).unwrap();
}

#[test]
fn on_the_memory_engine() {
    check_on(memory, 400);
}

#[cfg(feature = "rocksdb")]
#[test]
fn on_rocksdb() {
    check_on(fixture::engines::rocksdb, 40);
}

struct Pair {
    store: Store,
    model: Model,
    time_ms: u64,
    _home: Home,
}

impl Pair {
    fn new(home: Home) -> Self {
        let (mut store, mut model) = (Store::on(home.engine.clone()), Model::new());
        store.leases.ids.extend(KNOWN_LEASES);
        model.leases.ids.extend(KNOWN_LEASES);
        Self { store, model, time_ms: 0, _home: home }
    }

    fn all(mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        for step in steps {
            self.step(step)?;
        }
        self.everything_agrees()?;
        while self.store.mvcc.scrub_step(3).unwrap() {}
        self.everything_agrees()?;
        self.only_what_can_be_seen_is_stored()
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Run(commands) => self.commands(commands)?,
            Step::Range(request) => {
                let ours = self.store.range(request).map_err(|error| error.to_string());
                let theirs = self.model.range(request).map_err(str::to_owned);
                prop_assert_eq!(ours, theirs, "{:?}", request);
            }
            Step::Scrub(records) => drop(self.store.mvcc.scrub_step(*records).unwrap()),
            Step::Reopen => {
                let leases = std::mem::take(&mut self.store.leases);
                self.store = Store::on(self.store.engine.clone());
                self.store.leases = leases;
            }
        }
        prop_assert_eq!(self.store.revision(), self.model.revision());
        Ok(())
    }

    fn commands(&mut self, commands: &[Command]) -> Result<(), TestCaseError> {
        let Store { mvcc, leases, .. } = &mut self.store;
        let mut run = mvcc.begin_run().unwrap();
        for command in commands {
            self.time_ms += 10;
            let stamp = Stamp { time_ms: self.time_ms, actor: [1; 16], salt: [2; 16] };
            let ours = command.run(&mut run, leases, &stamp).map_err(|error| error.to_string());
            let theirs = command.model(&mut self.model).map_err(str::to_owned);
            prop_assert_eq!(ours, theirs, "{:?}", command);
            prop_assert_eq!(run.revision(), self.model.revision());
            prop_assert_eq!(&*leases, &self.model.leases);
        }
        run.commit(Durability::NoWal).unwrap();
        prop_assert_eq!(mvcc.reader().compact_revision(), self.model.compact);
        Ok(())
    }

    fn everything_agrees(&self) -> Result<(), TestCaseError> {
        let everything = span("\0", "\0");
        for revision in 1..=self.model.revision() + 1 {
            let request = RangeRequest { revision, ..everything.clone() };
            let ours = self.store.range(&request).map_err(|error| error.to_string());
            let theirs = self.model.range(&request).map_err(str::to_owned);
            prop_assert_eq!(ours, theirs, "at {}", revision);
        }
        self.changes_agree()?;
        self.histories_agree()
    }

    fn changes_agree(&self) -> Result<(), TestCaseError> {
        let reader = self.store.mvcc.reader();
        let from = self.model.compact.max(2);
        let changes = reader.changes(from, usize::MAX).unwrap();
        let ours: Vec<_> =
            changes.iter().flat_map(|revised| revised.changes.iter().map(shown)).collect();
        let events = self.model.events(from, |_| true);
        let theirs: Vec<_> = events.into_iter().map(|event| event.kv.unwrap()).collect();
        prop_assert_eq!(ours, theirs);
        let revisions: Vec<_> = changes.iter().map(|revised| revised.revision).collect();
        prop_assert_eq!(revisions, (from..=self.model.revision()).collect::<Vec<_>>());
        for revised in &changes {
            let at = reader.revision_at_time(revised.stamp.time_ms).unwrap();
            prop_assert_eq!(at, Some(revised.revision));
        }
        Ok(())
    }

    fn histories_agree(&self) -> Result<(), TestCaseError> {
        let mut keys: BTreeMap<Bytes, Vec<Event>> = BTreeMap::new();
        for event in self.model.events(2, |_| true) {
            keys.entry(event.kv.clone().unwrap().key).or_default().push(event);
        }
        for (key, events) in keys {
            let history = self.store.mvcc.reader().key_history(&key, 0, i64::MAX, usize::MAX);
            let ours: Vec<_> = history
                .unwrap()
                .into_iter()
                .map(|version| key_value(&key, version.revision, version.put))
                .collect();
            prop_assert_eq!(ours, self.expected_history(events), "{:?}", key);
        }
        Ok(())
    }

    /// Newest first: all after the compact revision, and what the key was at it.
    fn expected_history(&self, events: Vec<Event>) -> Vec<KeyValue> {
        let mut history = vec![];
        for event in events.into_iter().rev() {
            let (kind, kv) = (kind_of(&event), event.kv.unwrap());
            if kv.mod_revision < self.model.compact && kind == Kind::Delete {
                break;
            }
            let last = kv.mod_revision <= self.model.compact;
            history.push(kv);
            if last {
                break;
            }
        }
        history
    }

    /// After the removal: no version that nobody can read, and no log before the compact revision.
    fn only_what_can_be_seen_is_stored(&self) -> Result<(), TestCaseError> {
        let compact = self.model.compact;
        let newer = self.model.events(compact.max(1), |_| true).len();
        let older = match compact {
            2.. => {
                let state = self.model.state(compact);
                state.values().filter(|kv| kv.mod_revision < compact).count()
            }
            _ => 0,
        };
        prop_assert_eq!(records(&*self.store.engine, "versions"), newer + older);
        let revisions = self.model.revision() - compact.max(2) + 1;
        prop_assert_eq!(records(&*self.store.engine, "log") as i64, revisions.max(0));
        Ok(())
    }
}

/// A change as an event would show its key.
fn shown(change: &Change) -> KeyValue {
    assert_eq!(change.kind == Kind::Put, change.put.is_some());
    key_value(&change.key, change.revision, change.put.clone())
}

fn key_value(key: &Bytes, mod_revision: i64, put: Option<Put>) -> KeyValue {
    let gone = KeyValue { key: key.clone(), mod_revision, ..Default::default() };
    match put {
        Some(Put { value, create_revision, version, lease }) => {
            KeyValue { value, create_revision, version, lease, ..gone }
        }
        None => gone,
    }
}

fn records(engine: &dyn Engine, column: &str) -> usize {
    contents(engine, column).len()
}

fn contents(engine: &dyn Engine, column: &str) -> Vec<(Bytes, Bytes)> {
    let column = engine.column(column).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
    let mut found = vec![];
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        found.push((cursor.key_bytes(), cursor.value_bytes()));
        cursor.next().unwrap();
    }
    found
}

/// A replica that batches otherwise, and removes compacted records at other times, ends with the
/// same bytes and the same sum.
#[test]
fn replicas_agree_to_the_byte() {
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() };
    let mut runner = TestRunner::new(config);
    let commands = vec((commands::command(), any::<bool>(), any::<bool>()), 0..40);
    runner
        .run(&commands, |commands| {
            let (mut one, mut other) = (Store::new(), Store::new());
            one.leases.ids.extend(KNOWN_LEASES);
            other.leases.ids.extend(KNOWN_LEASES);
            let mut run = one.mvcc.begin_run().unwrap();
            for (number, (command, cut, scrub)) in commands.iter().enumerate() {
                let stamp =
                    Stamp { time_ms: number as u64 % 7, actor: [number as u8; 16], salt: [1; 16] };
                let _ = command.run(&mut run, &mut one.leases, &stamp);
                if *cut {
                    run.commit(Durability::NoWal).unwrap();
                    if *scrub {
                        one.mvcc.scrub_step(5).unwrap();
                    }
                    run = one.mvcc.begin_run().unwrap();
                }
                other.stamp = stamp;
                let _ = other.run(|run, leases, stamp| command.run(run, leases, stamp));
            }
            run.commit(Durability::NoWal).unwrap();
            let sums = || {
                let sum = |store: &Store| store.mvcc.reader().hash_kv(0).unwrap();
                (sum(&one), sum(&other))
            };
            let (ours, theirs) = sums();
            prop_assert_eq!(ours, theirs);
            while one.mvcc.scrub_step(4).unwrap() {}
            while other.mvcc.scrub_step(1_000).unwrap() {}
            for column in ["versions", "log", "meta"] {
                let (ours, theirs) =
                    (contents(&*one.engine, column), contents(&*other.engine, column));
                prop_assert_eq!(ours, theirs, "{}", column);
            }
            let after = one.mvcc.reader().hash_kv(0).unwrap();
            prop_assert_eq!(after, ours, "removal is not to be seen");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_different_history_has_a_different_sum() {
    let (mut one, mut other) = (Store::new(), Store::new());
    for (store, value) in [(&mut one, "1"), (&mut other, "2")] {
        store.put(fixture::put("a", value)).unwrap();
        store.put(fixture::put("a", "3")).unwrap();
    }
    let sum = |store: &Store, revision| store.mvcc.reader().hash_kv(revision).unwrap();
    assert_ne!(sum(&one, 0).hash, sum(&other, 0).hash);
    assert_eq!(sum(&one, 0).hash_revision, 3);
    assert_ne!(sum(&one, 2).hash, sum(&one, 3).hash);
    one.compact(3).unwrap();
    other.compact(3).unwrap();
    assert_eq!(sum(&one, 0).hash, sum(&other, 0).hash, "only the past differed");
    assert_eq!(sum(&one, 0).compact_revision, 3);
    let refused = |revision| one.mvcc.reader().hash_kv(revision).unwrap_err().to_string();
    assert_eq!(refused(4), "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(refused(2), "etcdserver: mvcc: required revision has been compacted");
}
