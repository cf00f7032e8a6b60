//! The audit trail: who did what, when, and what came of it; in files that prove themselves.
//!
//! ```text
//! request ─▶ Policy ─▶ Event ─▶ queue (bounded) ─▶ one writer ─▶ 00…1.jsonl   a line an event
//!                        │         closed: room is kept before    ├─▶ tlog/     a leaf a line (RFC 6962)
//!                        │         the request is carried out     └─▶ checkpoint, signed each second
//!                        └─ actor reference ─▶ the data log's entry
//! ```
//! Invariants:
//! 1. One thread numbers and writes: event `n` is line `n` is leaf `n − 1`, over all files and all starts.
//! 2. Recording never waits. An event that finds no room is counted, and a marker with the count stands where
//!    it would. Where that must not be ([`FailMode::Closed`]), room is kept before the request has an effect.
//! 3. A checkpoint is signed only over lines that are on the disk. The log is never continued over a change.
//! 4. [`verify_directory`] looks at every byte of every line and file; it has no case that skips.
//! 5. Every size has a named limit.
//!
//! It must never know sockets, stores, or what is done with a request.

mod error;
mod event;
mod keys;
mod log;
mod policy;
mod query;
mod queue;
mod recover;
mod segment;
mod stdout;
mod verify;
mod writer;

pub use error::{Error, NotDurable, Refused, Result};
pub use event::{
    Action, Class, Event, MAX_KEY_BYTES, MAX_LINE_BYTES, MAX_TARGET_BYTES, MAX_TARGETS,
    MAX_TEXT_BYTES, MAX_VALUE_BYTES, Operation, Outcome, Target, hex, own,
};
pub use log::{
    AuditLog, Counts, FailMode, KEEP_BYTES, QUEUE_BYTES, QUEUE_EVENTS, ROTATE_AGE, ROTATE_BYTES,
    Recovered, Reservation, SYNC_INTERVAL, Settings,
};
pub use policy::{Level, Policy, Rule, Subject};
pub use query::{
    MAX_LOOKED_AT_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, PAGE_EVENTS, Page, Query, query,
};
pub use verify::{Finding, Report, Tampering, verify_directory};
