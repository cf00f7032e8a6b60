//! The data directory: whose it is, and that only one process works on it.
//!
//! ```text
//! DATA_DIR/LOCK          locked by the process at work; the number in it is for people
//!          IDENTITY      one line of JSON and its checksum; replaced whole at every start
//!          log/          the Raft log
//!          checkpoints/  memory engine: INDEX/ holds the state after log entry INDEX or a later one
//!          engine/       rocksdb engine
//!          ledger/       the log that proves the history: see the module history
//! ```
//! * Nothing is touched in a directory that is not ours, not of this cluster, or of the other engine.
//! * The count of starts is on the disk before the first request id that contains it is given out.

use crate::{EngineKind, OpenError, StoreConfig};
use chronolith_ledger::{Readers, replace_file};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Format of the directory as this build writes it.
const FORMAT: u32 = 1;
/// etcd's `--initial-cluster-token` default.
const DEFAULT_CLUSTER_TOKEN: &str = "etcd-cluster";
const LOG: &str = "log";
const LOCK: &str = "LOCK";
const IDENTITY: &str = "IDENTITY";
/// The next identity, until it is whole.
const NEXT_IDENTITY: &str = "IDENTITY.new";
/// What a fresh file system or a first start that was cut off leaves: not strange.
const HARMLESS: [&str; 3] = [LOCK, NEXT_IDENTITY, "lost+found"];

/// Who this member is. Fixed at the first start, but for the count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) cluster_token: String,
    pub(crate) engine: String,
    /// Starts so far, this one included.
    pub(crate) starts: u64,
    /// The log was there once: it must always be from then on.
    pub(crate) log_begun: bool,
}

impl Identity {
    /// Whether all data is written anew at a checkpoint.
    pub(crate) fn writes_checkpoints(&self) -> bool {
        self.engine == EngineKind::Memory.name()
    }
}

/// A data directory that this process holds. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    identity: Identity,
    /// Holds the lock as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes the directory, creating it where it is missing.
    pub(crate) fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let path = &config.data_dir;
        fs::create_dir_all(path).map_err(io_error(path))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let mut identity = match read_identity(path)? {
            Some(identity) => identity,
            None => new_identity(config),
        };
        check(path, &identity, config)?;
        if identity.log_begun && is_missing(&path.join(LOG))? {
            return Err(OpenError::MissingLog { path: path.join(LOG) });
        }
        identity.starts += 1;
        write_identity(path, &identity)?;
        Ok(Self { path: path.clone(), identity, _lock: lock })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Remembers that the log is there.
    pub(crate) fn log_has_begun(&mut self) -> Result<(), OpenError> {
        if self.identity.log_begun {
            return Ok(());
        }
        self.identity.log_begun = true;
        write_identity(&self.path, &self.identity)
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    #[cfg(feature = "rocksdb")]
    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }
}

/// Attaches the path to an error of the operating system.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    if path.join(IDENTITY).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let found = entry.map_err(io_error(path))?.file_name().to_string_lossy().into_owned();
        if !HARMLESS.contains(&found.as_str()) {
            return Err(OpenError::ForeignDirectory { path: path.to_owned(), found });
        }
    }
    Ok(())
}

/// Whether a directory does not exist or holds nothing.
fn is_missing(path: &Path) -> Result<bool, OpenError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&name)
        .map_err(io_error(&name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, file)),
        Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: name, source }),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error(&name))?;
    Ok(file)
}

fn in_use(path: &Path, mut lock: File) -> OpenError {
    let mut text = String::new();
    // Only to help: the number may be missing while the other process starts.
    let known = lock.read_to_string(&mut text).is_ok();
    let process = text.trim().parse::<u32>().ok().filter(|_| known);
    let holder = process.map(|process| format!(" (process {process})")).unwrap_or_default();
    OpenError::InUse { path: path.to_owned(), holder }
}

fn new_identity(config: &StoreConfig) -> Identity {
    let token = config.cluster_token.as_deref().unwrap_or(DEFAULT_CLUSTER_TOKEN);
    Identity {
        format: FORMAT,
        cluster_id: rand::random_range(1..=u64::MAX),
        member_id: rand::random_range(1..=u64::MAX),
        cluster_token: token.to_owned(),
        engine: config.engine.name().to_owned(),
        starts: 0,
        log_begun: false,
    }
}

fn check(path: &Path, identity: &Identity, config: &StoreConfig) -> Result<(), OpenError> {
    let path = path.to_owned();
    if identity.format > FORMAT {
        return Err(OpenError::NewerFormat { path, found: identity.format, supported: FORMAT });
    }
    if identity.engine != config.engine.name() {
        let (found, wanted) = (identity.engine.clone(), config.engine.to_string());
        return Err(OpenError::OtherEngine { path, found, wanted });
    }
    match &config.cluster_token {
        Some(wanted) if *wanted != identity.cluster_token => {
            let (found, wanted) = (identity.cluster_token.clone(), wanted.clone());
            Err(OpenError::OtherCluster { path, found, wanted })
        }
        _ => Ok(()),
    }
}

/// Whether the directory says that it is a served node's.
pub(crate) fn is_served(dir: &Path) -> bool {
    dir.join(IDENTITY).exists()
}

pub(crate) fn read_identity(dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(IDENTITY);
    match fs::read_to_string(&path) {
        Ok(text) => {
            decode(&text).map(Some).map_err(|what| OpenError::DamagedIdentity { path, what })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::DamagedIdentity { path, what: "not a text".to_owned() })
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn decode(text: &str) -> Result<Identity, String> {
    let (json, sum) = text.trim_end().split_once('\n').ok_or("it is cut off")?;
    if sum != checksum(json) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn encode(identity: &Identity) -> String {
    let json = serde_json::to_string(identity).expect("numbers and strings always encode");
    let sum = checksum(&json);
    format!("{json}\n{sum}\n")
}

fn checksum(json: &str) -> String {
    format!("crc32 {:08x}", crc32fast::hash(json.as_bytes()))
}

/// Replaces the identity file whole: at any moment it is the old one or the new one.
fn write_identity(dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let path = dir.join(IDENTITY);
    replace_file(&path, &encode(identity), Readers::All).map_err(io_error(&path))
}

/// The engine that a data directory was created with, if it is one; for those who only look.
pub fn engine_of(data_dir: &Path) -> Result<Option<EngineKind>, OpenError> {
    let Some(identity) = read_identity(data_dir)? else { return Ok(None) };
    let damaged = |what: crate::UnknownEngine| OpenError::DamagedIdentity {
        path: data_dir.join(IDENTITY),
        what: what.to_string(),
    };
    identity.engine.parse().map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays_and_starts_count() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let first = Directory::open(&config).unwrap().identity().clone();
        let second = Directory::open(&config).unwrap().identity().clone();
        assert_eq!(first.starts, 1);
        assert_eq!(second, Identity { starts: 2, ..first });
        assert_eq!(engine_of(dir.path()).unwrap(), Some(EngineKind::Memory));
    }

    #[test]
    fn only_one_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let held = Directory::open(&config).unwrap();
        let text = Directory::open(&config).unwrap_err().to_string();
        assert!(text.contains(&format!("(process {})", std::process::id())), "{text}");
        drop(held);
        Directory::open(&config).unwrap();
    }

    #[test]
    fn a_foreign_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
        let error = Directory::open(&StoreConfig::new(dir.path())).unwrap_err();
        assert!(
            matches!(error, OpenError::ForeignDirectory { found, .. } if found == "thesis.txt")
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "").unwrap();
        fs::write(dir.path().join(NEXT_IDENTITY), "{").unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        Directory::open(&StoreConfig::new(dir.path())).unwrap();
    }

    #[test]
    fn another_engine_or_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        drop(Directory::open(&config).unwrap());
        let other = StoreConfig { engine: EngineKind::RocksDb, ..config.clone() };
        assert!(matches!(Directory::open(&other), Err(OpenError::OtherEngine { .. })));
        let other = StoreConfig { cluster_token: Some("prod".into()), ..config };
        assert!(matches!(Directory::open(&other), Err(OpenError::OtherCluster { .. })));
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        drop(Directory::open(&config).unwrap());
        let path = dir.path().join(IDENTITY);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Directory::open(&config), Err(OpenError::DamagedIdentity { .. })));
    }

    #[test]
    fn a_log_that_vanished_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let mut directory = Directory::open(&config).unwrap();
        fs::create_dir(directory.log()).unwrap();
        fs::write(directory.log().join("1"), "entries").unwrap();
        directory.log_has_begun().unwrap();
        drop(directory);
        drop(Directory::open(&config).unwrap());
        fs::remove_file(dir.path().join("log/1")).unwrap();
        assert!(matches!(Directory::open(&config), Err(OpenError::MissingLog { .. })));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let identity = Directory::open(&config).unwrap().identity().clone();
        write_identity(dir.path(), &Identity { format: FORMAT + 1, ..identity }).unwrap();
        assert!(matches!(Directory::open(&config), Err(OpenError::NewerFormat { .. })));
    }
}
