//! Every way in which the original answered wrongly or lost data, as a test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chronolith_series::{
    Error, Index, Key, Labels, MAX_TIME, Options, Point, Pool, SeriesId, Wait,
};

fn index_of(series: u32) -> Index {
    let index = Index::new();
    for id in 0..series {
        index.register_id(SeriesId(id)).unwrap();
    }
    index
}

fn fill(index: &Index, id: u32, times: impl IntoIterator<Item = i64>) {
    let mut writer = index.writer(SeriesId(id)).unwrap();
    for time in times {
        writer.append(time, f64::from(id)).unwrap();
    }
}

#[test]
fn a_range_across_series_has_both_sides() {
    let index = index_of(17);
    fill(&index, 15, 0..100);
    fill(&index, 16, 0..100);
    let got = index.range_keys(Key::new(SeriesId(15), 0)..=Key::new(SeriesId(16), 99));
    assert_eq!(got.len(), 200);
    let part = index.range_keys(Key::new(SeriesId(15), 90)..=Key::new(SeriesId(16), 9));
    assert_eq!(part.len(), 20);
    assert_eq!((part[0].1.time, part[19].1.time), (90, 9));
}

#[test]
fn a_scan_of_everything_is_sorted() {
    let index = index_of(5);
    for id in [3, 0, 4, 1, 2] {
        fill(&index, id, (0..600).rev());
    }
    let all = index.range_keys(Key::new(SeriesId(0), -MAX_TIME)..=Key::new(SeriesId(9), MAX_TIME));
    assert_eq!(all.len(), 3000);
    assert!(all.is_sorted_by_key(|(series, point)| Key::new(*series, point.time)));
}

#[test]
fn scan_n_goes_on_across_blocks_and_series() {
    let index = index_of(3);
    fill(&index, 0, 0..2000);
    fill(&index, 2, 0..50);
    fill(&index, 0, [-5, 700]);
    let from = |time, count| index.scan_n(Key::new(SeriesId(0), time), count);
    assert_eq!(from(-10, 1500).len(), 1500);
    assert_eq!(from(-10, 1).first().map(|(_, p)| p.time), Some(-5));
    let across = from(1990, 100);
    assert_eq!(across.len(), 60);
    assert_eq!(across[10], (SeriesId(2), Point::new(0, 2.0)));
    assert_eq!(from(0, 0), []);
    assert_eq!(from(5000, 10).len(), 10);
}

#[test]
fn four_writes_of_one_key_are_one_row_with_the_last_value() {
    let index = index_of(1);
    for value in [1.0, 2.0, 3.0, 4.0] {
        index.append(SeriesId(0), 7, value).unwrap();
    }
    assert_eq!(index.range(SeriesId(0), 0..=10), [Point::new(7, 4.0)]);
    index.settle().unwrap();
    assert_eq!(index.range(SeriesId(0), 0..=10), [Point::new(7, 4.0)]);
    assert_eq!(index.len(SeriesId(0)), 1);
}

#[test]
fn late_data_of_one_series_is_seen_whatever_was_merged_in_another() {
    let index = index_of(10);
    fill(&index, 9, (0..5000).rev());
    let mut owner = index.writer(SeriesId(3)).unwrap();
    for time in (0..100).rev() {
        owner.append(time, 3.0).unwrap();
    }
    // Series 9 settles; series 3 is owned, so its late points stay in the side.
    assert_eq!(index.settle().unwrap(), 1);
    assert_eq!(index.range(SeriesId(3), 0..=99).len(), 100);
    assert_eq!(index.get(SeriesId(3), 50), Some(3.0));
    drop(owner);
    assert_eq!(index.settle().unwrap(), 0);
    assert_eq!(index.range(SeriesId(3), 0..=99).len(), 100);
}

#[test]
fn two_indexes_in_one_process_never_mix() {
    let pool = Arc::new(Pool::new());
    let shared = || Options { pool: Some(Arc::clone(&pool)), ..Options::default() };
    let (first, second) = (Index::with(shared()).unwrap(), Index::with(shared()).unwrap());
    for index in [&first, &second] {
        index.register_id(SeriesId(0)).unwrap();
    }
    // One thread, interleaved, with the memory of both from one pool.
    for time in 0..2000 {
        first.append(SeriesId(0), time, 1.0).unwrap();
        second.append(SeriesId(0), time * 2, 2.0).unwrap();
    }
    assert!(first.range(SeriesId(0), 0..=MAX_TIME).iter().all(|p| p.value == 1.0));
    let second = second.range(SeriesId(0), 0..=MAX_TIME);
    assert_eq!(second.len(), 2000);
    assert!(second.iter().enumerate().all(|(n, p)| p.time == 2 * n as i64 && p.value == 2.0));
}

#[test]
fn many_threads_on_one_series_lose_nothing() {
    let index = index_of(1);
    thread::scope(|scope| {
        for thread in 0..8_i64 {
            let index = &index;
            scope.spawn(move || {
                for n in 0..2000 {
                    index.append(SeriesId(0), n * 8 + thread, thread as f64).unwrap();
                }
            });
        }
    });
    let got = index.range(SeriesId(0), 0..=MAX_TIME);
    assert_eq!(got.len(), 16_000);
    assert!(got.iter().enumerate().all(|(n, p)| p.time == n as i64 && p.value == (n % 8) as f64));
}

#[test]
fn a_full_budget_is_an_error_that_counts_and_loses_nothing_else() {
    let options = Options {
        budget_bytes: 100_000,
        wait: Wait::Never,
        pack_under_pressure: false,
        ..Options::default()
    };
    let index = Index::with(options).unwrap();
    index.register_id(SeriesId(0)).unwrap();
    let mut stored = 0;
    let refused = (0..1_000_000).find_map(|time| match index.append(SeriesId(0), time, 0.5) {
        Ok(_) => {
            stored += 1;
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(Error::BudgetFull { .. })));
    assert_eq!(index.range(SeriesId(0), 0..=MAX_TIME).len(), stored);
    assert_eq!(index.stats().refused_full, 1);
    assert!(index.stats().used_bytes <= 100_000);
}

#[test]
fn a_writer_waits_for_room_and_is_told_how_long() {
    let options =
        Options { budget_bytes: 50_000, pack_under_pressure: false, ..Options::default() };
    let index = Index::with(options).unwrap();
    let ids = [SeriesId(0), SeriesId(1)];
    ids.iter().for_each(|id| assert!(index.register_id(*id).is_ok()));
    let full = |time| index.append_within(ids[0], Point::new(time, 1.0), Wait::Never);
    let stored = (0..).take_while(|time| full(*time).is_ok()).count();
    let waiter = thread::spawn({
        let index = index.clone();
        move || index.append(ids[1], 0, 2.0).unwrap().duration()
    });
    let short = Wait::AtMost(Duration::from_millis(20));
    let refused = index.append_within(ids[0], Point::new(1 << 40, 1.0), short);
    let Err(Error::BudgetFull { waited, .. }) = refused else { panic!("{refused:?}") };
    assert!(waited >= Duration::from_millis(20));
    assert_eq!(index.len(ids[0]), stored);
    index.remove(ids[0]).unwrap();
    assert!(waiter.join().unwrap() > Duration::ZERO);
    assert_eq!(index.get(ids[1], 0), Some(2.0));
}

#[test]
fn pressure_packs_before_it_refuses() {
    let options = Options { budget_bytes: 100_000, wait: Wait::Never, ..Options::default() };
    let index = Index::with(options).unwrap();
    index.register_id(SeriesId(0)).unwrap();
    for time in 0..50_000 {
        index.append(SeriesId(0), time * 1000, (time % 100) as f64).unwrap();
    }
    let stats = index.stats();
    assert!(stats.bytes_per_packed_point().unwrap() < 2.0, "{stats:?}");
    assert!(stats.used_bytes <= 100_000);
    let got = index.range(SeriesId(0), 0..=MAX_TIME);
    assert_eq!(got.len(), 50_000);
    assert!(
        got.iter().enumerate().all(|(n, p)| *p == Point::new(n as i64 * 1000, (n % 100) as f64))
    );
}

#[test]
fn bad_input_is_refused_by_name_and_nothing_else_is_lost() {
    let index = Index::with(Options { max_series: 2, ..Options::default() }).unwrap();
    let first = index.register(Labels::new([("a", "1")]).unwrap()).unwrap();
    assert_eq!(index.register(Labels::new([("a", "1")]).unwrap()).unwrap(), first);
    let second = index.register_id(SeriesId(1)).unwrap();
    assert!(matches!(
        index.register(Labels::new([("a", "2")]).unwrap()),
        Err(Error::TooManySeries(2))
    ));
    assert!(matches!(index.register_id(SeriesId(2)), Err(Error::TooManySeries(2))));
    index.append(first, 5, f64::NAN).unwrap();
    index.append(first, 6, f64::INFINITY).unwrap();
    for time in [MAX_TIME + 1, -MAX_TIME - 1, i64::MIN, i64::MAX] {
        assert!(matches!(index.append(first, time, 0.0), Err(Error::TimeOutOfRange(_))));
    }
    assert!(matches!(index.append(SeriesId(9), 0, 0.0), Err(Error::UnknownSeries(SeriesId(9)))));
    let partial = index.append_batch(first, &[Point::new(7, 1.0), Point::new(i64::MAX, 2.0)]);
    assert_eq!(partial.unwrap_err().stored, 1);
    assert!(matches!(index.group(&[]), Err(Error::Group(_))));
    assert!(matches!(index.group(&[first, first]), Err(Error::Group(_))));
    let mut group = index.group(&[first, second]).unwrap();
    assert!(matches!(group.append_row(9, &[1.0]), Err(Error::RowWidth { expected: 2, got: 1 })));
    drop(group);
    assert!(index.get(first, 5).unwrap().is_nan());
    assert_eq!(index.get(first, 6), Some(f64::INFINITY));
    assert_eq!(index.len(first), 3);
    index.append(second, -MAX_TIME, 1.0).unwrap();
    index.append(second, MAX_TIME, 2.0).unwrap();
    assert_eq!(index.range(second, i64::MIN..=i64::MAX).len(), 2);
    let owner = index.writer(first).unwrap();
    thread::scope(|scope| {
        let busy = scope.spawn(|| index.try_writer(first, Duration::ZERO).map(drop));
        assert!(matches!(busy.join().unwrap(), Err(Error::Busy(_))));
    });
    drop(owner);
    let stats = index.stats();
    assert_eq!(stats.refused_too_many_series, 2);
    assert_eq!(stats.refused_out_of_range, 5);
    assert_eq!(stats.refused_unknown_series, 1);
    assert_eq!(stats.refused_malformed, 3);
    assert_eq!(stats.refused_busy, 1);
}

#[test]
fn a_removed_series_is_gone_and_its_id_does_not_come_back() {
    let index = index_of(0);
    let labels = Labels::new([("a", "1")]).unwrap();
    let id = index.register(labels.clone()).unwrap();
    index.append(id, 1, 1.0).unwrap();
    let snapshot = index.snapshot();
    let owner = index.writer(id).unwrap();
    let other = index.clone();
    let busy = thread::spawn(move || other.remove(id)).join().unwrap();
    assert!(matches!(busy, Err(Error::Busy(_))));
    drop(owner);
    index.remove(id).unwrap();
    assert_eq!(index.get(id, 1), None);
    assert_eq!(index.find(&labels), None);
    assert!(matches!(index.append(id, 2, 2.0), Err(Error::UnknownSeries(_))));
    assert!(matches!(index.register_id(id), Err(Error::UnknownSeries(_))));
    assert_eq!(snapshot.get(id, 1), Some(1.0), "a snapshot keeps what it saw");
    let again = index.register(labels).unwrap();
    assert_ne!(again, id);
    assert_eq!(index.series().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([again]));
}

#[test]
fn a_snapshot_at_once_sees_cause_before_effect() {
    let index = index_of(2);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for time in 0..3000 {
                index.append(SeriesId(1), time, 0.0).unwrap();
                index.append(SeriesId(0), time, 0.0).unwrap();
            }
        });
        while !writer.is_finished() {
            let snapshot = index.snapshot_at_once(Duration::from_secs(10)).unwrap();
            let count = |id| snapshot.iter(SeriesId(id)).count();
            // Series 1 is written first: it is never behind series 0, and at most one ahead.
            assert!((count(0)..=count(0) + 1).contains(&count(1)));
        }
    });
}

#[test]
fn points_of_several_series_come_in_the_order_of_time() {
    let index = index_of(3);
    for id in 0..3 {
        fill(&index, id, (0..700).map(|n| n * 3 + i64::from(id)));
    }
    let mut seen = Vec::new();
    let ids = [SeriesId(2), SeriesId(0), SeriesId(1)];
    index.snapshot().visit_by_time(&ids, 10..=1500, |series, point| {
        seen.push((point.time, series));
        std::ops::ControlFlow::Continue(())
    });
    let expected: Vec<_> = (10..=1500).map(|time| (time, SeriesId((time % 3) as u32))).collect();
    assert_eq!(seen, expected);
}
