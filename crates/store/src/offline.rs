//! A database's directory that is only read: of a served node, of an embedded database, or a copy of either.
//!
//! ```text
//! served:    IDENTITY · checkpoints/ or engine/ ─▶ engine ─ Raft log's later entries, applied again ─┐
//! embedded:  engine/ (its own log included) ─▶ engine ──────────────────────────────────────────────┼─▶ verify, prove
//! both:      log.vkey · tlog/ (served: in ledger/) ────────────────────────────────────────────────┘
//! ```
//! Invariants:
//! * Nothing in the directory is written, not even what an opening would repair: what is replayed stays in
//!   memory, RocksDB works on a copy that shares its table files, and the Raft log's repairs go nowhere.
//! * A file that any restart would pass over, such as the newest checkpoint of two, is damage here.

mod proofs;

use crate::{
    checkpoints::{Checkpoints, Restored},
    directory::{self, Identity},
    history::{Error, LedgerCommitment, Progress, Report, Result, verify_log},
    machine::{Columns, Follows, Machine, storage::Storage},
    shared::Shared,
};
use chronolith_engine::{Engine, MemoryEngine};
use chronolith_ledger::{Policy, SignedNote, VerifierKey};
use chronolith_mvcc::{Mvcc, Reader, Retention};
use chronolith_raft::{
    Applied, Committed, Disk, DiskFile, EntryKind, LogConfig, LogEntry, Position, SegmentedLog,
    StateMachine, payload,
};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Entries of the Raft log that are applied in one run.
const RUN_ENTRIES: usize = 256;

/// See the module.
pub struct Offline {
    /// Where `log.vkey` and `tlog` are.
    ledger: PathBuf,
    reader: Reader,
    engine: Arc<dyn Engine>,
    engine_dir: PathBuf,
    scratch: Scratch,
    /// Held against whoever would change the files meanwhile.
    _lock: Option<File>,
}

/// The copy that RocksDB works on, removed with this.
#[cfg(feature = "rocksdb")]
type Scratch = Option<tempfile::TempDir>;
#[cfg(not(feature = "rocksdb"))]
type Scratch = ();

/// An engine, where it lies, and the copy it works on.
type Opened = (Arc<dyn Engine>, PathBuf, Scratch);

/// Whether this is a directory that [`Offline::open`] understands.
#[must_use]
pub fn is_database(dir: &Path) -> bool {
    directory::is_served(dir) || dir.join("log.vkey").is_file()
}

impl Offline {
    /// Reads a directory that nobody has open. Everything the engine's files hold is read and checked
    /// against their checksums.
    pub fn open(dir: &Path) -> Result<Self> {
        let lock = lock(dir)?;
        let identity = directory::read_identity(dir).map_err(damaged)?;
        let ledger = if identity.is_some() { dir.join("ledger") } else { dir.to_owned() };
        let (engine, engine_dir, scratch) = match &identity {
            Some(identity) => served_engine(dir, identity)?,
            None => engine_in(&dir.join("engine"), dir.join("engine/CURRENT").exists())?,
        };
        // An erasure among the entries to be applied leaves what it left when it was carried out.
        let mvcc = Mvcc::open(Arc::clone(&engine))?
            .committed_by(Arc::new(LedgerCommitment), Retention::Hashes);
        let reader = mvcc.reader();
        if let Some(identity) = &identity {
            replay(&engine, mvcc, dir, identity)?;
        }
        Ok(Self { ledger, reader, engine, engine_dir, scratch, _lock: lock })
    }

    /// The key in the directory itself. Whoever can replace the history can replace it as well.
    pub fn verifier_key(&self) -> Result<VerifierKey> {
        let path = self.ledger.join("log.vkey");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(unverifiable("no log was kept of this history (--verify off)"));
            }
            text => text.map_err(Error::io(&path))?,
        };
        Ok(VerifierKey::parse(text.trim_end())?)
    }

    /// Checks everything; see [`verify_log`].
    pub fn verify(
        &self,
        policy: &Policy,
        pinned: Option<&SignedNote>,
        progress: Progress<'_>,
    ) -> Result<Report> {
        let verified = verify_log(&self.ledger, &self.reader, policy, pinned, progress);
        verified.map_err(|error| self.about(error))
    }

    /// Errors name files of the directory, not of the copy.
    fn about(&self, error: Error) -> Error {
        about(error, &self.scratch, &self.engine_dir)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        // Everything it could lose is a copy.
        let _ = self.engine.close();
    }
}

fn unverifiable(why: &str) -> Error {
    chronolith_ledger::Error::Unverifiable(why.to_owned()).into()
}

/// What keeps a store from opening says here that a file was changed, unless it names another cause.
fn damaged(error: crate::OpenError) -> Error {
    use crate::OpenError;
    match error {
        OpenError::Io { path, source } => Error::Io { path, source },
        OpenError::Engine(error) => Error::Engine(error),
        OpenError::DamagedIdentity { path, what } => Error::Damaged { path, what, revision: None },
        error => unverifiable(&error.to_string()),
    }
}

/// The lock of whoever works on the directory. A copy that cannot be locked has nobody who does.
fn lock(dir: &Path) -> Result<Option<File>> {
    match File::open(dir.join("LOCK")) {
        Ok(file) => match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(dir.to_owned())),
            Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(Some(file)),
        },
        Err(_) => Ok(None),
    }
}

fn served_engine(dir: &Path, identity: &Identity) -> Result<Opened> {
    if identity.engine != "memory" {
        return engine_in(&dir.join("engine"), true);
    }
    let path = dir.join("checkpoints");
    let Restored { engine, damaged } =
        Checkpoints::existing(path.clone()).restore_all().map_err(self::damaged)?;
    match damaged.into_iter().next() {
        None => Ok((Arc::new(engine), path, Scratch::default())),
        Some(damaged) => {
            let path = path.join(damaged.index.to_string());
            Err(Error::Damaged { path, what: damaged.what, revision: None })
        }
    }
}

fn engine_in(dir: &Path, on_disk: bool) -> Result<Opened> {
    if !on_disk {
        let engine = MemoryEngine::read(dir)?;
        return Ok((Arc::new(engine), dir.to_owned(), Scratch::default()));
    }
    #[cfg(feature = "rocksdb")]
    {
        let scratch = tempfile::tempdir().map_err(Error::io(dir))?;
        let profile = chronolith_engine::Profile::default();
        let engine = chronolith_engine::RocksEngine::open_linked(dir, scratch.path(), &profile)
            .and_then(|engine| engine.read_everything().map(|_| engine));
        let scratch = Some(scratch);
        match engine {
            Ok(engine) => Ok((Arc::new(engine), dir.to_owned(), scratch)),
            Err(error) => Err(about(error.into(), &scratch, dir)),
        }
    }
    #[cfg(not(feature = "rocksdb"))]
    Err(unverifiable("this program was built without RocksDB"))
}

#[cfg(feature = "rocksdb")]
fn about(error: Error, scratch: &Scratch, dir: &Path) -> Error {
    let Some(scratch) = scratch else { return error };
    match error {
        Error::Engine(error) | Error::Request(chronolith_mvcc::Error::Engine(error)) => {
            Error::Engine(error.about(scratch.path(), dir))
        }
        error => error,
    }
}

#[cfg(not(feature = "rocksdb"))]
fn about(error: Error, (): &Scratch, _: &Path) -> Error {
    error
}

/// Applies what the Raft log has behind the engine's state, as a restart does.
fn replay(engine: &Arc<dyn Engine>, mvcc: Mvcc, dir: &Path, identity: &Identity) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Damaged {
        path: dir.join("log"),
        what: error.to_string(),
        revision: None,
    };
    let storage = Storage::Checkpoints(Checkpoints::existing(dir.join("checkpoints")));
    let (mvcc, shared) = (Arc::new(Mutex::new(mvcc)), Arc::<Shared>::default());
    Columns::open(&**engine)?;
    let machine = Machine::open(Arc::clone(engine), mvcc, shared, storage, Follows::default());
    let mut machine = machine.map_err(damaged)?;
    let mut applied = machine.applied().map_err(|error| failed(&error))?;
    let position = applied.as_ref().map(|at| Position { index: at.index, term: at.term });
    let disk = Arc::new(Untouched { path: dir.join("log") });
    let opened = SegmentedLog::open(disk, LogConfig::new(identity.member_id), position);
    let (log, recovered) = opened.map_err(|error| failed(&error))?;
    let reader = log.reader();
    let from = applied.as_ref().map_or(0, |applied| applied.index);
    let later =
        (recovered.base.index + 1..).zip(&recovered.entries).filter(|(index, _)| *index > from);
    let mut run = Vec::new();
    for (number, (index, (term, location))) in (1..).zip(later) {
        let entry = reader.read(*location, index, *term).map_err(|error| failed(&error))?;
        let members = applied.take().unwrap_or_default().conf_state;
        applied = Some(Applied { index, term: *term, conf_state: members });
        commands(entry, &mut run).ok_or_else(|| failed(&"an entry does not read"))?;
        if number % RUN_ENTRIES == 0 {
            apply(&mut machine, &mut run, applied.as_ref()).map_err(|error| failed(&error))?;
        }
    }
    apply(&mut machine, &mut run, applied.as_ref()).map_err(|error| failed(&error))
}

fn commands(entry: LogEntry, run: &mut Vec<Committed>) -> Option<()> {
    let LogEntry { kind, index, term, payload } = entry;
    if kind == EntryKind::Commands {
        let commands = payload::decode(payload)?;
        run.extend(commands.into_iter().map(|command| Committed { index, term, command }));
    }
    Some(())
}

fn apply(
    machine: &mut Machine,
    run: &mut Vec<Committed>,
    applied: Option<&Applied>,
) -> Result<(), crate::ApplyError> {
    if let Some(applied) = applied {
        machine.apply(run, applied)?;
    }
    run.clear();
    Ok(())
}

/// The log's directory, of which nothing is changed: what the log would repair or remove at opening stays.
struct Untouched {
    path: PathBuf,
}

struct UntouchedFile(File);

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the log is only read")
}

impl Disk for Untouched {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn zero(&self, _: &str, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UntouchedFile(File::open(self.path.join(name))?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for UntouchedFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    /// An interrupted write would be blanked: in this look at the log it was read as not there already.
    fn write_synced(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
