//! The original prototype named thirteen tests, compiled with assertions off. Here each can fail.
//!
//! Its words map to ours: a slot flushed to the tree is a late run merged into blocks (`settle`); a leaf
//! is a series; the flipper is another thread that settles again and again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chronolith_series::{Index, Key, MAX_TIME, Options, Point, SeriesId};

fn index_of(series: u32) -> Index {
    let index = Index::new();
    for id in 0..series {
        index.register_id(SeriesId(id)).unwrap();
    }
    index
}

fn append_all(index: &Index, series: SeriesId, times: impl IntoIterator<Item = i64>) {
    for time in times {
        index.append(series, time, time as f64).unwrap();
    }
}

fn times_of(points: &[Point]) -> Vec<i64> {
    points.iter().map(|point| point.time).collect()
}

const S: SeriesId = SeriesId(0);

#[test]
fn single_thread_flush_all() {
    let index = index_of(1);
    append_all(&index, S, 0..1000);
    assert_eq!(index.settle().unwrap(), 0);
    let stats = index.stats();
    assert_eq!((stats.points, stats.late_points), (1000, 0));
    assert_eq!(times_of(&index.range(S, 0..=MAX_TIME)), (0..1000).collect::<Vec<_>>());
}

#[test]
fn multi_thread_with_flipper() {
    let index = index_of(4);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                index.settle().unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|id| {
                scope.spawn({
                    let index = &index;
                    move || append_all(index, SeriesId(id), 0..5000)
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(index.stats().points, 20_000);
    for id in 0..4 {
        assert_eq!(
            times_of(&index.range(SeriesId(id), 0..=MAX_TIME)),
            (0..5000).collect::<Vec<_>>()
        );
    }
}

#[test]
fn tail_writing_slot_visibility() {
    let index = index_of(1);
    // The writer is still alive and owns the series: nothing was closed, flushed or settled.
    let mut writer = index.writer(S).unwrap();
    for time in 0..500 {
        writer.append(time, time as f64).unwrap();
        assert_eq!(index.get(S, time), Some(time as f64), "readable when append returns");
    }
    assert_eq!(index.range(S, 0..=MAX_TIME).len(), 500);
}

fn four_runs() -> Index {
    let index = index_of(1);
    for run in [&[10, 20, 30][..], &[5, 15, 25], &[35, 40], &[1, 2, 3]] {
        let points: Vec<Point> = run.iter().map(|t| Point::new(*t, *t as f64)).collect();
        index.append_batch(S, &points).unwrap();
    }
    index
}

#[test]
fn snapshot_all_correctness() {
    let index = four_runs();
    let expected = [1, 2, 3, 5, 10, 15, 20, 25, 30, 35, 40];
    let snapshot = index.snapshot();
    assert_eq!(times_of(&snapshot.iter(S).collect::<Vec<_>>()), expected);
    index.settle().unwrap();
    append_all(&index, S, [0, 50]);
    assert_eq!(times_of(&snapshot.iter(S).collect::<Vec<_>>()), expected, "the same when repeated");
    assert_eq!(times_of(&snapshot.range(S, 0..=100)), expected);
}

#[test]
fn scan_range_correctness() {
    let index = four_runs();
    let cases: [(_, &[i64]); 6] = [
        (12..=28, &[15, 20, 25]),
        (1..=5, &[1, 2, 3, 5]),
        (30..=40, &[30, 35, 40]),
        (100..=200, &[]),
        (0..=0, &[]),
        (1..=1, &[1]),
    ];
    for settled in [false, true] {
        for (times, expected) in &cases {
            let got = times_of(&index.range(S, times.clone()));
            assert_eq!(got, *expected, "{times:?}, settled: {settled}");
        }
        index.settle().unwrap();
    }
}

#[test]
fn range_query_into() {
    let index = index_of(1);
    append_all(&index, S, 0..1000);
    let mut out = Vec::with_capacity(4096);
    index.range_into(S, 100..=200, &mut out);
    assert_eq!(out, index.range(S, 100..=200));
    assert_eq!(out.len(), 101);
    out.clear();
    index.range_into(S, 500..=600, &mut out);
    assert_eq!(out.len(), 101);
    assert_eq!(out.capacity(), 4096);
}

#[test]
fn lookup_correctness() {
    let index = index_of(1);
    append_all(&index, S, 0..1000);
    for time in 0..1000 {
        let by_range = index.range(S, time..=time);
        assert_eq!(by_range.len(), 1);
        assert_eq!(index.get(S, time), Some(by_range[0].value));
    }
    assert_eq!(index.get(S, 99_999), None);
    assert_eq!(index.get(S, -1), None);
}

#[test]
fn build_blocks_from_slot_out_of_order() {
    let index = index_of(1);
    append_all(&index, S, (0..500).rev());
    assert_eq!(times_of(&index.range(S, 0..=MAX_TIME)), (0..500).collect::<Vec<_>>());
    index.settle().unwrap();
    assert_eq!(index.stats().late_points, 0);
    assert_eq!(times_of(&index.range(S, 0..=MAX_TIME)), (0..500).collect::<Vec<_>>());
}

#[test]
fn multiple_slots_merge() {
    let index = index_of(1);
    append_all(&index, S, 0..2000);
    index.settle().unwrap();
    for time in (0..2000).step_by(100) {
        assert_eq!(index.get(S, time), Some(time as f64));
    }
    assert_eq!(index.len(S), 2000);
}

#[test]
fn cross_leaf_routing() {
    let index = index_of(10);
    for id in 0..10 {
        append_all(&index, SeriesId(id), 0..100);
    }
    for id in 0..10 {
        assert_eq!(index.range(SeriesId(id), 0..=MAX_TIME).len(), 100);
    }
    let all = index.range_keys(Key::new(S, 0)..=Key::new(SeriesId(9), MAX_TIME));
    assert_eq!(all.len(), 1000);
    assert!(all.is_sorted_by_key(|(series, point)| Key::new(*series, point.time)));
}

#[test]
fn global_max_merged_key() {
    let index = index_of(1);
    append_all(&index, S, 0..500);
    let newest = |index: &Index| index.writer(S).unwrap().newest();
    assert_eq!(newest(&index), 499);
    append_all(&index, S, 500..1000);
    assert_eq!(newest(&index), 999);
    append_all(&index, S, [3]);
    assert_eq!(newest(&index), 999, "a late point does not move it back");
}

#[test]
fn large_scale_insert() {
    let index = index_of(1);
    append_all(&index, S, 0..10_000);
    for time in [0, 100, 1000, 5000, 9999] {
        assert_eq!(index.get(S, time), Some(time as f64));
    }
    assert_eq!(index.range(S, 1000..=2000).len(), 1001);
}

#[test]
fn concurrent_insert_and_merge() {
    let index = Index::with(Options { workers: 2, ..Options::default() }).unwrap();
    for id in 0..4 {
        index.register_id(SeriesId(id)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                index.settle().unwrap();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let writers: Vec<_> = (0..4_u32)
            .map(|id| {
                let index = &index;
                // Every other point late, so that there is something to merge.
                let times = (0..1000).flat_map(|n| [n * 2 + 1, n * 2]);
                scope.spawn(move || append_all(index, SeriesId(id), times))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    for id in 0..4 {
        for time in 0..2000 {
            assert_eq!(index.get(SeriesId(id), time), Some(time as f64));
        }
    }
}
