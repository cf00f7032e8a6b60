//! Durability: what a sync acknowledged is there after the process is gone, whatever the files' ends look
//! like, and damage is refused by name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chronolith_series::{
    Durability, Error, Index, Labels, MAX_TIME, Options, Point, Retention, SeriesId,
};
use proptest::prelude::*;

const S: SeriesId = SeriesId(0);

fn open_with(dir: &Path, retention: Retention) -> Result<Index, Error> {
    // No thread syncs by itself: the tests decide what is durable.
    let durability = Durability { sync_every: None, ..Durability::new(dir) };
    Index::with(Options { durability: Some(durability), retention, ..Options::default() })
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
