//! Golden transcripts: requests and etcd's answers to them, as text that a person can review.
//!
//! ```text
//! > put a 1                      a command (command.rs has the language)
//! OK revision 2                  the answer (render.rs has the form)
//! ```
//!
//! Each file of `tests/golden` runs against a fresh node over real gRPC. `CHRONOLITH_BLESS=1` writes the
//! answers that came into the files; review the difference. `CHRONOLITH_GOLDEN_SERVER=etcd` asks the
//! installed etcd instead, which is how the transcripts were made; where its version differs from the
//! version that the transcripts follow (3.7), they hold the newer answer.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod render;
mod session;

use std::path::PathBuf;

use session::Session;
use support::{Node, Program};

macro_rules! transcripts {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })+
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

transcripts!(
    compaction,
    compare,
    grpc,
    http,
    lease,
    maintenance,
    range_options,
    request_validation,
    revisions,
    transactions,
    watch,
);

#[test]
fn every_transcript_is_replayed() {
    let mut found: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, NAMES);
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn replay(name: &str) {
    let path = directory().join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = Node::start(program());
    let actual = runtime.block_on(transcribe(&expected, &node));
    if std::env::var_os("CHRONOLITH_BLESS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    assert!(actual == expected, "{name}: the answers differ\n{}", difference(&expected, &actual));
}

fn program() -> Program {
    match std::env::var("CHRONOLITH_GOLDEN_SERVER").as_deref() {
        Ok("etcd") => Program::Etcd,
        _ => Program::Chronolith { engine: "memory" },
    }
}

/// The transcript with the answers that the node gives now: comments and commands as they are.
async fn transcribe(transcript: &str, node: &Node) -> String {
    let mut session = Session::new(node);
    let mut actual = String::new();
    for line in transcript.lines() {
        let command = line.strip_prefix("> ");
        if command.is_some() || line.is_empty() || line.starts_with('#') {
            actual.push_str(line);
            actual.push('\n');
        }
        if let Some(command) = command {
            actual.push_str(&session.execute(command).await);
        }
    }
    actual
}

/// Both texts command by command, where they differ.
fn difference(expected: &str, actual: &str) -> String {
    let parts = |text: &str| -> Vec<String> {
        text.split("\n> ").map(|part| part.trim_end().to_owned()).collect()
    };
    parts(expected)
        .into_iter()
        .zip(parts(actual))
        .filter(|(expected, actual)| expected != actual)
        .map(|(expected, actual)| format!("--- expected\n> {expected}\n+++ came\n> {actual}\n"))
        .collect()
}
