//! Checkpoints and proofs of a database.

use super::{
    Error, Result, Store,
    follow::{Applied, Following, is_whole, salt},
    store::write_whole,
};
use chronolith_ledger::{
    Bundle, Checkpoint, Policy, ProofFile, ProvenOp, ProvenRevision, SignedNote, consistency_proof,
    inclusion_proof, leaf_index,
};
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

/// Stands between the notes of `checkpoints`; no line of a note is like it.
const BETWEEN: &str = "====\n";

/// Versions of a key that one bundle shows.
const MAX_PROVEN_VERSIONS: usize = 100_000;

impl Store {
    pub(super) fn following(&self) -> Result<&Following> {
        let missing = || Error::Invalid("the database was opened without its log".to_owned());
        self.following.as_ref().ok_or_else(missing)
    }

    /// What a verifier of this database needs: its public key. Get it once, over a way you trust.
    pub fn policy(&self) -> Result<Policy> {
        Ok(Policy::log_only(self.key.verifier().clone())?)
    }

    /// The public key in the form that tlog tools read.
    pub fn verifier_key(&self) -> String {
        self.key.verifier().to_string()
    }

    /// Signs what the log holds now. Keep the answer somewhere else: whoever has it finds out when this
    /// history is changed, shortened or forked.
    pub fn checkpoint(&self) -> Result<SignedNote> {
        let following = self.following()?;
        following.wait_for(self.revision())?;
        let (size, root) = following.sync(&*self.engine)?;
        if let Some(newest) = newest_note(&self.dir)?
            && Checkpoint::parse(newest.text())?.size == size
        {
            return Ok(newest);
        }
        let origin = self.key.verifier().name().to_owned();
        let note = Checkpoint { origin, size, root }.sign(&self.key)?;
        append_note(&self.dir, &note)?;
        Ok(note)
    }

    /// Proof that a revision's entry is in the log: a text in the format of C2SP tlog-proof.
    pub fn prove_revision(&self, revision: i64) -> Result<ProofFile> {
        let checkpoint = self.checkpoint()?;
        let ProvenRevision { entry, path, .. } = self.proven(revision, &checkpoint, |_| false)?;
        Ok(ProofFile { entry, path, checkpoint })
    }

    /// Proof of every version of a key that is still there, newest to oldest, each with its value.
    pub fn prove(&self, key: impl AsRef<[u8]>) -> Result<Bundle> {
        let key = key.as_ref();
        let versions = self.history(key, MAX_PROVEN_VERSIONS)?;
        let mut revisions: Vec<_> = versions.iter().map(|version| version.revision).collect();
        revisions.sort_unstable();
        revisions.dedup();
        self.prove_revisions(&revisions, |changed| changed == key)
    }

    /// Proof of whole revisions, with all they did.
    pub fn prove_range(&self, from: i64, to: i64) -> Result<Bundle> {
        let revisions: Vec<_> = (from.max(2)..=to.min(self.revision())).collect();
        self.prove_revisions(&revisions, |_| true)
    }

    fn prove_revisions(&self, revisions: &[i64], shown: impl Fn(&[u8]) -> bool) -> Result<Bundle> {
        let checkpoint = self.checkpoint()?;
        let proven = |revision: &i64| self.proven(*revision, &checkpoint, &shown);
        let revisions = revisions.iter().map(proven).collect::<Result<_>>()?;
        Ok(Bundle { checkpoint, revisions })
    }

    fn proven(
        &self,
        revision: i64,
        checkpoint: &SignedNote,
        shown: impl Fn(&[u8]) -> bool,
    ) -> Result<ProvenRevision> {
        let size = Checkpoint::parse(checkpoint.text())?.size;
        let following = self.following()?;
        let mut found = self.reader.changes(revision, 1)?;
        let revised = found.pop().filter(|found| found.revision == revision);
        let revised = revised.ok_or(chronolith_mvcc::Error::FutureRevision)?;
        if !is_whole(&revised) {
            return Err(chronolith_mvcc::Error::Compacted.into());
        }
        let salt = salt(&*self.engine, following.salts, revision)?;
        let index =
            leaf_index(revision.cast_unsigned()).ok_or(chronolith_mvcc::Error::Compacted)?;
        let path = inclusion_proof(&following.tiles(), index, size)?;
        Applied::read(revised, salt).with(|revision| {
            let leaf = revision.leaf();
            let hashes = &leaf.op_hashes[..];
            let op = |position: usize| -> Result<ProvenOp> {
                Ok(ProvenOp {
                    position: u32::try_from(position).expect("operations are limited"),
                    path: inclusion_proof(hashes, position as u64, hashes.len() as u64)?,
                    record: revision.record(position).encode(),
                    value: Some(revision.ops[position].value.to_vec()),
                })
            };
            let positions = (0..revision.ops.len()).filter(|at| shown(revision.ops[*at].key));
            Ok(ProvenRevision {
                entry: leaf.entry,
                path,
                ops: positions.map(op).collect::<Result<_>>()?,
            })
        })
    }

    /// Checks that this history continues a checkpoint that the caller kept: nothing was taken back and
    /// nothing before it was changed. The checkpoint as of now.
    pub fn verify_continues(&self, pinned: &SignedNote) -> Result<SignedNote> {
        let old = self.policy()?.open(pinned)?;
        let note = self.checkpoint()?;
        let new = Checkpoint::parse(note.text())?;
        continues(&self.following()?.tiles(), &old, &new)?;
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
    Ok(checked?)
}

/// The newest signed checkpoint.
pub(super) fn newest_note(dir: &Path) -> Result<Option<SignedNote>> {
    let path = dir.join("tlog/checkpoint");
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    Ok(Some(SignedNote::parse(&bytes)?))
}

/// All signed checkpoints that were kept; what a crash cut off at the end is left out.
pub(super) fn all_notes(dir: &Path) -> Result<Vec<SignedNote>> {
    let path = dir.join("tlog/checkpoints");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let text = String::from_utf8(text).map_err(|_| chronolith_ledger::Error::Malformed {
        what: "checkpoints",
        why: "not UTF-8",
    })?;
    let mut notes: Vec<_> = text.split(BETWEEN).collect();
    notes.pop();
    Ok(notes
        .into_iter()
        .map(|note| SignedNote::parse(note.as_bytes()))
        .collect::<Result<_, _>>()?)
}

fn append_note(dir: &Path, note: &SignedNote) -> Result<()> {
    let path = dir.join("tlog/checkpoints");
    let append = || {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(format!("{note}{BETWEEN}").as_bytes())?;
        file.sync_data()
    };
    append().map_err(Error::io(&path))?;
    write_whole(&dir.join("tlog/checkpoint"), 0o644, &note.to_string())
}
