//! Durability: what a sync acknowledged is there after the process is gone, whatever the files' ends look
//! like, and damage is refused by name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use chronolith_series::{
    Clock, Durability, Error, Faults, FileStep, Index, Labels, MAX_TIME, Options, Point, Retention,
    SeriesId,
};
use proptest::prelude::*;

const S: SeriesId = SeriesId(0);

fn open_with(dir: &Path, retention: Retention) -> Result<Index, Error> {
    // No thread syncs by itself: the tests decide what is durable.
    let durability = Some(Durability { sync_every: None, ..Durability::new(dir) });
    Index::with(Options { durability, retention, retain_every: None, ..Options::default() })
}

fn open(dir: &Path) -> Index {
    open_with(dir, Retention::default()).unwrap()
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    found.sort();
    found
}

fn append(index: &Index, times: impl IntoIterator<Item = i64>, value: f64) {
    for time in times {
        index.append(S, time, value).unwrap();
    }
}

fn times(index: &Index) -> Vec<i64> {
    index.range(S, -MAX_TIME..=MAX_TIME).iter().map(|point| point.time).collect()
}

#[test]
fn series_points_late_points_and_removals_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let labels = |job: &str| Labels::new([("__name__", "cpu"), ("job", job)]).unwrap();
    let index = open(dir.path());
    let (kept, gone) =
        (index.register(labels("kept")).unwrap(), index.register(labels("gone")).unwrap());
    for time in 0..3000 {
        index.append(kept, time * 10, time as f64).unwrap();
        index.append(gone, time, 0.0).unwrap();
    }
    index.sync().unwrap();
    index.append(kept, 15, 0.25).unwrap();
    index.append(kept, 20, f64::NAN).unwrap();
    index.remove(gone).unwrap();
    let synced = index.sync().unwrap();
    assert_eq!(synced.points, 2, "only what is new is written");
    let expected = index.range(kept, 0..=MAX_TIME);
    drop(index);

    for flushed in [false, true] {
        let index = open(dir.path());
        assert_eq!(index.find(&labels("kept")), Some(kept));
        assert_eq!(index.find(&labels("gone")), None);
        let got = index.range(kept, 0..=MAX_TIME);
        assert_eq!(got.len(), 3001);
        assert!(got.iter().zip(&expected).all(|(a, b)| a.same_bits(b)), "flushed: {flushed}");
        assert_eq!(index.len(gone), 0);
        assert!(matches!(index.register_id(gone), Err(Error::UnknownSeries(_))), "ids stay used");
        index.flush().unwrap();
    }
    assert_eq!(files(dir.path(), "log-").len(), 1, "a flush drops the logs before it");
    assert_eq!(files(dir.path(), "segment-").len(), 1);
}

#[test]
fn what_was_not_synced_may_be_lost_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.register_id(S).unwrap();
    append(&index, 0..1000, 1.0);
    index.sync().unwrap();
    append(&index, 1000..2000, 1.0);
    drop(index);
    assert_eq!(times(&open(dir.path())), (0..1000).collect::<Vec<_>>());
}

#[test]
fn the_thread_syncs_by_itself_and_a_last_time_when_the_index_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Some(Durability::new(dir.path())), ..Options::default() };
    let index = Index::with(options).unwrap();
    index.register_id(S).unwrap();
    append(&index, 0..100, 1.0);
    drop(index);
    assert_eq!(times(&open(dir.path())).len(), 100);
}

#[test]
fn a_torn_tail_is_cut_at_every_length_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.register_id(S).unwrap();
    append(&index, 0..10, 1.0);
    index.sync().unwrap();
    let log = files(dir.path(), "log-").pop().unwrap();
    let acknowledged = fs::metadata(&log).unwrap().len();
    append(&index, 10..20, 2.0);
    index.sync().unwrap();
    drop(index);
    let whole = fs::read(&log).unwrap();
    for length in acknowledged as usize..whole.len() {
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(log.file_name().unwrap()), &whole[..length]).unwrap();
        let index = open(other.path());
        assert_eq!(times(&index), (0..10).collect::<Vec<_>>(), "cut at {length}");
        assert_eq!(index.recovery().torn_bytes, length as u64 - acknowledged);
        // And life goes on from there.
        append(&index, 20..30, 3.0);
        index.sync().unwrap();
        drop(index);
        assert_eq!(times(&open(other.path())).len(), 20);
    }
}

#[test]
fn damage_inside_a_log_or_anywhere_in_a_segment_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.register_id(S).unwrap();
    append(&index, 0..600, 1.0);
    index.flush().unwrap();
    append(&index, 600..700, 1.0);
    index.sync().unwrap();
    append(&index, 700..800, 1.0);
    index.sync().unwrap();
    drop(index);
    let refused = |path: &Path, at: usize| {
        let whole = fs::read(path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(path, damaged).unwrap();
        let opened = open_with(dir.path(), Retention::default());
        fs::write(path, whole).unwrap();
        matches!(opened, Err(Error::Corrupt { file, .. }) if file == path)
    };
    for prefix in ["segment-", "catalog"] {
        let path = files(dir.path(), prefix).pop().unwrap();
        for at in 0..fs::metadata(&path).unwrap().len() as usize {
            assert!(refused(&path, at), "{prefix}, byte {at}");
        }
    }
    let log = files(dir.path(), "log-").pop().unwrap();
    // The first of two frames, its marker, length and checksum included.
    for at in 8..60 {
        assert!(refused(&log, at), "log, byte {at}");
    }
    assert_eq!(times(&open(dir.path())).len(), 800);
}

#[test]
fn a_crash_between_the_steps_of_a_flush_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.register_id(S).unwrap();
    append(&index, 0..100, 1.0);
    append(&index, [50], 2.0);
    index.sync().unwrap();
    let old_log = files(dir.path(), "log-").pop().unwrap();
    let old_content = fs::read(&old_log).unwrap();
    index.flush().unwrap();
    append(&index, [50], 3.0);
    index.sync().unwrap();
    drop(index);
    // The old log still there beside its segment, as if the crash came before its removal.
    fs::write(&old_log, &old_content).unwrap();
    fs::write(dir.path().join("segment-00000000000000ff.unfinished"), b"half").unwrap();
    let index = open(dir.path());
    assert_eq!(times(&index), (0..100).collect::<Vec<_>>());
    assert_eq!(index.get(S, 50), Some(3.0));
    assert_eq!(index.get(S, 51), Some(1.0));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    assert!(matches!(open_with(dir.path(), Retention::default()), Err(Error::InUse(_))));
    drop(index);
    drop(open(dir.path()));
}

#[test]
fn retention_removes_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: Some(1000), max_bytes: None };
    let index = open_with(dir.path(), retention).unwrap();
    index.register_id(S).unwrap();
    for start in [0, 10_000, 20_000] {
        append(&index, start..start + 1000, 1.0);
        index.flush().unwrap();
    }
    assert_eq!(files(dir.path(), "segment-").len(), 3);
    index.retain(20_500);
    assert_eq!(index.retain_files().unwrap(), 2);
    assert_eq!(files(dir.path(), "segment-").len(), 1);
    drop(index);
    assert_eq!(times(&open(dir.path())), (20_000..21_000).collect::<Vec<_>>());
}

fn open_failing(
    dir: &Path,
    fails: impl Fn(FileStep, &Path) -> bool + Send + Sync + 'static,
) -> Index {
    let faults = Faults::new(move |step, path| match fails(step, path) {
        true => Err(std::io::Error::other("injected")),
        false => Ok(()),
    });
    let durability = Some(Durability { sync_every: None, faults, ..Durability::new(dir) });
    Index::with(Options { durability, ..Options::default() }).unwrap()
}

#[test]
fn a_failed_sync_stops_appends_for_good_while_readers_go_on_and_a_reopening_has_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&broken);
    let index = open_failing(dir.path(), move |step, _| {
        step == FileStep::Sync && fails.load(Ordering::Relaxed)
    });
    index.register_id(S).unwrap();
    append(&index, 0..100, 1.0);
    index.sync().unwrap();
    append(&index, 100..200, 1.0);
    let mut owner = index.writer(S).unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(matches!(index.sync(), Err(Error::Io { .. })));
    // The disk works again, but what it lost meanwhile nobody knows.
    broken.store(false, Ordering::Relaxed);
    assert!(matches!(index.sync(), Err(Error::Poisoned(_))));
    assert!(matches!(index.flush(), Err(Error::Poisoned(_))));
    let refused =
        (200..2000).map(|time| owner.append(time, 1.0)).position(|got| got.is_err()).unwrap();
    assert!(refused <= 512, "an owner learns it by the next block, not after {refused} points");
    assert!(matches!(owner.append(5, 2.0), Err(Error::Poisoned(_))), "late points too");
    drop(owner);
    assert!(matches!(index.append(S, 5000, 1.0), Err(Error::Poisoned(_))));
    assert!(index.append_batch(S, &[Point::new(5000, 1.0)]).is_err());
    assert!(matches!(index.group(&[S]), Err(Error::Poisoned(_))));
    assert_eq!(times(&index), (0..200 + refused as i64).collect::<Vec<_>>());
    let stats = index.stats();
    assert!(stats.poisoned);
    assert_eq!(stats.refused_poisoned, 5);
    drop(index);
    let index = open(dir.path());
    let got = times(&index);
    assert!(got.len() >= 100, "what was synced is there");
    assert_eq!(got, (0..got.len() as i64).collect::<Vec<_>>(), "and nothing but what was appended");
    append(&index, 5000..5001, 1.0);
    index.sync().unwrap();
}

#[test]
fn syncs_that_meet_share_one() {
    const THREADS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let (appended, synced) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let hook = (Arc::clone(&appended), Arc::clone(&synced));
    let index = open_failing(dir.path(), move |step, path| {
        if step == FileStep::Sync && path.to_string_lossy().contains("log-") {
            // The disk is slow: meanwhile all others append and ask for a sync, too.
            while hook.1.load(Ordering::Relaxed) > 0 && hook.0.load(Ordering::Acquire) < THREADS {
                std::thread::yield_now();
            }
            hook.1.fetch_add(1, Ordering::Relaxed);
        }
        false
    });
    assert_eq!(synced.load(Ordering::Relaxed), 1, "the empty log");
    std::thread::scope(|scope| {
        for id in 0..THREADS as u32 {
            let (index, appended) = (&index, &appended);
            scope.spawn(move || {
                index.register_id(SeriesId(id)).unwrap();
                index.append(SeriesId(id), 1, 1.0).unwrap();
                appended.fetch_add(1, Ordering::Release);
                index.sync().unwrap();
            });
        }
    });
    let more = synced.load(Ordering::Relaxed) - 1;
    assert!(more <= 2, "{THREADS} threads waited for the disk {more} times");
    drop(index);
    assert_eq!(open(dir.path()).stats().points, THREADS as u64);
}

#[test]
fn whichever_file_operation_fails_what_was_acknowledged_comes_back() {
    // The same work again and again; each time one later operation fails.
    for failing in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let (asked, armed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let hook = (Arc::clone(&asked), Arc::clone(&armed));
        let index = open_failing(dir.path(), move |_, _| {
            hook.1.load(Ordering::Relaxed) && hook.0.fetch_add(1, Ordering::Relaxed) == failing
        });
        index.register_id(S).unwrap();
        append(&index, 0..100, 1.0);
        index.flush().unwrap();
        armed.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut failed) = (100, false);
        for round in 1..4 {
            for time in round * 100..(round + 1) * 100 {
                failed |= index.append(S, time, 1.0).is_err();
            }
            let done = if round == 2 { index.flush() } else { index.sync().map(drop) };
            match done {
                Ok(()) => acknowledged = (round + 1) * 100,
                Err(_) => failed = true,
            }
        }
        drop(index);
        let got = times(&open(dir.path()));
        assert!(got.len() as i64 >= acknowledged, "operation {failing}: {} came back", got.len());
        assert_eq!(got, (0..got.len() as i64).collect::<Vec<_>>(), "operation {failing}");
        if !failed {
            assert!(failing > 12, "a sync, a flush and a sync are more than {failing} operations");
            return;
        }
    }
}

/// Waits until retention has begun and ended once more: what was there before has been looked at.
fn retained_again(index: &Index) {
    let seen = index.stats().retentions;
    while index.stats().retentions < seen + 2 {
        std::thread::yield_now();
    }
}

#[test]
fn retention_runs_by_itself_by_the_clock_it_was_given_and_removes_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let clock = Clock::new({
        let now = Arc::clone(&now);
        move || now.load(Ordering::Relaxed)
    });
    let options = Options {
        durability: Some(Durability { sync_every: None, ..Durability::new(dir.path()) }),
        retention: Retention { max_age: Some(1000), max_bytes: None },
        retain_every: Some(Duration::from_millis(1)),
        clock,
        ..Options::default()
    };
    let index = Index::with(options).unwrap();
    index.register_id(S).unwrap();
    for start in [0, 10_000, 20_000] {
        append(&index, start..start + 1000, 1.0);
        index.flush().unwrap();
    }
    retained_again(&index);
    assert_eq!(index.len(S), 3000, "nothing is old while the clock stands at zero");
    assert_eq!(files(dir.path(), "segment-").len(), 3);
    now.store(20_500, Ordering::Relaxed);
    retained_again(&index);
    let left = times(&index);
    assert!(left[0] > 10_000 && left.ends_with(&[20_999]), "only the oldest went: {}", left[0]);
    assert_eq!(files(dir.path(), "segment-").len(), 1);
    assert!(matches!(index.append(S, 5, 1.0), Err(Error::TooOld { .. })));
    assert_eq!(index.stats().failed_retentions, 0);
}

#[test]
fn retention_by_bytes_runs_by_itself_and_its_files_never_hold_less_than_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Some(Durability { sync_every: None, ..Durability::new(dir.path()) }),
        retention: Retention { max_age: None, max_bytes: Some(60_000) },
        retain_every: Some(Duration::from_millis(1)),
        ..Options::default()
    };
    let index = Index::with(options).unwrap();
    index.register_id(S).unwrap();
    index.register_id(SeriesId(1)).unwrap();
    for start in 0..10 {
        append(&index, start * 1000..(start + 1) * 1000, 1.0);
        index.flush().unwrap();
    }
    retained_again(&index);
    let left = times(&index);
    assert!(left[0] > 0 && left.ends_with(&[9999]), "the oldest went, from {}", left[0]);
    assert!(index.stats().used_bytes <= 60_000);
    let segments = files(dir.path(), "segment-").len();
    assert!((1..10).contains(&segments), "{segments} segments are left");
    // One old point of another series is still held: no file that it may be in goes from now on.
    index.append(SeriesId(1), 1, 1.0).unwrap();
    index.flush().unwrap();
    retained_again(&index);
    drop(index);
    let index = open(dir.path());
    assert_eq!(index.get(SeriesId(1), 1), Some(1.0));
    assert!(times(&index).ends_with(&left), "all that memory held comes back");
}

#[test]
fn a_file_that_cannot_be_removed_is_counted_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.register_id(S).unwrap();
    append(&index, 0..100, 1.0);
    index.flush().unwrap();
    drop(index);
    let broken = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&broken);
    let faults = Faults::new(move |step, _| {
        match step == FileStep::Remove && fails.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("injected")),
            false => Ok(()),
        }
    });
    let options = Options {
        durability: Some(Durability { sync_every: None, faults, ..Durability::new(dir.path()) }),
        retention: Retention { max_age: Some(1000), max_bytes: None },
        retain_every: Some(Duration::from_millis(1)),
        clock: Clock::new(|| 10_000_000),
        ..Options::default()
    };
    let index = Index::with(options).unwrap();
    retained_again(&index);
    assert!(index.stats().failed_retentions > 0);
    assert_eq!(files(dir.path(), "segment-").len(), 1);
    assert!(!index.stats().poisoned, "points can still become durable");
    broken.store(false, Ordering::Relaxed);
    retained_again(&index);
    assert_eq!(files(dir.path(), "segment-").len(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32, Vec<i64>),
    Sync,
    Flush,
    Settle,
    Pack,
    Crash,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let times = proptest::collection::vec(0..3000_i64, 1..400);
    let ascending = (0..3000_i64, 1..900_i64).prop_map(|(from, n)| (from..from + n).collect());
    let step = prop_oneof![
        4 => (0..2_u32, prop_oneof![times, ascending]).prop_map(|(s, t)| Step::Append(s, t)),
        3 => Just(Step::Sync),
        2 => Just(Step::Flush),
        1 => Just(Step::Settle),
        1 => Just(Step::Pack),
        2 => Just(Step::Crash),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

type Model = BTreeMap<(u32, i64), f64>;

fn check(index: &Index, durable: &Model) {
    for id in 0..2 {
        let got = index.range(SeriesId(id), -MAX_TIME..=MAX_TIME);
        let expected: Vec<Point> = durable
            .range((id, i64::MIN)..=(id, i64::MAX))
            .map(|((_, time), value)| Point::new(*time, *value))
            .collect();
        assert_eq!(got, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A crash keeps exactly what the last sync or flush saw; a reopening keeps all of it.
    #[test]
    fn any_sequence_of_appends_syncs_flushes_and_crashes(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Some(open(dir.path()));
        let (mut now, mut durable) = (Model::new(), Model::new());
        let mut value = 0.0;
        for step in steps.iter().chain([&Step::Sync, &Step::Reopen]) {
            let live = index.as_ref().unwrap();
            match step {
                Step::Append(id, times) => {
                    live.register_id(SeriesId(*id)).unwrap();
                    for time in times {
                        value += 1.0;
                        live.append(SeriesId(*id), *time, value).unwrap();
                        now.insert((*id, *time), value);
                    }
                }
                Step::Sync => drop(live.sync().unwrap()),
                Step::Flush => live.flush().unwrap(),
                Step::Settle => assert_eq!(live.settle().unwrap(), 0),
                Step::Pack => assert!(live.pack(1) < 1000),
                Step::Crash | Step::Reopen => {
                    if matches!(step, Step::Reopen) {
                        live.sync().unwrap();
                        durable.clone_from(&now);
                    }
                    drop(index.take());
                    index = Some(open(dir.path()));
                    now.clone_from(&durable);
                    check(index.as_ref().unwrap(), &durable);
                }
            }
            if matches!(step, Step::Sync | Step::Flush) {
                durable.clone_from(&now);
            }
            check(index.as_ref().unwrap(), &now);
        }
    }
}
