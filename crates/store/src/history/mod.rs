//! A history that can be read, compared, brought back and proven; of an embedded database as of a
//! served one.
//!
//! ```text
//! run of mvcc ─ commit ─▶ Applied ─▶ queue ─▶ follower: one leaf a revision ─▶ tiles ─▶ checkpoints
//!      │                                                                        │
//!      └──▶ versions, revision log ─▶ past: get at, versions, diff, plan        └─▶ proofs, tile reads
//! ```
//! ```text
//! DIR/  log.key (secret)  log.vkey
//!       tlog/  L0 L1 … state  checkpoint (the newest)  checkpoints (those that are kept)
//! ```
//! Invariants:
//! * Every applied revision becomes a leaf, whatever its size, off the path of the write. What a crash
//!   cost is computed again from the revision log, which holds all that a leaf commits to.
//! * The log is never declared complete beyond what is durable of the revisions, and no checkpoint
//!   speaks of more. A history shorter than its own checkpoint, or than its tiles, is not opened.
//! * A follower that failed stops the writes: a later one is told the cause.

mod error;
mod follow;
mod notary;
pub(crate) mod past;
mod proof;
mod prover;
mod queue;
mod remains;
mod verify;

pub use chronolith_mvcc::KeyVersion;
pub use error::{Error, Result};
pub(crate) use follow::MakeDurable;
pub(crate) use notary::{Cadence, newest_signed, signing_key};
pub use past::{At, DiffPage, Difference, Found, RestorePlan, Restored};
pub(crate) use prover::Prover;
pub use prover::Shown;
pub(crate) use remains::LedgerCommitment;
pub use verify::{Progress, Report, verify_log};

use bytes::Bytes;
use chronolith_ledger::{Checkpoint, SigningKey, leaf_index};
use chronolith_mvcc::{Applied, Reader};
use follow::Following;
use notary::Notary;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
}

/// The history of one database. Cheap to clone; all calls may wait for the disk, so call them from a
/// thread that may block.
#[derive(Clone)]
pub struct History {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    reader: Reader,
    notary: Arc<Notary>,
    following: Following,
}

impl History {
    /// Opens the log in `dir`, and appends what it lacks of the revisions.
    pub(crate) fn open(
        dir: &Path,
        key: SigningKey,
        reader: Reader,
        make_durable: MakeDurable,
        cadence: Option<Cadence>,
    ) -> Result<Self> {
        let tlog = dir.join("tlog");
        fs::create_dir_all(&tlog).map_err(Error::io(&tlog))?;
        let notary = Arc::new(Notary::open(dir, key, cadence)?);
        let following = Following::open(&tlog, &reader, make_durable, Arc::clone(&notary))?;
        let history =
            Self { inner: Arc::new(Inner { dir: dir.to_owned(), reader, notary, following }) };
        history.refuse_a_shortened_history()?;
        Ok(history)
    }

    /// Rollback protection by what lies in the directory itself; a pinned checkpoint does more.
    fn refuse_a_shortened_history(&self) -> Result<()> {
        let Some(note) = self.newest_checkpoint()? else { return Ok(()) };
        let checkpoint = self.policy()?.open(&note)?;
        let revision = self.revision().cast_unsigned();
        if leaf_index(revision + 1).is_none_or(|size| size < checkpoint.size) {
            return Err(self.shortened(revision, &checkpoint));
        }
        Ok(())
    }

    fn shortened(&self, revision: u64, checkpoint: &Checkpoint) -> Error {
        let signed = checkpoint.revision();
        Error::Damaged {
            path: self.inner.dir.clone(),
            what: format!(
                "the history ends at revision {revision}, its signed checkpoint at {signed}"
            ),
            revision: Some(revision + 1),
        }
    }

    /// Appends what was applied since it was opened, before the first run is handed over.
    pub(crate) fn catch_up(&self) -> Result<()> {
        self.inner.following.catch_up(&self.inner.reader, &self.inner.dir.join("tlog"))
    }

    /// The last revision that is in the log on the disk.
    pub(crate) fn synced(&self) -> i64 {
        self.inner.following.synced()
    }

    /// Takes a committed run. The caller holds the writer's lock, so that runs come in their order.
    pub(crate) fn follow(&self, applied: Applied) -> Result<()> {
        self.inner.following.send(applied)
    }

    /// Appends everything that is applied by now, and puts the log on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.inner.following.wait_for(self.revision())?;
        self.inner.following.sync().map(drop)
    }

    /// The last thing: what was applied is in the log, signed if checkpoints are signed unasked, and on
    /// the disk.
    pub(crate) fn close(&self) -> Result<()> {
        let synced = self.sync();
        let signed = synced.and_then(|()| match self.inner.notary.signs_unasked() {
            true => self.checkpoint().map(drop),
            false => Ok(()),
        });
        self.inner.following.stop();
        signed
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.inner.reader.current_revision()
    }

    /// The last revision that is in the log: proofs reach up to here without waiting.
    #[must_use]
    pub fn watermark(&self) -> i64 {
        self.inner.following.watermark()
    }

    /// Time since the newest checkpoint was signed, or was found at the start; none where nothing is
    /// signed yet.
    #[must_use]
    pub fn checkpoint_age(&self) -> Option<Duration> {
        self.inner.notary.age()
    }

    /// The revision that a moment means.
    pub fn resolve(&self, at: At) -> Result<i64> {
        past::resolve(&self.inner.reader, at)
    }

    /// A key as it was.
    pub fn get_at(&self, key: &[u8], at: At) -> Result<Found> {
        past::get_at(&self.inner.reader, Bytes::copy_from_slice(key), at)
    }

    /// The versions that revisions from `from` to `to` made of a key, newest first.
    pub fn versions(
        &self,
        key: &[u8],
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<KeyVersion>> {
        past::versions(&self.inner.reader, key, (from, to), limit)
    }

    /// What changed under a prefix from one moment to another, by key, behind `after_key`. A key that
    /// was set to what it was before differs too: its revision does.
    pub fn diff(
        &self,
        prefix: &[u8],
        from: At,
        to: At,
        after_key: &[u8],
        limit: usize,
    ) -> Result<DiffPage> {
        self.diff_within(prefix, (from, to), after_key, (limit, usize::MAX))
    }

    /// The same, with at most so many differences and so many bytes of keys and values (one difference,
    /// if the first is larger).
    pub fn diff_within(
        &self,
        prefix: &[u8],
        moments: (At, At),
        after_key: &[u8],
        limit_and_bytes: (usize, usize),
    ) -> Result<DiffPage> {
        past::diff(&self.inner.reader, prefix, moments, after_key, limit_and_bytes)
    }

    /// What it takes to make the keys under a prefix what they were. Nothing is written.
    pub fn plan_restore(&self, prefix: &[u8], to: At) -> Result<RestorePlan> {
        past::plan_restore(&self.inner.reader, prefix, to)
    }
}
