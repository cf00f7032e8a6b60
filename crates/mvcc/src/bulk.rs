//! Many puts as one revision, without a transaction around them.
//!
//! ```text
//! pairs ─▶ by key: newest version of each (one descent) ─▶ its next version ─▶ one engine batch
//!    └───▶ in the caller's order: the revision's log entry, what the followers hear
//! ```
//! * It leaves, byte for byte, what a transaction of the same puts leaves. There are no answers, no
//!   leases, and nothing that later commands of the same run would have to see.
//! * Keys are looked up and written in their order, whatever the caller's: neighbours then find their
//!   place in the tree still in the processor's cache.
//! * Version keys and records are slices of some large pieces of memory, not allocations of their own.

use crate::{
    Applied, Error, Kind, Mvcc, Result, Stamp,
    applied::Stamped,
    core::Head,
    key::{self, Revision},
    log::LogWriter,
    record::Record,
    watch::Published,
};
use bytes::{Bytes, BytesMut};
use chronolith_engine::{Durability, WriteBatch};

/// Size of a piece: a few hundred records, so that one which is still referenced holds little back.
const PIECE_BYTES: usize = 64 << 10;

impl Mvcc {
    /// Sets keys, all in one revision, in one engine batch. Of a key that comes twice the last value
    /// stays, and both are in its history. No pairs, no revision.
    pub fn put_all(
        &mut self,
        pairs: Vec<(Bytes, Bytes)>,
        stamp: &Stamp,
        durability: Durability,
    ) -> Result<Applied> {
        if pairs.is_empty() {
            return Ok(Applied::new(Vec::new(), Vec::new(), 0));
        }
        if pairs.iter().any(|(key, _)| key.is_empty()) {
            return Err(Error::EmptyKey);
        }
        let revision = self.core.current() + 1;
        let time_ms = self.time_ms.max(stamp.time_ms);
        let stamp = Stamp { time_ms, ..*stamp };
        let mut batch = WriteBatch::new();
        let steps = self.steps(revision, &pairs, &mut batch)?;
        let mut bulk = Bulk::new(revision, &stamp, &pairs);
        for ((key, value), step) in pairs.into_iter().zip(steps) {
            bulk.push(key, value, step);
        }
        let Bulk { published, turns, entry, size_bytes, .. } = bulk;
        let log_key = Bytes::copy_from_slice(&key::log(revision));
        batch.put(self.core.columns.log, log_key, entry.finish());
        self.core.engine.write(batch, durability)?;
        self.time_ms = time_ms;
        self.core.advance(revision, self.core.compact(), &turns, &published);
        self.hub.publish(&published, revision);
        let end = published.len();
        Ok(Applied::new(published, vec![Stamped { revision, stamp, end }], size_bytes))
    }

    /// Adds the new versions to the batch, by key; what becomes of each pair, in the caller's order.
    fn steps(
        &self,
        revision: i64,
        pairs: &[(Bytes, Bytes)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::new();
        steps.resize_with(pairs.len(), Step::default);
        let mut records = Pieces::default();
        let mut last: Option<usize> = None;
        for at in by_key(pairs) {
            let (key, value) = &pairs[at];
            let step = match last.filter(|last| pairs[*last].0 == *key) {
                Some(last) => steps[last].again(),
                None => self.first_step(revision, key)?,
            };
            let sub = u32::try_from(at).map_err(|_| Error::TooManyOperations)?;
            let place = Revision { main: revision, sub };
            let (stored_key, stored) = records.version(key, place, &step, value);
            batch.put(self.core.columns.versions, stored_key, stored);
            steps[at] = step;
            last = Some(at);
        }
        Ok(steps)
    }

    fn first_step(&self, revision: i64, key: &[u8]) -> Result<Step> {
        let head = self.core.head(key, i64::MAX)?;
        // As in a run: a compacted tombstone is not seen, whether it has been removed or not.
        let gone = head.record.is_none() && head.revision < self.core.compact();
        let before = if gone { Head::default() } else { head };
        let (create_revision, version) = match &before.record {
            Some(record) => (record.create_revision, record.version + 1),
            None => (revision, 1),
        };
        let turn = before.record.is_none();
        Ok(Step { before, create_revision, version, turn })
    }
}

/// The places of the pairs in the order of their keys; equal ones keep their order.
fn by_key(pairs: &[(Bytes, Bytes)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    // Keys mostly come in order already, which a stable sort finds out in one pass.
    order.sort_by(|a, b| pairs[*a].0.cmp(&pairs[*b].0));
    order
}

/// What becomes of a pair.
#[derive(Default)]
struct Step {
    /// The key before the revision.
    before: Head,
    create_revision: i64,
    version: i64,
    /// The key comes to life by it.
    turn: bool,
}

impl Step {
    /// The same key once more.
    fn again(&self) -> Self {
        let Self { before, create_revision, version, .. } = self;
        let (create_revision, version) = (*create_revision, version + 1);
        Self { before: before.clone(), create_revision, version, turn: false }
    }
}

/// Version keys and records, one behind the other.
#[derive(Default)]
struct Pieces {
    piece: BytesMut,
}

impl Pieces {
    fn version(
        &mut self,
        key: &[u8],
        place: Revision,
        step: &Step,
        value: &[u8],
    ) -> (Bytes, Bytes) {
        let room = key::max_version_bytes(key) + Record::max_bytes(value);
        if self.piece.capacity() < room {
            self.piece = BytesMut::with_capacity(room.max(PIECE_BYTES));
        }
        key::push_version(&mut self.piece, key, place);
        let stored_key = self.piece.split().freeze();
        Record::push(&mut self.piece, (step.create_revision, step.version, 0), value);
        (stored_key, self.piece.split().freeze())
    }
}

struct Bulk {
    revision: i64,
    published: Vec<Published>,
    turns: Vec<(usize, i64)>,
    entry: LogWriter,
    size_bytes: usize,
}

impl Bulk {
    fn new(revision: i64, stamp: &Stamp, pairs: &[(Bytes, Bytes)]) -> Self {
        let room_bytes = pairs.iter().map(|(key, _)| key.len() + 8).sum();
        Self {
            revision,
            published: Vec::with_capacity(pairs.len()),
            turns: Vec::new(),
            entry: LogWriter::new(revision, stamp, room_bytes),
            size_bytes: 0,
        }
    }

    fn push(&mut self, key: Bytes, value: Bytes, step: Step) {
        let Step { before, create_revision, version, turn } = step;
        if turn {
            self.turns.push((self.published.len(), 1));
        }
        self.size_bytes += key.len() + value.len();
        self.entry.push(Kind::Put, &key, before.revision);
        let after = Some(Record { create_revision, version, lease: 0, value });
        let revision = self.revision;
        self.published.push(Published { revision, kind: Kind::Put, key, after, before });
    }
}
