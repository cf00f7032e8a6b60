//! The server process is really killed, again and again, at random moments under load. After every
//! restart: each acknowledged write is there, each unacknowledged one is there whole or not at all, no
//! revision has ever had two contents, and a watch that resumes misses nothing and hears nothing twice.
//!
//! ```text
//!  round:  start ─► load.rs: clients write unique values ──► signal ─► restart ─► history.rs: compare
//!                            a watcher resumes and listens
//! ```
//!
//! `CHRONOLITH_KILL_ROUNDS` asks for more rounds, `CHRONOLITH_KILL_SEED` for the moments and writes of
//! an earlier run (the system's own timing stays), `CHRONOLITH_KILL_SERVER=etcd` for the installed etcd.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod history;
mod load;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use history::History;
use rustix::process::Signal;
use support::{Node, Program};

/// Few, so that the default suite stays short; CI's long runs ask for more.
const ROUNDS: u64 = 8;
/// A checkpoint after so few entries that every round makes and replays some.
const CHECKPOINT_EVERY: [&str; 2] = ["--snapshot-count", "200"];
/// A round lasts between these: from "hardly started" to "well under way".
const LOAD_MS: std::ops::Range<u64> = 5..400;

#[test]
fn by_kill_9_with_the_memory_engine() {
    survive(program("memory"), Signal::KILL, rounds(ROUNDS));
}

#[cfg(feature = "rocksdb")]
#[test]
fn by_kill_9_with_the_rocksdb_engine() {
    survive(program("rocksdb"), Signal::KILL, rounds(ROUNDS));
}

#[test]
fn by_ctrl_c() {
    survive(program("memory"), Signal::INT, rounds(ROUNDS / 4));
}

#[test]
fn by_a_polite_request_to_end() {
    survive(program("memory"), Signal::TERM, rounds(ROUNDS / 4));
}

fn program(engine: &'static str) -> Program {
    match std::env::var("CHRONOLITH_KILL_SERVER").as_deref() {
        Ok("etcd") => Program::Etcd,
        _ => Program::Chronolith { engine },
    }
}

fn rounds(default: u64) -> u64 {
    number("CHRONOLITH_KILL_ROUNDS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn survive(program: Program, signal: Signal, rounds: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("CHRONOLITH_KILL_SEED").unwrap_or(now);
    println!("CHRONOLITH_KILL_SEED={seed}");
    let mut node = Node::start_with(program, &CHECKPOINT_EVERY);
    let mut history = History::default();
    for round in 0..rounds {
        one_round(&mut node, signal, &mut history, load::Dice::new(seed ^ round));
    }
    println!("{} revisions in {rounds} rounds", history.len());
    assert!(history.len() as u64 >= rounds, "hardly anything was written");
}

fn one_round(node: &mut Node, signal: Signal, history: &mut History, mut dice: load::Dice) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let length = Duration::from_millis(dice.between(LOAD_MS.start, LOAD_MS.end));
    let load = load::Load::start(&runtime, node, history.last_revision(), dice);
    std::thread::sleep(length);
    load.expect_errors();
    node.signal(signal);
    let status = node.wait();
    assert!(signal == Signal::KILL || status.success(), "ended by {signal:?} with {status}");
    let (writes, events) = load.finish(&runtime);
    node.restart();
    runtime.block_on(history.check(node, writes, events));
}
