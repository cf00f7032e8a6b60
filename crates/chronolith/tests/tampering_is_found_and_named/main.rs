//! The tamper matrix, with the real program: a node's directory is changed in one way at a time, and `chronolith
//! verify` must say so, name the place, and exit with the right code. The same directory unchanged must be proven
//! each time, so that no row can pass by refusing everything.
//!
//! The table in docs/verification.md is made from these rows; `CHRONOLITH_BLESS=1` writes it anew.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod rows;
mod victim;

use rows::{ROWS, Row};
use rustix::process::Signal;
use std::{fmt::Write as _, fs, path::Path, time::Duration};
use support::{Node, Program};
use tempfile::TempDir;
use victim::{Victim, copy, verify};

#[test]
fn of_a_node_on_the_memory_engine() {
    all_rows("memory");
}

#[cfg(feature = "rocksdb")]
#[test]
fn of_a_node_on_the_rocksdb_engine() {
    all_rows("rocksdb");
}

fn all_rows(engine: &'static str) {
    let victim = Victim::new(engine);
    let rows: Vec<_> = ROWS.iter().filter(|row| row.engines.contains(&engine)).collect();
    assert!(rows.len() > 12, "{engine}: {}", rows.len());
    let failures: Vec<_> = rows.iter().filter_map(|row| try_row(&victim, row).err()).collect();
    assert!(failures.is_empty(), "{engine}:\n{}", failures.join("\n"));
}

fn try_row(victim: &Victim, row: &Row) -> Result<(), String> {
    let (copy, pin) = (victim.copy(), victim.pin());
    let pin = row.pin.then_some(&*pin);
    let (subject, key) = match row.trail {
        true => (copy.path().join("audit"), victim.trail_key()),
        false => (copy.path().to_owned(), victim.key()),
    };
    let (code, text) = verify(&subject, &key, pin);
    if code != 0 {
        return Err(format!("{}: unchanged, and not proven: {text}", row.what));
    }
    (row.change)(victim, copy.path());
    let (code, text) = verify(&subject, &key, pin);
    let first = row.revision.map(|revision| format!("first bad revision: {revision}"));
    let named = text.contains(row.named) && first.is_none_or(|first| text.contains(&first));
    match code == row.exit && named {
        true => Ok(()),
        false => Err(format!("{}: exit code {code} instead of {}: {text}", row.what, row.exit)),
    }
}

/// Nothing that a running node says is believed: a client finds an old directory and another history by its pin.
#[test]
fn of_a_running_node() {
    let victim = Victim::new("memory");
    let place = TempDir::new().unwrap();
    let (dir, pin) = (place.path().join("data"), place.path().join("pin"));
    let asked = |arguments: &[&str], pin: Option<&Path>| {
        let program = Program::Chronolith { engine: "memory" };
        let mut node = Node::start_in(program, place.path(), &[]);
        let (code, text) =
            victim::verify_with(Path::new(&node.endpoint()), &victim.key(), pin, arguments);
        node.signal(Signal::TERM);
        assert!(node.wait().success(), "{}", node.output());
        (code, text)
    };
    copy(victim.copy().path(), &dir);
    let (code, text) = asked(&[], Some(&pin));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("499 leaves, 499 entries"), "{text}");
    let (code, text) = asked(&["--key", "key/7"], Some(&pin));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("13 revisions, none left out"), "{text}");
    assert!(text.contains("continues the pinned checkpoint"), "{text}");
    let (code, text) = asked(&["--revisions", "2-400"], Some(&pin));
    assert_eq!(code, 0, "{text}");
    let kept = fs::read(&pin).unwrap();

    victim.bring_back(&dir);
    assert_eq!(asked(&[], None).0, 0, "who kept nothing is told nothing");
    let (code, text) = asked(&[], Some(&pin));
    assert!(code == 1 && text.contains("rolled back"), "{code}: {text}");
    victim.fork(&dir);
    let (code, text) = asked(&[], Some(&pin));
    assert!(code == 1 && text.contains("forked"), "{code}: {text}");
    assert_eq!(fs::read(&pin).unwrap(), kept, "the pin stays with what was believed");
}

/// What a crash leaves is no tampering: the log is behind the revisions, and tiles may end anywhere.
#[test]
fn a_killed_node_is_proven_as_it_lies() {
    let place = TempDir::new().unwrap();
    for round in 0..3 {
        victim::write_until_killed(place.path(), Duration::from_millis(1_300 + 170 * round));
        let data = place.path().join("data");
        let (code, text) = verify(&data, &data.join("ledger/log.vkey"), None);
        assert_eq!(code, 0, "round {round}: {text}");
    }
}

#[test]
fn the_table_of_the_documentation_has_these_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verification.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begins, ends) = ("<!-- tamper matrix -->\n", "<!-- end of the tamper matrix -->\n");
    let (before, rest) = page.split_once(begins).unwrap();
    let (found, after) = rest.split_once(ends).unwrap();
    let table = table();
    if std::env::var("CHRONOLITH_BLESS").is_ok() {
        fs::write(&path, format!("{before}{begins}{table}{ends}{after}")).unwrap();
        return;
    }
    assert_eq!(found, table, "CHRONOLITH_BLESS=1 writes the table anew");
}

fn table() -> String {
    let mut table =
        "| changed in a node's directory | engine | exit code | named |\n|---|---|---|---|\n"
            .to_owned();
    for Row { what, engines, exit, named, revision, pin, .. } in ROWS {
        let engine = if engines.len() > 1 { "both" } else { engines[0] };
        let pin = if *pin { ", with `--pin`" } else { "" };
        let first = if revision.is_some() { ", and the first bad revision" } else { "" };
        writeln!(table, "| {what} | {engine} | {exit}{pin} | “{named}”{first} |").unwrap();
    }
    table
}
