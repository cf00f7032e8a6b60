//! Data on disk, larger than memory: RocksDB behind our contract.
//!
//! ```text
//! write ─▶ our log (unless NoWal) ─▶ memtables ─flush, all columns together─▶ files ─compaction─▶ files
//! get, cursor ─▶ memtables ─▶ block cache ─▶ files (Bloom filters skip most)
//! ```
//! * A column is a column family. Flushes are atomic over all of them, so a batch without a log entry
//!   is on disk whole or not at all.
//! * RocksDB's own log is not used: `journal` says why, and why ours loses nothing. A database that has
//!   one from elsewhere is opened with it.
//! * A synced batch is visible to others shortly before it is durable: one sync serves all who wait.
//! * The first failed write poisons the engine: writes answer with its cause until it is opened
//!   again; what is there can still be read.
//! * Snapshots keep the database open: its files are unlocked when the last one is dropped.

mod cursor;
mod encoding;
mod error;
mod families;
mod journal;
mod linked;
mod options;
mod statistics;

use crate::{
    ColumnId, Cursor, Durability, Engine, Error, KeyRange, Profile, Result, Snapshot, Stats,
    WriteBatch, disk, engine::ascending, gate::Gate, log::sync::Syncs, meter::Meter,
};
use bytes::Bytes;
use error::{is_fatal, translate};
use families::{Database, Families, RESERVED, View, column_name, family_name};
use journal::Journal;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions,
    IngestExternalFileOptions, Options, ReadOptions, SstFileWriter,
};
use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// The engine on disk; see the module.
///
/// ```
/// use chronolith_engine::{Durability, Engine, Profile, RocksEngine, WriteBatch};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// let engine = RocksEngine::open(&path, &Profile::dev())?;
/// let people = engine.column("people")?;
/// let mut batch = WriteBatch::new();
/// batch.put(people, "ada", "1815");
/// engine.write(batch, Durability::Sync)?;
/// engine.close()?;
///
/// let engine = RocksEngine::open(&path, &Profile::dev())?;
/// let people = engine.column("people")?;
/// assert_eq!(engine.get(people, b"ada")?.as_deref(), Some(&b"1815"[..]));
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
pub struct RocksEngine {
    dir: PathBuf,
    /// None once closed.
    families: RwLock<Option<Arc<Families>>>,
    options: Options,
    cache: Cache,
    /// Made once: making them costs as much as a fiftieth of a cached get.
    reading: ReadOptions,
    /// Held by the one writer; none once closed.
    journal: Mutex<Option<Journal>>,
    syncs: Arc<Syncs>,
    gate: Arc<Gate>,
    meter: Arc<Meter>,
    /// Numbers the files that [`Engine::ingest`] prepares.
    ingested: AtomicU64,
}

impl RocksEngine {
    /// Opens the database in `dir`, or creates it.
    pub fn open(dir: impl AsRef<Path>, profile: &Profile) -> Result<Self> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|source| disk::io(dir, source))?;
        let dir = dir.canonicalize().map_err(|source| disk::io(dir, source))?;
        let cache = Cache::new_hyper_clock_cache(profile.block_cache_bytes, 0);
        let options = options::options(profile, &cache);
        let names = existing_columns(&dir, &options)?;
        let database = open_database(&dir, &options, &names)?;
        let families = Families::of(Arc::new(database), names)?;
        let journal = Journal::open(&dir, &families, profile.max_log_bytes)?;
        let syncs = Arc::clone(journal.syncs());
        let (families, journal) =
            (RwLock::new(Some(Arc::new(families))), Mutex::new(Some(journal)));
        let (reading, gate, meter, ingested) = Default::default();
        Ok(Self { dir, families, options, cache, reading, journal, syncs, gate, meter, ingested })
    }

    /// A profile as options of the `rocksdb` crate, for comparing with it, or for its own tools.
    #[must_use]
    pub fn options(profile: &Profile) -> Options {
        options::options(profile, &Cache::new_hyper_clock_cache(profile.block_cache_bytes, 0))
    }

    /// Where the database lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn families(&self) -> Result<impl Deref<Target = Arc<Families>>> {
        let guard = self.families.read();
        RwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| Error::Closed)
    }

    fn translate(&self, error: rocksdb::Error) -> Error {
        translate(&self.dir, error)
    }

    /// The outcome of a write: the first one that fails for good is the last one tried.
    fn written(&self, outcome: std::result::Result<(), rocksdb::Error>) -> Result<()> {
        self.kept(outcome.map_err(|error| self.translate(error)))
    }

    fn kept(&self, outcome: Result<()>) -> Result<()> {
        outcome.map_err(|error| match is_fatal(&error) {
            true => self.gate.poison(error),
            false => error,
        })
    }

    /// Logs and applies a batch in its turn; gives the position in the log to sync to.
    fn apply(
        &self,
        families: &Arc<Families>,
        encoded: Vec<u8>,
        durability: Durability,
    ) -> Result<u64> {
        let batch = rocksdb::WriteBatch::from_data(&encoded);
        let mut journal = self.journal.lock();
        // Asked again: the write before this one may have failed.
        self.gate.check_write()?;
        let journal = journal.as_mut().ok_or(Error::Closed)?;
        if batch.is_empty() {
            return Ok(self.syncs.log_bytes());
        }
        let database = families.database();
        if durability != Durability::NoWal {
            self.kept(journal.append(database, &encoded))?;
        }
        let position = self.syncs.log_bytes();
        // Once it is logged, a batch that is refused would come back at the next opening.
        let applied = database.write_opt(batch, journal.without_log());
        applied.map_err(|error| self.gate.poison(self.translate(error)))?;
        self.kept(journal.replace_outgrown(families, &self.gate))?;
        Ok(position)
    }

    fn sync(&self, position: u64) -> Result<()> {
        self.syncs.sync_to(position).map_err(|error| self.gate.poison(error))
    }

    /// Ends the log in good order.
    fn stop(&self) -> Result<()> {
        self.gate.close();
        let journal = self.journal.lock().take();
        journal.map_or(Ok(()), |mut journal| journal.stop())
    }

    /// Writes sorted records into a file of the table format; gives their number and bytes.
    fn sorted_file(
        &self,
        path: &Path,
        records: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(u64, usize)> {
        let translate = |error| self.translate(error);
        let mut writer = SstFileWriter::create(&self.options);
        let (mut count, mut bytes) = (0, 0);
        ascending(records, |key, value| {
            if count == 0 {
                writer.open(path).map_err(translate)?;
            }
            (count, bytes) = (count + 1, bytes + key.len() + value.len());
            writer.put(key, value).map_err(translate)
        })?;
        if count > 0 {
            writer.finish().map_err(translate)?;
        }
        Ok((count, bytes))
    }

    /// Makes a file of sorted records part of the column.
    fn take_in(&self, families: &Families, column: ColumnId, path: &Path) -> Result<()> {
        let family = families.get(column)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let _turn = self.journal.lock();
        // The file's sequence number enters the manifest: everything logged before must be there too.
        self.kept(journal::flush(families))?;
        let database = families.database();
        self.written(database.ingest_external_file_cf_opts(family, &options, vec![path]))
    }

    fn create_column(&self, name: &str) -> Result<ColumnId> {
        let mut guard = self.families.write();
        let families = guard.as_ref().ok_or(Error::Closed)?;
        if let Some(column) = families.named(name) {
            return Ok(column);
        }
        let database = Arc::clone(families.database());
        self.written(database.create_cf(family_name(name), &self.options))?;
        let mut names = families.names().to_vec();
        names.push(name.to_owned());
        let families = Families::of(database, names)?;
        let column = families.named(name).expect("its name is the last");
        *guard = Some(Arc::new(families));
        Ok(column)
    }
}

/// The columns of the database in `dir`, in the order of their numbers; none where there is none yet.
fn existing_columns(dir: &Path, options: &Options) -> Result<Vec<String>> {
    if !dir.join("CURRENT").exists() {
        return Ok(Vec::new());
    }
    let families = Database::list_cf(options, dir).map_err(|error| translate(dir, error))?;
    let columns = families.iter().filter(|family| *family != RESERVED);
    Ok(columns.map(|family| column_name(family).to_owned()).collect())
}

fn open_database(dir: &Path, options: &Options, names: &[String]) -> Result<Database> {
    let names = names.iter().map(|name| family_name(name)).chain([RESERVED.into()]);
    let families = names.map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    Database::open_cf_descriptors(options, dir, families).map_err(|error| translate(dir, error))
}

fn shared(value: Option<rocksdb::DBPinnableSlice<'_>>) -> Option<Bytes> {
    value.map(|value| Bytes::copy_from_slice(&value))
}

impl Engine for RocksEngine {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn column(&self, name: &str) -> Result<ColumnId> {
        let known = self.families()?.named(name);
        match known {
            Some(column) => Ok(column),
            None => self.gate.check_write().and_then(|()| self.create_column(name)),
        }
    }

    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        let families = self.families()?;
        let timer = self.meter.get_begins();
        let family = families.get(column)?;
        let found = families.database().get_pinned_cf_opt(family, key, &self.reading);
        let value = found.map(shared).map_err(|error| self.translate(error))?;
        self.meter.get_ends(timer, value.as_ref().map(Bytes::len));
        Ok(value)
    }

    fn multi_get(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let families = self.families()?;
        let family = families.get(column)?;
        let found = families.database().batched_multi_get_cf(family, keys.iter().copied(), false);
        let found = found.into_iter();
        let values = found.map(|value| value.map(shared).map_err(|error| self.translate(error)));
        let values: Vec<Option<Bytes>> = values.collect::<Result<_>>()?;
        self.meter.gets(&values);
        Ok(values)
    }

    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        let families = Arc::clone(&*self.families()?);
        let meter = Arc::clone(&self.meter);
        Ok(Arc::new(RocksSnapshot { view: View::of(families), meter }))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let families = self.families()?;
        self.gate.check_write()?;
        let begun = Instant::now();
        let (records, bytes) = (batch.len(), batch.size_bytes());
        batch.check(families.all().len())?;
        let encoded = encoding::encode(&families, &batch)?;
        drop(batch);
        let position = self.apply(&families, encoded, durability)?;
        if durability == Durability::Sync {
            self.sync(position)?;
        }
        self.meter.written(records, bytes, begun);
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        let families = self.families()?;
        self.gate.check_write()?;
        if dir.exists() {
            return Err(disk::io(dir, std::io::ErrorKind::AlreadyExists.into()));
        }
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(families.database());
        checkpoint
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| self.translate(error))?;
        disk::sync_dir(disk::parent(dir))
    }

    fn compact_range(&self, column: ColumnId, range: KeyRange) -> Result<()> {
        let families = self.families()?;
        self.gate.check_write()?;
        let family = families.get(column)?;
        let (start, end) = (cursor::lower_bound(&range), cursor::upper_bound(&range));
        let mut options = CompactOptions::default();
        // Files of the bottom level too: deleted data and an old profile's compression lie there.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        families.database().compact_range_cf_opt(family, start, end, &options);
        Ok(())
    }

    fn ingest(
        &self,
        column: ColumnId,
        records: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<u64> {
        let families = self.families()?;
        self.gate.check_write()?;
        let begun = Instant::now();
        let number = self.ingested.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("ingest-{number}.sst.new"));
        let written = self.sorted_file(&path, records);
        let ingested = written.and_then(|(count, bytes)| {
            if count > 0 {
                self.take_in(&families, column, &path)?;
                self.meter.written(usize::try_from(count).unwrap_or(usize::MAX), bytes, begun);
            }
            Ok(count)
        });
        // Moved away where it was ingested; otherwise of no more use.
        let _ = std::fs::remove_file(&path);
        ingested
    }

    fn stats(&self) -> Result<Stats> {
        let families = self.families()?;
        let mut stats = Stats::of(self.name(), &self.meter);
        statistics::fill(&mut stats, &families, &self.options, &self.cache)
            .map_err(|error| self.translate(error))?;
        stats.log_bytes = Some(self.syncs.log_bytes());
        let logs = disk::entries(&self.dir.join(journal::DIR))?;
        statistics::fill_disk(&mut stats, &[disk::entries(&self.dir)?, logs].concat());
        Ok(stats)
    }

    fn size_bytes(&self) -> Result<Option<u64>> {
        let families = self.families()?;
        statistics::size_bytes(&families).map_err(|error| self.translate(error))
    }

    fn flush(&self) -> Result<()> {
        let families = self.families()?;
        self.gate.check_write()?;
        self.kept(journal::flush(&families))
    }

    fn close(&self) -> Result<()> {
        let stopped = self.stop();
        // Dropping the last reference closes the database; a snapshot may hold one for longer.
        drop(self.families.write().take());
        stopped
    }
}

impl Drop for RocksEngine {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; what was synced is durable without this.
        let _ = self.stop();
    }
}

struct RocksSnapshot {
    view: View,
    meter: Arc<Meter>,
}

impl Snapshot for RocksSnapshot {
    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        let families = self.view.families();
        let timer = self.meter.get_begins();
        let found = self.view.pinned().get_pinned_cf(families.get(column)?, key);
        let value =
            found.map(shared).map_err(|error| translate(families.database().path(), error))?;
        self.meter.get_ends(timer, value.as_ref().map(Bytes::len));
        Ok(value)
    }

    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        Ok(Box::new(cursor::RocksCursor::new(&self.view, column, range, &self.meter)?))
    }
}
