//! Restarts: after a shutdown, after kill -9 at random moments, with damaged checkpoints and strange
//! directories. Nothing acknowledged is lost, nothing happens twice, and what cannot be mended is refused
//! with a way out.

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use chronolith_store::{EngineKind, Limits, OpenError, Store, StoreConfig};
use common::*;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// So few entries that a test sees many checkpoints.
const EVERY: u64 = 20;

fn config(dir: &Path, engine: EngineKind) -> StoreConfig {
    // Without a reserve, which refuses writes before a disk is full.
    let limits = Limits { reserve_disk_bytes: Some(0), ..Limits::default() };
    StoreConfig { engine, checkpoint_every_entries: EVERY, limits, ..StoreConfig::new(dir) }
}

fn checkpoints(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir.join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut indexes: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
    indexes.sort_unstable();
    indexes
}

/// Writes until there are `count` checkpoints that did not exist before.
async fn write_checkpoints(store: &Store, dir: &Path, count: usize) {
    write_large_checkpoints(store, dir, count, 1).await;
}

async fn write_large_checkpoints(store: &Store, dir: &Path, count: usize, value_bytes: usize) {
    let before = checkpoints(dir);
    let mut written = 0;
    while checkpoints(dir).iter().filter(|index| !before.contains(index)).count() < count {
        store
            .put(put(&format!("filler/{}", written % 100), &"v".repeat(value_bytes)))
            .await
            .unwrap();
        written += 1;
        assert!(written < 5_000, "no checkpoint appeared");
    }
}

fn damage(dir: &Path, index: u64) {
    let path = dir.join("checkpoints").join(index.to_string()).join("state");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

async fn hash(store: &Store) -> (u32, i64) {
    let answer = store.hash_kv(HashKvRequest::default()).await.unwrap();
    (answer.hash, answer.hash_revision)
}

#[tokio::test]
async fn a_restart_finds_everything() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        store.lease_grant(grant(7, 1000)).await.unwrap();
        for number in 0..100 {
            let lease = if number % 2 == 0 { 7 } else { 0 };
            store.put(leased(&format!("k/{number:03}"), "v", lease)).await.unwrap();
        }
        store.put(put("k/000", "detached")).await.unwrap();
        store.compact(CompactionRequest { revision: 50, physical: true }).await.unwrap();
        let before = (store.range(all()).await.unwrap(), hash(&store).await);
        let header = store.header();
        store.shutdown().await;

        let store = Store::open(config(dir.path(), *engine)).unwrap();
        let mut after = (store.range(all()).await.unwrap(), hash(&store).await);
        let found = after.0.header.take().unwrap();
        assert_eq!(found.revision, header.revision, "no revision is lost or made");
        assert_eq!((found.cluster_id, found.member_id), (header.cluster_id, header.member_id));
        assert_eq!((after.0.kvs, after.1), (before.0.kvs, before.1));
        let lease = LeaseTimeToLiveRequest { id: 7, keys: true };
        let lease = store.lease_time_to_live(lease).await.unwrap();
        assert_eq!((lease.granted_ttl, lease.keys.len()), (1000, 49));
        let old = RangeRequest { revision: 49, ..get("k/001") };
        assert_eq!(
            refusal(store.range(old).await),
            "OutOfRange | etcdserver: mvcc: required revision has been compacted"
        );
        assert_eq!(
            store.put(put("next", "v")).await.unwrap().header.unwrap().revision,
            header.revision + 1
        );
    }
}

#[tokio::test]
async fn a_restart_does_not_begin_a_lease_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    store.lease_grant(grant(1, 4)).await.unwrap();
    store.lease_grant(grant(2, 600)).await.unwrap();
    store.put(leased("ends", "v", 1)).await.unwrap();
    store.put(leased("stays", "v", 2)).await.unwrap();
    // Half of the first lease's time is over and on record.
    tokio::time::sleep(Duration::from_millis(2600)).await;
    store.shutdown().await;
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    let request = LeaseTimeToLiveRequest { id: 1, keys: false };
    let left = store.lease_time_to_live(request).await.unwrap();
    // Where the machine is slow, it has ended by now.
    assert!(left.ttl < 3, "{left:?}");
    while store.range(get("ends")).await.unwrap().count != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(keys(&store.range(all()).await.unwrap()), ["stays"]);
}

#[tokio::test]
async fn a_damaged_checkpoint_costs_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    write_checkpoints(&store, dir.path(), 2).await;
    let before = hash(&store).await;
    store.shutdown().await;
    let [_, newest] = checkpoints(dir.path())[..] else { panic!("two are kept") };
    damage(dir.path(), newest);

    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    assert_eq!(hash(&store).await, before);
    assert!(!checkpoints(dir.path()).contains(&newest), "it is no longer counted");
    write_checkpoints(&store, dir.path(), 2).await;
    let before = hash(&store).await;
    store.shutdown().await;
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    assert_eq!(hash(&store).await, before);
}

#[tokio::test]
async fn a_log_that_reaches_back_makes_up_for_every_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    write_checkpoints(&store, dir.path(), 1).await;
    let before = hash(&store).await;
    store.shutdown().await;
    checkpoints(dir.path()).into_iter().for_each(|index| damage(dir.path(), index));
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    assert_eq!(hash(&store).await, before);
}

#[tokio::test]
async fn without_any_whole_checkpoint_and_a_whole_log_the_start_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    for _ in 0..4 {
        // The log's first segment fills up, and goes with the third checkpoint.
        write_large_checkpoints(&store, dir.path(), 1, 50_000).await;
    }
    store.shutdown().await;
    let all = checkpoints(dir.path());
    all.iter().for_each(|index| damage(dir.path(), *index));
    for _ in 0..2 {
        let error = Store::open(config(dir.path(), EngineKind::Memory)).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, OpenError::NoUsableCheckpoint { .. }), "{text}");
        assert!(text.contains("restore the data directory from a backup"), "{text}");
    }
    assert_eq!(checkpoints(dir.path()), all, "nothing was touched");
}

#[tokio::test]
async fn a_vanished_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    store.put(put("k", "v")).await.unwrap();
    store.shutdown().await;
    fs::rename(dir.path().join("log"), dir.path().join("elsewhere")).unwrap();
    let error = Store::open(config(dir.path(), EngineKind::Memory)).err().unwrap();
    assert!(matches!(error, OpenError::MissingLog { .. }), "{error}");
    fs::remove_dir_all(dir.path().join("log")).ok();
    fs::rename(dir.path().join("elsewhere"), dir.path().join("log")).unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    assert_eq!(store.range(get("k")).await.unwrap().count, 1);
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    let error = Store::open(config(dir.path(), EngineKind::Memory)).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    store.put(put("k", "v")).await.unwrap();
}

#[cfg(not(feature = "rocksdb"))]
#[test]
fn an_engine_that_was_not_built_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(config(&dir.path().join("new"), EngineKind::RocksDb)).err().unwrap();
    assert!(matches!(error, OpenError::EngineNotBuilt("rocksdb")), "{error}");
    assert!(!dir.path().join("new").exists());
}

/// Set in the process that is killed: its data directory and engine.
const CHILD_DIR: &str = "CHRONOLITH_TEST_CHILD_DIR";
const CHILD_ENGINE: &str = "CHRONOLITH_TEST_CHILD_ENGINE";
/// Bytes that it writes to another key with each number, if any.
const CHILD_VALUE_BYTES: &str = "CHRONOLITH_TEST_CHILD_VALUE_BYTES";

/// Not a test by itself: the writer that the next test kills. It prints what was acknowledged.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let engine = std::env::var(CHILD_ENGINE).unwrap().parse().unwrap();
    let store = Store::open(config(Path::new(&dir), engine)).unwrap();
    let ballast = std::env::var(CHILD_VALUE_BYTES).map_or(0, |bytes| bytes.parse().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0.. {
                let request =
                    PutRequest { prev_kv: true, ..put(&format!("w{writer}"), &number.to_string()) };
                let answer = match store.put(request).await {
                    Ok(answer) => answer,
                    Err(error) => return println!("\nrefused {error}"),
                };
                if ballast > 0 {
                    let request = put(&format!("b{number}"), &"b".repeat(ballast));
                    let _ = store.put(request).await;
                }
                let revision = answer.header.unwrap().revision;
                println!("\nacked w{writer} {number} {revision}");
                if number % 50 == 49 && writer == 0 {
                    let compact = CompactionRequest { revision: revision - 20, physical: false };
                    store.compact(compact).await.unwrap();
                }
            }
        });
    }
    tasks.join_next().await;
}

/// Runs the writer for a while, kills it, and answers with what it said: writer, number, revision.
fn write_and_kill(dir: &Path, engine: EngineKind, life: Duration) -> Vec<(String, u64, i64)> {
    let mut child = writer(Command::new(std::env::current_exe().unwrap()), dir, engine)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        lines.filter_map(|line| parse(&line)).collect()
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// The writer's command line, after what runs it.
fn writer(mut command: Command, dir: &Path, engine: EngineKind) -> Command {
    command
        .args(["--exact", "child_writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_ENGINE, engine.name());
    command
}

fn parse(line: &str) -> Option<(String, u64, i64)> {
    let mut words = line.strip_prefix("acked ")?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[tokio::test]
async fn kill_at_random_moments() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (mut newest, mut round, mut signed) = (1, 0, None);
        // A slow machine may need more lives to write anything at all.
        while round < 6 || (newest < 100 && round < 100) {
            round += 1;
            let life = Duration::from_millis(rand::random_range(50..900));
            let acked = write_and_kill(dir.path(), *engine, life);
            let store = Store::open(config(dir.path(), *engine)).unwrap();
            let revision = store.header().revision;
            for (writer, number, at) in &acked {
                assert!(*at > newest, "round {round}: revision {at} was given out before");
                assert!(*at <= revision, "round {round}: revision {at} is lost");
                let found = store.range(get(writer)).await.unwrap();
                let value: u64 = values(&found)[0].1.parse().unwrap();
                assert!(
                    value >= *number,
                    "round {round}: {writer} has {value}, {number} was acked"
                );
                // At its own revision it reads exactly what was acknowledged.
                match store.range(RangeRequest { revision: *at, ..get(writer) }).await {
                    Ok(then) => assert_eq!(values(&then)[0].1, number.to_string()),
                    Err(error) => assert!(error.to_string().contains("compacted"), "{error}"),
                }
            }
            newest = revision;
            store.delete_range(delete("w0")).await.unwrap();
            for writer in 1..4 {
                store.delete_range(delete(&format!("w{writer}"))).await.unwrap();
            }
            newest = newest.max(store.header().revision);
            // The log continues what was signed before the crash, and is what the revisions make it.
            let history = store.history().unwrap();
            history.verify(signed.as_ref(), &mut |_, _| {}).unwrap();
            signed = Some(history.checkpoint().unwrap());
            if round % 2 == 0 {
                store.shutdown().await;
            }
        }
        assert!(newest >= 100, "hardly anything was written: revision {newest}");
    }
}

/// Set in the process that checks after the disk was full: what was acknowledged.
const CHILD_ACKED: &str = "CHRONOLITH_TEST_CHILD_ACKED";

/// Not a test by itself: looks at a directory that only its own file systems show.
#[tokio::test]
async fn child_checks_what_was_acknowledged() {
    let (Ok(dir), Ok(acked)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_ACKED)) else {
        return;
    };
    let engine = std::env::var(CHILD_ENGINE).unwrap().parse().unwrap();
    let store = Store::open(config(Path::new(&dir), engine)).unwrap();
    let text = fs::read_to_string(acked).unwrap();
    for (writer, number, _) in text.lines().filter_map(parse) {
        let found = store.range(get(&writer)).await.unwrap();
        let value: u64 = values(&found)[0].1.parse().unwrap();
        assert!(value >= number, "{writer} has {value}, {number} was acknowledged");
    }
    store.put(put("after", "there is room again")).await.unwrap();
    println!("\nchecked");
}

/// A small disk that only the script sees: fills up under the writer, grows, and is looked at again.
const FULL_DISK: &str = r#"
mkdir -p "$DISK" && mount -t tmpfs -o size=12m tmpfs "$DISK" || { echo "no mount"; exit 0; }
timeout 60 "$0" --exact child_writes_until_it_is_killed --nocapture > "$CHRONOLITH_TEST_CHILD_ACKED"
grep '^refused' "$CHRONOLITH_TEST_CHILD_ACKED"
mount -o remount,size=200m "$DISK"
exec "$0" --exact child_checks_what_was_acknowledged --nocapture
"#;

#[test]
fn a_full_disk_stops_the_member_and_loses_nothing() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let acked = dir.path().join("acked");
        let output = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", FULL_DISK])
            .arg(std::env::current_exe().unwrap())
            .env("DISK", &disk)
            .env(CHILD_DIR, disk.join("data"))
            .env(CHILD_ENGINE, engine.name())
            .env(CHILD_ACKED, &acked)
            .env(CHILD_VALUE_BYTES, "4000")
            .output();
        let Ok(output) = output else { return println!("SKIPPED: no unshare here") };
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if text.contains("no mount") || errors.contains("unshare failed") {
            return println!("SKIPPED: a file system of its own is not allowed here: {errors}");
        }
        let refused = text.lines().find_map(|line| line.strip_prefix("refused "));
        let refused = refused.unwrap_or_else(|| panic!("it never filled up: {text} {errors}"));
        assert!(refused.contains("can no longer vouch for its data"), "{refused}");
        assert!(refused.contains("No space left"), "it says why: {refused}");
        assert!(text.contains("checked"), "{text} {errors}");
        let count = fs::read_to_string(&acked).unwrap().lines().filter_map(parse).count();
        assert!(count > 0, "nothing was acknowledged before the disk was full");
    }
}
