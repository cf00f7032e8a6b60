//! What docs/verification.md promises an auditor: a log of ours, checked by `examples/auditor` with Python,
//! openssl, sha256sum and Go's tlog library, and none of our code. Without Python or openssl the tests say
//! that they are skipped; with `CI=true` their absence is a failure.
#![allow(clippy::unwrap_used)]

use chronolith_ledger::{Bundle, SignedNote};
use chronolith_store::embedded::Store;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const REVISIONS: usize = 700;
const SHELL: &str = "tail -c 48 record | head -c 16 | cat - value | sha256sum";

/// A log, what was handed out of it, and a checkpoint from its middle.
struct Log {
    home: TempDir,
    bundle: Bundle,
    kept: SignedNote,
    forked: SignedNote,
}

impl Log {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let mut kept = None;
        for number in 1..=REVISIONS {
            match number % 7 {
                0 => drop(store.delete(format!("key/{}", number % 5)).unwrap()),
                3 => drop(
                    store
                        .batch_put((0..number % 40 + 2).map(|at| (format!("many/{at}"), "of them")))
                        .unwrap(),
                ),
                _ => drop(
                    store.put(format!("key/{}", number % 5), format!("value {number}")).unwrap(),
                ),
            }
            if number == 400 {
                kept = Some((store.checkpoint().unwrap(), copied(home.path())));
            }
        }
        let (kept, copy) = kept.unwrap();
        let other = Store::open(copy.path()).unwrap();
        other.put("key/1", "another future").unwrap();
        let (bundle, forked) = (store.prove("key/1").unwrap(), other.checkpoint().unwrap());
        let log = Self { home, bundle, kept, forked };
        let write = |name: &str, bytes: &[u8]| fs::write(log.path(name), bytes).unwrap();
        write("key.bundle", &log.bundle.encode());
        write("all.bundle", &store.prove_range(2, 300).unwrap().encode());
        write("kept", log.kept.to_string().as_bytes());
        for revision in [2, 4, 257, 258, store.revision()] {
            let name = format!("{revision}.tlog-proof");
            write(&name, store.prove_revision(revision).unwrap().to_string().as_bytes());
        }
        store.close().unwrap();
        log
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Exit code and text of the script.
    fn audit(&self, command: &str, arguments: &[&str]) -> (i32, String) {
        let mut script = Command::new("python3");
        script
            .arg(example("auditor.py"))
            .arg(command)
            .arg(self.path(arguments[0]))
            .arg(self.path("main/log.vkey"));
        for argument in &arguments[1..] {
            script.arg(if *argument == "kept" { self.path("kept") } else { argument.into() });
        }
        let output = script.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn flip(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        bytes[at] ^= 1;
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The script must accept the file as it is, and refuse it with a byte changed at any of the places.
    fn each_byte_matters(
        &self,
        command: &str,
        arguments: &[&str],
        places: impl IntoIterator<Item = usize>,
    ) {
        let changed = match command {
            "log" => format!("{}/L0", arguments[0]),
            _ => arguments[0].to_owned(),
        };
        for at in places {
            self.flip(&changed, at);
            let (code, text) = self.audit(command, arguments);
            assert_ne!(code, 0, "byte {at} of {changed} does not matter: {text}");
            self.flip(&changed, at);
        }
        let (code, text) = self.audit(command, arguments);
        assert_eq!(code, 0, "{command} {arguments:?}: {text}");
    }

    fn length(&self, name: &str) -> usize {
        fs::read(self.path(name)).unwrap().len()
    }
}

/// A copy of the database, which can go on by itself.
fn copied(home: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["main", "main/engine", "main/tlog"] {
        fs::create_dir(copy.path().join(part)).unwrap();
        for entry in fs::read_dir(home.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, copy.path().join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    copy
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/auditor").join(name)
}

fn has(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok();
    assert!(found || std::env::var("CI").as_deref() != Ok("true"), "CI needs {program}");
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

fn has_tools() -> bool {
    has("python3", "--version") && has("openssl", "version")
}

#[test]
fn a_proof_file() {
    if !has_tools() {
        return;
    }
    let log = Log::new();
    for revision in [2, 4, 257, 258] {
        let (code, text) = log.audit("proof", &[&format!("{revision}.tlog-proof")]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(&format!("revision {revision} is in the log")), "{text}");
    }
    let length = log.length("257.tlog-proof");
    log.each_byte_matters("proof", &["257.tlog-proof"], (3..length).step_by(41));
}

#[test]
fn a_bundle_with_operations_and_values() {
    if !has_tools() {
        return;
    }
    let log = Log::new();
    let (code, text) = log.audit("bundle", &["all.bundle"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("299 revisions"), "{text}");
    let length = log.length("key.bundle");
    log.each_byte_matters("bundle", &["key.bundle", "key/1"], (3..length).step_by(length / 25));
    // A version of the key left out: each of the others is true, their chain is not.
    let mut bundle = log.bundle.clone();
    let left_out = bundle.revisions.remove(3).entry.revision;
    let next = bundle.revisions[3].entry.revision;
    fs::write(log.path("key.bundle"), bundle.encode()).unwrap();
    assert_eq!(log.audit("bundle", &["key.bundle"]).0, 0, "each revision is in the log");
    let (code, text) = log.audit("bundle", &["key.bundle", "key/1"]);
    assert_eq!(code, 1, "revision {left_out} is missing: {text}");
    assert!(text.contains(&format!("revision {next}: a version")), "{text}");
}

#[test]
fn the_whole_log_and_that_it_continues_a_kept_checkpoint() {
    if !has_tools() {
        return;
    }
    let log = Log::new();
    let (code, text) = log.audit("log", &["main/tlog", "kept"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("continues your checkpoint of revision"), "{text}");
    assert_eq!(log.audit("checkpoint", &["kept"]).0, 0);
    log.each_byte_matters(
        "log",
        &["main/tlog", "kept"],
        [0, 32 * 300 + 7, log.length("main/tlog/L0") - 1],
    );
    // A history that went on in another way, signed by the same key; and one that was cut off.
    fs::write(log.path("kept"), log.forked.to_string()).unwrap();
    let (code, text) = log.audit("log", &["main/tlog", "kept"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("root of your checkpoint"), "{text}");
    fs::copy(log.path("main/tlog/checkpoint"), log.path("kept")).unwrap();
    fs::write(log.path("main/tlog/checkpoint"), log.kept.to_string()).unwrap();
    let (code, text) = log.audit("log", &["main/tlog", "kept"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("rolled back"), "{text}");
}

#[test]
fn a_value_with_sha256sum() {
    if !has("sha256sum", "--version") {
        return;
    }
    let log = Log::new();
    let op = &log.bundle.revisions[0].ops[0];
    let mut shell = Command::new("sh");
    shell.args(["-c", SHELL]).current_dir(log.home.path());
    let record = op.record().unwrap().unwrap();
    fs::write(log.path("record"), record.encode()).unwrap();
    fs::write(log.path("value"), op.value().unwrap()).unwrap();
    let text = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    let digest = record.value_digest.map(|byte| format!("{byte:02x}")).concat();
    assert!(text.starts_with(&digest), "{text}, not {digest}");
    assert!(documented(SHELL));
}

fn documented(text: &str) -> bool {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verification.md");
    fs::read_to_string(page).unwrap().contains(text)
}

/// With the program built from `examples/auditor` named in `CHRONOLITH_GO_AUDITOR`, as `.ci/run` does where Go is
/// installed.
#[test]
fn a_proof_file_with_the_tlog_library_of_go() {
    let source = fs::read_to_string(example("main.go")).unwrap();
    assert!(
        documented(&source),
        "docs/verification.md shows another program than examples/auditor"
    );
    let Some(program) = std::env::var_os("CHRONOLITH_GO_AUDITOR") else {
        println!("SKIPPED: CHRONOLITH_GO_AUDITOR names no program");
        return;
    };
    let log = Log::new();
    let run = |name: &str| {
        let output = Command::new(&program)
            .arg(log.path(name))
            .arg(log.path("main/log.vkey"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    for revision in [2, 4, 257, 258] {
        let (good, text) = run(&format!("{revision}.tlog-proof"));
        assert!(
            good && text.starts_with(&format!("revision {revision} is in chronolith/")),
            "{text}"
        );
    }
    // The entry, the leaf, each hash of the path, the size and the root.
    let text = fs::read_to_string(log.path("257.tlog-proof")).unwrap();
    let ends = text.match_indices('\n').map(|(at, _)| at);
    for at in ends.skip(1).filter(|at| text.as_bytes()[at - 1] != b'\n').map(|end| end - 3) {
        log.flip("257.tlog-proof", at);
        assert!(!run("257.tlog-proof").0, "byte {at} does not matter");
        log.flip("257.tlog-proof", at);
    }
}
