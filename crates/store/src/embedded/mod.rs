//! The store inside a program: no server, no network, and a history that can be proven.
//!
//! ```text
//!  put, batch_put, txn ─▶ writer: one run of mvcc ─▶ engine, with its own log ─▶ readers
//!                            │                          └─ sync, shared by all who wait ─▶ answer
//!                            └─ what was applied ─▶ follower ─▶ tiles ─▶ proofs, checkpoints
//! ```
//! A directory holds named databases; each is a history of its own:
//! ```text
//! DIR/NAME/  LOCK  log.key (secret)  log.vkey  engine/
//!            tlog/  L0 L1 … state  checkpoint (the newest)  checkpoints (all of them)
//! ```
//! Invariants:
//! * A call that wrote returns when its revision is on stable storage. Other readers in this program may
//!   see it a moment earlier; a crash takes what nobody was told of.
//! * The salt of each revision is in the same engine batch as the revision (column `ledger`).
//! * The follower hashes every revision, whatever its size, off the path of the write. Tiles are only
//!   declared complete up to what the engine has on the disk.
//! * A checkpoint is signed over durable revisions only. A history that is shorter than its own signed
//!   checkpoint, or than its tiles, is not opened.
//! * A failed write or sync poisons the database: it answers with the cause from then on.

mod error;
mod follow;
mod past;
mod proof;
mod store;
mod verify;

pub use error::{Error, Result};
pub use past::{At, Difference, Found, Restored};
pub use store::{Options, Pending, Store, Write};
pub use verify::{Progress, Report, verify_directory};
