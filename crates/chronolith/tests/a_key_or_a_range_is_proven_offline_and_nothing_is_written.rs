//! `chronolith verify DIRECTORY --key | --revisions [--export]`, of a node's directory and of an embedded
//! database, on each engine: proven under the newest checkpoint that lies there, checked again as a bundle,
//! refused where something was changed or is not signed, and the directory is afterwards what it was.
#![allow(clippy::unwrap_used)]

mod support;

#[allow(dead_code, reason = "the tamper matrix changes it in more ways")]
#[path = "tampering_is_found_and_named/victim.rs"]
mod victim;

use chronolith_store::embedded::{Options, Store};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};
use support::ENGINES;
use tempfile::TempDir;
use victim::{Victim, files, flip, log_key, verify_with, version};

/// A directory that must stay as it is, and who asks about it.
struct Subject {
    dir: PathBuf,
    key: PathBuf,
    proofs: TempDir,
}

/// What lies in a directory: bytes, and when they were written.
type Tree = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    for path in files(dir) {
        if path.is_dir() {
            // Empty directories count as well.
            found.insert(path.clone(), (Vec::new(), SystemTime::UNIX_EPOCH));
            found.extend(tree(&path));
        } else {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), modified));
        }
    }
    found
}

impl Subject {
    fn new(dir: PathBuf, key: PathBuf) -> Self {
        Self { dir, key, proofs: TempDir::new().unwrap() }
    }

    /// Exit code and text of `verify` with these arguments; whatever it says, nothing was written.
    fn verify(&self, arguments: &[&str]) -> (i32, String) {
        let before = tree(&self.dir);
        let answer = verify_with(&self.dir, &self.key, None, arguments);
        assert!(tree(&self.dir) == before, "{arguments:?} changed the directory: {answer:?}");
        answer
    }

    /// Where a proof is put; nothing lies there before.
    fn proof(&self, name: &str) -> PathBuf {
        self.proofs.path().join(name)
    }

    /// Proves a part of the directory, then the bundle that was exported, and a bundle with a byte changed.
    fn proves(&self, part: [&str; 2], says: &str) {
        let bundle = self.proof("bundle");
        let export = ["--export", bundle.to_str().unwrap()];
        let (code, text) = self.verify(&part);
        assert!(code == 0 && text.contains(says), "{part:?}: {code}: {text}");
        assert!(!bundle.exists());
        let (code, text) = self.verify(&[part, export].concat());
        assert!(code == 0 && text.contains(says), "{part:?}: {code}: {text}");

        let of_the_bundle: &[&str] = if part[0] == "--key" { &part } else { &[] };
        let (code, text) = verify_with(&bundle, &self.key, None, of_the_bundle);
        assert_eq!(code, 0, "{part:?}: {text}");
        let other = Subject::other_key();
        let (code, text) = verify_with(&bundle, other.path(), None, of_the_bundle);
        assert_ne!(code, 0, "{part:?}, by another log's key: {text}");
        flip(&bundle, |length| length - 3);
        let (code, text) = verify_with(&bundle, &self.key, None, of_the_bundle);
        assert_eq!(code, 1, "{part:?}, with a byte changed: {text}");
        fs::remove_file(&bundle).unwrap();
    }

    fn other_key() -> tempfile::NamedTempFile {
        let home = TempDir::new().unwrap();
        let store = Store::open(home.path()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), store.verifier_key().unwrap()).unwrap();
        store.close().unwrap();
        file
    }

    /// Nothing is proven, for this reason, and nothing exported.
    fn refuses(&self, part: [&str; 2], exit: i32, why: &str) {
        let bundle = self.proof("refused");
        let export = ["--export", bundle.to_str().unwrap()];
        let (code, text) = self.verify(&[part, export].concat());
        assert!(code == exit && text.contains(why), "{part:?}: {code}: {text}");
        assert!(!bundle.exists(), "{part:?}");
    }
}

#[test]
fn of_a_nodes_directory() {
    for engine in ENGINES {
        let victim = Victim::new(engine);
        let copy = victim.copy();
        let node = Subject::new(copy.path().to_owned(), victim.key());
        node.proves(["--key", "key/7"], "key/7: 13 revisions, none left out in between");
        // The last of them are in the Raft log alone.
        node.proves(["--revisions", "2-500"], "revisions 2 to 500");
        node.proves(["--revisions", "497-497"], "revisions 497 to 497");
        node.refuses(["--revisions", "400-501"], 2, "the history has revisions 2 to 500");
        node.refuses(["--revisions", "1-5"], 2, "the history has revisions 2 to 500");
        node.refuses(["--key", "key/40"], 2, "there is no version of \"key/40\"");

        // Revision 47 is of key/7, and in the engine's files; all checksums are right.
        victim.alter(&node.dir, |engine, batch| {
            let (key, mut value) = version(engine, 47);
            value = [&value[..value.len() - 1], b"!"].concat().into();
            batch.put(engine.column("versions").unwrap(), key, value);
        });
        node.refuses(["--key", "key/7"], 1, "first bad revision: 47");
        node.refuses(["--revisions", "40-50"], 1, "first bad revision: 47");

        let dropped = victim.copy();
        let node = Subject::new(dropped.path().to_owned(), victim.key());
        victim.alter(&node.dir, |engine, batch| {
            batch.delete(engine.column("log").unwrap(), log_key(87));
        });
        node.refuses(["--key", "key/7"], 1, "first bad revision: 87");
    }
}

/// An embedded database signs when its program asks: the last hundred revisions here are not signed.
#[test]
fn of_an_embedded_database() {
    for engine in ENGINES {
        let home = TempDir::new().unwrap();
        let options = Options { on_disk: *engine == "rocksdb", ..Options::named("main") };
        let store = Store::open_with(home.path(), &options).unwrap();
        for number in 2..=200 {
            store.put(format!("key/{}", number % 10), format!("value of {number}")).unwrap();
        }
        store.checkpoint().unwrap();
        for number in 201..=300 {
            store.put(format!("key/{}", number % 5), format!("value of {number}")).unwrap();
        }
        store.close().unwrap();
        let key = home.path().join("main/log.vkey");
        let database = Subject::new(home.path().join("main"), key);
        database.proves(["--key", "key/7"], "key/7: 20 revisions, none left out in between");
        database.proves(["--revisions", "2-200"], "revisions 2 to 200");
        database.refuses(["--key", "key/3"], 2, "revision 298 is not signed yet");
        database.refuses(["--revisions", "150-250"], 2, "revisions 201 to 250 are not signed yet");
        database.refuses(["--revisions", "150-301"], 2, "the history has revisions 2 to 300");

        let (code, text) = database.verify(&["--export", "proof"]);
        assert!(code == 2 && text.contains("--key"), "an export of nothing: {code}: {text}");
        flip(&database.dir.join("tlog/L0"), |_| 64 * 32);
        database.refuses(["--key", "key/7"], 1, "first bad revision: 66");
    }
}

/// The two lie in one place: whose key is meant must be said.
#[test]
fn of_one_database_at_a_time() {
    let home = TempDir::new().unwrap();
    for name in ["one", "two"] {
        let store = Store::open_with(home.path(), &Options::named(name)).unwrap();
        store.put("key", name).unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
    }
    let key = |name: &str| home.path().join(name).join("log.vkey");
    let both = Subject::new(home.path().to_owned(), key("one"));
    both.refuses(["--key", "key"], 2, "there are 2 in here");
    let one = Subject::new(home.path().join("one"), key("one"));
    one.proves(["--key", "key"], "key: 1 revisions");
}
