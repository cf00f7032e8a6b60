//! The quota: how much of the space is used, asked for no more often than it matters.
//!
//! Asking the engine costs a lock, or on the disk engine a look through its tables. While there is room
//! for gigabytes, one look lasts for many megabytes of requests; near the quota, every request looks.

use chronolith_engine::{Engine, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// A look lasts for this part of the room that it found: requests store several times their own size
/// (the version, the log of changes, the engine's overhead).
const LOOK_LASTS_FOR: u64 = 32;

/// Counted for each request beside its own bytes: what is stored with it.
const REQUEST_BYTES: u64 = 512;

/// See the module.
#[derive(Debug)]
pub(crate) struct Space {
    quota_bytes: u64,
    /// At the last look.
    used_bytes: AtomicU64,
    /// Requested since.
    since_bytes: AtomicU64,
}

impl Space {
    pub(crate) fn new(quota_bytes: u64) -> Self {
        let (used_bytes, since_bytes) = (AtomicU64::new(quota_bytes), AtomicU64::new(0));
        Self { quota_bytes, used_bytes, since_bytes }
    }

    /// Whether there is room for a request of this size.
    pub(crate) fn has_room(&self, engine: &dyn Engine, size_bytes: usize) -> Result<bool> {
        let size_bytes = size_bytes as u64;
        let added = size_bytes + REQUEST_BYTES;
        let since = self.since_bytes.fetch_add(added, Ordering::Relaxed) + added;
        let mut used = self.used_bytes.load(Ordering::Relaxed);
        if since > self.quota_bytes.saturating_sub(used) / LOOK_LASTS_FOR {
            used = engine.size_bytes()?.unwrap_or(0);
            self.used_bytes.store(used, Ordering::Relaxed);
            self.since_bytes.store(0, Ordering::Relaxed);
        }
        Ok(used + size_bytes <= self.quota_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_engine::{Durability, MemoryEngine, WriteBatch};

    #[test]
    fn the_quota_is_noticed_in_time_and_room_is_noticed_again() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let (quota, space) = (1 << 20, Space::new(1 << 20));
        let mut key = 0u32;
        while space.has_room(&engine, 1000).unwrap() {
            let mut batch = WriteBatch::new();
            // Three times what was asked for is stored.
            batch.put(column, key.to_be_bytes(), vec![0; 3000]);
            engine.write(batch, Durability::NoWal).unwrap();
            key += 1;
        }
        let used = engine.size_bytes().unwrap().unwrap();
        assert!((quota - 40_000..quota + 10_000).contains(&used), "{used}");
        let mut batch = WriteBatch::new();
        batch.delete_range(column, vec![], vec![0xff]);
        engine.write(batch, Durability::NoWal).unwrap();
        assert!(space.has_room(&engine, 1000).unwrap());
    }
}
