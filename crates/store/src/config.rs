//! How a store is opened: where, on which engine, and within which limits.

use crate::reserve::DiskProbe;
use chronolith_engine::Profile;
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

/// Log entries between two checkpoints: a restart replays at most two such stretches, which takes
/// well under a second, and a checkpoint's cost is spread over as many writes.
pub const CHECKPOINT_EVERY_ENTRIES: u64 = 10_000;

/// etcd's `--max-request-bytes` default, 1.5 MiB: clients are built around it.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;

/// etcd's `--max-txn-ops` default.
pub const MAX_TXN_OPERATIONS: usize = 128;

/// Requests that may wait at the same time: etcd's limit on what is committed but not applied.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 5_000;

/// etcd's `--quota-backend-bytes` default, 2 GiB; for the memory engine this is a limit on memory.
pub const QUOTA_BACKEND_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The largest answer that etcd's server sends and its clients take: gRPC counts in 32 bits.
pub const MAX_RESPONSE_BYTES: usize = i32::MAX as usize;

/// Which engine holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// Everything in RAM; durable through the Raft log and checkpoints.
    #[default]
    Memory,
    /// On disk, larger than RAM. Needs a build with the `rocksdb` feature.
    RocksDb,
}

impl EngineKind {
    /// The engine's name, as settings and the identity file spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::RocksDb => "rocksdb",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Whether what is written is hashed into a log that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Verify {
    /// No log is kept. Revisions that are compacted meanwhile cannot be hashed later: the log cannot be
    /// taken up again behind them.
    Off,
    /// A thread follows what is applied, some milliseconds behind it.
    #[default]
    Async,
}

impl Verify {
    /// The setting's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Async => "async",
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Not a way to verify.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to verify: use off or async")]
pub struct UnknownVerify(pub String);

impl FromStr for Verify {
    type Err = UnknownVerify;

    fn from_str(name: &str) -> Result<Self, UnknownVerify> {
        match name {
            "off" => Ok(Self::Off),
            "async" => Ok(Self::Async),
            other => Err(UnknownVerify(other.to_owned())),
        }
    }
}

/// Not the name of an engine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no engine is called {0:?}: use memory or rocksdb")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        match name {
            "memory" => Ok(Self::Memory),
            "rocksdb" => Ok(Self::RocksDb),
            other => Err(UnknownEngine(other.to_owned())),
        }
    }
}

/// What a client may ask for at most. At a limit it gets an error that names the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of one write request.
    pub max_request_bytes: usize,
    /// Size of the keys in an answer to a range or to a transaction that only reads.
    pub max_response_bytes: usize,
    /// Operations, or comparisons, of one transaction.
    pub max_txn_operations: usize,
    /// Requests waiting for an answer at the same time.
    pub max_requests_in_flight: usize,
    /// Space of the data directory's file system that is left free: below it, writes are refused and the
    /// NOSPACE alarm is raised, before a full disk stops the member. 0 keeps none; none given keeps
    /// [`RESERVE_DISK_BYTES`](crate::RESERVE_DISK_BYTES), or a twentieth of a small file system.
    pub reserve_disk_bytes: Option<u64>,
    /// Size of the stored data at which writes are refused and the NOSPACE alarm is raised.
    pub quota_backend_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: MAX_REQUEST_BYTES,
            max_response_bytes: MAX_RESPONSE_BYTES,
            max_txn_operations: MAX_TXN_OPERATIONS,
            max_requests_in_flight: MAX_REQUESTS_IN_FLIGHT,
            reserve_disk_bytes: None,
            quota_backend_bytes: QUOTA_BACKEND_BYTES,
        }
    }
}

/// Everything needed to open a store.
///
/// ```
/// use chronolith_store::{EngineKind, StoreConfig};
/// let config = StoreConfig { name: "n1".into(), ..StoreConfig::new("./chronolith-data") };
/// assert_eq!(config.engine, EngineKind::Memory);
/// ```
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory that belongs to this member alone; created where it is missing.
    pub data_dir: PathBuf,
    /// The engine; a directory keeps the one that it was created with.
    pub engine: EngineKind,
    /// Settings of the rocksdb engine.
    pub profile: Profile,
    /// The member's name for people.
    pub name: String,
    /// Where other members reach this one; shown in the member list.
    pub peer_urls: Vec<String>,
    /// Where clients reach this member; shown in the member list.
    pub client_urls: Vec<String>,
    /// The name of the cluster that a new directory joins; a directory of another one is refused.
    /// `None` takes the directory as it is.
    pub cluster_token: Option<String>,
    /// Whether the history is hashed into a log that proves it.
    pub verify: Verify,
    /// How long, before the compact revision, removed versions keep everything but their value; none
    /// keeps their hashes only. With the memory engine it costs memory: `docs/tuning.md` says how much.
    pub meta_retention_ms: Option<u64>,
    /// Log entries between two checkpoints.
    pub checkpoint_every_entries: u64,
    /// What a client may ask for at most.
    pub limits: Limits,
    /// Who says how much space is left; none asks the file system of `data_dir`.
    pub disk: Option<Arc<dyn DiskProbe>>,
}

impl StoreConfig {
    /// The defaults, with the data in `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            engine: EngineKind::default(),
            profile: Profile::default(),
            name: "default".to_owned(),
            peer_urls: Vec::new(),
            client_urls: Vec::new(),
            cluster_token: None,
            verify: Verify::default(),
            meta_retention_ms: None,
            checkpoint_every_entries: CHECKPOINT_EVERY_ENTRIES,
            limits: Limits::default(),
            disk: None,
        }
    }
}
