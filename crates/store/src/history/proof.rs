//! Checkpoints and proofs of a history.

use super::{
    History, Result,
    notary::newest_note,
    prover::{Prover, Shown},
};
use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, Entries, Hash, MAX_BUNDLE_BYTES, Policy, ProofFile, SignedNote, TILE_WIDTH,
    consistency_proof, leaf_index,
};

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
        self.prover(checkpoint)?.proof_file(revision)
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
        self.prover(checkpoint)?.prove(shown, max_bytes)
    }

    /// Proofs need no follower, only that the log has what the checkpoint speaks of.
    fn prover(&self, checkpoint: SignedNote) -> Result<Prover<'_>> {
        Prover::new(&self.inner.reader, self.inner.following.tiles(), checkpoint)
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
