//! Proofs of what revisions did, under one signed checkpoint.
//!
//! ```text
//! reader: what is left of a revision ─▶ operations, entry ─┐
//! tiles: the path from its leaf to the root ───────────────┼─▶ bundle, proof file
//! signed checkpoint: the root ─────────────────────────────┘
//! ```
//! Invariants:
//! * Nothing is signed, waited for or written, so a directory that is only read proves what a running
//!   history does.
//! * Nothing behind the checkpoint is shown.

use super::{Error, Result, remains};
use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, ProofFile, ProvenOp, ProvenRevision, RecentTiles, SignedNote, TileFiles,
    inclusion_proof, leaf_index,
};
use chronolith_mvcc::Reader;

/// Versions of a key that one bundle shows.
const MAX_PROVEN_VERSIONS: usize = 100_000;
/// Room made for revisions before their sizes are known.
const PROVEN_AT_ONCE: usize = 1_024;

/// What a bundle shows.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// Every version of a key that is still there.
    Key(&'a [u8]),
    /// What one revision made of a key.
    Version(&'a [u8], i64),
    /// Whole revisions, from the first to the second.
    Revisions(i64, i64),
}

/// See the module.
pub(crate) struct Prover<'a> {
    reader: &'a Reader,
    tiles: RecentTiles,
    note: SignedNote,
    checkpoint: Checkpoint,
}

impl<'a> Prover<'a> {
    /// The tiles must have what the checkpoint speaks of.
    pub(crate) fn new(reader: &'a Reader, tiles: TileFiles, note: SignedNote) -> Result<Self> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let tiles = RecentTiles::new(tiles, checkpoint.size);
        Ok(Self { reader, tiles, note, checkpoint })
    }

    /// The last revision that can be proven.
    pub(crate) fn newest(&self) -> i64 {
        self.checkpoint.revision().cast_signed()
    }

    /// Proof that a revision's entry is in the log.
    pub(crate) fn proof_file(self, revision: i64) -> Result<ProofFile> {
        let ProvenRevision { entry, path, .. } = self.proven(revision, |_| false)?;
        Ok(ProofFile { entry, path, checkpoint: self.note })
    }

    /// A bundle that proves what it shows. One with more than `max_bytes` of keys and values is refused.
    pub(crate) fn prove(self, shown: Shown<'_>, max_bytes: usize) -> Result<Bundle> {
        let newest = self.newest();
        let (row, key): (Vec<_>, _) = match shown {
            Shown::Key(key) => (self.revisions_of(key, 0, newest)?, Some(key)),
            Shown::Version(key, revision) => {
                (self.revisions_of(key, revision, revision)?, Some(key))
            }
            Shown::Revisions(from, to) => ((from.max(2)..=to.min(newest)).collect(), None),
        };
        let is_shown = |changed: Option<&Bytes>| {
            key.is_none_or(|key| changed.is_some_and(|changed| key == &changed[..]))
        };
        let (mut revisions, mut size_bytes) =
            (Vec::with_capacity(row.len().min(PROVEN_AT_ONCE)), 0);
        for revision in row {
            let proven = self.proven(revision, is_shown)?;
            size_bytes += proven.ops.iter().map(ProvenOp::size_bytes).sum::<usize>();
            if size_bytes > max_bytes {
                return Err(Error::Invalid(format!(
                    "the proof would be larger than {max_bytes} bytes: ask for fewer revisions"
                )));
            }
            revisions.push(proven);
        }
        Ok(Bundle { checkpoint: self.note, revisions })
    }

    /// The revisions between two that made versions of a key, ascending.
    fn revisions_of(&self, key: &[u8], from: i64, to: i64) -> Result<Vec<i64>> {
        let versions = self.reader.key_history(key, from, to, MAX_PROVEN_VERSIONS)?;
        if versions.is_empty() && from == to {
            let key = String::from_utf8_lossy(key);
            return Err(Error::Invalid(format!("revision {from} did not change {key:?}")));
        }
        let mut revisions: Vec<_> = versions.iter().map(|version| version.revision).collect();
        revisions.sort_unstable();
        revisions.dedup();
        Ok(revisions)
    }

    /// An entry, and what is left of those of its operations that are `shown` by their key; compaction
    /// and erasure may have left no key.
    fn proven(
        &self,
        revision: i64,
        shown: impl Fn(Option<&Bytes>) -> bool,
    ) -> Result<ProvenRevision> {
        let index =
            leaf_index(revision.cast_unsigned()).ok_or(chronolith_mvcc::Error::Compacted)?;
        let path = inclusion_proof(&self.tiles, index, self.checkpoint.size)?;
        let mut found = self.reader.remains(revision, 1)?;
        let Some(remains) = found.pop().filter(|found| found.revision == revision) else {
            // Nothing is left of it but its entry.
            let entry = self.tiles.files().entry(index)?;
            return Ok(ProvenRevision { entry, path, ops: Vec::new() });
        };
        let hashes = remains::op_hashes(&remains).ok_or(chronolith_mvcc::Error::Compacted)?;
        let op = |position: usize| -> Result<ProvenOp> {
            Ok(ProvenOp {
                position: u32::try_from(position).expect("operations are limited"),
                path: inclusion_proof(&hashes[..], position as u64, hashes.len() as u64)?,
                level: remains::level(&remains, position)
                    .ok_or(chronolith_mvcc::Error::Compacted)?,
            })
        };
        let positions = (0..hashes.len()).filter(|at| shown(remains.key(*at)));
        let ops = positions.map(op).collect::<Result<_>>()?;
        Ok(ProvenRevision { entry: remains::entry(&remains, &hashes), path, ops })
    }
}
