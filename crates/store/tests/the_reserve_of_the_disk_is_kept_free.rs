//! Before the disk is full, writes are refused as at the quota; nothing that is in the log is in doubt.

#![allow(clippy::unwrap_used)]

mod common;

use chronolith_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, PutRequest, alarm_request::AlarmAction,
};
use chronolith_store::{DiskProbe, DiskSpace, EngineKind, Store, StoreConfig};
use common::*;
use std::{
    fs, io,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const NO_SPACE: &str = "ResourceExhausted | etcdserver: mvcc: database space exceeded";
const RESERVE: u64 = 1 << 20;
const PLENTY: u64 = 1 << 40;
/// Far more writes than a look at the disk lasts for: only a broken store gets there.
const ATTEMPTS: usize = 100_000;

/// A file system of which a test says how much is free; `u64::MAX` fails.
#[derive(Debug)]
struct Disk(AtomicU64);

impl Disk {
    fn with(free_bytes: u64) -> Arc<Self> {
        Arc::new(Self(free_bytes.into()))
    }

    fn set(&self, free_bytes: u64) {
        self.0.store(free_bytes, Ordering::Relaxed);
    }
}

impl DiskProbe for Disk {
    fn look(&self) -> io::Result<DiskSpace> {
        match self.0.load(Ordering::Relaxed) {
            u64::MAX => Err(io::Error::other("the disk is gone")),
            free_bytes => Ok(DiskSpace { free_bytes, size_bytes: PLENTY }),
        }
    }
}

fn set(config: &mut StoreConfig, engine: EngineKind, disk: &Arc<Disk>) {
    config.engine = engine;
    config.limits.reserve_disk_bytes = Some(RESERVE);
    config.disk = Some(Arc::clone(disk) as _);
}

fn alarm(action: AlarmAction) -> AlarmRequest {
    AlarmRequest { action: action as i32, member_id: 0, alarm: AlarmType::Nospace as i32 }
}

async fn alarms(store: &Store) -> Vec<u64> {
    let answer = store.alarm(alarm(AlarmAction::Get)).await.unwrap();
    answer.alarms.iter().map(|alarm| alarm.member_id).collect()
}

async fn disarm(store: &Store) {
    for member_id in alarms(store).await {
        let request = AlarmRequest { member_id, ..alarm(AlarmAction::Deactivate) };
        store.alarm(request).await.unwrap();
    }
}

/// Puts until one goes through: how long a look lasts is no matter of a test.
async fn until_put(store: &Store, key: &str) {
    for _ in 0..ATTEMPTS {
        if store.put(put(key, "v")).await.is_ok() {
            return;
        }
        disarm(store).await;
    }
    panic!("refused for ever");
}

/// The alarm comes by the log: a moment behind the refusal that proposed it.
async fn until_raised(store: &Store) {
    for _ in 0..ATTEMPTS {
        if !alarms(store).await.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never raised");
}

async fn until_refused(store: &Store) -> String {
    for _ in 0..ATTEMPTS {
        let answer = store.put(put("filler", "v")).await;
        if answer.is_err() {
            return refusal(answer);
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn below_the_reserve_the_alarm_goes_up_and_only_what_frees_space_is_done() {
    for engine in ENGINES {
        let disk = Disk::with(PLENTY);
        let store = open_with(|config| set(config, *engine, &disk));
        store.put(put("a", "1")).await.unwrap();
        store.put(put("b", "1")).await.unwrap();
        assert!(alarms(&store).await.is_empty());
        disk.set(RESERVE - 1);
        assert_eq!(until_refused(&store).await, NO_SPACE);
        until_raised(&store).await;
        assert_eq!(refusal(store.put(put("c", "1")).await), NO_SPACE);
        assert_eq!(store.delete_range(delete("a")).await.unwrap().deleted, 1);
        store.compact(CompactionRequest { revision: 3, physical: true }).await.unwrap();
        // Ended too early, it is raised again.
        disarm(&store).await;
        assert_eq!(until_refused(&store).await, NO_SPACE);
        until_raised(&store).await;
        // Space alone does not end it, as in etcd.
        disk.set(PLENTY);
        assert_eq!(refusal(store.put(put("c", "1")).await), NO_SPACE);
        disarm(&store).await;
        until_put(&store, "c").await;
        assert_eq!(store.range(get("b")).await.unwrap().count, 1);
    }
}

#[tokio::test]
async fn what_is_in_the_log_is_applied_however_full_the_disk_is() {
    let disk = Disk::with(PLENTY);
    let store = open_with(|config| set(config, EngineKind::Memory, &disk));
    for number in 0..50 {
        store.put(put(&format!("k{number}"), "v")).await.unwrap();
    }
    store.shutdown().await;
    disk.set(0);
    let mut config = StoreConfig::new(store.dir.path().join("data"));
    set(&mut config, EngineKind::Memory, &disk);
    let again = Store::open(config).unwrap();
    assert_eq!(again.range(all()).await.unwrap().count, 50);
    assert!(alarms(&again).await.is_empty(), "opening raises nothing: a write does");
    assert_eq!(until_refused(&again).await, NO_SPACE);
    again.shutdown().await;
}

#[tokio::test]
async fn the_memory_engine_keeps_room_for_its_next_checkpoint() {
    let disk = Disk::with(PLENTY);
    let store = open_with(|config| set(config, EngineKind::Memory, &disk));
    let large = PutRequest { value: vec![b'v'; 1 << 20].into(), ..put("large", "") };
    store.put(large).await.unwrap();
    let used = u64::try_from(store.status().await.unwrap().db_size).unwrap();
    assert!(used > 1 << 20);
    disk.set(RESERVE + used / 2);
    assert_eq!(until_refused(&store).await, NO_SPACE);
    disk.set(RESERVE + 2 * used);
    until_put(&store, "small").await;
}

#[tokio::test]
async fn no_reserve_is_no_question() {
    let store = open_with(|config| {
        config.disk = Some(Disk::with(u64::MAX));
        config.limits.reserve_disk_bytes = Some(0);
    });
    store.put(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_named_and_writes_wait_for_it() {
    let disk = Disk::with(PLENTY);
    let store = open_with(|config| set(config, EngineKind::Memory, &disk));
    disk.set(u64::MAX);
    assert_eq!(
        until_refused(&store).await,
        "Internal | chronolith: cannot tell the free space of the data directory: the disk is gone"
    );
    disk.set(PLENTY);
    until_put(&store, "b").await;
    assert!(alarms(&store).await.is_empty());
}

/// A file system of its own, which goes when this goes; none where mounting is not allowed.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(dir.path());
        match mount.output() {
            Ok(done) if done.status.success() => Some(Self(dir)),
            _ => None,
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

#[tokio::test]
async fn a_real_file_system_fills_up_to_the_reserve_and_no_further() {
    let Some(small) = Small::mount("size=128m") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    let ballast = small.path().join("ballast");
    fs::write(&ballast, vec![1; 32 << 20]).unwrap();
    let mut config = StoreConfig::new(small.path().join("data"));
    config.limits.reserve_disk_bytes = Some(24 << 20);
    let store = Store::open(config).unwrap();
    let value = vec![b'v'; 100_000];
    let mut written = 0;
    let large =
        |key: String| PutRequest { value: value.clone().into(), key: key.into(), ..put("", "") };
    while store.put(large(format!("k{written}"))).await.is_ok() {
        written += 1;
        assert!(written < 2_000, "128 MiB hold no more");
    }
    assert_eq!(refusal(store.put(put("more", "v")).await), NO_SPACE);
    assert!(written > 50, "{written}");
    store.health().unwrap();
    assert_eq!(store.delete_range(delete("k1")).await.unwrap().deleted, 1);
    fs::remove_file(&ballast).unwrap();
    disarm(&store).await;
    until_put(&store, "more").await;
    store.shutdown().await;
}
