//! Versioned keys: etcd's data model over an ordered engine.
//!
//! ```text
//!   Run (the one writer) ──▶ versions  key · !revision → record      ◀── Reader: range, txn, history
//!    put, delete, txn        log       revision → who, when, what    ◀── watch catch-up, changes
//!    one batch a run         meta      compact revision
//!        └── commit ──▶ WatchHub ──▶ sinks
//! ```
//! Invariants:
//! * One main revision for each command that changes something; its changes are numbered inside.
//!   Nothing changed, or refused: no revision, no trace.
//! * A version, once committed, never changes. A reader at revision r sees, of each key, the newest
//!   version not after r, whatever is written meanwhile.
//! * What a run does depends on the state and the commands alone: no clock, no randomness, no
//!   iteration over hash maps. The same commands make the same bytes on every replica.
//! * No index of the keys is kept in memory, and nothing is loaded when a store is opened: the current
//!   revision is the log's end. (Counts of keys are learnt by who counts, one for some hundred keys.)
//! * Compaction hides revisions at once and removes them later, step by step, unseen.
//! * Events of a revision reach a watcher together, once, in revision order.
//!
//! This crate must never know Raft, gRPC, users, or how a lease runs out.

mod applied;
mod bulk;
mod commitment;
mod compare;
mod core;
mod counts;
mod erase;
mod error;
mod hash;
mod history;
mod key;
mod listing;
mod log;
mod mvcc;
mod range;
mod reader;
mod record;
mod run;
mod scan;
mod scrub;
mod span;
pub mod validate;
mod varint;
pub mod watch;

pub use applied::{Applied, AppliedRevision, ChangeRef};
pub use commitment::{Commitment, OpMeta, PutMeta, Retention};
pub use error::{Error, Result};
pub use hash::HashKv;
pub use history::{Change, KeyVersion, Put, Remains, Remnant, Revised};
pub use listing::{Begun, Listing};
pub use log::Kind;
pub use mvcc::{Leases, Mvcc, Stamp};
pub use range::{Pause, RangeResult};
pub use reader::{Reader, TxnResult};
pub use run::Run;
pub use watch::{
    CatchUp, CatchUpLimits, EventBatch, WatchEvent, WatchHub, WatchSink, WatchSpec, WatcherId,
};
