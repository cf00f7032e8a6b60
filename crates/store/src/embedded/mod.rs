//! The store inside a program: no server, no network, and a history that can be proven.
//!
//! ```text
//!  put, batch_put, txn ─▶ writer: one run of mvcc ─▶ engine, with its own log ─▶ readers
//!                            │                          └─ sync, shared by all who wait ─▶ answer
//!                            └─ what was applied ─▶ follower ─▶ tiles ─▶ proofs, checkpoints
//! ```
//! A directory holds named databases; each is a history of its own:
//! ```text
//! DIR/NAME/  LOCK  engine/    and the log: log.key log.vkey tlog/ (see the module history)
//! ```
//! Invariants:
//! * A call that wrote returns when its revision is on stable storage. Other readers in this program may
//!   see it a moment earlier; a crash takes what nobody was told of.
//! * What a leaf commits to, the salt too, is in the same engine batch as the revision.
//! * A failed write or sync poisons the database: it answers with the cause from then on.

mod past;
mod store;
mod verify;

pub use crate::history::{
    At, Difference, Error, Found, Progress, Report, RestorePlan, Restored, Result, Write,
};
pub use store::{Options, Pending, Store};
pub use verify::verify_directory;
