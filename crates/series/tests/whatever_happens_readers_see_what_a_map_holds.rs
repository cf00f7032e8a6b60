//! The index against the naive model: a map from time to value for each series.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chronolith_series::{Index, Key, MAX_TIME, Options, Point, Reader, SeriesId};
use proptest::prelude::*;

type Model = BTreeMap<i64, f64>;

#[derive(Debug, Clone)]
enum Step {
    Append(u32, i64, f64),
    Batch(u32, Vec<(i64, f64)>),
    /// Many points in order after the newest: fills blocks.
    Fill(u32, usize, i64),
    Rows(usize, i64),
    Settle,
    Pack(usize),
    Check(u32, i64, i64),
}

const SERIES: u32 = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let series = 0..SERIES;
    let time = || prop_oneof![-50..3000_i64, -50..200_i64];
    let value = || (-1000..1000_i32).prop_map(|v| f64::from(v) / 8.0);
    let step = prop_oneof![
        4 => (series.clone(), time(), value()).prop_map(|(s, t, v)| Step::Append(s, t, v)),
        3 => (series.clone(), proptest::collection::vec((time(), value()), 0..700))
            .prop_map(|(s, points)| Step::Batch(s, points)),
        3 => (series.clone(), 1..1500_usize, 1..4_i64).prop_map(|(s, n, d)| Step::Fill(s, n, d)),
        2 => (1..700_usize, -3000..4_i64).prop_map(|(n, d)| Step::Rows(n, d)),
        1 => Just(Step::Settle),
        1 => (0..4_usize).prop_map(Step::Pack),
        3 => (series, time(), time()).prop_map(|(s, a, b)| Step::Check(s, a, b)),
    ];
    proptest::collection::vec(step, 1..30)
}

fn index() -> Index {
    let index = Index::new();
    (0..SERIES).for_each(|id| assert!(index.register_id(SeriesId(id)).is_ok()));
    index
}

fn newest(models: &[Model]) -> i64 {
    models.iter().filter_map(|model| model.keys().last()).max().copied().unwrap_or(0)
}

fn rows(index: &Index, models: &mut [Model], count: usize, ahead: i64) {
    let ids: Vec<SeriesId> = (0..SERIES).rev().map(SeriesId).collect();
    let mut group = index.group(&ids).unwrap();
    let mut time = newest(models) + ahead;
    for row in 0..count {
        time += 1;
        let values: Vec<f64> = ids.iter().map(|id| (row * 10) as f64 + f64::from(id.0)).collect();
        group.append_row(time, &values).unwrap();
        for (id, value) in ids.iter().zip(values) {
            models[id.0 as usize].insert(time, value);
        }
    }
}

fn take(index: &Index, models: &mut [Model], step: &Step) {
    match step {
        Step::Append(id, time, value) => {
            index.append(SeriesId(*id), *time, *value).unwrap();
            models[*id as usize].insert(*time, *value);
        }
        Step::Batch(id, points) => {
            let batch: Vec<Point> = points.iter().map(|(t, v)| Point::new(*t, *v)).collect();
            index.append_batch(SeriesId(*id), &batch).unwrap();
            models[*id as usize].extend(points.iter().copied());
        }
        Step::Fill(id, count, distance) => {
            let model = &mut models[*id as usize];
            let start = model.keys().last().copied().unwrap_or(0);
            let mut writer = index.writer(SeriesId(*id)).unwrap();
            for n in 1..=*count as i64 {
                writer.append(start + n * distance, n as f64).unwrap();
                model.insert(start + n * distance, n as f64);
            }
        }
        Step::Rows(count, ahead) => rows(index, models, *count, *ahead),
        Step::Settle => assert_eq!(index.settle().unwrap(), 0),
        Step::Pack(keep) => assert!(index.pack(*keep) < 1000),
        Step::Check(id, a, b) => check(index, &models[*id as usize], *id, *a.min(b), *a.max(b)),
    }
}

fn check(index: &Index, model: &Model, id: u32, low: i64, high: i64) {
    let expected: Vec<Point> = model.range(low..=high).map(|(t, v)| Point::new(*t, *v)).collect();
    assert_eq!(index.range(SeriesId(id), low..=high), expected, "series {id}, {low}..={high}");
    for time in [low, high, low.midpoint(high)] {
        assert_eq!(
            index.get(SeriesId(id), time),
            model.get(&time).copied(),
            "series {id} at {time}"
        );
    }
}

/// A reader that lives through all steps: its copies must never answer for what has changed since.
fn check_reader(reader: &mut Reader, models: &[Model], salt: i64) {
    let probes = [-51, 511, salt % 3000, salt % 90_000, MAX_TIME];
    let (mut keys, mut ranges, mut values, mut points) = (vec![], vec![], vec![], vec![]);
    for (id, model) in models.iter().enumerate() {
        let series = SeriesId(id as u32);
        let newest = model.keys().last().copied().unwrap_or(0);
        for time in probes.into_iter().chain([newest, newest + 1]) {
            let range = time..=time.saturating_add(salt % 90);
            keys.push(Key::new(series, time));
            values.push(model.get(&time).copied());
            points.push(model.range(range.clone()).map(|(t, v)| Point::new(*t, *v)).collect());
            ranges.push((series, range));
        }
    }
    let mut got = Vec::new();
    reader.get_many(&keys, &mut got);
    assert_eq!(got, values);
    let (mut out, mut ends, mut from) = (Vec::new(), Vec::new(), 0);
    reader.ranges_into(&ranges, &mut out, &mut ends);
    assert_eq!(ends.len(), ranges.len());
    for (at, end) in ends.iter().enumerate() {
        let expected: &Vec<Point> = &points[at];
        assert_eq!(&out[from..*end], expected, "{:?}", ranges[at]);
        from = *end;
        assert_eq!(reader.get(keys[at].series, keys[at].time), values[at]);
        let mut alone = Vec::new();
        reader.range_into(ranges[at].0, ranges[at].1.clone(), &mut alone);
        assert_eq!(&alone, expected);
    }
}

fn check_all(index: &Index, models: &[Model]) {
    for (id, model) in models.iter().enumerate() {
        let id = id as u32;
        check(index, model, id, -MAX_TIME, MAX_TIME);
        let snapshot = index.snapshot();
        let iterated: Vec<Point> = snapshot.iter(SeriesId(id)).collect();
        assert!(iterated.iter().map(|p| (p.time, p.value)).eq(model.iter().map(|(t, v)| (*t, *v))));
        for time in model.keys().step_by(17) {
            assert_eq!(index.get(SeriesId(id), *time), model.get(time).copied());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_steps(steps in steps()) {
        let (index, mut models) = (index(), vec![Model::new(); SERIES as usize]);
        let mut reader = index.reader();
        for (n, step) in steps.iter().enumerate() {
            take(&index, &mut models, step);
            if n % 4 == 0 {
                check_reader(&mut reader, &models, n as i64 * 997);
            }
        }
        check_all(&index, &models);
        index.settle().unwrap();
        check_all(&index, &models);
        check_reader(&mut reader, &models, 13);
        prop_assert_eq!(index.stats().points, models.iter().map(|m| m.len() as u64).sum::<u64>());
    }
}

proptest! {
    // Each case is 18,000 appends against five threads that merge, pack and read without a pause.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn threads_late_data_merges_and_packing_together(
        seeds in proptest::collection::vec(any::<u64>(), SERIES as usize),
        late_percent in 0..100_u64,
    ) {
        let index = Index::with(Options { workers: 2, ..Options::default() }).unwrap();
        (0..SERIES).for_each(|id| assert!(index.register_id(SeriesId(id)).is_ok()));
        let done = AtomicBool::new(false);
        let models: Vec<Model> = thread::scope(|scope| {
            for _ in 0..1 {
                scope.spawn(|| background(&index, &done));
            }
            scope.spawn(|| read_all_the_time(&index, &done));
            let writers: Vec<_> = seeds.iter().enumerate()
                .map(|(id, seed)| { let index = &index; scope.spawn(move || write(index, id as u32, *seed, late_percent)) })
                .collect();
            let models = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            done.store(true, Ordering::Relaxed);
            models
        });
        check_all(&index, &models);
        index.settle().unwrap();
        check_all(&index, &models);
    }
}

fn background(index: &Index, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        index.settle().unwrap();
        index.pack(2);
        thread::yield_now();
    }
}

/// What readers must find at any time: order, no duplicates, and never less than before.
fn read_all_the_time(index: &Index, done: &AtomicBool) {
    let mut seen = vec![0; SERIES as usize];
    while !done.load(Ordering::Relaxed) {
        for id in 0..SERIES {
            let points = index.range(SeriesId(id), -MAX_TIME..=MAX_TIME);
            assert!(points.is_sorted_by(|a, b| a.time < b.time));
            assert!(points.len() >= seen[id as usize], "points disappeared");
            seen[id as usize] = points.len();
            if let Some(point) = points.get(points.len() / 2) {
                assert!(index.get(SeriesId(id), point.time).is_some());
            }
        }
    }
}

fn write(index: &Index, id: u32, seed: u64, late_percent: u64) -> Model {
    let mut model = Model::new();
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut newest = 0;
    for n in 0..6000 {
        let late = random() % 100 < late_percent;
        newest += i64::from(!late) * (1 + (random() % 3) as i64);
        let time = if late { (random() % (newest as u64 + 1)) as i64 } else { newest };
        // Through the handle or point by point: ownership changes hands with settling in between.
        index.append(SeriesId(id), time, f64::from(n)).unwrap();
        model.insert(time, f64::from(n));
        if n % 64 == 0 {
            assert_eq!(index.get(SeriesId(id), time), Some(f64::from(n)), "read your write");
        }
    }
    model
}

#[test]
fn retention_by_age_and_bytes_removes_the_oldest_and_nothing_else() {
    let retention = chronolith_series::Retention { max_age: Some(1000), max_bytes: None };
    let index =
        Index::with(Options { retention, retain_every: None, ..Options::default() }).unwrap();
    let ids = [SeriesId(0), SeriesId(1)];
    ids.iter().for_each(|id| assert!(index.register_id(*id).is_ok()));
    for time in 0..5000 {
        index.append(ids[0], time, 1.0).unwrap();
    }
    index.append(ids[1], 10, 1.0).unwrap();
    let retained = index.retain(5000);
    let left = index.range(ids[0], 0..=MAX_TIME);
    assert!(left[0].time <= 4000, "nothing that is young enough goes");
    assert!(left[0].time > 4000 - 512, "whole blocks that are too old go");
    assert_eq!(left.last().unwrap().time, 4999);
    assert_eq!(index.len(ids[1]), 0, "a quiet series ages too");
    assert_eq!(retained.points, 5001 - left.len());
    let too_old = index.append(ids[0], 100, 1.0);
    assert!(matches!(
        too_old,
        Err(chronolith_series::Error::TooOld { time: 100, keeps_from: 4000 })
    ));
    assert_eq!(index.stats().refused_too_old, 1);
    index.append(ids[0], 4500, 2.0).unwrap();
    assert_eq!(index.get(ids[0], 4500), Some(2.0));
}

#[test]
fn retention_by_bytes_takes_the_globally_oldest_blocks() {
    let retention = chronolith_series::Retention { max_age: None, max_bytes: Some(100_000) };
    let index =
        Index::with(Options { retention, retain_every: None, ..Options::default() }).unwrap();
    let ids = [SeriesId(0), SeriesId(1)];
    ids.iter().for_each(|id| assert!(index.register_id(*id).is_ok()));
    for time in 0..20_000 {
        index.append(ids[(time % 2) as usize], time, 1.0).unwrap();
    }
    let retained = index.retain(0);
    assert!(index.stats().used_bytes <= 100_000);
    assert!(retained.blocks > 0);
    let firsts = ids.map(|id| index.range(id, 0..=MAX_TIME)[0].time);
    assert!((firsts[0] - firsts[1]).abs() <= 1025, "both series lose alike: {firsts:?}");
    assert_eq!(index.stats().points as usize + retained.points, 20_000);
}
