//! `chronolith ctl` as people see it: commands and what they say, as text that a person can review.
//!
//! ```text
//! $ get a                        the command, behind `chronolith ctl`; words in quotes are one
//! a                              standard output
//! ! at revision 2                standard error
//! = 1                            the exit code, unless it is 0
//! ```
//! Each file here runs against a fresh node. What differs from run to run is named: HASH, KEY, YYYY-…
//! `{dir}` is a directory of the file's own, with the log's public key in `{dir}/log.vkey`.
//! `CHRONOLITH_BLESS=1` writes the answers that came into the files; review the difference.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};
use support::{Node, Program};

macro_rules! transcripts {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name), &[]); })+
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

transcripts!(
    bad_input,
    checkpoint,
    consistency,
    diff,
    erase,
    get,
    history,
    json,
    prove,
    put,
    restore_prefix,
);

#[test]
fn log_is_off() {
    replay("log_is_off", &["--verify", "off"]);
}

#[test]
fn every_transcript_is_replayed() {
    let names = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "log_is_off")
        .collect();
    found.sort();
    assert_eq!(found, NAMES);
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ctl_answers_as_written_down")
}

fn replay(name: &str, extra: &[&str]) {
    let node = Node::start_with(Program::Chronolith { engine: "memory" }, extra);
    let dir = tempfile::tempdir().unwrap();
    let key = node.directory.path().join("data/ledger/log.vkey");
    if key.exists() {
        fs::copy(key, dir.path().join("log.vkey")).unwrap();
    }
    let path = directory().join(format!("{name}.txt"));
    let written = fs::read_to_string(&path).unwrap();
    let session = Session { node: &node, dir: dir.path().to_str().unwrap() };
    let mut said = String::new();
    for line in written.lines() {
        // Everything else is an answer: an empty line may be a part of one.
        if line.starts_with('#') {
            writeln!(said, "{line}").unwrap();
        } else if let Some(command) = line.strip_prefix("$ ") {
            writeln!(said, "{line}\n{}", session.run(command)).unwrap();
        }
    }
    let said = format!("{}\n", said.trim_end());
    if std::env::var_os("CHRONOLITH_BLESS").is_some() {
        fs::write(&path, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(&path).unwrap(), "{name}");
}

struct Session<'a> {
    node: &'a Node,
    dir: &'a str,
}

impl Session<'_> {
    fn run(&self, command: &str) -> String {
        let command = command.replace("{dir}", self.dir);
        let output = Command::new(env!("CARGO_BIN_EXE_chronolith"))
            .arg("ctl")
            .args(words(&command))
            .env("CHRONOLITH_ENDPOINTS", self.node.endpoint())
            .env("COLUMNS", "100")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let mut said = String::new();
        for (mark, bytes) in [("", output.stdout), ("! ", output.stderr)] {
            for line in self.same_each_run(&String::from_utf8(bytes).unwrap()).lines() {
                writeln!(said, "{}", format!("{mark}{line}").trim_end()).unwrap();
            }
        }
        match output.status.code().unwrap() {
            0 => {}
            code => writeln!(said, "= {code}").unwrap(),
        }
        said
    }

    /// The text with everything named that no two runs have in common.
    fn same_each_run(&self, text: &str) -> String {
        let text = text.replace(self.dir, "{dir}").replace(&self.node.endpoint(), "ENDPOINT");
        text.lines().map(|line| line_of_any_run(line) + "\n").collect()
    }
}

/// The words of a command; those in single or double quotes may hold spaces, or nothing.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => (quote, is_word) = (Some(c), true),
            (Some(open), c) if c == open => quote = None,
            (None, ' ') if is_word => {
                words.push(std::mem::take(&mut word));
                is_word = false;
            }
            (None, ' ') => {}
            (_, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

fn line_of_any_run(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+/=-:.".contains(c);
    let mut out = String::new();
    let mut rest = line;
    while let Some(begin) = rest.find(is_part) {
        out += &rest[..begin];
        let end = rest[begin..].find(|c| !is_part(c)).map_or(rest.len(), |end| begin + end);
        out += &part_of_any_run(&rest[begin..end]);
        rest = &rest[end..];
    }
    out + rest
}

fn part_of_any_run(part: &str) -> String {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_time = part.len() == 24 && part.ends_with('Z') && part.as_bytes()[10] == b'T';
    // KEY is origin+id+key, and origin is 16 digits and a name.
    if let Some((origin, key)) = part.split_once("/main+")
        && is_hex(origin)
        && key.len() > 40
    {
        return format!("KEY{}", if key.ends_with('.') { "." } else { "" });
    }
    if let Some(origin) = part.strip_suffix("/main")
        && origin.len() == 16
        && is_hex(origin)
    {
        return "ORIGIN".to_owned();
    }
    match part.len() {
        // As wide as a time, so that columns stay columns.
        _ if is_time => "YYYY-MM-DDTHH:MM:SS.mmmZ".to_owned(),
        13 if part.starts_with("1") && part.bytes().all(|byte| byte.is_ascii_digit()) => {
            "TIME_MS".to_owned()
        }
        44 if part.ends_with('=') => "HASH".to_owned(),
        88.. if !part.contains(' ') => "SIGNATURE".to_owned(),
        _ => part.to_owned(),
    }
}

#[test]
fn the_words_of_a_command_may_be_quoted() {
    assert_eq!(words("get 'a b' --at \"10m ago\" ''"), ["get", "a b", "--at", "10m ago", ""]);
}
