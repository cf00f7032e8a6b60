//! Full queues, disks that take nothing, many threads: what is lost is counted and marked, or refused before.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_audit::{AuditLog, Event, FailMode, Refused, Settings, own};
use common::{all, put, settings};
use std::{collections::BTreeMap, fs, thread, time::Duration};

#[test]
fn what_a_full_queue_drops_is_counted_and_marked_where_it_would_be() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(Settings { queue_events: 3, ..settings(home.path()) }).unwrap();
    let mut sent = 0_u64;
    while log.counts().dropped == 0 || sent < 2_000 {
        log.record(put("ann", &format!("{sent:06}")));
        sent += 1;
    }
    let dropped = log.counts().dropped;
    log.close();
    let events = all(home.path());
    let marked: u64 = events.iter().filter_map(|event| event.dropped).sum();
    assert_eq!(marked, dropped);
    // Each gap is as wide as it says, at its place.
    let mut expected = 0;
    for event in events.iter().filter(|event| event.call == "Put" || event.call == own::GAP) {
        match event.dropped {
            Some(dropped) => expected += dropped,
            None => {
                assert_eq!(event.key, format!("{expected:06}"));
                expected += 1;
            }
        }
    }
    assert_eq!(expected, sent);
}

#[test]
fn many_threads_make_one_series_and_each_keeps_its_order() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(Settings { rotate_bytes: 20_000, ..settings(home.path()) }).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..500 {
                    log.record(put(&format!("w{writer}"), &format!("{number:06}")));
                }
            });
        }
    });
    log.close();
    assert_eq!(log.counts().dropped, 0);
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for event in all(home.path()).into_iter().filter(|event| event.call == "Put") {
        let expected = next.entry(event.user).or_default();
        assert_eq!(event.key, format!("{expected:06}"));
        *expected += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [500; 4]);
}

fn closed(dir: &std::path::Path) -> Settings {
    Settings { fail_mode: FailMode::Closed, ..settings(dir) }
}

/// Waits for an answer without a runtime.
fn durable(log: &AuditLog, event: Event) -> Result<(), String> {
    let reservation = log.reserve().map_err(|refused| refused.to_string())?;
    let recorded = log.record_reserved(event, reservation);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(recorded).map_err(|error| error.to_string())
}

#[test]
fn a_reservation_that_was_answered_is_in_the_file() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(closed(home.path())).unwrap();
    for number in 0..10 {
        durable(&log, put("ann", &format!("k{number}"))).unwrap();
        // No flush: whoever reads the file now must see it.
        assert!(all(home.path()).iter().any(|event| event.key == format!("k{number}")));
    }
}

#[test]
fn without_room_a_closed_log_refuses_and_with_room_it_takes() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(Settings { queue_events: 3, ..closed(home.path()) }).unwrap();
    log.flush();
    let held: Vec<_> = (0..3).map(|_| log.reserve().unwrap()).collect();
    let refused = log.reserve().unwrap_err();
    assert_eq!(refused, Refused::Full { limit: 3 });
    assert!(refused.to_string().contains("--audit-queue-events"), "{refused}");
    assert!(refused.to_string().contains("nothing was done"), "{refused}");
    drop(held);
    log.reserve().unwrap();
}

#[test]
fn a_disk_that_takes_nothing_refuses_while_it_lasts_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (dir, away) = (home.path().join("audit"), home.path().join("away"));
    let interval = Duration::from_millis(20);
    let log = AuditLog::open(Settings { sync_interval: interval, ..closed(&dir) }).unwrap();
    durable(&log, put("ann", "before")).unwrap();
    // The checkpoint has no directory to go to.
    fs::rename(&dir, &away).unwrap();
    let mut sent = 0;
    let refused = loop {
        match log.reserve() {
            Ok(reservation) => {
                drop(log.record_reserved(put("ann", &format!("{sent}")), reservation));
                sent += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::NotWritten { .. }), "{refused}");
    assert!(refused.to_string().contains("--audit-fail-mode open"), "{refused}");
    assert!(log.counts().failures > 0);
    assert!(log.trouble().is_some());
    fs::rename(&away, &dir).unwrap();
    while log.trouble().is_some() {
        thread::sleep(Duration::from_millis(5));
    }
    durable(&log, put("ann", "after")).unwrap();
    log.close();
    let keys: Vec<String> =
        all(&dir).into_iter().filter(|event| event.call == "Put").map(|event| event.key).collect();
    let expected: Vec<String> = std::iter::once("before".to_owned())
        .chain((0..sent).map(|number| number.to_string()))
        .chain(["after".to_owned()])
        .collect();
    assert_eq!(keys, expected);
}

#[test]
fn a_log_that_was_closed_keeps_nobody_waiting() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(closed(home.path())).unwrap();
    let reservation = log.reserve().unwrap();
    log.close();
    log.flush();
    log.checkpoint().unwrap_err();
    log.reserve().unwrap_err();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let late = runtime.block_on(log.record_reserved(put("ann", "k"), reservation));
    assert!(late.unwrap_err().to_string().contains("the log was closed"));
    log.record(put("ann", "k"));
    assert_eq!(log.counts().dropped, 2);
}
