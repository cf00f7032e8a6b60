//! `bench engine` as a user runs and stops it: no control characters where there is no terminal, an end at
//! Ctrl-C without a trace of its files, and what was measured until then.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

fn bench(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.args(["bench", "engine", "--engine", "memory", "--dir"]).arg(dir);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a line that contains `text`; everything read until then.
fn read_until(output: &mut impl BufRead, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        assert_ne!(output.read_line(&mut read).unwrap(), 0, "{text} is not in {read}");
    }
    read
}

fn interrupt(child: &Child) {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
}

#[test]
fn a_watch_shows_plain_lines_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("bench");
    let mut child = bench(&files, &["--watch", "--records", "1000"]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut shown = read_until(&mut output, "estimated keys");
    assert!(files.exists());
    interrupt(&child);
    output.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(shown.starts_with("memory after 1 s"), "{shown}");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert!(!files.exists());
}

#[test]
fn an_interrupted_measurement_tells_what_it_measured_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("bench");
    // Eight cases, each long enough: it is still at it when the first is done.
    let sizes = ["--suite", "reads", "--operations", "1000000", "--records", "1000"];
    let mut child = bench(&files, &sizes);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut errors, "random, hit");
    interrupt(&child);
    let (mut said, mut table) = (String::new(), String::new());
    errors.read_to_string(&mut said).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    assert!(!child.wait().unwrap().success() && said.contains("interrupted"), "{said}");
    assert!(table.contains("random, hit"), "{table}");
    assert!(!table.contains("ranges"), "it went on to the end: {table}");
    assert!(!files.exists());
}

#[test]
fn files_of_a_run_that_was_killed_are_not_the_data_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("bench");
    let mut killed = bench(&files, &["--watch", "--records", "1000"]);
    read_until(&mut BufReader::new(killed.stdout.take().unwrap()), "estimated keys");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = || std::fs::read_dir(&files).unwrap().count();
    assert_eq!(left(), 1);

    let sizes = ["--suite", "reads", "--records", "2000", "--operations", "2000"];
    let output = bench(&files, &sizes).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(left(), 1, "what was left stays for its user, and nothing more");
}
