//! A cluster in one thread: one seed, one history.
//!
//! ```text
//! seed ─▶ every choice: who ticks, which message is lost, doubled or late, who is cut off, which
//!         write is under way when the power goes, which of its sectors arrived
//! ```
//! With `CHRONOLITH_TRACE` set a history is told step by step.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each file uses its part")]

pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod oracle;
pub(crate) mod rng;
