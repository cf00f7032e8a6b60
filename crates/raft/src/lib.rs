//! Consensus: commands in, the same commands in one durable order out, on every member.
//!
//! ```text
//! propose ─▶ queue ─▶ Driver (raft-rs) ─▶ SegmentedLog: one synced write a group ─▶ StateMachine
//!                       ▲      │
//!             messages ─┘      └─▶ PeerTransport ─▶ other members
//! ```
//! * A command is acknowledged after it is durable on a quorum and applied here; then nothing takes
//!   it back.
//! * Every command is applied once and in the same order on every member, also after crashes: the
//!   state machine keeps the applied index with the data.
//! * [`Driver`] and [`SegmentedLog`] are plain code, stepped from outside, without clock or thread:
//!   the tests run whole clusters of them on a simulated disk and network, one seed one history.
//!   [`RaftNode`] puts one member on a thread.
//! * After an error of the log or the state machine, and after a panic, nothing goes on: the node is
//!   poisoned and says why.
//! * What a command means, and every byte of it, is unknown here. So is what a socket is.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
mod driver;
mod error;
mod log;
mod members;
mod node;
pub mod payload;
mod state_machine;
mod tail;
mod types;

pub use disk::{BLOCK, Directory, Disk, DiskFile, SECTOR, SyncMode};
pub use driver::{
    Driver, DriverConfig, Install, Output, PeerMessage, PeerTransport, Role, Run, Standing,
};
pub use error::{Error, ProposeError, ReadError};
pub use log::{Housekeeping, LogConfig, LogReader, Recovered, SegmentedLog};
pub use node::{RaftConfig, RaftHandle, RaftNode, RaftStatus, ReadReply, Replier, Reply};
pub use state_machine::{Applied, CheckpointJob, Committed, SnapshotData, StateMachine};
pub use types::{EntryKind, HardState, Location, LogEntry, LogWrite, Position};
