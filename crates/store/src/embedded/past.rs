//! Reading and restoring the past, and proving it: [`History`](crate::history::History) by the names that
//! a program expects of its database.

use super::{At, Difference, Error, Found, Progress, Report, Restored, Result, Store};
use crate::history::{History, past};
use bytes::Bytes;
use chronolith_ledger::{Bundle, Policy, ProofFile, SignedNote};
use chronolith_mvcc::KeyVersion;

impl Store {
    /// The revision that a moment means.
    pub fn resolve(&self, at: At) -> Result<i64> {
        past::resolve(&self.reader, at)
    }

    /// A key as it was.
    pub fn get_at(&self, key: impl Into<Bytes>, at: At) -> Result<Found> {
        past::get_at(&self.reader, key.into(), at)
    }

    /// The versions of a key, newest first.
    pub fn history(&self, key: impl AsRef<[u8]>, limit: usize) -> Result<Vec<KeyVersion>> {
        past::versions(&self.reader, key.as_ref(), (0, i64::MAX), limit)
    }

    /// What changed under a prefix from one moment to another, by key. A key that was set to what it
    /// was before differs too: its revision does.
    pub fn diff(&self, prefix: impl AsRef<[u8]>, from: At, to: At) -> Result<Vec<Difference>> {
        let page =
            past::diff(&self.reader, prefix.as_ref(), (from, to), &[], (usize::MAX, usize::MAX))?;
        Ok(page.differences)
    }

    /// Makes the keys under a prefix what they were. It writes one new revision; the past stays as it
    /// is. A dry run only says what would be written.
    pub fn restore_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        to: At,
        dry_run: bool,
    ) -> Result<Restored> {
        let plan = past::plan_restore(&self.reader, prefix.as_ref(), to)?;
        let revision = match dry_run || plan.writes.is_empty() {
            true => None,
            false => Some(self.write_if_unchanged(&plan)?),
        };
        Ok(Restored { to: plan.to, revision, writes: plan.writes })
    }

    /// What a verifier of this database needs: its public key. Get it once, over a way you trust.
    pub fn policy(&self) -> Result<Policy> {
        self.proven()?.policy()
    }

    /// The public key in the form that tlog tools read; none where no log is kept.
    pub fn verifier_key(&self) -> Option<String> {
        self.log().map(History::verifier_key)
    }

    /// Signs what the log holds now. Keep the answer somewhere else: whoever has it finds out when this
    /// history is changed, shortened or forked.
    pub fn checkpoint(&self) -> Result<SignedNote> {
        self.proven()?.checkpoint()
    }

    /// Proof of every version of a key that is still there, newest to oldest, each with its value.
    pub fn prove(&self, key: impl AsRef<[u8]>) -> Result<Bundle> {
        self.proven()?.prove_key(key.as_ref())
    }

    /// Proof that a revision's entry is in the log: a text in the format of C2SP tlog-proof.
    pub fn prove_revision(&self, revision: i64) -> Result<ProofFile> {
        self.proven()?.prove_revision(revision)
    }

    /// Proof of whole revisions, with all they did.
    pub fn prove_range(&self, from: i64, to: i64) -> Result<Bundle> {
        self.proven()?.prove_range(from, to)
    }

    /// Checks that this history continues a checkpoint that the caller kept: nothing was taken back and
    /// nothing before it was changed. The checkpoint as of now.
    pub fn verify_continues(&self, pinned: &SignedNote) -> Result<SignedNote> {
        self.proven()?.verify_continues(pinned)
    }

    /// Checks everything: each revision against the log, the log against its checkpoints and, where
    /// one was kept, against a pinned checkpoint. Writes of the same program should rest meanwhile.
    pub fn verify(&self, pinned: Option<&SignedNote>, progress: Progress<'_>) -> Result<Report> {
        self.proven()?.verify(pinned, progress)
    }
}

/// Says that a plan does not hold any more.
pub(super) fn overtaken() -> Error {
    Error::Invalid("something was written meanwhile: look again".to_owned())
}
