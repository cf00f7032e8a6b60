//! The store: one replicated state machine over a data directory, and the requests that it answers.
//!
//! ```text
//!   put, delete, txn, compact, lease …            range, read-only txn, time-to-live …
//!        │ check, admit, quota                        │ check, admit
//!        ▼                                            ▼
//!   Command ─▶ raft: log, quorum ─▶ Machine::apply    confirm (nothing to do for one voter)
//!                                     │ one engine batch: versions, leases, alarms, applied index
//!                                     ▼               ▼
//!                                   engine ────────▶ snapshot ─▶ answer with header
//!                                     └─ what was committed ─▶ history: one leaf a revision, off the path
//! ```
//! Invariants:
//! * Apply is a function of the log alone; what it changes and how far it got are one batch.
//! * An acknowledged write is in the log of a quorum, on stable storage. The engine's state is derived.
//! * A failed write poisons the member: it answers with the cause and touches nothing any more.
//! * At every limit the client gets an error that says which.
//!
//! This crate must never know sockets, HTTP, or gRPC beyond the messages and codes that it answers with.

mod admission;
mod checkpoints;
mod command;
mod config;
mod directory;
pub mod embedded;
mod erase;
mod error;
mod figures;
pub mod history;
mod lease;
mod machine;
mod maintenance;
pub mod offline;
mod open;
mod proposer;
mod reads;
mod reserve;
mod restore;
mod shared;
mod space;
mod store;
mod upkeep;

pub use chronolith_mvcc::{Error as VersionError, watch};
pub use command::Actor;
pub use config::{
    CHECKPOINT_EVERY_ENTRIES, EngineKind, Limits, MAX_REQUEST_BYTES, MAX_REQUESTS_IN_FLIGHT,
    MAX_RESPONSE_BYTES, MAX_TXN_OPERATIONS, QUOTA_BACKEND_BYTES, StoreConfig, UnknownEngine,
    UnknownVerify, Verify,
};
pub use directory::engine_of;
pub use erase::Erasure;
pub use error::{Code, OpenError, StoreError};
pub use figures::{DURATION_EDGES_US, DurationCounts, Figures};
pub use machine::ApplyError;
pub use maintenance::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
pub use reserve::{DiskProbe, DiskSpace, RESERVE_DISK_BYTES};
pub use restore::Restoration;
pub use store::Store;
