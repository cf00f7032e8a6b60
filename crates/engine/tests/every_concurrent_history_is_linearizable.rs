//! Threads write batches and read, all at once; what each was told must have an order that explains it.
#![allow(clippy::unwrap_used)]

mod backend;
mod history;

use backend::Backend;
use bytes::Bytes;
use chronolith_engine::{ColumnId, Durability, Engine, KeyRange, WriteBatch};
use history::{Call, Event, KEYS, State, is_linearizable};
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

const HISTORIES: u64 = 150;
const THREADS: u64 = 4;
const CALLS: u64 = 12;
/// Records beside those that are read, in some batches: the memory engine puts large ones into its trees
/// in slices, in the order of their keys, and where readers wait and 1,024 are left, into a copy.
const FILLING: u32 = 1_300;

for_every_backend!(every_history_has_an_order);

/// What the threads use: an engine, or a broken one.
trait Store: Sync {
    fn write(&self, changes: &[(usize, Option<u32>)], filling: bool, durability: Durability);
    fn read(&self, key: usize) -> Option<u32>;
    fn read_all(&self, way: u64) -> State;
}

struct Sound {
    engine: Arc<dyn Engine>,
    column: ColumnId,
}

/// `a`, `c`, `e`.
fn name(key: usize) -> Vec<u8> {
    vec![b'a' + 2 * key as u8]
}

/// Between the keys, `b…` and `d…`, so that not all of them fall into one slice of a batch.
fn filling(number: u32) -> Vec<u8> {
    let first = if number.is_multiple_of(2) { b'b' } else { b'd' };
    [&[first][..], &number.to_be_bytes()].concat()
}

fn number(value: Option<Bytes>) -> Option<u32> {
    value.map(|value| u32::from_be_bytes(value[..].try_into().unwrap()))
}

impl Store for Sound {
    fn write(&self, changes: &[(usize, Option<u32>)], filling: bool, durability: Durability) {
        let mut batch = WriteBatch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(self.column, name(*key), value.to_be_bytes()),
                None => batch.delete(self.column, name(*key)),
            }
        }
        for number in 0..if filling { FILLING } else { 0 } {
            batch.put(self.column, self::filling(number), "");
        }
        self.engine.write(batch, durability).unwrap();
    }

    fn read(&self, key: usize) -> Option<u32> {
        number(self.engine.get(self.column, &name(key)).unwrap())
    }

    fn read_all(&self, way: u64) -> State {
        let names: [Vec<u8>; KEYS] = std::array::from_fn(name);
        if way == 0 {
            let found = self.engine.multi_get(self.column, &names.each_ref().map(|name| &name[..]));
            return found.unwrap().into_iter().map(number).collect::<Vec<_>>().try_into().unwrap();
        }
        let snapshot = self.engine.snapshot().unwrap();
        if way == 1 {
            return names.map(|name| number(snapshot.get(self.column, &name).unwrap()));
        }
        let mut cursor = snapshot.cursor(self.column, KeyRange::all()).unwrap();
        names.map(|name| {
            cursor.seek(&name).unwrap();
            let found = cursor.valid() && cursor.key() == name;
            found.then(|| number(Some(cursor.value_bytes()))).flatten()
        })
    }
}

/// Runs the threads once and gives what happened.
fn history(store: &dyn Store, seed: u64) -> Vec<Event> {
    let (clock, barrier) = (AtomicU64::new(0), Barrier::new(THREADS as usize));
    thread::scope(|scope| {
        let run = |thread| {
            let (clock, barrier) = (&clock, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let step = |step| event(store, clock, seed, thread, step);
                (0..CALLS).map(step).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn event(store: &dyn Store, clock: &AtomicU64, seed: u64, thread: u64, step: u64) -> Event {
    let random = mix(seed << 32 | thread << 16 | step);
    let key = (random >> 8) as usize % KEYS;
    let unique = (thread * CALLS + step) as u32 + 1;
    let begun = clock.fetch_add(1, Ordering::SeqCst);
    let call = match random % 8 {
        0..3 => {
            let changes: Vec<_> = (0..KEYS).map(|key| (key, Some(unique))).collect();
            let durability =
                if random >> 32 & 7 == 0 { Durability::Sync } else { Durability::Buffered };
            store.write(&changes, random >> 40 & 3 == 0, durability);
            Call::Write(changes)
        }
        3 => {
            let changes = vec![(key, None)];
            store.write(&changes, false, Durability::NoWal);
            Call::Write(changes)
        }
        4 => Call::Read(key, store.read(key)),
        way => Call::ReadAll(store.read_all(way - 5)),
    };
    Event { begun, ended: clock.fetch_add(1, Ordering::SeqCst), call }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 3
}

/// The first history without an order; each begins with no key.
fn first_unexplained(store: &dyn Store) -> Option<Vec<Event>> {
    (0..HISTORIES).find_map(|seed| {
        let nothing: Vec<_> = (0..KEYS).map(|key| (key, None)).collect();
        store.write(&nothing, false, Durability::NoWal);
        let events = history(store, seed);
        (!is_linearizable(&events)).then_some(events)
    })
}

fn sound(backend: &Backend) -> (Sound, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let engine = (backend.create)(&dir.path().join("engine"));
    let column = engine.column("c").unwrap();
    (Sound { engine, column }, dir)
}

fn every_history_has_an_order(backend: &Backend) {
    let (store, _dir) = sound(backend);
    let unexplained = first_unexplained(&store);
    assert!(unexplained.is_none(), "no order explains {unexplained:#?}");
}

/// Applies a batch in two parts.
struct Torn(Sound);

impl Store for Torn {
    fn write(&self, changes: &[(usize, Option<u32>)], filling: bool, durability: Durability) {
        let (first, second) = changes.split_at(changes.len() / 2);
        self.0.write(first, filling, durability);
        thread::yield_now();
        self.0.write(second, false, durability);
    }

    fn read(&self, key: usize) -> Option<u32> {
        self.0.read(key)
    }

    fn read_all(&self, way: u64) -> State {
        self.0.read_all(way)
    }
}

/// Reads keys one after the other, not from one view.
struct Blurred(Sound);

impl Store for Blurred {
    fn write(&self, changes: &[(usize, Option<u32>)], filling: bool, durability: Durability) {
        self.0.write(changes, filling, durability);
    }

    fn read(&self, key: usize) -> Option<u32> {
        self.0.read(key)
    }

    fn read_all(&self, _way: u64) -> State {
        std::array::from_fn(|key| {
            thread::yield_now();
            self.0.read(key)
        })
    }
}

#[test]
fn a_store_that_tears_batches_is_found_out() {
    let (store, _dir) = sound(&backend::MEMORY);
    assert!(first_unexplained(&Torn(store)).is_some());
}

#[test]
fn a_store_without_views_is_found_out() {
    let (store, _dir) = sound(&backend::MEMORY);
    assert!(first_unexplained(&Blurred(store)).is_some());
}

fn at(begun: u64, ended: u64, call: Call) -> Event {
    Event { begun, ended, call }
}

#[test]
fn a_read_of_what_was_overwritten_before_it_began_has_no_order() {
    let writes =
        [at(0, 1, Call::Write(vec![(0, Some(1))])), at(2, 3, Call::Write(vec![(0, Some(2))]))];
    let read = |begun, found| at(begun, 9, Call::Read(0, Some(found)));
    let with = |event: Event| [&writes[..], &[event]].concat();
    assert!(is_linearizable(&with(read(4, 2))));
    assert!(!is_linearizable(&with(read(4, 1))), "stale");
    assert!(is_linearizable(&with(read(2, 1))), "it began beside the second write");
    assert!(!is_linearizable(&with(read(2, 3))), "never written");
}

#[test]
fn two_readers_may_not_see_two_writes_in_different_orders() {
    let writes =
        [at(0, 9, Call::Write(vec![(0, Some(1))])), at(0, 9, Call::Write(vec![(0, Some(2))]))];
    let reads = |a, b, c, d| {
        [(1, 2, a), (3, 4, b), (1, 2, c), (3, 4, d)]
            .map(|(begun, ended, found)| at(begun, ended, Call::Read(0, Some(found))))
    };
    assert!(is_linearizable(&[&writes[..], &reads(1, 2, 1, 2)].concat()));
    assert!(!is_linearizable(&[&writes[..], &reads(1, 2, 2, 1)].concat()));
}
