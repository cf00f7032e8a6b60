//! Opening, writing and reading.

use super::{Error, RestorePlan, Result, Write, past::overtaken};
use crate::{
    history::{History, LedgerCommitment, MakeDurable, past, signing_key},
    restore::operation,
};
use bytes::Bytes;
use chronolith_engine::{Durability, Engine, MemoryEngine};
use chronolith_mvcc::{Leases, Mvcc, Reader, Retention, Stamp};
use chronolith_proto::{
    etcdserverpb::{RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op::Request},
    mvccpb::KeyValue,
};
use parking_lot::Mutex;
use rand::Rng;
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The database that [`Store::open`] opens.
const DEFAULT_NAME: &str = "main";
/// Names become directories and parts of origins.
const MAX_NAME_BYTES: usize = 64;
/// Operations of one batch: they share a revision and one engine batch, all of it in memory.
const MAX_BATCH_OPERATIONS: usize = 10_000_000;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the database inside the directory.
    pub name: String,
    /// Keep the keys on disk, in RocksDB, instead of in memory. Needs the feature `rocksdb`.
    pub on_disk: bool,
    /// Who writes: goes into each entry of the log. See [`chronolith_ledger::actor_reference`].
    pub actor: [u8; 16],
    /// Hash what is written and keep the log. Without, nothing can be proven: only for measuring what it
    /// costs, and for data that is thrown away.
    pub verifiable: bool,
    /// How long, before the compact revision, removed versions keep everything but their value: key,
    /// time, actor, version. Then their hashes are left. For ever, by default; zero keeps hashes only.
    pub meta_retention: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            on_disk: false,
            actor: [0; 16],
            verifiable: true,
            meta_retention: Duration::MAX,
        }
    }
}

impl Options {
    /// The default options for a database of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// A database. See the module; cheap to share behind an [`Arc`].
///
/// ```
/// use chronolith_store::embedded::{At, Store};
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path())?;
/// let first = store.put("colour", "red")?;
/// store.put("colour", "blue")?;
/// assert_eq!(store.get("colour")?.map(|kv| kv.value), Some("blue".into()));
/// let then = store.get_at("colour", At::Revision(first))?;
/// assert_eq!(then.kv.map(|kv| kv.value), Some("red".into()));
/// store.batch_put((0..1000).map(|n| (format!("key/{n}"), "value")))?;
///
/// let proof = store.prove("colour")?;
/// proof.verify_history(&store.policy()?, b"colour")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    pub(super) reader: Reader,
    engine: Arc<dyn Engine>,
    history: Option<History>,
    writer: Mutex<Mvcc>,
    actor: [u8; 16],
    /// Whether the engine's `flush` is a sync of its log, shared by all who call it. Otherwise each
    /// write is synced by itself.
    shared_sync: bool,
    _lock: File,
}

/// A write that was applied and is not yet known to be on the disk.
#[must_use = "a write is only safe when it was waited for"]
pub struct Pending<'a> {
    store: &'a Store,
    revision: i64,
}

impl Pending<'_> {
    /// The revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Waits for the disk. Of all who wait, one syncs for all.
    pub fn wait(self) -> Result<i64> {
        if self.store.shared_sync {
            self.store.engine.flush()?;
        }
        Ok(self.revision)
    }
}

impl Store {
    /// Opens the database `main` in `dir`, or creates it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, &Options::default())
    }

    /// Opens a database by its name and options.
    pub fn open_with(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        check_name(&options.name)?;
        let dir = dir.as_ref().join(&options.name);
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let lock = lock(&dir)?;
        let key = signing_key(&dir, || origin(&options.name))?;
        let engine = engine(&dir, options.on_disk)?;
        let retention = match (options.verifiable, options.meta_retention) {
            (false, _) => Retention::Nothing,
            (true, Duration::ZERO) => Retention::Hashes,
            (true, keep) => {
                Retention::Meta { keep_ms: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX) }
            }
        };
        let mvcc =
            Mvcc::open(Arc::clone(&engine))?.committed_by(Arc::new(LedgerCommitment), retention);
        let reader = mvcc.reader();
        let history = match options.verifiable {
            true => {
                let (flushed, reader) = (Arc::clone(&engine), reader.clone());
                // On disk, each write is synced by itself: nothing is left to be made durable.
                let make_durable: MakeDurable = match options.on_disk {
                    true => Box::new(|| Ok(())),
                    false => Box::new(move || Ok(flushed.flush()?)),
                };
                Some(History::open(&dir, key, reader, make_durable, None)?)
            }
            false => None,
        };
        Ok(Self {
            reader,
            engine,
            history,
            writer: Mutex::new(mvcc),
            actor: options.actor,
            shared_sync: !options.on_disk,
            _lock: lock,
        })
    }

    /// The history with its proofs; none where the database was opened without its log.
    pub fn log(&self) -> Option<&History> {
        self.history.as_ref()
    }

    pub(super) fn proven(&self) -> Result<&History> {
        let missing = || Error::Invalid("the database was opened without its log".to_owned());
        self.history.as_ref().ok_or_else(missing)
    }

    /// The names of the databases in `dir`.
    pub fn databases(dir: impl AsRef<Path>) -> Result<Vec<String>> {
        let dir = dir.as_ref();
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let path = entry.map_err(Error::io(dir))?.path();
            if path.join("log.vkey").is_file() {
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The newest revision; 1 in an empty database.
    pub fn revision(&self) -> i64 {
        self.reader.current_revision()
    }

    /// The versions behind it all, for requests in etcd's terms.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sets a key.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<i64> {
        self.write([Write::Put(key.into(), value.into())])
    }

    /// Removes a key; the revision, if there was one to remove.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<Option<i64>> {
        let before = self.revision();
        let revision = self.write([Write::Delete(key.into())])?;
        Ok((revision > before).then_some(revision))
    }

    /// Sets many keys in one revision: all of them or none. Of a key named twice the last value stays,
    /// and both are in its history.
    pub fn batch_put<K: Into<Bytes>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<i64> {
        self.submit_puts(pairs)?.wait()
    }

    /// [`batch_put`](Self::batch_put), without waiting for the disk yet.
    pub fn submit_puts<K: Into<Bytes>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Pending<'_>> {
        let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.submit_pairs(pairs.collect())
    }

    fn submit_pairs(&self, pairs: Vec<(Bytes, Bytes)>) -> Result<Pending<'_>> {
        check_length(pairs.len())?;
        let mut mvcc = self.writer.lock();
        let applied = mvcc.put_all(pairs, &self.stamp(), self.durability())?;
        // Inside the lock: the follower takes revisions in their order.
        self.history.as_ref().map_or(Ok(()), |history| history.follow(applied))?;
        Ok(Pending { store: self, revision: self.revision() })
    }

    /// Carries out changes in one revision, and waits for the disk.
    pub fn write(&self, writes: impl IntoIterator<Item = Write>) -> Result<i64> {
        self.submit(writes)?.wait()
    }

    /// Carries out changes in one revision. Several may be under way before the first is waited for.
    pub fn submit(&self, writes: impl IntoIterator<Item = Write>) -> Result<Pending<'_>> {
        let writes: Vec<_> = writes.into_iter().collect();
        check_length(writes.len())?;
        if writes.iter().all(|write| matches!(write, Write::Put(..))) {
            let pair = |write| match write {
                Write::Put(key, value) => Some((key, value)),
                Write::Delete(_) => None,
            };
            return self.submit_pairs(writes.into_iter().filter_map(pair).collect());
        }
        let success = writes.into_iter().map(operation).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        let (revision, _) = self.apply(&request)?;
        Ok(Pending { store: self, revision })
    }

    /// Carries out a transaction in etcd's terms.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnResponse> {
        chronolith_mvcc::validate::txn(request, MAX_BATCH_OPERATIONS)?;
        let (revision, response) = self.apply(request)?;
        Pending { store: self, revision }.wait()?;
        Ok(response)
    }

    /// Carries out a restoration, all in one revision, unless something was written since it was planned.
    pub(super) fn write_if_unchanged(&self, plan: &RestorePlan) -> Result<i64> {
        let success: Vec<_> = plan.writes.iter().cloned().map(operation).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        let mut mvcc = self.writer.lock();
        if self.revision() != plan.since {
            return Err(overtaken());
        }
        let (revision, _) = self.apply_locked(&mut mvcc, &request)?;
        drop(mvcc);
        Pending { store: self, revision }.wait()
    }

    fn apply(&self, request: &TxnRequest) -> Result<(i64, TxnResponse)> {
        check_keys(request)?;
        self.apply_locked(&mut self.writer.lock(), request)
    }

    fn apply_locked(&self, mvcc: &mut Mvcc, request: &TxnRequest) -> Result<(i64, TxnResponse)> {
        let mut run = mvcc.begin_run()?;
        let response = run.txn(request, &mut NoLeases, &self.stamp())?;
        let (revision, is_new) = (run.revision(), run.revision() > self.revision());
        if is_new {
            let applied = run.commit(self.durability())?;
            // Inside the lock: the follower takes revisions in their order.
            self.history.as_ref().map_or(Ok(()), |history| history.follow(applied))?;
        }
        Ok((revision, response))
    }

    fn stamp(&self) -> Stamp {
        let mut salt = [0; 16];
        if self.history.is_some() {
            rand::rng().fill_bytes(&mut salt);
        }
        Stamp { time_ms: now_ms(), actor: self.actor, salt }
    }

    fn durability(&self) -> Durability {
        if self.shared_sync { Durability::Buffered } else { Durability::Sync }
    }

    /// The newest value of a key.
    pub fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        Ok(self.reader.range(&request)?.kvs.pop())
    }

    /// The keys that begin with `prefix`, in order.
    pub fn list(&self, prefix: &[u8]) -> Result<Vec<KeyValue>> {
        Ok(self.reader.range(&past::prefix_request(prefix, 0))?.kvs)
    }

    /// Makes revisions before `revision` unreadable and removes what they alone need. Their hashes stay
    /// in the log: proofs of what is kept hold as before.
    pub fn compact(&self, revision: i64) -> Result<()> {
        let mut mvcc = self.writer.lock();
        let mut run = mvcc.begin_run()?;
        run.compact(revision)?;
        run.commit(self.durability())?;
        // Removed revisions cannot be hashed any more: the log has them on the disk before they go.
        if let Some(history) = &self.history {
            history.sync()?;
        }
        // In steps, so that no batch is without limit.
        while mvcc.scrub_step_logged(SCRUB_RECORDS)? {}
        self.engine.flush()?;
        Ok(())
    }

    /// Erases the values that revisions from `from` to `to` gave a key, and what could be used to guess
    /// them: the revisions that had one, none if all were erased before. The hashes stay, and whatever
    /// else those revisions did is proven as before. The current value cannot be erased: put another,
    /// or delete the key, first. Copies of the directory made before still have the value, and files of
    /// the engine until it rewrites them.
    pub fn erase(&self, key: impl Into<Bytes>, from: i64, to: i64) -> Result<Vec<i64>> {
        let mut mvcc = self.writer.lock();
        // The log has the revision on the disk before anything of it goes.
        if let Some(history) = &self.history {
            history.sync()?;
        }
        let mut run = mvcc.begin_run()?;
        let revisions = run.erase(&key.into(), from, to)?;
        run.commit(self.durability())?;
        self.engine.flush()?;
        Ok(revisions)
    }

    /// Stops: everything is on the disk when this returns.
    pub fn close(self) -> Result<()> {
        if let Some(history) = &self.history {
            history.close()?;
        }
        self.engine.flush()?;
        Ok(self.engine.close()?)
    }
}

/// Records that one step of a compaction removes.
const SCRUB_RECORDS: usize = 10_000;

struct NoLeases;

impl Leases for NoLeases {
    fn contains(&self, _: i64) -> bool {
        false
    }

    fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
}

fn check_length(operations: usize) -> Result<()> {
    if operations > MAX_BATCH_OPERATIONS {
        let limit = format!("a batch has at most {MAX_BATCH_OPERATIONS} operations");
        return Err(Error::Invalid(limit));
    }
    Ok(())
}

fn check_keys(request: &TxnRequest) -> Result<()> {
    let empty = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(put)) => put.key.is_empty(),
        Some(Request::RequestDeleteRange(delete)) => delete.key.is_empty(),
        _ => false,
    };
    let mut operations = request.success.iter().chain(&request.failure);
    if operations.any(empty) { Err(chronolith_mvcc::Error::EmptyKey.into()) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
        return Err(Error::Invalid(format!(
            "a database's name has 1 to {MAX_NAME_BYTES} letters, digits, - and _, not {name:?}"
        )));
    }
    Ok(())
}

pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let file = File::create(&path).map_err(Error::io(&path))?;
    file.try_lock().map_err(|_| Error::InUse(dir.to_owned()))?;
    Ok(file)
}

pub(super) fn engine(dir: &Path, on_disk: bool) -> Result<Arc<dyn Engine>> {
    let dir = dir.join("engine");
    if !on_disk {
        return Ok(Arc::new(MemoryEngine::open(dir)?));
    }
    #[cfg(feature = "rocksdb")]
    return Ok(Arc::new(chronolith_engine::RocksEngine::open(
        dir,
        &chronolith_engine::Profile::default(),
    )?));
    #[cfg(not(feature = "rocksdb"))]
    Err(Error::Invalid("this program was built without RocksDB".to_owned()))
}

/// The name of a new database's log. It must not be that of any other log: a copy of the name would do
/// for nobody.
fn origin(name: &str) -> String {
    format!("chronolith/{:016x}/{name}", rand::random::<u64>())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
