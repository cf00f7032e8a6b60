//! Checkpoints and proofs of a history.

use super::{Error, History, Result, notary::newest_note, remains};
use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, Entries, Hash, MAX_BUNDLE_BYTES, Policy, ProofFile, ProvenOp,
    ProvenRevision, SignedNote, TILE_WIDTH, consistency_proof, inclusion_proof, leaf_index,
};

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

impl History {
    /// What a verifier of this history needs: its public key. Get it once, over a way you trust.
    pub fn policy(&self) -> Result<Policy> {
        Ok(Policy::log_only(self.inner.notary.key().verifier().clone())?)
    }

    /// The public key in the form that tlog tools read.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        self.inner.notary.key().verifier().to_string()
    }

    /// Signs what the log holds now. Keep the answer somewhere else: whoever has it finds out when this
    /// history is changed, shortened or forked.
    pub fn checkpoint(&self) -> Result<SignedNote> {
        self.inner.following.wait_for(self.revision())?;
        self.inner.notary.checkpoint(self.inner.following.sync()?)
    }

    /// The newest checkpoint that was signed, without waiting for anything.
    pub fn newest_checkpoint(&self) -> Result<Option<SignedNote>> {
        newest_note(&self.inner.dir)
    }

    /// Proof that a revision's entry is in the log: a text in the format of C2SP tlog-proof.
    pub fn prove_revision(&self, revision: i64) -> Result<ProofFile> {
        self.proof_file(revision, self.checkpoint()?)
    }

    /// The same, as of a checkpoint of this history.
    pub fn proof_file(&self, revision: i64, checkpoint: SignedNote) -> Result<ProofFile> {
        let ProvenRevision { entry, path, .. } = self.proven(revision, &checkpoint, |_| false)?;
        Ok(ProofFile { entry, path, checkpoint })
    }

    /// Proof of every version of a key that is still there, newest to oldest, each with its value.
    pub fn prove_key(&self, key: &[u8]) -> Result<Bundle> {
        self.prove(Shown::Key(key), self.checkpoint()?, MAX_BUNDLE_BYTES)
    }

    /// Proof of what one revision made of a key.
    pub fn prove_version(&self, key: &[u8], revision: i64) -> Result<Bundle> {
        self.prove(Shown::Version(key, revision), self.checkpoint()?, MAX_BUNDLE_BYTES)
    }

    /// Proof of whole revisions, with all they did.
    pub fn prove_range(&self, from: i64, to: i64) -> Result<Bundle> {
        self.prove(Shown::Revisions(from, to), self.checkpoint()?, MAX_BUNDLE_BYTES)
    }

    /// A bundle that proves what it shows, as of a checkpoint of this history. One with more than
    /// `max_bytes` of keys and values is refused: ask for less of it at a time.
    pub fn prove(
        &self,
        shown: Shown<'_>,
        checkpoint: SignedNote,
        max_bytes: usize,
    ) -> Result<Bundle> {
        let newest = Checkpoint::parse(checkpoint.text())?.revision().cast_signed();
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
            let proven = self.proven(revision, &checkpoint, is_shown)?;
            size_bytes += proven.ops.iter().map(ProvenOp::size_bytes).sum::<usize>();
            if size_bytes > max_bytes {
                return Err(Error::Invalid(format!(
                    "the proof would be larger than {max_bytes} bytes: ask for fewer revisions"
                )));
            }
            revisions.push(proven);
        }
        Ok(Bundle { checkpoint, revisions })
    }

    /// The revisions between two that made versions of a key, ascending.
    fn revisions_of(&self, key: &[u8], from: i64, to: i64) -> Result<Vec<i64>> {
        let versions = self.versions(key, from, to, MAX_PROVEN_VERSIONS)?;
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
        checkpoint: &SignedNote,
        shown: impl Fn(Option<&Bytes>) -> bool,
    ) -> Result<ProvenRevision> {
        let size = Checkpoint::parse(checkpoint.text())?.size;
        let tiles = self.inner.following.tiles();
        let index =
            leaf_index(revision.cast_unsigned()).ok_or(chronolith_mvcc::Error::Compacted)?;
        let path = inclusion_proof(&tiles, index, size)?;
        let mut found = self.inner.reader.remains(revision, 1)?;
        let Some(remains) = found.pop().filter(|found| found.revision == revision) else {
            // Nothing is left of it but its entry.
            return Ok(ProvenRevision { entry: tiles.entry(index)?, path, ops: Vec::new() });
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

    /// Proof that the log of the first size is the beginning of the log of the second.
    pub fn consistency(&self, from_size: u64, to_size: u64) -> Result<Vec<Hash>> {
        self.refuse_beyond_the_log(to_size)?;
        Ok(consistency_proof(&self.inner.following.tiles(), from_size, to_size)?)
    }

    fn refuse_beyond_the_log(&self, size: u64) -> Result<()> {
        let logged = self.log_size();
        if size <= logged {
            return Ok(());
        }
        let index = size.saturating_sub(1);
        Err(chronolith_ledger::Error::OutOfTree { index, size: logged }.into())
    }

    fn log_size(&self) -> u64 {
        leaf_index(self.watermark().cast_unsigned() + 1).unwrap_or(0)
    }

    /// A tile of the tree, as C2SP tlog-tiles names it: `width` entries of the tile at `index`, 256
    /// for a whole one; none where the log has not so many.
    pub fn tile(&self, level: u8, index: u64, width: u16) -> Result<Option<Bytes>> {
        let Some(row) = self.row_of_tile(u32::from(level), index, width) else { return Ok(None) };
        let hashes =
            self.inner.following.tiles().entries(u32::from(level), row, u64::from(width))?;
        Ok(Some(hashes.iter().flat_map(|hash| hash.0).collect()))
    }

    /// The first entry of a tile, if the log has all that is asked for.
    fn row_of_tile(&self, level: u32, index: u64, width: u16) -> Option<u64> {
        let entries = self.log_size().checked_shr(8 * level).unwrap_or(0);
        let row = index.checked_mul(TILE_WIDTH)?;
        let end = row.checked_add(u64::from(width))?;
        (width > 0 && u64::from(width) <= TILE_WIDTH && end <= entries).then_some(row)
    }

    /// The entries of a tile of level 0, as C2SP tlog-tiles bundles them: each behind its length in
    /// two bytes. None where the log has not so many.
    pub fn entries(&self, index: u64, width: u16) -> Result<Option<Bytes>> {
        if self.row_of_tile(0, index, width).is_none() {
            return Ok(None);
        }
        let tiles = self.inner.following.tiles();
        Ok(Some(tiles.entry_bundle(index, u64::from(width))?.into()))
    }

    /// Checks that this history continues a checkpoint that the caller kept: nothing was taken back and
    /// nothing before it was changed. The checkpoint as of now.
    pub fn verify_continues(&self, pinned: &SignedNote) -> Result<SignedNote> {
        let old = self.policy()?.open(pinned)?;
        let note = self.checkpoint()?;
        let new = Checkpoint::parse(note.text())?;
        continues(&self.inner.following.tiles(), &old, &new)?;
        Ok(note)
    }
}

/// Checks by the tiles that one checkpoint continues another.
pub(super) fn continues(
    tiles: &chronolith_ledger::TileFiles,
    old: &Checkpoint,
    new: &Checkpoint,
) -> Result<()> {
    if old.size > new.size {
        return Err(chronolith_ledger::Error::Mismatch {
            what: "history (it was rolled back): the pinned checkpoint",
            revision: Some(new.revision() + 1),
        }
        .into());
    }
    let path = consistency_proof(tiles, old.size, new.size)?;
    let checked =
        chronolith_ledger::verify_consistency(old.size, &old.root, new.size, &new.root, &path);
    let forked = |_| {
        let what = "history (it was forked, or its tiles were changed): the pinned checkpoint";
        chronolith_ledger::Error::Mismatch { what, revision: None }
    };
    Ok(checked.map_err(forked)?)
}
