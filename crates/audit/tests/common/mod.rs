//! Logs to be tested.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part, and a failure is a test that fails"
)]

use bytes::Bytes;
use chronolith_audit::{Action, AuditLog, Class, Event, Level, Operation, Query, Settings};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub fn settings(dir: &Path) -> Settings {
    // No checkpoint comes by itself: tests say when.
    Settings { sync_interval: Duration::from_secs(3600), ..Settings::new(dir, "c0ffee", "beef") }
}

pub fn put(user: &str, key: &str) -> Event {
    let operation = Operation {
        action: Action::Put,
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::new(),
        value: None,
    };
    let mut event = Event { user: user.to_owned(), ..Event::new("Put", Class::Write) };
    event.describe(&[operation], Level::Metadata, &[0; 16]);
    event
}

/// A log of several files, ended in order; `events` of ours among those that it makes itself.
pub fn written(dir: &Path, events: u64) -> AuditLog {
    let log = AuditLog::open(Settings { rotate_bytes: 1500, ..settings(dir) }).unwrap();
    for number in 0..events {
        log.record(put("ann", &format!("k{number}")));
    }
    log.close();
    log
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let is_lines = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "jsonl");
    files(dir).into_iter().filter(is_lines).collect()
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

pub fn all(dir: &Path) -> Vec<Event> {
    let (mut found, mut query) = (Vec::new(), Query::default());
    loop {
        let page = chronolith_audit::query(dir, &query).unwrap();
        found.extend(page.events.iter().map(|line| serde_json::from_str::<Event>(line).unwrap()));
        if !page.more {
            return found;
        }
        query.after_sequence = page.last_sequence;
    }
}

pub fn calls(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| &*event.call).collect()
}
