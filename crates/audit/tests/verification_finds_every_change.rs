//! Whatever is changed in the files of a log, verification finds it and says where.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_audit::{AuditLog, Error, Finding, Settings, Tampering, verify_directory};
use chronolith_ledger::{Checkpoint, SignedNote, Verdict, VerifierKey};
use common::{copy, files, put, segments, settings, written};
use proptest::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

const EVENTS: u64 = 40;

struct Sample {
    _home: tempfile::TempDir,
    dir: PathBuf,
    key: VerifierKey,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let key = written(&dir, EVENTS).verifier_key().clone();
    assert!(segments(&dir).len() > 3);
    Sample { _home: home, dir, key }
});

/// What verification finds after `change`.
fn finding(change: impl FnOnce(&Path)) -> Finding {
    let home = tempfile::tempdir().unwrap();
    copy(&SAMPLE.dir, home.path());
    change(home.path());
    let report = verify_directory(home.path(), &SAMPLE.key, None).unwrap();
    assert_eq!(report.verdict(), Verdict::Tampered);
    report.finding.unwrap()
}

/// Changes the lines of the file at this place in the order of files.
fn with_lines(dir: &Path, file: usize, change: impl FnOnce(&mut Vec<String>)) {
    let path = &segments(dir)[file];
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn first_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_log_that_nobody_touched_is_proven_to_the_last_event() {
    let report = verify_directory(&SAMPLE.dir, &SAMPLE.key, None).unwrap();
    assert_eq!(report.finding, None);
    // Ours, the heads of the files, start and stop.
    let expected = EVENTS + segments(&SAMPLE.dir).len() as u64 + 2;
    assert_eq!((report.events, report.unsigned), (expected, 0));
    assert_eq!(report.checkpoint.unwrap().size, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn a_change_of_any_byte_of_any_file_is_found(
        file in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let all: Vec<PathBuf> = files(&SAMPLE.dir)
            .into_iter()
            .filter(|path| fs::metadata(path).unwrap().len() > 0)
            .collect();
        let source = file.get(&all);
        let relative = source.strip_prefix(&SAMPLE.dir).unwrap();
        let found = finding(|dir| {
            let path = dir.join(relative);
            let mut bytes = fs::read(&path).unwrap();
            *byte.get_mut(&mut bytes) ^= change;
            fs::write(&path, bytes).unwrap();
        });
        // The file that was changed is the one that is named; a file of lines with its line.
        prop_assert_eq!(name(&found.file), name(source), "{}", found);
        if source.extension().is_some_and(|ending| ending == "jsonl") {
            prop_assert!(found.line.is_some() || found.what == Tampering::Truncated, "{}", found);
        }
    }
}

#[test]
fn every_single_byte_of_the_small_files_counts() {
    for path in ["checkpoint", "log.key", "log.vkey", "salt", "tlog/state"] {
        let bytes = fs::read(SAMPLE.dir.join(path)).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let found = finding(|dir| fs::write(dir.join(path), &changed).unwrap());
            assert!(found.file.ends_with(path), "{path}, byte {at}: {found}");
        }
    }
}

#[test]
fn an_edited_line_is_named_with_its_number() {
    let found = finding(|dir| {
        with_lines(dir, 1, |lines| {
            lines[2] = lines[2].replace("\"user\":\"ann\"", "\"user\":\"bob\"")
        });
    });
    let first = first_of(&segments(&SAMPLE.dir)[1]);
    assert_eq!(found.what, Tampering::Edited);
    assert_eq!((found.line, found.sequence), (Some(3), Some(first + 2)));
    assert!(found.to_string().contains(", line 3, event"), "{found}");
}

#[test]
fn dropped_moved_and_inserted_lines_are_told_apart() {
    let first = first_of(&segments(&SAMPLE.dir)[1]);
    let dropped = finding(|dir| with_lines(dir, 1, |lines| drop(lines.remove(2))));
    assert_eq!((dropped.what, dropped.sequence), (Tampering::Dropped, Some(first + 2)));
    let moved = finding(|dir| with_lines(dir, 1, |lines| lines.swap(1, 3)));
    assert_eq!((moved.what, moved.sequence), (Tampering::Moved, Some(first + 1)));
    let doubled = finding(|dir| with_lines(dir, 1, |lines| lines.insert(2, lines[1].clone())));
    assert_eq!((doubled.what, doubled.line), (Tampering::Inserted, Some(3)));
    let foreign = finding(|dir| with_lines(dir, 1, |lines| lines.insert(2, "{}".to_owned())));
    assert_eq!((foreign.what, foreign.line), (Tampering::Inserted, Some(3)));
}

#[test]
fn a_log_that_was_cut_is_found_wherever_it_was_cut() {
    let last = segments(&SAMPLE.dir).len() - 1;
    let end = finding(|dir| with_lines(dir, last, |lines| drop(lines.pop())));
    assert_eq!(end.what, Tampering::Truncated);
    let middle = finding(|dir| with_lines(dir, 1, |lines| lines.truncate(2)));
    assert_eq!(middle.what, Tampering::Truncated);
    assert_eq!(middle.sequence, Some(first_of(&segments(&SAMPLE.dir)[1]) + 2));
}

#[test]
fn a_file_that_is_gone_is_named_whichever_it_is() {
    // Without secrets a copy can still be verified; an empty tile file holds nothing.
    let may_be_gone = |path: &Path| {
        ["LOCK", "log.key", "salt"].contains(&name(path).as_str())
            || fs::metadata(path).unwrap().len() == 0
    };
    for path in files(&SAMPLE.dir) {
        let relative = path.strip_prefix(&SAMPLE.dir).unwrap();
        if may_be_gone(&path) {
            continue;
        }
        let found = finding(|dir| fs::remove_file(dir.join(relative)).unwrap());
        let is_last = segments(&SAMPLE.dir).last() == Some(&path);
        let is_named = name(&found.file) == name(&path);
        assert!(is_named || is_last && found.what == Tampering::Truncated, "{relative:?}: {found}");
    }
}

#[test]
fn lines_and_tiles_that_were_changed_together_are_found_between_two_signatures() {
    let found = finding(|dir| {
        let mut edited = String::new();
        with_lines(dir, 1, |lines| {
            lines[2] = lines[2].replace("ann", "bob");
            edited.clone_from(&lines[2]);
        });
        let leaf = first_of(&segments(dir)[1]) as usize + 2 - 1;
        let mut hashes = fs::read(dir.join("tlog/L0")).unwrap();
        let hash = chronolith_ledger::Hash::of_leaf(edited.as_bytes());
        hashes[leaf * 32..(leaf + 1) * 32].copy_from_slice(&hash.0);
        fs::write(dir.join("tlog/L0"), hashes).unwrap();
    });
    let first = first_of(&segments(&SAMPLE.dir)[1]);
    assert_eq!(found.what, Tampering::Rewritten { good_through: first - 1 });
}

#[test]
fn a_tile_file_above_the_leaves_is_checked_too() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(settings(home.path())).unwrap();
    (0..600).for_each(|number| log.record(put("ann", &format!("k{number}"))));
    log.close();
    let path = home.path().join("tlog/L1");
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 2 * 32);
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = verify_directory(home.path(), log.verifier_key(), None).unwrap().finding.unwrap();
    assert_eq!(found.file, path);
    assert!(found.to_string().contains("its entry 1 is not the tree's"), "{found}");
}

#[test]
fn a_log_rolled_back_or_begun_anew_is_found_by_who_kept_a_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let log = AuditLog::open(settings(&dir)).unwrap();
    log.record(put("ann", "before"));
    let note = log.checkpoint().unwrap();
    let before = home.path().join("before");
    copy(&dir, &before);
    log.record(put("ann", "after"));
    let later = log.checkpoint().unwrap();
    log.close();
    let pin = |note: &str| {
        let note = SignedNote::parse(note.as_bytes()).unwrap();
        Checkpoint::parse(note.text()).unwrap()
    };
    let key = log.verifier_key();
    assert_eq!(verify_directory(&dir, key, Some(&pin(&note))).unwrap().finding, None);
    assert_eq!(verify_directory(&before, key, Some(&pin(&note))).unwrap().finding, None);
    let rolled_back = verify_directory(&before, key, Some(&pin(&later))).unwrap().finding.unwrap();
    assert!(matches!(rolled_back.what, Tampering::Pin { .. }), "{rolled_back}");
    let forked = Checkpoint { root: pin(&later).root, ..pin(&note) };
    let forked = verify_directory(&dir, key, Some(&forked)).unwrap().finding.unwrap();
    assert!(matches!(forked.what, Tampering::Pin { .. }), "{forked}");
}

#[test]
fn a_removal_that_retention_did_not_make_is_no_retention() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let kept = Settings { rotate_bytes: 1500, keep_files: 3, ..settings(&dir) };
    let log = AuditLog::open(kept).unwrap();
    for number in 0..60 {
        log.record(put("ann", &format!("k{number}")));
    }
    log.close();
    let left = segments(&dir);
    assert_eq!(left.len(), 3);
    let report = verify_directory(&dir, log.verifier_key(), None).unwrap();
    assert_eq!(report.finding, None);
    assert_eq!(report.first_sequence, first_of(&left[0]));
    assert!(report.first_sequence > 1);
    fs::remove_file(&left[0]).unwrap();
    fs::remove_file(left[0].with_extension("checkpoint")).unwrap();
    let found = verify_directory(&dir, log.verifier_key(), None).unwrap().finding.unwrap();
    assert_eq!((found.what, found.sequence), (Tampering::FileRemoved, Some(first_of(&left[0]))));
    assert_eq!(found.file, left[0]);
}

#[test]
fn an_excuse_for_a_removal_counts_only_if_it_is_signed() {
    let found = finding(|dir| {
        let all = segments(dir);
        fs::remove_file(&all[0]).unwrap();
        fs::remove_file(all[0].with_extension("checkpoint")).unwrap();
        let through = first_of(&all[1]) - 1;
        let next = fs::read_to_string(all.last().unwrap()).unwrap().lines().count() as u64
            + first_of(all.last().unwrap());
        with_lines(dir, all.len() - 2, |lines| {
            lines.push(format!(
                "{{\"seq\":{next},\"time_ms\":9999999999999,\"call\":\"AuditRetention\",\
                 \"class\":\"admin\",\"outcome\":\"ok\",\"removed_through\":{through}}}"
            ));
        });
    });
    assert_eq!((found.what, found.sequence), (Tampering::FileRemoved, Some(1)));
}

#[test]
fn what_cannot_be_decided_is_no_verdict() {
    let other = tempfile::tempdir().unwrap();
    let key = written(other.path(), 1).verifier_key().clone();
    assert!(matches!(verify_directory(&SAMPLE.dir, &key, None), Err(Error::Ledger(_))));
    let nothing = other.path().join("nothing");
    assert!(matches!(verify_directory(&nothing, &key, None), Err(Error::Io { .. })));
}

#[test]
fn a_log_that_is_being_written_is_verified_as_far_as_it_is_signed() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(settings(home.path())).unwrap();
    for number in 0..300 {
        log.record(put("ann", &format!("k{number}")));
    }
    log.checkpoint().unwrap();
    log.record(put("ann", "unsigned"));
    log.flush();
    let report = verify_directory(home.path(), log.verifier_key(), None).unwrap();
    assert_eq!((report.finding, report.unsigned, report.events), (None, 1, 303));
}
