//! A whole history against its tiles and its checkpoints: which of them was changed, and from where on.
//!
//! The audit is handed every revision in order, computes its leaf anew, and compares it with the tiles'
//! leaf. The checkpoints decide who is right: they are signed. Where records and tiles agree with each
//! other and not with a checkpoint, the first checkpoint that fails bounds the damage from above and
//! the one before it from below.

use crate::{Checkpoint, Entries, Error, Frontier, Hash, Result, leaf_index, revision_of_leaf};

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
    tiles: &'a dyn Entries,
    tile_size: u64,
    fetched: Vec<Hash>,
    fetched_from: u64,
    checkpoints: Vec<Checkpoint>,
    records: Frontier,
    leaves: Frontier,
    differs: Option<u64>,
    failed: Option<Failed>,
    good_size: u64,
}

/// Which side failed the first checkpoint that failed.
#[derive(Clone, Copy)]
struct Failed {
    records: bool,
    tiles: bool,
}

impl<'a> Audit<'a> {
    /// Audits against tiles of `tile_size` leaves, and checkpoints whose signatures were checked.
    pub fn new(tiles: &'a dyn Entries, tile_size: u64, mut checkpoints: Vec<Checkpoint>) -> Self {
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        let (records, leaves) = (Frontier::default(), Frontier::default());
        let (fetched, differs, failed) = (Vec::new(), None, None);
        Self {
            tiles,
            tile_size,
            fetched,
            fetched_from: 0,
            checkpoints,
            records,
            leaves,
            differs,
            failed,
            good_size: 0,
        }
    }

    /// Takes the next revision's leaf, computed from its records; none where only its hash was kept.
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
        let tile = if index < self.tile_size { Some(self.tile_leaf(index)?) } else { leaf };
        let Some(tile) = tile else {
            return Err(Error::Mismatch {
                what: "the tiles: a leaf is missing",
                revision: Some(revision),
            });
        };
        let leaf = leaf.unwrap_or(tile);
        if leaf != tile && self.differs.is_none() {
            self.differs = Some(revision);
        }
        self.records.append(leaf);
        self.leaves.append(tile);
        Ok(())
    }

    fn tile_leaf(&mut self, index: u64) -> Result<Hash> {
        if !(self.fetched_from..self.fetched_from + self.fetched.len() as u64).contains(&index) {
            let count = FETCH_LEAVES.min(self.tile_size - index);
            (self.fetched_from, self.fetched) = (index, self.tiles.entries(0, index, count)?);
        }
        let at = usize::try_from(index - self.fetched_from).expect("a few thousand at most");
        Ok(self.fetched[at])
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
        if let Some(revision) = self.differs {
            return Err(Finding { what: "records and tiles: one of them", revision }.into());
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
        let suspect = self.differs.unwrap_or(revision_of_leaf(self.good_size));
        let what = match (failed.records, failed.tiles) {
            (true, false) => "record",
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
        for index in 0..row {
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
