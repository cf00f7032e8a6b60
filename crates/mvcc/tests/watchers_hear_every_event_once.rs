//! Watchers with queues that fill up hear exactly the model's events: random histories step by step,
//! and threads at full speed.
#![allow(clippy::unwrap_used)]

mod fixture;

use bytes::Bytes;
use chronolith_engine::Durability;
use chronolith_mvcc::{CatchUpLimits, Kind, WatchHub, WatchSpec};
use chronolith_proto::{etcdserverpb::PutRequest, mvccpb::Event};
use fixture::{
    KnownLeases, Store, commands,
    commands::{Command, KNOWN_LEASES},
    model::{Model, in_span, kind_of},
    put,
    watcher::{Watcher, by_revision},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

#[derive(Clone, Debug)]
enum Step {
    Run(Vec<Command>),
    Scrub,
    /// A watcher with a start so many revisions back (negative: ahead) and a queue of so many batches.
    Watch {
        spec: WatchSpec,
        back: Option<i64>,
        capacity: usize,
    },
    /// One watcher takes from its queue.
    Take(usize, usize),
    /// One watcher calls for the past, so many events at a time.
    CatchUp(usize, usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let wishes = (
        any::<bool>(),
        prop_oneof![4 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))],
    );
    let watch =
        (commands::key(), commands::end(), wishes, proptest::option::of(-3i64..12), 0usize..4)
            .prop_map(|(key, range_end, (prev_kv, (no_put, no_delete)), back, capacity)| {
                let spec =
                    WatchSpec { key, range_end, start_revision: 0, no_put, no_delete, prev_kv };
                Step::Watch { spec, back, capacity }
            });
    prop_oneof![
        6 => vec(commands::command(), 1..4).prop_map(Step::Run),
        1 => Just(Step::Scrub),
        3 => watch,
        3 => (0usize..9, 1usize..3).prop_map(|(who, batches)| Step::Take(who, batches)),
        6 => (0usize..9, 1usize..5).prop_map(|(who, events)| Step::CatchUp(who, events)),
        1 => (0usize..9).prop_map(Step::Cancel),
    ]
}

fn limits(max_events: usize) -> CatchUpLimits {
    CatchUpLimits { max_events, max_revisions: 3, ..Default::default() }
}

struct World {
    store: Store,
    model: Model,
    hub: Arc<WatchHub>,
    /// With the first revision it wants.
    watchers: Vec<(Watcher, i64)>,
}

impl World {
    fn new() -> Self {
        let (mut store, mut model) = (Store::new(), Model::new());
        store.leases.ids.extend(KNOWN_LEASES);
        model.leases.ids.extend(KNOWN_LEASES);
        let hub = Arc::clone(store.mvcc.reader().watch_hub());
        Self { store, model, hub, watchers: vec![] }
    }

    fn step(&mut self, step: &Step) {
        let count = self.watchers.len().max(1);
        match step {
            Step::Run(commands) => {
                let mut run = self.store.mvcc.begin_run().unwrap();
                for command in commands {
                    let _ = command.run(&mut run, &mut self.store.leases, &self.store.stamp);
                    let _ = command.model(&mut self.model);
                }
                run.commit(Durability::NoWal).unwrap();
            }
            Step::Scrub => drop(self.store.mvcc.scrub_step(3).unwrap()),
            Step::Watch { spec, back, capacity } => self.watch(spec, *back, *capacity),
            Step::Take(who, batches) => {
                if let Some((watcher, _)) = self.watchers.get_mut(who % count) {
                    watcher.take(*batches);
                }
            }
            Step::CatchUp(who, events) => {
                if let Some((watcher, _)) = self.watchers.get_mut(who % count) {
                    watcher.catch_up(&self.hub, &limits(*events));
                }
            }
            Step::Cancel(who) => {
                if who % count < self.watchers.len() {
                    let (watcher, _) = self.watchers.swap_remove(who % count);
                    assert_eq!(self.hub.cancel(watcher.id), watcher.compacted.is_none());
                }
            }
        }
    }

    fn watch(&mut self, spec: &WatchSpec, back: Option<i64>, capacity: usize) {
        let current = self.model.revision();
        let start_revision = back.map_or(0, |back| (current - back).max(1));
        let first = if start_revision > 0 { start_revision } else { current + 1 };
        let spec = WatchSpec { start_revision, ..spec.clone() };
        let single_or_open = spec.range_end.is_empty() || spec.range_end == "\0";
        if single_or_open || spec.range_end > spec.key {
            self.watchers.push((Watcher::new(&self.hub, spec, capacity), first));
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for (watcher, first) in &mut self.watchers {
            watcher.sync(&self.hub, &limits(2));
            let spec = &watcher.spec;
            let wanted = |event: &Event| {
                let filtered = match kind_of(event) {
                    Kind::Put => spec.no_put,
                    Kind::Delete | Kind::Expire => spec.no_delete,
                };
                !filtered && in_span(&spec.key, &spec.range_end, &event.kv.as_ref().unwrap().key)
            };
            let mut expected = by_revision(&self.model.events(*first, wanted));
            let mut heard = by_revision(&watcher.heard);
            if let Some(compact) = watcher.compacted {
                prop_assert!(compact <= self.model.compact);
                prop_assert!(heard.len() <= expected.len());
                let last = heard.keys().next_back().copied().unwrap_or(0);
                expected.retain(|revision, _| *revision <= last);
            }
            // Catching up cannot tell a previous value that was compacted; who listens live can.
            for (revision, events) in &mut expected {
                for (index, event) in events.iter_mut().enumerate() {
                    let told = heard.get_mut(revision).and_then(|events| events.get_mut(index));
                    let untold = told.is_some_and(|event| event.prev_kv.is_none());
                    if !spec.prev_kv || (untold && revision - 1 < self.model.compact) {
                        event.prev_kv = None;
                    }
                }
            }
            prop_assert_eq!(heard, expected, "{:?}", spec);
        }
        Ok(())
    }
}

#[test]
fn in_random_histories() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() };
    let mut runner = TestRunner::new(config);
    runner
        .run(&vec(step(), 0..50), |steps| {
            let mut world = World::new();
            steps.iter().for_each(|step| world.step(step));
            world.check()
        })
        .unwrap();
}

const REVISIONS: i64 = 4_000;
const KEYS: i64 = 5;
const OWNERS: usize = 6;

/// What the writer does at each revision: one key of a few, its value the revision.
fn written(revision: i64) -> PutRequest {
    put(format!("k{}", revision % KEYS), revision.to_string())
}

/// Owners take and catch up on threads of their own while the writer runs: their watchers fall
/// behind and become synced again all the time, at any moment of a publication.
#[test]
fn while_everybody_runs_at_once() {
    let mut store = Store::new();
    let hub = Arc::clone(store.mvcc.reader().watch_hub());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let owners: Vec<_> = (0..OWNERS)
            .map(|owner| {
                let (hub, done) = (&hub, &done);
                scope.spawn(move || own(hub, done, owner))
            })
            .collect();
        let mut next = 2;
        while next <= REVISIONS {
            let mut run = store.mvcc.begin_run().unwrap();
            for _ in 0..=next % 7 {
                run.put(&written(next), &mut KnownLeases::default(), &store.stamp).unwrap();
                next += 1;
            }
            run.commit(Durability::NoWal).unwrap();
        }
        done.store(true, Ordering::Release);
        let last = next - 1;
        for (owner, thread) in owners.into_iter().enumerate() {
            for (key, first, heard) in thread.join().unwrap() {
                let expected: Vec<i64> = (first..=last)
                    .filter(|revision| key.is_none_or(|key| revision % KEYS == key))
                    .collect();
                assert!(heard == expected, "owner {owner}, key {key:?}, from {first}: {heard:?}");
            }
        }
    });
}

/// Key (all if none), first revision, and the revisions heard.
type Heard = (Option<i64>, i64, Vec<i64>);

fn own(hub: &WatchHub, done: &AtomicBool, owner: usize) -> Vec<Heard> {
    let spec = |key: Option<i64>, start_revision| WatchSpec {
        key: key.map_or("k".into(), |key| format!("k{key}").into()),
        range_end: if key.is_some() { Bytes::new() } else { "l".into() },
        start_revision,
        ..Default::default()
    };
    let mut watchers: Vec<(Option<i64>, Watcher)> = (0..KEYS)
        .map(|key| Some(key).filter(|key| *key > 1))
        .map(|key| (key, Watcher::new(hub, spec(key, 2), 1 + owner)))
        .collect();
    let small = CatchUpLimits { max_events: 3 + 20 * owner, ..Default::default() };
    loop {
        let finished = done.load(Ordering::Acquire);
        for (_, watcher) in &mut watchers {
            watcher.take(1 + owner);
            if !hub.is_synced(watcher.id) {
                watcher.catch_up(hub, &small);
            }
        }
        if finished {
            break;
        }
    }
    let revisions = |watcher: &Watcher| -> Vec<i64> {
        watcher.heard.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
    };
    watchers
        .into_iter()
        .map(|(key, mut watcher)| {
            watcher.sync(hub, &small);
            (key, 2, revisions(&watcher))
        })
        .collect()
}
