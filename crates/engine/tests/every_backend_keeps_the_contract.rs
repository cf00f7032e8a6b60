//! What every caller may rely on, for each backend.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::{Backend, get, keys, keys_back, put, text};
use chronolith_engine::{
    BulkLoader, Checkpoints, ColumnId, Durability, Engine, Error, KeyRange, MAX_KEY_BYTES, Overlay,
    WriteBatch, copy_checkpoint,
};
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
    sorted_records_are_ingested_whole_or_not_at_all,
    a_bulk_load_leaves_every_record,
    compacting_a_range_changes_nothing_that_is_read,
    statistics_are_the_counts_that_happened,
    metrics_are_well_formed,
    the_newest_checkpoints_are_kept_and_copied,
    keys_beyond_their_limit_are_refused,
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
        batch.put(column, key, key);
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
    const BATCHES: u32 = 200;
    /// Alternately below and above the size that the memory engine applies in place.
    const SIZES: [u32; 2] = [3, 1200];
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

fn numbered(records: u32) -> impl Iterator<Item = (bytes::Bytes, bytes::Bytes)> {
    (0..records).map(|number| (format!("{number:08}").into(), format!("value {number}").into()))
}

fn sorted_records_are_ingested_whole_or_not_at_all(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    assert_eq!(engine.ingest(column, &mut numbered(5_000)).unwrap(), 5_000);
    assert_eq!(engine.ingest(column, &mut numbered(0)).unwrap(), 0);
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(keys(&*snapshot, column, KeyRange::all()).len(), 5_004);
    assert_eq!(get(&*engine, column, "00000777").as_deref(), Some("value 777"));

    let mut wrong =
        [("x1", ""), ("x3", ""), ("x2", "")].map(|(k, v)| (k.into(), v.into())).into_iter();
    let error = engine.ingest(column, &mut wrong).unwrap_err();
    assert!(matches!(error, Error::NotAscending { position: 2 }), "{error}");
    let mut twice = [("x1", ""), ("x1", "")].map(|(k, v)| (k.into(), v.into())).into_iter();
    assert!(matches!(engine.ingest(column, &mut twice), Err(Error::NotAscending { position: 1 })));
    assert_eq!(get(&*engine, column, "x1"), None);
}

fn a_bulk_load_leaves_every_record(backend: &Backend) {
    const RECORDS: u32 = 120_000;
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let mut seen = Vec::new();
    let mut loader = BulkLoader::new(&*engine, Durability::Sync)
        .on_progress(|progress| seen.push((progress.records, progress.chunks)));
    for (key, value) in numbered(RECORDS) {
        loader.put(column, key, value).unwrap();
    }
    let report = loader.finish().unwrap();
    assert_eq!(report.records, u64::from(RECORDS));
    assert_eq!(seen.last(), Some(&(report.records, report.chunks)));
    assert!(report.best_records_per_s > 0.0 && report.chunks > 0);
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(keys(&*snapshot, column, KeyRange::all()).len(), RECORDS as usize);
}

fn compacting_a_range_changes_nothing_that_is_read(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    engine.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete(column, "d");
    engine.write(batch, Durability::Buffered).unwrap();
    engine.flush().unwrap();
    engine.compact_range(column, KeyRange::half_open("a".into(), "f".into())).unwrap();
    engine.compact_range(column, KeyRange::all()).unwrap();
    assert_eq!(keys(&*engine.snapshot().unwrap(), column, KeyRange::all()), ["b", "f", "h"]);
    assert!(engine.compact_range(ColumnId(99), KeyRange::all()).is_err());
}

fn statistics_are_the_counts_that_happened(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let before = engine.stats().unwrap();
    for _ in 0..3 {
        put(&*engine, column, &[("a", "12345"), ("b", "12345")]);
    }
    for key in ["a", "b", "absent"] {
        get(&*engine, column, key);
    }
    engine.multi_get(column, &[b"a", b"absent"]).unwrap();
    let snapshot = engine.snapshot().unwrap();
    snapshot.get(column, b"a").unwrap();
    assert_eq!(keys(&*snapshot, column, KeyRange::all()), ["a", "b"]);

    let stats = engine.stats().unwrap();
    assert_eq!((stats.batches, stats.records_written, stats.bytes_written), (3, 6, 36));
    assert_eq!((stats.gets, stats.gets_found, stats.bytes_read), (6, 4, 20));
    assert_eq!((stats.seeks, stats.steps), (1, 2));
    assert_eq!(stats.write_latency.count(), 3);
    assert!(stats.write_latency.quantile(0.99) >= stats.write_latency.quantile(0.5));
    let rates = stats.since(&before);
    let expected = 3.0 / rates.interval.as_secs_f64();
    assert!((rates.batches_per_s / expected - 1.0).abs() < 1e-6, "{rates:?}");
    assert_eq!(rates.write_latency.count(), 3);
    assert_eq!(engine.stats().unwrap().since(&stats).records_per_s, 0.0);
    let table = stats.to_string();
    assert!(table.contains("batches") && table.contains("p99.9"), "{table}");
}

/// Each sample belongs to the family announced before it; the text ends with its mark.
fn metrics_are_well_formed(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = filled(backend);
    (0..100).for_each(|_| drop(get(&*engine, column, "b")));
    let text = engine.stats().unwrap().open_metrics();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(family) && !family.is_empty(), "{line}");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        }
    }
    assert!(text.ends_with("# EOF\n"));
    let name = engine.name();
    let batches = format!("chronolith_engine_batches_total{{backend=\"{name}\"}} 1\n");
    assert!(text.contains(&batches), "{text}");
}

fn the_newest_checkpoints_are_kept_and_copied(backend: &Backend) {
    let Fixture { engine, column, dir } = filled(backend);
    let root = dir.path().join("checkpoints");
    let checkpoints = Checkpoints::new(&root, 2);
    assert_eq!(checkpoints.newest().unwrap(), None);
    std::fs::create_dir_all(root.join("checkpoint-00000000000000000009.partial")).unwrap();
    for number in 0..4 {
        put(&*engine, column, &[("number", &number.to_string())]);
        checkpoints.take(&*engine).unwrap();
    }
    let names: Vec<_> =
        checkpoints.list().unwrap().iter().map(|dir| dir.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["checkpoint-00000000000000000003", "checkpoint-00000000000000000004"]);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2, "nothing else is left");

    let newest = checkpoints.newest().unwrap().unwrap();
    let copy = dir.path().join("copy");
    copy_checkpoint(&newest, &copy).unwrap();
    let changed = (backend.restore)(&copy).unwrap();
    assert_eq!(get(&*changed, column, "number").as_deref(), Some("3"));
    put(&*changed, column, &[("number", "changed")]);
    changed.flush().unwrap();
    changed.compact_range(column, KeyRange::all()).unwrap();
    changed.close().unwrap();
    let again = dir.path().join("again");
    copy_checkpoint(&newest, &again).unwrap();
    let unchanged = (backend.restore)(&again).unwrap();
    assert_eq!(get(&*unchanged, column, "number").as_deref(), Some("3"));
}

fn keys_beyond_their_limit_are_refused(backend: &Backend) {
    let Fixture { engine, column, dir: _dir } = fixture(backend);
    let mut batch = WriteBatch::new();
    batch.put(column, "small", "");
    batch.put(column, vec![7; MAX_KEY_BYTES + 1], "");
    let error = engine.write(batch, Durability::Buffered).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(get(&*engine, column, "small"), None);
    put(&*engine, column, &[("still", "open")]);
}
