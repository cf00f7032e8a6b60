//! A whole history against its tiles and its checkpoints: which of them was changed, and from where on.
//!
//! The audit is handed every revision in order, computes its leaf anew, and compares it with the tiles'
//! leaf. The checkpoints decide who is right: they are signed. Where records and tiles agree with each
//! other and not with a checkpoint, the first checkpoint that fails bounds the damage from above and
//! the one before it from below.
//!
//! Of a revision whose records compaction took, the entry beside the tiles stands for them. A pruned
//! log is audited from its first whole leaf on: the levels above say what was before it, and the first
//! checkpoint from there on says whether they are right.

use crate::{
    Checkpoint, ENTRY_BYTES, Entries, Error, Frontier, Hash, Result, TILE_WIDTH, TileFiles,
    leaf_index, revision_of_leaf,
};

/// Leaves fetched from the tiles at once: one read of 128 KiB.
const FETCH_LEAVES: u64 = 4096;

/// One thing that was found to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was changed.
    pub what: &'static str,
    /// The first revision concerned.
    pub revision: u64,
}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Self {
        Self::Mismatch { what: finding.what, revision: Some(finding.revision) }
    }
}

/// Checks a history revision by revision.
pub struct Audit<'a> {
    tiles: &'a TileFiles,
    tile_size: u64,
    min_index: u64,
    fetched: Fetched,
    checkpoints: Vec<Checkpoint>,
    records: Frontier,
    leaves: Frontier,
    differs: Option<Finding>,
    entry_differs: Option<u64>,
    failed: Option<Failed>,
    good_size: u64,
}

/// Leaves, and the hashes of the entries beside them, from one leaf on.
#[derive(Default)]
struct Fetched {
    from: u64,
    leaves: Vec<Hash>,
    entries: Vec<Hash>,
}

/// Which side failed the first checkpoint that failed.
#[derive(Clone, Copy)]
struct Failed {
    records: bool,
    tiles: bool,
}

fn missing_leaf(revision: u64) -> Error {
    Error::Mismatch { what: "the tiles: a leaf is missing", revision: Some(revision) }
}

impl<'a> Audit<'a> {
    /// Audits against tiles of `tile_size` leaves, and checkpoints whose signatures were checked.
    /// Those from before the first leaf that was kept say nothing any more.
    pub fn new(
        tiles: &'a TileFiles,
        tile_size: u64,
        mut checkpoints: Vec<Checkpoint>,
    ) -> Result<Self> {
        let min_index = tiles.min_index()?;
        if min_index > tile_size {
            return Err(Error::mismatch("length of the tile files and what was pruned of them"));
        }
        checkpoints.retain(|checkpoint| checkpoint.size >= min_index);
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        let before = tiles.frontier_at(min_index)?;
        Ok(Self {
            tiles,
            tile_size,
            min_index,
            fetched: Fetched::default(),
            checkpoints,
            records: before.clone(),
            leaves: before,
            differs: None,
            entry_differs: None,
            failed: None,
            good_size: min_index,
        })
    }

    /// The revision that [`leaf`](Self::leaf) takes next: at first, the oldest that was not pruned.
    pub fn next_revision(&self) -> u64 {
        revision_of_leaf(self.records.size())
    }

    /// Takes the next revision's leaf, computed from its records; none where compaction took a part of
    /// them, and the entry beside the tiles stands for them.
    pub fn leaf(&mut self, revision: u64, leaf: Option<Hash>) -> Result<()> {
        let index = self.records.size();
        if leaf_index(revision) != Some(index) {
            let missing = revision_of_leaf(index);
            return Err(Error::Mismatch {
                what: "the row of revisions: one is missing or doubled",
                revision: Some(missing),
            });
        }
        self.compare_roots();
        // Behind the tiles' end there is nothing to compare with: the follower has not been there yet.
        let (tile, entry) = match index < self.tile_size {
            true => self.fetched(index)?,
            false => (leaf.ok_or_else(|| missing_leaf(revision))?, None),
        };
        let record = leaf.or(entry).unwrap_or(tile);
        if record != tile && self.differs.is_none() {
            let what = if leaf.is_some() { "record" } else { "entry" };
            self.differs = Some(Finding { what, revision });
        }
        if entry.is_some_and(|entry| entry != tile) && self.entry_differs.is_none() {
            self.entry_differs = Some(revision);
        }
        self.records.append(record);
        self.leaves.append(tile);
        Ok(())
    }

    /// A leaf, and the hash of the entry beside it if it got there before a crash.
    fn fetched(&mut self, index: u64) -> Result<(Hash, Option<Hash>)> {
        let end = self.fetched.from + self.fetched.leaves.len() as u64;
        if !(self.fetched.from..end).contains(&index) {
            let count = FETCH_LEAVES.min(self.tile_size - index);
            let leaves = self.tiles.entries(0, index, count)?;
            self.fetched = Fetched { from: index, leaves, entries: self.entries(index, count)? };
        }
        let at = usize::try_from(index - self.fetched.from).expect("a few thousand at most");
        Ok((self.fetched.leaves[at], self.fetched.entries.get(at).copied()))
    }

    fn entries(&self, start: u64, count: u64) -> Result<Vec<Hash>> {
        let there = self.tiles.entries_size()?;
        let end = (start + count).min(there);
        if end < (start + count).min(self.tiles.synced()?) {
            let what = "the entries beside the tiles: one is missing";
            let revision = Some(revision_of_leaf(end.max(start)));
            return Err(Error::Mismatch { what, revision });
        }
        let bytes = self.tiles.entry_bytes(start, end.saturating_sub(start))?;
        Ok(bytes.chunks_exact(ENTRY_BYTES).map(Hash::of_leaf).collect())
    }

    /// Compares with the checkpoints of the size reached.
    fn compare_roots(&mut self) {
        let size = self.records.size();
        while self.checkpoints.last().is_some_and(|checkpoint| checkpoint.size == size) {
            let Some(checkpoint) = self.checkpoints.pop() else { return };
            let records = self.records.root() != checkpoint.root;
            let tiles = self.leaves.root() != checkpoint.root;
            if records || tiles {
                self.failed = self.failed.or(Some(Failed { records, tiles }));
            } else if self.failed.is_none() {
                self.good_size = size;
            }
        }
    }

    /// The leaves that were seen.
    pub fn size(&self) -> u64 {
        self.records.size()
    }

    /// The root of everything seen, from the records.
    pub fn root(&self) -> Hash {
        self.records.root()
    }

    /// The verdict over everything that was taken.
    pub fn finish(mut self) -> Result<()> {
        self.compare_roots();
        if let Some(failed) = self.failed {
            return Err(self.blame(failed).into());
        }
        if let Some(Finding { revision, .. }) = self.differs {
            return Err(Finding { what: "records and tiles: one of them", revision }.into());
        }
        if let Some(revision) = self.entry_differs {
            return Err(Finding { what: "entry beside the tiles", revision }.into());
        }
        match self.checkpoints.last() {
            // A checkpoint of a size that was never reached: the history ends too early.
            Some(_) => {
                let revision = revision_of_leaf(self.records.size());
                Err(Finding {
                    what: "end of the history (it was cut off): the checkpoint",
                    revision,
                }
                .into())
            }
            None => self.upper_levels(),
        }
    }

    fn blame(&self, failed: Failed) -> Finding {
        let differs = self.differs.as_ref();
        let suspect = differs.map_or(revision_of_leaf(self.good_size), |found| found.revision);
        let what = match (failed.records, failed.tiles) {
            (true, false) => differs.map_or("record", |found| found.what),
            (false, true) => "leaf in the tiles",
            _ => "record and leaf, or the checkpoint,",
        };
        Finding { what, revision: suspect }
    }

    /// The tiles above the leaves are derived from them, and served to others.
    fn upper_levels(&self) -> Result<()> {
        let (mut level, mut row) = (1, self.tile_size >> 8);
        while row > 0 {
            self.level(level, row)?;
            (level, row) = (level + 1, row >> 8);
        }
        Ok(())
    }

    fn level(&self, level: u32, row: u64) -> Result<()> {
        // The leaves under the first nodes may have been pruned.
        let first = if level == 1 { self.min_index / TILE_WIDTH } else { 0 };
        for index in first..row {
            let mut below = Frontier::default();
            below.extend(self.tiles.entries(level - 1, index << 8, 256)?);
            if self.tiles.entries(level, index, 1)? != [below.root()] {
                let revision = revision_of_leaf(index << (8 * level));
                return Err(Finding { what: "node in the tiles", revision }.into());
            }
        }
        Ok(())
    }
}
