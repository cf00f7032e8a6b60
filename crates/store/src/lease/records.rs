//! The replicated part of the leases, as records of the engine and as the table apply works on.
//!
//! ```text
//! leases:      id (8, big endian)         → time to live (8) · remaining (8), seconds
//! lease_keys:  id (8, big endian) ‖ key   → nothing
//! ```
//! The keys of a lease stay in the engine: there may be more of them than fit into memory.

use crate::error::OpenError;
use bytes::Bytes;
use chronolith_engine::{ColumnId, Cursor, Engine, KeyRange, Overlay, Result, Snapshot};
use std::collections::BTreeMap;

/// What is replicated of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// As granted.
    pub(crate) ttl_s: i64,
    /// At the last checkpoint; after the grant or a renewal, all of it.
    pub(crate) remaining_s: i64,
}

impl Lease {
    pub(crate) fn new(ttl_s: i64) -> Self {
        Self { ttl_s, remaining_s: ttl_s }
    }

    fn encode(self) -> Vec<u8> {
        [self.ttl_s.to_be_bytes(), self.remaining_s.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ttl_s, remaining_s) = bytes.split_first_chunk::<8>()?;
        let ttl_s = i64::from_be_bytes(*ttl_s);
        Some(Self { ttl_s, remaining_s: i64::from_be_bytes(remaining_s.try_into().ok()?) })
    }
}

/// The columns of leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseColumns {
    leases: ColumnId,
    keys: ColumnId,
}

impl LeaseColumns {
    pub(crate) fn open(engine: &dyn Engine) -> Result<Self> {
        Ok(Self { leases: engine.column("leases")?, keys: engine.column("lease_keys")? })
    }

    /// All leases that the engine holds.
    pub(crate) fn load(
        self,
        engine: &dyn Engine,
    ) -> std::result::Result<BTreeMap<i64, Lease>, OpenError> {
        let corrupt = || OpenError::CorruptRecord { what: "lease" };
        let snapshot = engine.snapshot()?;
        let mut cursor = snapshot.cursor(self.leases, KeyRange::all())?;
        let mut leases = BTreeMap::new();
        cursor.seek_to_first()?;
        while cursor.valid() {
            let id = cursor.key().try_into().map_err(|_| corrupt())?;
            let lease = Lease::decode(cursor.value()).ok_or_else(corrupt)?;
            leases.insert(i64::from_be_bytes(id), lease);
            cursor.next()?;
        }
        Ok(leases)
    }

    pub(crate) fn put(self, batch: &mut Overlay, id: i64, lease: Lease) {
        batch.put(self.leases, id.to_be_bytes().to_vec(), lease.encode());
    }

    pub(crate) fn delete(self, batch: &mut Overlay, id: i64) {
        batch.delete(self.leases, id.to_be_bytes().to_vec());
    }

    /// Records that `key` went from one lease to another; 0 is none.
    pub(crate) fn attach(self, batch: &mut Overlay, key: &Bytes, from: i64, to: i64) {
        if from != 0 {
            batch.delete(self.keys, attachment(from, key));
        }
        if to != 0 {
            batch.put(self.keys, attachment(to, key), Bytes::new());
        }
    }

    /// The keys of lease `id` in a run that is still in the making, in order.
    pub(crate) fn keys_in_run(self, batch: &Overlay, id: i64) -> Result<Vec<Bytes>> {
        keys(batch.cursor(self.keys, range(id))?)
    }

    /// The keys of lease `id` in a committed state, in order.
    pub(crate) fn keys(self, snapshot: &dyn Snapshot, id: i64) -> Result<Vec<Bytes>> {
        keys(snapshot.cursor(self.keys, range(id))?)
    }
}

fn attachment(id: i64, key: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), key].concat()
}

fn range(id: i64) -> KeyRange {
    let start = Bytes::copy_from_slice(&id.to_be_bytes());
    let next = id.cast_unsigned().checked_add(1);
    let end = next.map(|next| Bytes::copy_from_slice(&next.to_be_bytes()));
    match end {
        Some(end) => KeyRange::half_open(start, end),
        None => {
            KeyRange { end: std::ops::Bound::Unbounded, ..KeyRange::half_open(start, Bytes::new()) }
        }
    }
}

fn keys(mut cursor: Box<dyn Cursor + '_>) -> Result<Vec<Bytes>> {
    let mut keys = Vec::new();
    cursor.seek_to_first()?;
    while cursor.valid() {
        keys.push(Bytes::copy_from_slice(&cursor.key()[size_of::<i64>()..]));
        cursor.next()?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_engine::{Durability, MemoryEngine};
    use std::sync::Arc;

    #[test]
    fn leases_and_their_keys_read_back() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let columns = LeaseColumns::open(&*engine).unwrap();
        let mut batch = Overlay::new(Arc::clone(&engine)).unwrap();
        let lease = Lease { ttl_s: 60, remaining_s: 30 };
        for id in [-1, -7, 1, i64::MAX] {
            columns.put(&mut batch, id, lease);
            columns.attach(&mut batch, &"b".into(), 0, id);
            columns.attach(&mut batch, &"a".into(), 0, id);
        }
        columns.attach(&mut batch, &"a".into(), 1, -7);
        assert_eq!(columns.keys_in_run(&batch, 1).unwrap(), ["b"]);
        batch.commit(Durability::NoWal).unwrap();
        let snapshot = engine.snapshot().unwrap();
        for id in [-1, -7, i64::MAX] {
            assert_eq!(columns.keys(&*snapshot, id).unwrap(), ["a", "b"], "lease {id}");
        }
        let loaded = columns.load(&*engine).unwrap();
        assert_eq!(loaded.keys().copied().collect::<Vec<_>>(), [-7, -1, 1, i64::MAX]);
        assert!(loaded.values().all(|loaded| *loaded == lease));
    }
}
