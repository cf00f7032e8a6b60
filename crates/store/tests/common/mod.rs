//! What the tests share: a store in a directory of its own, and short ways to ask it.

#![allow(dead_code, missing_docs, unreachable_pub)]

use chronolith_proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
        request_op::Request,
    },
    mvccpb::KeyValue,
};
use chronolith_store::{EngineKind, Store, StoreConfig, StoreError};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};
use tempfile::TempDir;

/// The engines of this build.
pub const ENGINES: &[EngineKind] = &[
    EngineKind::Memory,
    #[cfg(feature = "rocksdb")]
    EngineKind::RocksDb,
];

/// A store with its directory, which goes when this goes.
pub struct Open {
    pub store: Store,
    pub dir: TempDir,
}

impl std::ops::Deref for Open {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

pub fn open() -> Open {
    open_on(EngineKind::Memory)
}

pub fn open_on(engine: EngineKind) -> Open {
    open_with(|config| config.engine = engine)
}

pub fn open_with(set: impl FnOnce(&mut StoreConfig)) -> Open {
    let dir = TempDir::new().expect("a temporary directory");
    let mut config = StoreConfig::new(dir.path().join("data"));
    set(&mut config);
    Open { store: Store::open(config).expect("a new directory opens"), dir }
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn leased(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, value) }
}

pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

pub fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn grant(id: i64, ttl: i64) -> LeaseGrantRequest {
    LeaseGrantRequest { id, ttl }
}

pub fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn values(response: &RangeResponse) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    response.kvs.iter().map(|KeyValue { key, value, .. }| (text(key), text(value))).collect()
}

pub fn keys(response: &RangeResponse) -> Vec<String> {
    values(response).into_iter().map(|(key, _)| key).collect()
}

/// Code and text of a refusal, as `CODE | text`.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    let (code, text) = result.expect_err("a refusal").status();
    format!("{code:?} | {text}")
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The files of a store that may be running, all of one moment: copied again if any changed meanwhile.
pub fn copy_as_it_lies(from: &Path, to: &Path) {
    loop {
        let before = files(from);
        let copied = copy(from, to);
        if before.is_ok() && copied.is_ok() && before.ok() == files(from).ok() {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// All files below a directory, with size and time of change.
fn files(dir: &Path) -> std::io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            let about = entry.metadata()?;
            found.insert(entry.path(), (about.len(), about.modified()?));
        }
    }
    Ok(found)
}
