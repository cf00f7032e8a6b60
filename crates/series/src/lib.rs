//! An in-memory time-series index: points in order are linked, late ones merged, none lost.
//!
//! ```text
//!   threads ──append──▶ series ─▶ block list ─▶ [512 points][512 points][open block]   readers: any time
//!                         │                          ▲
//!                         └─ late points ─▶ side ────┘ merged block by block
//!   rows of a group ──▶ group block, linked into each of its series as a column
//!   memory: pool of huge recycled pages, charged to a budget; full budget ⇒ pack, then wait
//! ```
//!
//! Invariants:
//! 1. A point is readable by every thread when its append has returned. None is ever dropped: an append
//!    that stores nothing returns an error.
//! 2. Of several values for one series and time, every reader sees the one appended last.
//! 3. Blocks of a series are disjoint and in time order; only the last one grows, by one owner, and a
//!    published point never changes. So a block list and a length are a snapshot.
//! 4. The budget bounds the memory of points. What may exceed it is stated: merging and packing, which
//!    free more than they take.
//! 5. Nothing is process-wide: two indexes share only what they were both given, such as a [`Pool`].
//!
//! NaN and infinities are values like others: stored and returned bit for bit. Aggregates count NaN
//! apart and leave it out of sums; infinities take part as floats do.
//!
//! This crate knows nothing of keys, revisions or Raft.

mod aggregate;
mod bits;
mod block;
mod blocks;
mod budget;
mod clock;
mod error;
mod group;
mod group_writer;
mod index;
mod labels;
mod late;
mod memory;
mod packed;
mod persist;
mod point;
mod pool;
mod reader;
mod retention;
mod series;
mod snapshot;
mod stats;
mod sync;
mod table;
mod ticker;
mod workers;
mod writer;

pub use aggregate::Window;
pub use budget::{Wait, Waited};
pub use clock::Clock;
pub use error::Error;
pub use group_writer::GroupWriter;
pub use index::{
    DEFAULT_BUDGET_BYTES, DEFAULT_MAX_SERIES, DEFAULT_RETAIN_EVERY, Index, Options, Retention,
    sort_batch,
};
pub use labels::{Labels, MAX_LABELS, MAX_NAME_BYTES, MAX_VALUE_BYTES};
pub use persist::{DEFAULT_FLUSH_LOG_BYTES, Durability, Faults, FileStep, Recovery, Synced};
pub use point::{Key, MAX_TIME, Point, SeriesId};
pub use pool::Pool;
pub use reader::Reader;
pub use retention::Retained;
pub use snapshot::{Points, Snapshot};
pub use stats::Stats;
pub use writer::{Partial, Writer};
