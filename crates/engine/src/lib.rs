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
//!
//! # Open, write, read
//!
//! ```
//! use chronolith_engine::{ColumnId, Durability, Engine, Error, KeyRange, MemoryEngine, WriteBatch};
//! use std::{ops::Bound, sync::Arc};
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("data");
//!
//! // In RAM, with a log and checkpoints of its own. On disk, with the feature `rocksdb`:
//! // RocksEngine::open(&path, &Profile::production())? — everything below is the same.
//! let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::open(&path)?);
//! let (people, cities) = (engine.column("people")?, engine.column("cities")?);
//!
//! // One change over all columns, with room made beforehand, durable when this returns.
//! let mut batch = WriteBatch::with_capacity(4, 40);
//! batch.put(people, "ada", "1815");
//! batch.put(people, "alan", "1912");
//! batch.put(people, "grace", "1906");
//! batch.put(cities, "london", "51.5");
//! engine.write(batch, Durability::Sync)?;
//!
//! // Single keys, and several from one view.
//! assert_eq!(engine.get(people, b"ada")?.as_deref(), Some(&b"1815"[..]));
//! let years = engine.multi_get(people, &[b"alan", b"nobody"])?;
//! assert_eq!((years[0].as_deref(), years[1].as_deref()), (Some(&b"1912"[..]), None));
//!
//! // A snapshot does not change; bounded iteration goes both ways; a prefix is a range.
//! let before = engine.snapshot()?;
//! let mut batch = WriteBatch::new();
//! batch.delete_range(people, "al", "b");
//! engine.write(batch, Durability::Buffered)?; // handed to the operating system, not synced
//! let keys = |range: KeyRange| -> Result<Vec<String>, Error> {
//!     let mut cursor = before.cursor(people, range)?;
//!     let mut found = Vec::new();
//!     cursor.seek_to_last()?;
//!     while cursor.valid() {
//!         found.push(String::from_utf8_lossy(cursor.key()).into_owned());
//!         cursor.prev()?;
//!     }
//!     Ok(found)
//! };
//! assert_eq!(keys(KeyRange::half_open("ada".into(), "grace".into()))?, ["alan", "ada"]);
//! assert_eq!(keys(KeyRange::prefix(b"al"))?, ["alan"], "the snapshot still has it");
//! assert_eq!(engine.get(people, b"alan")?, None);
//!
//! // Read your own writes before they are written; drop them, or commit them whole.
//! let mut change = engine.begin_batch()?;
//! change.put(people, "barbara", "1928");
//! assert!(change.get(people, b"barbara")?.is_some() && engine.get(people, b"barbara")?.is_none());
//! change.rollback();
//! let mut change = engine.begin_batch()?;
//! change.put(people, "edsger", "1930");
//! change.commit(Durability::Buffered)?;
//!
//! // Where nothing is to be read while it is written: sorted data in, old versions out.
//! let mut sorted = (0..1000u32).map(|n| (n.to_be_bytes().to_vec().into(), "value".into()));
//! assert_eq!(engine.ingest(cities, &mut sorted)?, 1000);
//! engine.compact_range(people, KeyRange::all())?;
//!
//! // Errors are typed, and say who must act.
//! let error = engine.get(ColumnId(99), b"key").unwrap_err();
//! assert!(matches!(error, Error::UnknownColumn(99)), "the caller");
//! engine.close()?;
//! assert!(matches!(engine.get(people, b"ada"), Err(Error::Closed)));
//! # Ok::<(), Error>(())
//! ```
//! The whole tour, on either engine, opened with a [`Profile`]: `cargo run -p chronolith-engine --features rocksdb
//! --example tour -- rocksdb` (without features: the engine in memory).
//! Other examples: checkpoints, their retention and restoring to a copy ([`Checkpoints`],
//! [`copy_checkpoint`]), loads of very many records ([`BulkLoader`]), settings ([`Profile`]), figures
//! ([`Stats`], [`Monitor`]; `cargo run -p chronolith-engine --example monitor`).

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
    Trend,
};
