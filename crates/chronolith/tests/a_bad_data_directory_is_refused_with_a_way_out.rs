//! Damage and mistakes around the data directory, done to a real one between two starts: each gets an
//! error that says what to do, and nothing that was stored is lost or changed by the refusal.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::{PutRequest, RangeRequest};
use support::{Node, Program, refused};
use tonic::Status;

const MEMORY: Program = Program::Chronolith { engine: "memory" };

/// A client that waits, for tests that do one thing after the other.
struct Client {
    runtime: tokio::runtime::Runtime,
    kv: KvClient<tonic::transport::Channel>,
}

impl Client {
    fn of(node: &Node) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let channel = runtime.block_on(async { node.channel() });
        Client { runtime, kv: KvClient::new(channel).max_decoding_message_size(usize::MAX) }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), Status> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, ..Default::default() };
        self.runtime.block_on(self.kv.put(request)).map(|_| ())
    }

    fn everything(&mut self) -> BTreeMap<String, String> {
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let answer = self.runtime.block_on(self.kv.range(all)).unwrap().into_inner();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }
}

/// Writes so many records that can be found in a file by their values; returns them.
fn fill(node: &Node, records: u32) -> BTreeMap<String, String> {
    fill_with(node, records, 50)
}

/// Values of so many times a dozen bytes.
fn fill_with(node: &Node, records: u32, dozens: usize) -> BTreeMap<String, String> {
    let mut client = Client::of(node);
    let mut written = BTreeMap::new();
    for number in 0..records {
        let (key, value) =
            (format!("key-{number:05}"), format!("value-{number:05}-").repeat(dozens));
        client.put(&key, &value).unwrap();
        written.insert(key, value);
    }
    written
}

fn data(node: &Node) -> PathBuf {
    node.directory.path().join("data")
}

/// Every file below a directory with its content.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// The file below a directory that holds a text, its content, and where the text stands in it.
fn holder(directory: &Path, text: &str) -> (PathBuf, Vec<u8>, usize) {
    let found = files(directory).into_iter().find_map(|(path, content)| {
        let position = content.windows(text.len()).position(|bytes| bytes == text.as_bytes())?;
        Some((path, content, position))
    });
    found.unwrap_or_else(|| panic!("no file below {} holds {text}", directory.display()))
}

#[test]
fn in_use_by_another_process() {
    let node = Node::start(MEMORY);
    let written = fill(&node, 3);
    let said = refused("memory", &data(&node));
    assert!(said.contains("in use") && said.contains(&node.pid().to_string()), "{said}");
    assert_eq!(Client::of(&node).everything(), written);
}

#[test]
fn full_of_other_files() {
    let directory = tempfile::TempDir::new().unwrap();
    fs::write(directory.path().join("thesis.tex"), "ten years of work").unwrap();
    let before = files(directory.path());
    let said = refused("memory", directory.path());
    assert!(said.contains("thesis.tex") && said.contains("--data-dir"), "{said}");
    assert_eq!(files(directory.path()), before);
}

#[test]
fn of_the_other_engine() {
    let mut node = Node::start(MEMORY);
    let written = fill(&node, 3);
    node.kill();
    let said = refused("rocksdb", &data(&node));
    let way_out = if cfg!(feature = "rocksdb") { "--engine memory" } else { "--features rocksdb" };
    assert!(said.contains(way_out), "{said}");
    node.restart();
    assert_eq!(Client::of(&node).everything(), written);
}

#[test]
fn of_another_cluster() {
    let mut node = Node::start(MEMORY);
    fill(&node, 3);
    node.kill();
    let identity = data(&node).join("IDENTITY");
    let mut other = Node::start(MEMORY);
    other.kill();
    // The log of one member with the identity of another: a restore that went wrong.
    fs::copy(data(&other).join("IDENTITY"), &identity).unwrap();
    let log = files(&data(&node).join("log"));
    let said = refused("memory", &data(&node));
    assert!(said.contains("cluster") || said.contains("member"), "{said}");
    assert_eq!(files(&data(&node).join("log")), log);
}

#[test]
fn with_a_flipped_bit_in_the_middle_of_the_log() {
    let mut node = Node::start(MEMORY);
    let written = fill(&node, 50);
    node.kill();
    let (path, mut content, position) = holder(&data(&node).join("log"), "value-00025-");
    content[position + 100] ^= 0x10;
    fs::write(&path, &content).unwrap();
    let said = refused("memory", &data(&node));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("restore"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), content, "the refusal changed the log");
    content[position + 100] ^= 0x10;
    fs::write(&path, &content).unwrap();
    node.restart();
    assert_eq!(Client::of(&node).everything(), written);
}

/// What a disk writes whole; a write of several of them can be cut off between two.
const SECTOR_BYTES: usize = 512;

/// Not refused: a write that was cut off by a crash was never acknowledged.
#[test]
fn with_a_torn_end_of_the_log_is_repaired() {
    let mut node = Node::start(MEMORY);
    let mut written = fill(&node, 50);
    node.kill();
    let (last, _) = written.pop_last().unwrap();
    let number = last.strip_prefix("key-").unwrap();
    let (path, mut content, position) =
        holder(&data(&node).join("log"), &format!("value-{number}-"));
    content[position.next_multiple_of(SECTOR_BYTES)..].fill(0);
    fs::write(&path, &content).unwrap();
    node.restart();
    let mut client = Client::of(&node);
    assert_eq!(client.everything(), written);
    client.put("after", "the repair").unwrap();
    node.kill();
    node.restart();
    assert_eq!(Client::of(&node).everything().len(), written.len() + 1);
}

/// The log reaches back to the checkpoint before the newest, so one may be lost.
#[test]
fn with_a_damaged_newest_checkpoint_starts_from_the_one_before() {
    let (mut node, written, checkpoints) = checkpointed();
    let newest = checkpoints.keys().filter_map(|path| number_of(path)).max().unwrap();
    let of_newest = |path: &Path| number_of(path) == Some(newest);
    for (path, content) in checkpoints.iter().filter(|(path, _)| of_newest(path)) {
        damage(path, content);
    }
    node.restart();
    assert_eq!(Client::of(&node).everything(), written);
}

#[test]
fn with_all_checkpoints_damaged() {
    let (mut node, written, checkpoints) = checkpointed();
    for (path, content) in &checkpoints {
        damage(path, content);
    }
    let said = refused("memory", &data(&node));
    assert!(said.contains("checkpoint") && said.contains("restore"), "{said}");
    for (path, content) in &checkpoints {
        fs::write(path, content).unwrap();
    }
    node.restart();
    assert_eq!(Client::of(&node).everything(), written);
}

/// A killed node whose log no longer reaches back to the beginning, and the files of its checkpoints.
fn checkpointed() -> (Node, BTreeMap<String, String>, BTreeMap<PathBuf, Vec<u8>>) {
    let mut node = Node::start_with(MEMORY, &["--snapshot-count", "50"]);
    // Several times the log's first segment, which is the smallest piece that it lets go.
    let written = fill_with(&node, 400, 1_000);
    node.kill();
    let mut checkpoints = files(&data(&node).join("checkpoints"));
    // One that the kill cut off is no checkpoint; the next start removes it.
    checkpoints.retain(|path, _| number_of(path).is_some());
    assert!(!checkpoints.is_empty(), "no checkpoint was written");
    (node, written, checkpoints)
}

/// `checkpoints/1200/some/file` belongs to 1200.
fn number_of(path: &Path) -> Option<u64> {
    path.iter().find_map(|part| part.to_str()?.parse().ok())
}

fn damage(path: &Path, content: &[u8]) {
    let mut damaged = content.to_vec();
    let middle = damaged.len() / 2;
    if let Some(byte) = damaged.get_mut(middle) {
        *byte ^= 0x10;
    }
    fs::write(path, damaged).unwrap();
}

/// A file system of a stated size in RAM; gone when dropped. Mounting needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = tempfile::TempDir::new().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = command.arg(directory.path()).output().is_ok_and(|o| o.status.success());
        if !mounted {
            println!("SKIPPED: a small file system cannot be mounted here (root only)");
        }
        mounted.then_some(SmallDisk(directory))
    }

    fn grow(&self, size: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,size={size}")]);
        assert!(command.arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy, because a killed node may not be gone for the kernel yet; a mount left over is visible.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_refuses_writes_and_keeps_what_it_has() {
    let Some(disk) = SmallDisk::mount("200m") else { return };
    // With a reserve, writes are refused before the disk is full.
    let mut node = Node::start_in(MEMORY, disk.0.path(), &["--reserve-disk-bytes", "0"]);
    let mut client = Client::of(&node);
    let value = "x".repeat(1 << 20);
    let mut written = BTreeMap::new();
    let refused = (0..1_000).find_map(|number| {
        let key = format!("key-{number:05}");
        match client.put(&key, &value) {
            Ok(()) => {
                written.insert(key, value.clone());
                None
            }
            Err(status) => Some(status),
        }
    });
    let refused = refused.expect("200 MiB hold less than 1000 MiB");
    println!("after {} MiB: {refused:?}", written.len());
    assert!(!written.is_empty());
    assert!(
        refused.message().contains("space") || refused.message().contains("full"),
        "{refused:?}"
    );
    node.kill();
    disk.grow("1g");
    node.restart();
    let mut client = Client::of(&node);
    let found = client.everything();
    for (key, value) in &written {
        assert!(found.get(key) == Some(value), "{key} was acknowledged, but is gone");
    }
    client.put("after", "there is room again").unwrap();
}
