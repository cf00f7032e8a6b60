//! What a server can be told, and every limit it keeps, each with its reason.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chronolith_audit::FailMode;
use chronolith_store::{EngineKind, Verify};

/// Connections open at once. Ten thousand idle ones cost about 100 MiB; the next waits to be accepted.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Unary requests being worked on, over all connections: what queues beyond that only adds latency.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 5_000;
/// etcd's limit for one proposal.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// The largest answer to a unary call: what etcd's server sends at most, and gRPC's clients can take.
pub const RESPONSE_BYTES_MAX: usize = chronolith_store::MAX_RESPONSE_BYTES;
/// What a message may be larger than a proposal: etcd's allowance for the gRPC envelope.
pub const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// Bytes of requests that came in several frames and are not complete, over all connections.
pub const RECEIVE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The keyspace may grow to etcd's default quota.
pub const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Streams open on one connection. Kubernetes opens one for each of its watches on one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 10_000;
/// Watches on one stream: clientv3 puts all watches of a client on one stream.
pub const WATCHES_PER_STREAM_MAX: usize = 100_000;
/// Bytes of events waiting for one slow stream; beyond that its watchers fall back to catching up.
pub const WATCH_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// etcd's interval between progress notifications on a quiet watch.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// How long a new connection may take to say its first byte.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may run on after shutdown was asked for; etcd's request timeout is 5 s and more.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls to the history that run at once: each may read much from the disk, and more of them would only
/// take it from the writers. The others wait.
pub const HISTORY_CALLS_MAX: usize = 8;
/// Versions on one page of a key's history: a screenful for a program, and soon read.
pub const VERSIONS_MAX: usize = 1_000;
/// Differences on one page.
pub const DIFFERENCES_MAX: usize = 1_000;
/// Bytes of keys and values on one page; gRPC clients take 4 MiB unless told otherwise. A larger entry is a
/// page of its own.
pub const HISTORY_PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Revisions in one proof: each costs a read, a path of hashes and its operations.
pub const PROVEN_REVISIONS_MAX: i64 = 100_000;
/// Bytes of keys and values in one proof, which is made in memory.
pub const PROOF_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys that the answer to a restoration names; it counts them all.
pub const RESTORED_KEYS_SHOWN_MAX: usize = 10_000;

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`REQUESTS_IN_FLIGHT_MAX`].
    pub requests_in_flight_max: usize,
    /// See [`REQUEST_BYTES_MAX`].
    pub request_bytes_max: usize,
    /// See [`RESPONSE_BYTES_MAX`].
    pub response_bytes_max: usize,
    /// See [`RECEIVE_BYTES_MAX`].
    pub receive_bytes_max: usize,
    /// See [`STREAMS_PER_CONNECTION_MAX`].
    pub streams_per_connection_max: u32,
    /// See [`WATCHES_PER_STREAM_MAX`].
    pub watches_per_stream_max: usize,
    /// See [`WATCH_QUEUE_BYTES_MAX`].
    pub watch_queue_bytes_max: usize,
    /// See [`QUOTA_BYTES`].
    pub quota_bytes: u64,
    /// Space of the data directory's file system that writes leave free; 0 keeps none, and none given is
    /// [`RESERVE_DISK_BYTES`](chronolith_store::RESERVE_DISK_BYTES) or a twentieth of a small file system.
    pub reserve_disk_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: CONNECTIONS_MAX,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
            receive_bytes_max: RECEIVE_BYTES_MAX,
            streams_per_connection_max: STREAMS_PER_CONNECTION_MAX,
            watches_per_stream_max: WATCHES_PER_STREAM_MAX,
            watch_queue_bytes_max: WATCH_QUEUE_BYTES_MAX,
            quota_bytes: QUOTA_BYTES,
            reserve_disk_bytes: None,
        }
    }
}

impl Limits {
    /// The largest message that is received at all.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.request_bytes_max + MESSAGE_OVERHEAD_BYTES
    }
}

/// How the audit log is kept. Sizes and times are those of [`chronolith_audit::Settings`].
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// What is recorded: a policy file; without one, the default policy.
    pub policy_file: Option<PathBuf>,
    /// What happens to a request whose event would be lost.
    pub fail_mode: FailMode,
    /// Events that may wait for the writer.
    pub queue_events: usize,
    /// A file of events is ended at this size.
    pub rotate_bytes: u64,
    /// A file of events is ended at this age.
    pub rotate_age: Duration,
    /// Files that are kept; 0 for all.
    pub keep_files: usize,
    /// Bytes of events that are kept; 0 for all.
    pub keep_bytes: u64,
    /// How often what was written is synced and signed.
    pub sync_interval: Duration,
    /// Write the events to standard output too.
    pub stdout: bool,
}

impl Default for AuditConfig {
    fn default() -> Self {
        AuditConfig {
            policy_file: None,
            fail_mode: FailMode::Open,
            queue_events: chronolith_audit::QUEUE_EVENTS,
            rotate_bytes: chronolith_audit::ROTATE_BYTES,
            rotate_age: chronolith_audit::ROTATE_AGE,
            keep_files: 0,
            keep_bytes: chronolith_audit::KEEP_BYTES,
            sync_interval: chronolith_audit::SYNC_INTERVAL,
            stdout: false,
        }
    }
}

/// How to run a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Where the keyspace is kept.
    pub engine: EngineKind,
    /// Whether the history is hashed into a log that proves it.
    pub verify: Verify,
    /// How long versions that a compaction removed keep everything but their value; none is hashes only.
    pub meta_retention: Option<Duration>,
    /// The member's name, as `MemberList` shows it.
    pub name: String,
    /// Where clients are listened for; port 0 chooses a free one.
    pub listen: Vec<SocketAddr>,
    /// Log entries between two checkpoints.
    pub checkpoint_every_entries: u64,
    /// How long a quiet watch waits for a progress notification.
    pub watch_progress_interval: Duration,
    /// How long requests may run on after shutdown was asked for.
    pub drain_timeout: Duration,
    /// The limits.
    pub limits: Limits,
    /// How the audit log is kept, if there is to be one.
    pub audit: Option<AuditConfig>,
}

impl Config {
    /// The defaults, with the data in `data_dir` and a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Config {
            data_dir: data_dir.into(),
            engine: EngineKind::Memory,
            verify: Verify::default(),
            meta_retention: None,
            name: "default".to_owned(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            checkpoint_every_entries: 10_000,
            watch_progress_interval: WATCH_PROGRESS_INTERVAL,
            drain_timeout: DRAIN_TIMEOUT,
            limits: Limits::default(),
            audit: None,
        }
    }
}
