//! Follows applied revisions, off the path of the write.
//!
//! The follower takes runs in revision order and turns them into leaves. It has no thread and no queue
//! of its own: whoever applies decides where it runs. After a crash it asks for everything behind
//! [`Follower::watermark`], which is what the tile files had on the disk.

use crate::{Entry, Error, Result, Revision, TileWriter, leaf_index, revision_of_leaf};

/// Leaves after which the files are synced unasked, so that a start never recomputes more: about 50 ms.
pub const SYNC_EVERY_LEAVES: u64 = 1 << 16;

/// Turns applied revisions into leaves of the log.
pub struct Follower {
    tiles: TileWriter,
}

impl Follower {
    /// Continues what the tile files hold.
    pub fn new(tiles: TileWriter) -> Self {
        Self { tiles }
    }

    /// The last revision in the log. Proofs and checkpoints reach up to here, and compaction no further.
    pub fn watermark(&self) -> u64 {
        self.tiles.frontier().size() + 1
    }

    /// The tile files and the tree's right edge.
    pub fn tiles(&self) -> &TileWriter {
        &self.tiles
    }

    /// Takes a run of applied revisions, and returns the watermark. Those that it has seen already are
    /// passed over, so a run may be offered twice.
    pub fn follow<'a>(&mut self, run: impl IntoIterator<Item = Revision<'a>>) -> Result<u64> {
        for revision in run {
            if revision.revision > self.watermark() {
                self.append(&revision.leaf().entry)?;
            }
        }
        self.flush()
    }

    /// Appends the leaf of an entry that was computed elsewhere.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let size = self.tiles.frontier().size();
        if leaf_index(entry.revision) != Some(size) {
            let expected = revision_of_leaf(size);
            return Err(Error::OutOfOrder { expected, given: entry.revision });
        }
        self.tiles.append(&entry.encode());
        Ok(())
    }

    /// Drops the leaves and entries of revisions before `revision`, in whole tiles. The first revision
    /// that can still be proven.
    pub fn prune(&mut self, revision: u64) -> Result<u64> {
        let index = leaf_index(revision).unwrap_or_default();
        self.tiles.prune(index).map(revision_of_leaf)
    }

    /// Whether the next [`flush`](Self::flush) will sync. What the leaves were computed from must be on
    /// the disk before that: files that are declared complete must not be ahead of the revisions.
    pub fn wants_sync(&self) -> bool {
        self.tiles.frontier().size() - self.tiles.synced() >= SYNC_EVERY_LEAVES
    }

    /// Lets readers of the files see what was appended; syncs when enough has gathered.
    pub fn flush(&mut self) -> Result<u64> {
        if self.wants_sync() {
            self.tiles.sync()?;
        } else {
            self.tiles.flush()?;
        }
        Ok(self.watermark())
    }

    /// Puts the files on the disk, before a checkpoint is signed or the store closes.
    pub fn sync(&mut self) -> Result<()> {
        self.tiles.sync()
    }
}
