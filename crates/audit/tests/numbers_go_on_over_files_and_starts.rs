//! One series of numbers and one tree, however often the log is ended, torn or begun again.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_audit::{AuditLog, Error, Settings, own, verify_directory};
use common::{all, calls, copy, put, segments, settings};
use std::{fs, io::Write, time::Duration};

fn is_unbroken(dir: &std::path::Path, from: u64) {
    let events = all(dir);
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<u64> = (from..from + numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert!(events.windows(2).all(|pair| pair[0].time_ms <= pair[1].time_ms));
}

#[test]
fn a_file_is_ended_at_its_size_and_the_next_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let log = common::written(home.path(), 100);
    let files = segments(home.path());
    assert!(files.len() > 5);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() < 1500 + 400);
        let first = fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned();
        assert!(first.contains(own::SEGMENT), "{first}");
    }
    is_unbroken(home.path(), 1);
    assert_eq!(verify_directory(home.path(), log.verifier_key(), None).unwrap().finding, None);
}

#[test]
fn a_file_is_ended_at_its_age_unless_it_is_empty() {
    let home = tempfile::tempdir().unwrap();
    let aged = Settings { rotate_age: Duration::from_millis(30), ..settings(home.path()) };
    let log = AuditLog::open(aged).unwrap();
    while segments(home.path()).len() < 3 {
        log.record(put("ann", "k"));
        log.flush();
        std::thread::sleep(Duration::from_millis(5));
    }
    log.close();
    let ends = segments(home.path()).len();
    is_unbroken(home.path(), 1);
    let idle =
        AuditLog::open(Settings { rotate_age: Duration::from_millis(10), ..settings(home.path()) })
            .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    idle.close();
    assert!(segments(home.path()).len() <= ends + 2, "an idle log makes no files");
}

#[test]
fn a_start_goes_on_where_the_log_ended() {
    let home = tempfile::tempdir().unwrap();
    let mut key = None;
    for start in 0..4 {
        let log = AuditLog::open(settings(home.path())).unwrap();
        assert!(!log.recovered().after_crash);
        log.record(put("ann", &format!("start{start}")));
        log.close();
        let own = log.verifier_key().clone();
        assert_eq!(*key.get_or_insert(own.clone()), own, "a log has one key");
    }
    is_unbroken(home.path(), 1);
    let events = all(home.path());
    let expected = [[own::START, "Put", own::STOP].as_slice(); 4].concat();
    assert_eq!(calls(&events)[1..], expected);
    let report = verify_directory(home.path(), &key.unwrap(), None).unwrap();
    assert_eq!((report.finding, report.events), (None, 13));
}

#[test]
fn an_unfinished_line_is_removed_and_the_log_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (dir, torn) = (home.path().join("audit"), home.path().join("torn"));
    let log = AuditLog::open(settings(&dir)).unwrap();
    log.record(put("ann", "signed"));
    log.checkpoint().unwrap();
    log.record(put("ann", "written"));
    log.flush();
    copy(&dir, &torn);
    let last = segments(&torn).pop().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(last).unwrap();
    // Longer than all that is written over it.
    let unfinished = format!("{{\"seq\":5,\"time_ms\":1,\"call\":\"{}", "P".repeat(9_000));
    file.write_all(unfinished.as_bytes()).unwrap();
    let again = AuditLog::open(settings(&torn)).unwrap();
    assert!(again.recovered().after_crash);
    assert_eq!(again.recovered().repaired_bytes, unfinished.len() as u64);
    again.close();
    let events = all(&torn);
    assert_eq!(
        calls(&events),
        [own::SEGMENT, own::START, "Put", "Put", own::REPAIR, own::START, own::STOP]
    );
    assert!(events[5].reason.contains("did not end in order"), "{}", events[5].reason);
    is_unbroken(&torn, 1);
    assert_eq!(verify_directory(&torn, again.verifier_key(), None).unwrap().finding, None);
}

#[test]
fn a_log_that_was_changed_is_not_continued() {
    let sample = tempfile::tempdir().unwrap();
    common::written(sample.path(), 30);
    let refused = |change: &dyn Fn(&std::path::Path)| {
        let home = tempfile::tempdir().unwrap();
        copy(sample.path(), home.path());
        change(home.path());
        match AuditLog::open(settings(home.path())) {
            Err(Error::Changed { why, .. }) => why,
            other => panic!("it was opened: {other:?}"),
        }
    };
    let cut = refused(&|dir| {
        let last = segments(dir).pop().unwrap();
        let text = fs::read_to_string(&last).unwrap();
        let end = text.trim_end().rfind('\n').unwrap() + 1;
        fs::write(&last, &text[..end]).unwrap();
    });
    assert!(cut.contains("is gone or different"), "{cut}");
    let gone = refused(&|dir| fs::remove_file(segments(dir).pop().unwrap()).unwrap());
    assert!(gone.contains("is gone or different"), "{gone}");
    let unsigned = refused(&|dir| fs::remove_file(dir.join("checkpoint")).unwrap());
    assert!(unsigned.contains("checkpoint is gone"), "{unsigned}");
    let emptied = refused(&|dir| {
        segments(dir).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    });
    assert!(emptied.contains("all files of events are gone"), "{emptied}");
    let tiles = refused(&|dir| {
        let path = dir.join("tlog/L0");
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
    });
    assert!(tiles.contains("tile files"), "{tiles}");
    let forged = refused(&|dir| {
        let last = segments(dir).pop().unwrap();
        let text = fs::read_to_string(&last).unwrap();
        let stop = text.lines().last().unwrap();
        let seq: u64 = stop["{\"seq\":".len()..stop.find(',').unwrap()].parse().unwrap();
        let forged = stop.replace(&format!("\"seq\":{seq},"), &format!("\"seq\":{},", seq + 1));
        fs::write(&last, format!("{text}{forged}\n")).unwrap();
    });
    assert!(forged.contains("behind the end of its process"), "{forged}");
}

#[test]
fn a_line_that_a_checkpoint_speaks_of_is_missed_before_the_tiles_have_it() {
    let home = tempfile::tempdir().unwrap();
    let (dir, cut) = (home.path().join("audit"), home.path().join("cut"));
    let log = AuditLog::open(settings(&dir)).unwrap();
    log.record(put("ann", "signed"));
    log.checkpoint().unwrap();
    copy(&dir, &cut);
    let last = segments(&cut).pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let end = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&last, &text[..end]).unwrap();
    match AuditLog::open(settings(&cut)) {
        Err(Error::Changed { why, .. }) => assert!(why.contains("event 3 is gone"), "{why}"),
        other => panic!("it was opened: {other:?}"),
    }
}

#[test]
fn a_crash_between_two_files_costs_nothing() {
    let sample = tempfile::tempdir().unwrap();
    let key = common::written(sample.path(), 30).verifier_key().clone();
    // The last file was ended and signed, and the next was never begun.
    let home = tempfile::tempdir().unwrap();
    copy(sample.path(), home.path());
    let last = segments(home.path()).pop().unwrap();
    fs::copy(home.path().join("checkpoint"), last.with_extension("checkpoint")).unwrap();
    AuditLog::open(settings(home.path())).unwrap().close();
    is_unbroken(home.path(), 1);
    assert_eq!(segments(home.path()).len(), segments(sample.path()).len() + 1);
    assert_eq!(verify_directory(home.path(), &key, None).unwrap().finding, None);
    // Or begun, and nothing written to it.
    let next = all(sample.path()).last().unwrap().seq + 1;
    fs::write(sample.path().join(format!("{next:020}.jsonl")), "").unwrap();
    fs::copy(sample.path().join("checkpoint"), {
        let files = segments(sample.path());
        files[files.len() - 2].with_extension("checkpoint")
    })
    .unwrap();
    AuditLog::open(settings(sample.path())).unwrap().close();
    is_unbroken(sample.path(), 1);
    assert_eq!(verify_directory(sample.path(), &key, None).unwrap().finding, None);
}

#[test]
fn retention_keeps_the_newest_and_says_what_it_removed() {
    let home = tempfile::tempdir().unwrap();
    let bounded = Settings { rotate_bytes: 2000, keep_bytes: 7000, ..settings(home.path()) };
    let log = AuditLog::open(bounded).unwrap();
    for number in 0..200 {
        log.record(put("ann", &format!("k{number}")));
    }
    log.close();
    let kept: u64 =
        segments(home.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!((3000..=7000 + 2400).contains(&kept), "{kept}");
    let events = all(home.path());
    is_unbroken(home.path(), events[0].seq);
    let mut removals = events.iter().filter(|event| event.call == own::RETENTION);
    assert_eq!(removals.next_back().unwrap().removed_through, Some(events[0].seq - 1));
    let again = AuditLog::open(settings(home.path())).unwrap();
    again.close();
    assert_eq!(verify_directory(home.path(), log.verifier_key(), None).unwrap().finding, None);
}

#[test]
fn two_processes_do_not_write_one_log() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(settings(home.path())).unwrap();
    assert!(matches!(AuditLog::open(settings(home.path())), Err(Error::Locked { .. })));
    drop(log);
    AuditLog::open(settings(home.path())).unwrap();
}
