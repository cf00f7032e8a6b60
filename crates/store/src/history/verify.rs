//! A whole database against its log and its signatures.
//!
//! Three things are compared: what the engine holds, the tiles, and the signed checkpoints. Every leaf
//! is computed from the values; every stored version must be one that a revision made.

use super::{
    Error, History, Result,
    follow::CATCH_UP_REVISIONS,
    notary::{all_notes, newest_note},
    proof::continues,
    remains::{entry_left, gone, has_stored_version},
};
use chronolith_ledger::{Audit, Checkpoint, Hash, Policy, SignedNote, TileFiles, revision_of_leaf};
use chronolith_mvcc::Reader;
use std::path::Path;

/// How far a verification is: revisions done, and revisions in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What a verification looked at, all of it proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The newest signed checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Revisions whose content, or what is left of it, was hashed again.
    pub revisions: u64,
    /// Revisions of which compaction left only the entry.
    pub hashes_only: u64,
    /// Operations of other revisions that compaction took, or took the value of.
    pub reduced: u64,
    /// Values that were erased; their hashes are in place.
    pub erased: u64,
    /// Versions of keys that were found in the engine.
    pub versions: u64,
    /// Revisions behind the newest checkpoint: they agree with the tiles, and nothing signs them yet.
    pub unsigned: u64,
}

/// What is verified: the log in a directory, and the revisions that it speaks of.
struct Subject<'a> {
    dir: &'a Path,
    reader: &'a Reader,
    policy: &'a Policy,
}

impl History {
    /// Checks everything: each revision against the log, the log against its checkpoints and, where
    /// one was kept, against a pinned checkpoint. Writes of the same program should rest meanwhile.
    pub fn verify(&self, pinned: Option<&SignedNote>, progress: Progress<'_>) -> Result<Report> {
        self.inner.following.wait_for(self.revision())?;
        self.inner.following.sync()?;
        verify_log(&self.inner.dir, &self.inner.reader, &self.policy()?, pinned, progress)
    }
}

/// Checks the revisions that `reader` reads against the log in `dir` (which holds `log.vkey` and
/// `tlog`), and the log against its checkpoints and a pinned one. It writes nothing.
pub fn verify_log(
    dir: &Path,
    reader: &Reader,
    policy: &Policy,
    pinned: Option<&SignedNote>,
    progress: Progress<'_>,
) -> Result<Report> {
    Subject { dir, reader, policy }.verify(pinned, progress)
}

impl Subject<'_> {
    fn verify(&self, pinned: Option<&SignedNote>, progress: Progress<'_>) -> Result<Report> {
        let tiles = TileFiles::at(self.dir.join("tlog"));
        let checkpoints = self.checkpoints()?;
        let newest = checkpoints.last().cloned();
        if let Some(pinned) = pinned {
            self.continues_pin(&tiles, pinned, newest.as_ref())?;
        }
        let mut audit = Audit::new(&tiles, tiles.size()?, checkpoints)?;
        let mut report = Report { checkpoint: newest, ..Report::default() };
        let operations = self.revisions(&mut audit, &mut report, progress)?;
        let signed = report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        report.unsigned = audit.size().saturating_sub(signed);
        audit.finish()?;
        self.versions(&mut report, operations)?;
        Ok(report)
    }

    /// All checkpoints, each signed, in the order of their sizes.
    fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut notes = all_notes(self.dir)?;
        notes.extend(newest_note(self.dir)?);
        let mut checkpoints: Vec<_> =
            notes.iter().map(|note| self.policy.open(note)).collect::<Result<_, _>>()?;
        checkpoints.sort_by_key(|checkpoint| checkpoint.size);
        checkpoints.dedup();
        Ok(checkpoints)
    }

    fn continues_pin(
        &self,
        tiles: &TileFiles,
        pinned: &SignedNote,
        newest: Option<&Checkpoint>,
    ) -> Result<()> {
        let old = self.policy.open(pinned)?;
        let missing = || {
            let what = "history (it has no checkpoint any more): the pinned checkpoint";
            chronolith_ledger::Error::Mismatch { what, revision: Some(2) }
        };
        continues(tiles, &old, newest.ok_or_else(missing)?)
    }

    /// Hands every revision to the audit; the number of operations seen.
    fn revisions(
        &self,
        audit: &mut Audit<'_>,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<u64> {
        let last = self.reader.current_revision();
        let (mut operations, bare) = (0, self.reader.bare_below()?);
        let mut next = audit.next_revision().cast_signed();
        while next <= last {
            let found = self.reader.remains(next, CATCH_UP_REVISIONS)?;
            if found.is_empty() {
                break;
            }
            for remains in found {
                self.compacted(audit, report, (next, remains.revision))?;
                next = remains.revision + 1;
                let of_versions = |remnant: &&_| has_stored_version(remnant);
                let bare = remains.revision < bare;
                operations += match bare {
                    true => 0,
                    false => remains.changes.iter().filter(of_versions).count() as u64,
                };
                let leaf = entry_left(&remains).map(|entry| Hash::of_leaf(&entry.encode()));
                if leaf.is_none() && !bare {
                    return Err(missing_version(remains.revision));
                }
                audit.leaf(remains.revision.cast_unsigned(), leaf)?;
                let (erased, reduced) = gone(&remains);
                report.revisions += 1;
                report.erased += erased;
                report.reduced += reduced;
            }
            progress((next - 2).cast_unsigned(), (last - 1).cast_unsigned());
        }
        self.ends_where_the_log_ends(audit)?;
        Ok(operations)
    }

    /// Revisions of which compaction left nothing: their entries beside the tiles stand for them.
    fn compacted(
        &self,
        audit: &mut Audit<'_>,
        report: &mut Report,
        (from, to): (i64, i64),
    ) -> Result<()> {
        for revision in from..to {
            if revision >= self.reader.compact_revision() {
                let what = "the row of revisions: one is missing";
                let revision = Some(revision.cast_unsigned());
                return Err(chronolith_ledger::Error::Mismatch { what, revision }.into());
            }
            audit.leaf(revision.cast_unsigned(), None)?;
            report.hashes_only += 1;
        }
        Ok(())
    }

    fn ends_where_the_log_ends(&self, audit: &Audit<'_>) -> Result<()> {
        let logged = TileFiles::at(self.dir.join("tlog")).size()?;
        if logged <= audit.size() {
            return Ok(());
        }
        let what = "end of the history: revisions are missing, and the log";
        let revision = Some(revision_of_leaf(audit.size()));
        Err(chronolith_ledger::Error::Mismatch { what, revision }.into())
    }

    /// Every stored version must be one that a logged revision made, and none may be doubled.
    fn versions(&self, report: &mut Report, operations: u64) -> Result<()> {
        let (mut logged, mut newest, bare) = (0, 0, self.reader.bare_below()?);
        self.reader.each_version(|_, revision, _| {
            report.versions += 1;
            logged += u64::from(revision >= bare);
            newest = newest.max(revision);
            Ok(())
        })?;
        if logged <= operations && newest <= self.reader.current_revision() {
            return Ok(());
        }
        let what = "stored versions (there are more than the revisions made): the log";
        Err(chronolith_ledger::Error::Mismatch { what, revision: None }.into())
    }
}

fn missing_version(revision: i64) -> Error {
    let what = "stored version (it is gone): the log";
    chronolith_ledger::Error::Mismatch { what, revision: Some(revision.cast_unsigned()) }.into()
}
