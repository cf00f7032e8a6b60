//! A node's directory with a history, the same directory as it was earlier, and ways to change copies.

use crate::support::{Node, Program};
use bytes::Bytes;
use chronolith_engine::{Durability, Engine, KeyRange, MemoryEngine, WriteBatch};
use chronolith_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// Writes before the directory is copied for the first time, and in all.
const EARLY: i64 = 150;
const ALL: i64 = 500;
/// So that there are several checkpoints and a tail of the Raft log behind the newest, and an audit trail.
const FLAGS: [&str; 4] = ["--snapshot-count", "120", "--audit", "on"];

pub(crate) struct Victim {
    engine: &'static str,
    home: TempDir,
    early: TempDir,
}

impl Victim {
    pub(crate) fn new(engine: &'static str) -> Self {
        let (home, early) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        write(engine, home.path(), 2..=EARLY, "value");
        copy(&home.path().join("data"), &early.path().join("data"));
        write(engine, home.path(), EARLY + 1..=ALL, "value");
        Self { engine, home, early }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The log's public key, as somebody took it who trusts it.
    pub(crate) fn key(&self) -> PathBuf {
        self.data().join("ledger/log.vkey")
    }

    /// The audit trail's public key.
    pub(crate) fn trail_key(&self) -> PathBuf {
        self.data().join("audit/log.vkey")
    }

    /// The checkpoint that somebody kept.
    pub(crate) fn pin(&self) -> PathBuf {
        self.data().join("ledger/tlog/checkpoint")
    }

    /// A copy of the directory: a backup.
    pub(crate) fn copy(&self) -> TempDir {
        let place = TempDir::new().unwrap();
        copy(&self.data(), place.path());
        place
    }

    /// Puts the earlier directory in the place of `dir`.
    pub(crate) fn bring_back(&self, dir: &Path) {
        fs::remove_dir_all(dir).unwrap();
        copy(&self.early.path().join("data"), dir);
    }

    /// Puts the earlier directory in the place of `dir`, and writes a longer history of another content with
    /// the node's own key.
    pub(crate) fn fork(&self, dir: &Path) {
        let place = TempDir::new().unwrap();
        copy(&self.early.path().join("data"), &place.path().join("data"));
        write(self.engine, place.path(), EARLY + 1..=ALL + 50, "another value");
        fs::remove_dir_all(dir).unwrap();
        copy(&place.path().join("data"), dir);
    }

    /// Changes what the engine in `dir` holds with the engine's own means: every checksum is right.
    pub(crate) fn alter(&self, dir: &Path, change: impl FnOnce(&dyn Engine, &mut WriteBatch)) {
        if self.engine == "memory" {
            let newest = checkpoints(dir).pop().unwrap();
            let engine = MemoryEngine::restore(&newest).unwrap();
            rewrite(&engine, change);
            fs::remove_dir_all(&newest).unwrap();
            engine.checkpoint(&newest).unwrap();
            return;
        }
        alter_on_disk(dir, change);
    }
}

#[cfg(feature = "rocksdb")]
fn alter_on_disk(dir: &Path, change: impl FnOnce(&dyn Engine, &mut WriteBatch)) {
    let profile = chronolith_engine::Profile::default();
    let engine = chronolith_engine::RocksEngine::open(dir.join("engine"), &profile).unwrap();
    rewrite(&engine, change);
    engine.flush().unwrap();
    engine.close().unwrap();
}

#[cfg(not(feature = "rocksdb"))]
fn alter_on_disk(_: &Path, _: impl FnOnce(&dyn Engine, &mut WriteBatch)) {
    unreachable!("this build has one engine")
}

fn rewrite(engine: &dyn Engine, change: impl FnOnce(&dyn Engine, &mut WriteBatch)) {
    let mut batch = WriteBatch::new();
    change(engine, &mut batch);
    engine.write(batch, Durability::Sync).unwrap();
}

/// Starts a node on `place/data`, writes one revision a number, and stops it in good order.
fn write(engine: &'static str, place: &Path, numbers: impl Iterator<Item = i64>, value: &str) {
    let mut node = Node::start_in(Program::Chronolith { engine }, place, &FLAGS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut kv = KvClient::new(node.channel());
        for number in numbers {
            let key = Bytes::from(format!("key/{}", number % 40));
            let value = Bytes::from(format!("{value} of {number};"));
            let put = PutRequest { key, value, ..PutRequest::default() };
            let answer = kv.put(put).await.unwrap().into_inner();
            assert_eq!(answer.header.unwrap().revision, number);
        }
    });
    node.signal(Signal::TERM);
    assert!(node.wait().success(), "{}", node.output());
}

/// Starts a node on `place/data`, writes as fast as it answers, and kills it in the middle.
pub(crate) fn write_until_killed(place: &Path, after: Duration) {
    let mut node = Node::start_in(Program::Chronolith { engine: "memory" }, place, &FLAGS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let writer = |name: u32| {
            let mut kv = KvClient::new(node.channel());
            async move {
                for number in 0.. {
                    let (key, value) =
                        (format!("{name}/{}", number % 9).into(), format!("{number}").into());
                    let put = PutRequest { key, value, ..PutRequest::default() };
                    kv.put(put).await.unwrap();
                }
            }
        };
        let writers = async { tokio::join!(writer(1), writer(2), writer(3), writer(4)) };
        assert!(tokio::time::timeout(after, writers).await.is_err(), "they write for ever");
    });
    node.kill();
}

/// Exit code and text of `chronolith verify`.
pub(crate) fn verify(dir: &Path, key: &Path, pin: Option<&Path>) -> (i32, String) {
    verify_with(dir, key, pin, &[])
}

pub(crate) fn verify_with(
    subject: &Path,
    key: &Path,
    pin: Option<&Path>,
    arguments: &[&str],
) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.arg("verify").arg(subject).arg("--trust").arg(key).args(arguments);
    if let Some(pin) = pin {
        command.arg("--pin").arg(pin);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

/// The memory engine's checkpoints, oldest first.
pub(crate) fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u64>().ok();
    let mut found = files(&dir.join("checkpoints"));
    found.retain(|path| number(path).is_some());
    found.sort_by_key(number);
    found
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

pub(crate) fn flip(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The stored version that a revision made.
pub(crate) fn version(engine: &dyn Engine, revision: i64) -> (Bytes, Bytes) {
    let ends = format!("value of {revision};");
    let snapshot = engine.snapshot().unwrap();
    let column = engine.column("versions").unwrap();
    let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    while !cursor.value().ends_with(ends.as_bytes()) {
        cursor.next().unwrap();
    }
    (cursor.key_bytes(), cursor.value_bytes())
}

pub(crate) fn log_key(revision: i64) -> Bytes {
    Bytes::copy_from_slice(&revision.to_be_bytes())
}
