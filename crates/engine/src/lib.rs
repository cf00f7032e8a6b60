//! Ordered bytes: the storey that everything else stands on.
//!
//! ```text
//!   WriteBatch, Overlay ─▶ Engine ─┬─ MemoryEngine   all in RAM; checkpoints with checksums
//!   Snapshot, Cursor    ◀─         └─ RocksEngine    on disk, larger than RAM (feature `rocksdb`)
//! ```
//! Invariants, which one shared suite checks for every backend:
//! * A batch is applied whole or not at all, over all its columns, and becomes visible at once.
//! * A snapshot never changes; reads do not wait for writers.
//! * What failed once is not tried again: a failed write or sync poisons the engine, and it says so.
//!
//! This crate must never know what keys mean: no revisions, no Raft, no async runtime.

mod batch;
mod bulk;
mod checkpoints;
mod disk;
mod engine;
mod error;
mod gate;
mod log;
mod memory;
mod meter;
mod overlay;
mod profile;
#[cfg(feature = "rocksdb")]
mod rocks;
mod stats;

pub use batch::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation, WriteBatch};
pub use bulk::{BulkLoader, Progress};
pub use checkpoints::{Checkpoints, copy_checkpoint};
pub use engine::{ColumnId, Cursor, Durability, Engine, KeyRange, Snapshot};
pub use error::{Error, Result};
pub use memory::MemoryEngine;
pub use overlay::Overlay;
pub use profile::{Compression, Profile, StatisticsLevel};
#[cfg(feature = "rocksdb")]
pub use rocks::RocksEngine;
pub use stats::{
    CacheStats, CompactionStats, Latency, Line, MemoryParts, Monitor, Rates, Stats, Thresholds,
};
