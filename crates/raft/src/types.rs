//! What the log, the driver and the runtime hand to each other: our own words, none of raft-rs'.

use bytes::Bytes;

/// Term, vote and commit index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Whom this member voted for in the term; 0 is nobody.
    pub vote: u64,
    /// The newest index known to be committed.
    pub commit: u64,
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Commands, see [`crate::payload`].
    Commands,
    /// A change of members.
    Members,
    /// A change of members in two steps.
    MembersJoint,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// What it holds.
    pub kind: EntryKind,
    /// Its place.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// The content.
    pub payload: Bytes,
}

/// A place in the log, and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// What one synced write puts into the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// Which of the driver's writes this is.
    pub number: u64,
    /// New term, vote or commit index.
    pub hard_state: Option<HardState>,
    /// Everything before this place comes from a snapshot that is going to be installed.
    pub snapshot: Option<Position>,
    /// Entries; the first may replace what stood at its index and behind.
    pub entries: Vec<LogEntry>,
}

/// Where an entry stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub(crate) segment: u64,
    pub(crate) group_at: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}
