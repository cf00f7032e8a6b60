//! What a history answers instead of a result.

use chronolith_ledger::Verdict;
use std::{io, path::PathBuf};

/// Result of a history's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request or the revision it names: the caller must change it.
    #[error(transparent)]
    Request(#[from] chronolith_mvcc::Error),
    /// The log, a proof or a check of either.
    #[error(transparent)]
    Ledger(#[from] chronolith_ledger::Error),
    /// The engine: the operator must look at the disk.
    #[error(transparent)]
    Engine(#[from] chronolith_engine::Error),
    /// A file: the operator must look at the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file was changed by something else: restore it, or ask `chronolith verify` what is missing.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The first revision known to be concerned.
        revision: Option<u64>,
    },
    /// Somebody else has the database open.
    #[error("{0}: the database is in use by another process")]
    InUse(PathBuf),
    /// Revisions that the log does not have were compacted while no log was kept.
    #[error(
        "{path}: the log of the history ends at revision {logged}, and revisions up to {compacted} were compacted \
         without it: go on without verification, or begin a new database from a snapshot"
    )]
    Gap {
        /// The directory of the log.
        path: PathBuf,
        /// The log's last revision.
        logged: u64,
        /// The compact revision.
        compacted: i64,
    },
    /// A name or a size that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// An earlier failure stopped this database: open it again.
    #[error("the database has stopped: {0}")]
    Stopped(String),
}

impl Error {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// What this says about the history.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Ledger(error) => error.verdict(),
            Self::Damaged { .. }
            | Self::Engine(chronolith_engine::Error::Corrupt { .. })
            | Self::Request(
                chronolith_mvcc::Error::Corrupt { .. }
                | chronolith_mvcc::Error::Engine(chronolith_engine::Error::Corrupt { .. }),
            ) => Verdict::Tampered,
            _ => Verdict::Unverifiable,
        }
    }

    /// The first revision known to be bad.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self {
            Self::Ledger(error) => error.revision(),
            Self::Damaged { revision, .. } => *revision,
            _ => None,
        }
    }
}
