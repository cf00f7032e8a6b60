//! What every caller may rely on, for each backend.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::{Backend, get, keys, keys_back, put, text};
use chronolith_engine::{ColumnId, Durability, Engine, Error, KeyRange, Overlay, WriteBatch};
use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tempfile::TempDir;

for_every_backend!(
    a_batch_changes_all_its_columns_in_order,
    columns_are_apart_and_keep_their_number,
    an_unknown_column_changes_nothing,
    deleting_a_range_leaves_its_end,
    multi_get_answers_in_the_order_of_the_keys,
    a_snapshot_never_changes,
    ranges_have_open_closed_and_no_bounds,
    seeks_stay_inside_the_range,
    the_first_record_of_a_range_needs_no_cursor,
    a_cursor_turns_round_anywhere,
    a_prefix_is_a_range,
    any_bytes_are_keys_and_values,
    a_checkpoint_restores_to_what_it_was,
    a_checkpoint_is_not_written_over,
    a_closed_engine_says_so,
    readers_see_whole_batches,
    a_transaction_reads_its_own_writes,
    a_transaction_merges_cursors_both_ways,
    a_rolled_back_transaction_leaves_nothing,
    a_transaction_keeps_its_view,
);

struct Fixture {
    engine: Arc<dyn Engine>,
    column: ColumnId,
    dir: TempDir,
}

fn fixture(backend: &Backend) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let engine = (backend.create)(&dir.path().join("engine"));
    let column = engine.column("c").unwrap();
    Fixture { engine, column, dir }
}

fn filled(backend: &Backend) -> Fixture {
    let fixture = fixture(backend);
    put(&*fixture.engine, fixture.column, &[("b", "1"), ("d", "2"), ("f", "3"), ("h", "4")]);
    fixture
}

fn a_batch_changes_all_its_columns_in_order(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let other = engine.column("other").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(column, "k", "first");
    batch.delete(column, "k");
    batch.put(column, "k", "last");
    batch.put(other, "gone", "x");
    batch.delete(other, "gone");
    batch.put(other, "y", "1");
    batch.delete_range(other, "x", "z");
    batch.put(other, "y", "2");
    engine.write(batch, Durability::Buffered).unwrap();
    assert_eq!(get(&*engine, column, "k").as_deref(), Some("last"));
    assert_eq!(get(&*engine, other, "gone"), None);
    assert_eq!(get(&*engine, other, "y").as_deref(), Some("2"));
}

fn columns_are_apart_and_keep_their_number(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let other = engine.column("other").unwrap();
    assert_ne!(column, other);
    assert_eq!(engine.column("c").unwrap(), column);
    assert_eq!(get(&*engine, other, "b"), None);
}

fn an_unknown_column_changes_nothing(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let unknown = ColumnId(99);
    let mut batch = WriteBatch::new();
    batch.put(column, "k", "v");
    batch.put(unknown, "k", "v");
    let error = engine.write(batch, Durability::Sync).unwrap_err();
    assert!(matches!(error, Error::UnknownColumn(99)), "{error}");
    assert_eq!(get(&*engine, column, "k"), None);
    assert!(engine.get(unknown, b"k").is_err());
    assert!(engine.snapshot().unwrap().cursor(unknown, KeyRange::all()).is_err());
}

fn deleting_a_range_leaves_its_end(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let mut batch = WriteBatch::new();
    batch.delete_range(column, "d", "h");
    batch.delete_range(column, "z", "a");
    engine.write(batch, Durability::Buffered).unwrap();
    assert_eq!(keys(&*engine.snapshot().unwrap(), column, KeyRange::all()), ["b", "h"]);
}

fn multi_get_answers_in_the_order_of_the_keys(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let values = engine.multi_get(column, &[b"h", b"nothing", b"b", b"h"]).unwrap();
    let values: Vec<_> = values.iter().map(|value| value.as_deref().map(text)).collect();
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(values, [some("4"), None, some("1"), some("4")]);
}

fn a_snapshot_never_changes(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let before = engine.snapshot().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(column, "a", "g");
    batch.put(column, "h", "new");
    batch.put(column, "z", "new");
    engine.write(batch, Durability::Buffered).unwrap();
    assert_eq!(keys(&*before, column, KeyRange::all()), ["b", "d", "f", "h"]);
    assert_eq!(before.get(column, b"h").unwrap().as_deref(), Some(&b"4"[..]));
    assert_eq!(before.get(column, b"z").unwrap(), None);
    assert_eq!(keys(&*engine.snapshot().unwrap(), column, KeyRange::all()), ["h", "z"]);
}

fn ranges_have_open_closed_and_no_bounds(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let snapshot = engine.snapshot().unwrap();
    let (included, excluded) = (|key| Bound::Included(key), |key| Bound::Excluded(key));
    let cases: &[(Bound<&'static str>, Bound<&'static str>, &[&str])] = &[
        (Bound::Unbounded, Bound::Unbounded, &["b", "d", "f", "h"]),
        (included("d"), included("f"), &["d", "f"]),
        (included("d"), excluded("f"), &["d"]),
        (excluded("d"), included("f"), &["f"]),
        (excluded("d"), excluded("f"), &[]),
        (excluded("d"), excluded("d"), &[]),
        (included("d"), included("d"), &["d"]),
        (included("c"), Bound::Unbounded, &["d", "f", "h"]),
        (Bound::Unbounded, excluded("h"), &["b", "d", "f"]),
        (included("x"), included("a"), &[]),
    ];
    for (start, end, expected) in cases {
        let range = KeyRange { start: start.map(Into::into), end: end.map(Into::into) };
        assert_eq!(keys(&*snapshot, column, range.clone()), *expected, "{range:?}");
        let mut back = keys_back(&*snapshot, column, range.clone());
        back.reverse();
        assert_eq!(back, *expected, "{range:?} backward");
    }
}

fn the_first_record_of_a_range_needs_no_cursor(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let snapshot = engine.snapshot().unwrap();
    engine.write(one_put(column, "c", "later"), Durability::Buffered).unwrap();
    let cases = [("a", "z", Some("b"), Some("b")), ("c", "e", Some("c"), Some("d"))];
    let none = [("i", "z", None, None), ("d", "d", None, None), ("f", "b", None, None)];
    for (start, end, now, before) in cases.into_iter().chain(none) {
        let key = |found: Option<(bytes::Bytes, bytes::Bytes)>| found.map(|(key, _)| key);
        let found = engine.first(column, start.as_bytes(), end.as_bytes()).unwrap();
        assert_eq!(key(found).as_deref(), now.map(str::as_bytes), "{start}..{end}");
        let found = snapshot.first(column, start.as_bytes(), end.as_bytes()).unwrap();
        assert_eq!(key(found).as_deref(), before.map(str::as_bytes), "{start}..{end} before");
    }
}

fn one_put(column: ColumnId, key: &'static str, value: &'static str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(column, key, value);
    batch
}

fn seeks_stay_inside_the_range(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let snapshot = engine.snapshot().unwrap();
    let range = KeyRange::half_open("c".into(), "h".into());
    let mut cursor = snapshot.cursor(column, range).unwrap();
    assert!(!cursor.valid(), "not positioned yet");
    cursor.seek(b"a").unwrap();
    assert_eq!(cursor.key(), b"d");
    cursor.seek(b"e").unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"f"[..], &b"3"[..]));
    assert_eq!((&cursor.key_bytes()[..], &cursor.value_bytes()[..]), (&b"f"[..], &b"3"[..]));
    cursor.seek(b"g").unwrap();
    assert!(!cursor.valid(), "h lies outside");
    cursor.seek_for_prev(b"z").unwrap();
    assert_eq!(cursor.key(), b"f");
    cursor.seek_for_prev(b"e").unwrap();
    assert_eq!(cursor.key(), b"d");
    cursor.prev().unwrap();
    assert!(!cursor.valid(), "b lies outside");
    cursor.next().unwrap();
    assert!(!cursor.valid(), "a cursor that left its range stays out until it is positioned again");
    cursor.seek_for_prev(b"a").unwrap();
    assert!(!cursor.valid());
}

fn a_cursor_turns_round_anywhere(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    let mut seen = vec![text(cursor.key())];
    for forward in [true, true, false, true, true, false, false, false] {
        if forward {
            cursor.next().unwrap()
        } else {
            cursor.prev().unwrap()
        }
        seen.push(text(cursor.key()));
    }
    assert_eq!(seen, ["b", "d", "f", "d", "f", "h", "f", "d", "b"]);
}

fn a_prefix_is_a_range(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    put(&*engine, column, &[("a", ""), ("ab", ""), ("abc", ""), ("ac", ""), ("b", "")]);
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(keys(&*snapshot, column, KeyRange::prefix(b"ab")), ["ab", "abc"]);
    assert_eq!(keys(&*snapshot, column, KeyRange::prefix(b"")).len(), 5);
    assert!(matches!(KeyRange::prefix(&[0xff, 0xff]).end, Bound::Unbounded));
    assert_eq!(KeyRange::prefix(&[7, 0xff]).end, Bound::Excluded(vec![8].into()));
}

fn any_bytes_are_keys_and_values(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let keys = [&b""[..], &[0], &[0, 0], &[0xff], &[0xff, 0xff], &[7; 70_000]];
    let mut batch = WriteBatch::new();
    for key in keys {
        batch.put(column, key.to_vec(), key.to_vec());
    }
    engine.write(batch, Durability::Sync).unwrap();
    for key in keys {
        assert_eq!(engine.get(column, key).unwrap().as_deref(), Some(key));
    }
    put(&*engine, column, &[("empty", "")]);
    assert_eq!(get(&*engine, column, "empty").as_deref(), Some(""));
}

fn a_checkpoint_restores_to_what_it_was(backend: &Backend) {
    let Fixture { engine, column, dir } = filled(backend);
    let empty = engine.column("empty").unwrap();
    let checkpoint = dir.path().join("checkpoint");
    engine.checkpoint(&checkpoint).unwrap();
    put(&*engine, column, &[("later", "")]);

    let restored = (backend.restore)(&checkpoint).unwrap();
    assert_eq!(restored.column("c").unwrap(), column, "columns keep their numbers");
    assert_eq!(restored.column("empty").unwrap(), empty);
    let snapshot = restored.snapshot().unwrap();
    assert_eq!(keys(&*snapshot, column, KeyRange::all()), ["b", "d", "f", "h"]);
    assert_eq!(get(&*restored, column, "h").as_deref(), Some("4"));
}

fn a_checkpoint_is_not_written_over(backend: &Backend) {
    let Fixture { engine, dir, .. } = filled(backend);
    let checkpoint = dir.path().join("checkpoint");
    engine.checkpoint(&checkpoint).unwrap();
    assert!(matches!(engine.checkpoint(&checkpoint), Err(Error::Io { .. })));
}

fn a_closed_engine_says_so(backend: &Backend) {
    let Fixture { engine, column, dir } = filled(backend);
    engine.close().unwrap();
    engine.close().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(column, "k", "v");
    let refused = [
        engine.write(batch, Durability::Buffered).map(drop),
        engine.get(column, b"b").map(drop),
        engine.multi_get(column, &[b"b"]).map(drop),
        engine.snapshot().map(drop),
        engine.column("new").map(drop),
        engine.checkpoint(&dir.path().join("checkpoint")),
        engine.flush(),
        Overlay::new(Arc::clone(&engine)).map(drop),
    ];
    for answer in refused {
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    }
}

/// Every batch writes one number to keys at both ends of two columns: a reader that sees two
/// numbers has seen half a batch.
fn readers_see_whole_batches(backend: &Backend) {
    const BATCHES: u32 = 400;
    /// Alternately below and above the size that the memory engine applies in place.
    const SIZES: [u32; 2] = [3, 600];
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let other = engine.column("other").unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, done) = (Arc::clone(&engine), Arc::clone(&done));
            thread::spawn(move || {
                let mut views = 0;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = engine.snapshot().unwrap();
                    let first = snapshot.get(column, b"000000").unwrap();
                    assert_eq!(first, snapshot.get(other, b"last").unwrap());
                    assert_eq!(first, snapshot.get(column, b"000002").unwrap());
                    views += 1;
                }
                views
            })
        })
        .collect();
    for number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        for key in 0..SIZES[number as usize % SIZES.len()] {
            batch.put(column, format!("{key:06}"), number.to_string());
        }
        batch.put(other, "last", number.to_string());
        engine.write(batch, Durability::NoWal).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}

fn a_transaction_reads_its_own_writes(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let mut overlay = Overlay::new(Arc::clone(&engine)).unwrap();
    assert!(overlay.is_empty());
    overlay.put(column, "b", "new");
    overlay.delete(column, "d");
    overlay.put(column, "e", "5");
    overlay.delete_range(column, "e", "g");
    overlay.put(column, "f", "6");
    let read = |key: &str| overlay.get(column, key.as_bytes()).unwrap().map(|value| text(&value));
    assert_eq!(read("b").as_deref(), Some("new"));
    assert_eq!(read("d"), None);
    assert_eq!(read("e"), None);
    assert_eq!(read("f").as_deref(), Some("6"));
    assert_eq!(read("h").as_deref(), Some("4"));
    assert!(!overlay.is_empty());
    overlay.commit(Durability::Sync).unwrap();
    assert_eq!(keys(&*engine.snapshot().unwrap(), column, KeyRange::all()), ["b", "f", "h"]);
}

fn a_transaction_merges_cursors_both_ways(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let mut overlay = Overlay::new(Arc::clone(&engine)).unwrap();
    overlay.put(column, "a", "");
    overlay.put(column, "c", "");
    overlay.put(column, "d", "over");
    overlay.delete(column, "f");
    overlay.put(column, "i", "");
    let mut cursor = overlay.cursor(column, KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    let mut seen = vec![text(cursor.key())];
    for forward in [true, true, true, true, false, true, true, false, false, false, false, false] {
        if forward {
            cursor.next().unwrap()
        } else {
            cursor.prev().unwrap()
        }
        seen.push(text(cursor.key()));
    }
    assert_eq!(seen, ["a", "b", "c", "d", "h", "d", "h", "i", "h", "d", "c", "b", "a"]);
    cursor.seek(b"d").unwrap();
    assert_eq!(cursor.value(), b"over");
}

fn a_rolled_back_transaction_leaves_nothing(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let mut overlay = Overlay::new(Arc::clone(&engine)).unwrap();
    overlay.delete_range(column, "a", "z");
    overlay.put(column, "new", "");
    overlay.rollback();
    assert_eq!(keys(&*engine.snapshot().unwrap(), column, KeyRange::all()), ["b", "d", "f", "h"]);
}

fn a_transaction_keeps_its_view(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    let overlay = Overlay::new(Arc::clone(&engine)).unwrap();
    put(&*engine, column, &[("b", "later")]);
    assert_eq!(overlay.get(column, b"b").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(overlay.base().get(column, b"b").unwrap().as_deref(), Some(&b"1"[..]));
}
