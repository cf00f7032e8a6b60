//! The log's reader against every single changed byte, and against every way a write can be torn.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulator;

use bytes::Bytes;
use chronolith_raft::{
    BLOCK, Disk, EntryKind, Error, HardState, LogConfig, LogEntry, LogWrite, Position, Recovered,
    SegmentedLog,
};
use proptest::prelude::*;
use simulator::disk::SimDisk;
use std::sync::Arc;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, first_segment_bytes: 16 << 10, ..LogConfig::new(9) }
}

fn open(disk: &SimDisk) -> Result<(SegmentedLog, Recovered), Error> {
    SegmentedLog::open(Arc::new(disk.clone()), config(), None)
}

fn entry(index: u64, term: u64, size: usize) -> LogEntry {
    let payload = Bytes::from(vec![index as u8; size]);
    LogEntry { kind: EntryKind::Commands, index, term, payload }
}

fn write(number: u64, entries: Vec<LogEntry>) -> LogWrite {
    let last = entries.last().map_or(1, |last| last.term);
    let hard_state = Some(HardState { term: last, vote: 9, commit: 1 });
    LogWrite { number, hard_state, snapshot: None, entries }
}

/// Everything that can be read, in full.
fn content(log: &SegmentedLog, recovered: &Recovered) -> Vec<LogEntry> {
    let first = recovered.base.index + 1;
    let entries = (first..).zip(&recovered.entries);
    entries
        .map(|(index, (term, location))| log.reader().read(*location, index, *term).unwrap())
        .collect()
}

/// A log of three segments with entries of several sizes.
fn small_log() -> (SimDisk, Vec<LogEntry>) {
    let disk = SimDisk::new(1, false);
    let (mut log, _) = open(&disk).unwrap();
    let sizes = [10, 600, 5000, 0, 100, 1, 4000, 30, 0, 7, 2500, 3000];
    let entries: Vec<LogEntry> = (2..).zip(sizes).map(|(i, size)| entry(i, 2, size)).collect();
    for (number, group) in entries.chunks(2).enumerate() {
        log.append(&write(number as u64, group.to_vec())).unwrap();
    }
    assert!(log.segments() > 2, "the tests are about several segments");
    (disk, entries)
}

#[test]
fn every_single_changed_byte_is_refused_or_harmless() {
    let (disk, entries) = small_log();
    let (mut refused, mut harmless) = (0, 0);
    for (name, size) in disk.files() {
        for offset in 0..size {
            let damaged = disk.with_flip(&name, offset, 1 << (offset % 8));
            match open(&damaged) {
                Err(Error::Corrupt { file, .. }) if file == name => refused += 1,
                Err(error) => panic!("{name} {offset}: {error}"),
                Ok((log, recovered)) => {
                    assert_eq!(content(&log, &recovered), entries, "{name} {offset}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 9000 && harmless > 9000, "{refused} refused, {harmless} harmless");
}

#[test]
fn the_refusal_names_file_offset_and_a_way_out() {
    let (disk, _) = small_log();
    let damaged = disk.with_flip("0000000000000001.log", BLOCK + 40, 0xff);
    let text = open(&damaged).map(|_| ()).unwrap_err().to_string();
    for part in ["0000000000000001.log", "offset 4096", "restore this member"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = small_log();
    disk.remove("0000000000000001.log").unwrap();
    // It may have been purged: but then the state would have been further on.
    assert!(matches!(open(&disk).map(|_| ()), Err(Error::Mismatch(_))));
    let (disk, _) = small_log();
    disk.remove("0000000000000002.log").unwrap();
    assert!(matches!(open(&disk).map(|_| ()), Err(Error::Corrupt { .. })));
}

#[test]
fn a_purged_log_starts_behind_what_was_purged() {
    let (disk, entries) = small_log();
    let (mut log, _) = open(&disk).unwrap();
    log.purge(entries[4].index).unwrap();
    let applied = Position { index: entries[4].index, term: 2 };
    let opened = SegmentedLog::open(Arc::new(disk), config(), Some(applied));
    let (log, recovered) = opened.unwrap();
    assert!(recovered.base.index > 1 && recovered.base.index <= applied.index);
    let left = (recovered.base.index - 1) as usize;
    assert_eq!(content(&log, &recovered), entries[left..]);
}

#[test]
fn an_error_of_the_disk_is_final() {
    let disk = SimDisk::new(3, false);
    let (mut log, _) = open(&disk).unwrap();
    disk.arm(0);
    assert!(log.append(&write(1, vec![entry(2, 1, 5)])).is_err());
    disk.reboot(false);
    let again = log.append(&write(1, vec![entry(2, 1, 5)]));
    assert!(matches!(again, Err(Error::Poisoned(_))));
}

#[derive(Clone, Debug)]
enum Step {
    /// Entries from so far behind the end, of these sizes.
    Append {
        back: u64,
        sizes: Vec<usize>,
    },
    /// The power goes during the n-th operation of an append.
    Crash {
        fuse: u64,
        sizes: Vec<usize>,
    },
    Reopen,
    Purge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = || proptest::collection::vec(prop_oneof![0..600_usize, 4000..9000_usize], 1..5);
    let step = prop_oneof![
        4 => (0..3_u64, sizes()).prop_map(|(back, sizes)| Step::Append { back, sizes }),
        2 => (0..4_u64, sizes()).prop_map(|(fuse, sizes)| Step::Crash { fuse, sizes }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Purge),
    ];
    proptest::collection::vec(step, 1..25)
}

/// The log, and what it must hold.
struct Model {
    disk: SimDisk,
    log: SegmentedLog,
    base: u64,
    entries: Vec<LogEntry>,
    term: u64,
    purged_term: u64,
}

impl Model {
    fn group(&mut self, back: u64, sizes: &[usize]) -> Vec<LogEntry> {
        self.term += 1;
        let keep = self.entries.len().saturating_sub(back as usize);
        let first = self.base + 1 + keep as u64;
        (first..).zip(sizes).map(|(index, size)| entry(index, self.term, *size)).collect()
    }

    fn accept(&mut self, group: Vec<LogEntry>) {
        self.entries.retain(|old| old.index < group[0].index);
        self.entries.extend(group);
    }

    /// Where a purged log begins depends on its segments: it may hold more than the model.
    fn reopen(&mut self) -> Result<Vec<LogEntry>, TestCaseError> {
        let applied = Position { index: self.base, term: self.purged_term };
        let applied = Some(applied).filter(|at| at.index > 1);
        let opened = SegmentedLog::open(Arc::new(self.disk.clone()), config(), applied);
        let (log, recovered) = opened.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut found = content(&log, &recovered);
        found.retain(|entry| entry.index > self.base);
        self.log = log;
        Ok(found)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_history_of_writes_crashes_and_purges_is_read_back(
        steps in steps(), seed: u64,
    ) {
        let disk = SimDisk::new(seed, false);
        let (log, _) = open(&disk).unwrap();
        let mut model =
            Model { disk, log, base: 1, entries: Vec::new(), term: 1, purged_term: 1 };
        for (number, step) in (1..).zip(steps) {
            match step {
                Step::Append { back, sizes } => {
                    let group = model.group(back, &sizes);
                    let locations = model.log.append(&write(number, group.clone())).unwrap();
                    for (entry, location) in group.iter().zip(locations) {
                        let read = model.log.reader().read(location, entry.index, entry.term);
                        prop_assert_eq!(&read.unwrap(), entry);
                    }
                    model.accept(group);
                }
                Step::Crash { fuse, sizes } => {
                    let group = model.group(0, &sizes);
                    model.disk.arm(fuse);
                    let written = model.log.append(&write(number, group.clone())).is_ok();
                    model.disk.reboot(true);
                    let found = model.reopen()?;
                    let with_group: Vec<_> =
                        model.entries.iter().chain(&group).cloned().collect();
                    if written {
                        prop_assert_eq!(&found, &with_group);
                    } else {
                        prop_assert!(found == model.entries || found == with_group);
                    }
                    model.entries = found;
                }
                Step::Reopen => {
                    let found = model.reopen()?;
                    prop_assert_eq!(&found, &model.entries);
                }
                Step::Purge => {
                    let half = model.entries.len() / 2;
                    if half > 0 {
                        let last = &model.entries[half - 1];
                        (model.base, model.purged_term) = (last.index, last.term);
                        model.entries.drain(..half);
                        model.log.purge(model.base).unwrap();
                        while let Some(job) = model.log.housekeeping() {
                            job().unwrap();
                        }
                    }
                }
            }
        }
        let found = model.reopen()?;
        prop_assert_eq!(&found, &model.entries);
    }

    #[test]
    fn any_damage_is_survived_without_a_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..20),
    ) {
        let (disk, _) = small_log();
        let (name, size) = disk.files()[0].clone();
        let damaged = flips.iter().fold(disk, |disk, (place, mask)| {
            disk.with_flip(&name, place.index(size), *mask)
        });
        let _ = open(&damaged);
    }
}
