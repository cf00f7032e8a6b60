//! The log as raft-rs sees it: terms of all entries in memory, the newest entries too, older ones
//! read back from disk.
//!
//! ```text
//! purged │ term, location │ term, location, entry          (applied and written: may be evicted)
//!       base             cached_from                 last
//! ```

use crate::{
    error::Error,
    log::{LogReader, Recovered},
    types::{EntryKind, HardState, Location, LogEntry, Position},
};
use bytes::Bytes;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, EntryType, Snapshot},
};
use std::{cell::Cell, collections::VecDeque};

/// Bytes of entries kept in memory for followers that lag a little.
const CACHE_BYTES: usize = 8 << 20;

struct Slot {
    term: u64,
    location: Option<Location>,
    entry: Option<Entry>,
}

/// See the module.
pub(crate) struct Tail {
    hard_state: HardState,
    members: ConfState,
    base: Position,
    slots: VecDeque<Slot>,
    /// Slots before this one hold no entry in memory.
    evicted: usize,
    cached_bytes: usize,
    applied: u64,
    reader: LogReader,
    snapshot: Option<Snapshot>,
    wants_snapshot: Cell<bool>,
}

impl Tail {
    pub(crate) fn new(
        recovered: Recovered,
        reader: LogReader,
        members: ConfState,
        applied: u64,
    ) -> Self {
        let slots = recovered.entries.into_iter();
        let slots: VecDeque<Slot> = slots
            .map(|(term, location)| Slot { term, location: Some(location), entry: None })
            .collect();
        Self {
            hard_state: recovered.hard_state,
            members,
            base: recovered.base,
            evicted: slots.len(),
            slots,
            cached_bytes: 0,
            applied,
            reader,
            snapshot: None,
            wants_snapshot: Cell::new(false),
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.base.index + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.index + self.slots.len() as u64
    }

    pub(crate) fn members(&self) -> &ConfState {
        &self.members
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let slot = index.checked_sub(self.first())?;
        self.slots.get(usize::try_from(slot).ok()?)
    }

    /// Takes entries in; the first may replace what stood at its index and behind.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.first()) as usize;
        for slot in self.slots.drain(keep.min(self.slots.len())..) {
            self.cached_bytes -= slot.entry.map_or(0, |entry| entry.data.len());
        }
        self.evicted = self.evicted.min(self.slots.len());
        for entry in entries {
            self.cached_bytes += entry.data.len();
            let entry = entry.clone();
            self.slots.push_back(Slot { term: entry.term, location: None, entry: Some(entry) });
        }
    }

    /// Learns where entries stand on disk, unless they were replaced meanwhile.
    pub(crate) fn located(&mut self, entries: &[LogEntry], locations: &[Location]) {
        let first = self.first();
        for (entry, location) in entries.iter().zip(locations) {
            let slot = entry.index.checked_sub(first).map(|slot| slot as usize);
            if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot))
                && slot.term == entry.term
            {
                slot.location = Some(*location);
            }
        }
        self.evict();
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.applied = index;
        self.evict();
    }

    fn evict(&mut self) {
        while self.cached_bytes > CACHE_BYTES {
            let index = self.first() + self.evicted as u64;
            let Some(slot) = self.slots.get_mut(self.evicted) else { return };
            if index > self.applied || slot.location.is_none() {
                return;
            }
            self.cached_bytes -= slot.entry.take().map_or(0, |entry| entry.data.len());
            self.evicted += 1;
        }
    }

    /// Forgets entries up to an index.
    pub(crate) fn purge(&mut self, up_to: u64) {
        while self.base.index < up_to.min(self.applied) {
            let Some(slot) = self.slots.pop_front() else { return };
            self.base = Position { index: self.base.index + 1, term: slot.term };
            self.cached_bytes -= slot.entry.map_or(0, |entry| entry.data.len());
            self.evicted = self.evicted.saturating_sub(1);
        }
        if self.snapshot.as_ref().is_some_and(|old| old.get_metadata().index < self.base.index) {
            self.snapshot = None;
        }
    }

    /// Starts again behind a snapshot that was installed.
    pub(crate) fn restart_at(&mut self, base: Position, members: ConfState) {
        self.slots.clear();
        (self.base, self.members) = (base, members);
        (self.evicted, self.cached_bytes, self.applied) = (0, 0, base.index);
        self.snapshot = None;
    }

    /// Tells once whether a follower needs a snapshot.
    pub(crate) fn take_wants_snapshot(&self) -> bool {
        self.wants_snapshot.take()
    }

    pub(crate) fn provide(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    fn read(&self, index: u64) -> raft::Result<Entry> {
        let slot = self.slot(index).ok_or(raft::Error::Store(StorageError::Unavailable))?;
        if let Some(entry) = &slot.entry {
            return Ok(entry.clone());
        }
        let location = slot.location.ok_or(raft::Error::Store(StorageError::Unavailable))?;
        let read = self.reader.read(location, index, slot.term);
        read.map(to_raft).map_err(|error| raft::Error::Store(StorageError::Other(Box::new(error))))
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut state = raft::eraftpb::HardState::default();
        state.set_term(self.hard_state.term);
        state.set_vote(self.hard_state.vote);
        state.set_commit(self.hard_state.commit);
        Ok(RaftState::new(state, self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut size = 0;
        for index in low..high {
            let entry = self.read(index)?;
            size += entry_size(&entry);
            if !entries.is_empty() && size > limit {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        match self.slot(index) {
            Some(slot) => Ok(slot.term),
            None if index < self.base.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => {
                Ok(snapshot.clone())
            }
            _ => {
                self.wants_snapshot.set(true);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

/// At least what raft-rs computes, so that its own limit cuts nothing off in the middle.
fn entry_size(entry: &Entry) -> u64 {
    /// Field tags, index, term.
    const FIXED: usize = 32;
    (entry.data.len() + FIXED) as u64
}

/// Into raft-rs' words.
pub(crate) fn to_raft(entry: LogEntry) -> Entry {
    let mut out = Entry::default();
    out.set_entry_type(match entry.kind {
        EntryKind::Commands => EntryType::EntryNormal,
        EntryKind::Members => EntryType::EntryConfChange,
        EntryKind::MembersJoint => EntryType::EntryConfChangeV2,
    });
    (out.index, out.term, out.data) = (entry.index, entry.term, entry.payload);
    out
}

/// Out of raft-rs' words.
pub(crate) fn from_raft(entry: &Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Commands,
        EntryType::EntryConfChange => EntryKind::Members,
        EntryType::EntryConfChangeV2 => EntryKind::MembersJoint,
    };
    LogEntry { kind, index: entry.index, term: entry.term, payload: Bytes::clone(&entry.data) }
}

impl From<raft::Error> for Error {
    fn from(error: raft::Error) -> Self {
        Self::Config(error.to_string())
    }
}
