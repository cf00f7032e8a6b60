//! What can go wrong, and who must act.

use std::{io, path::PathBuf};

/// Result of the audit log's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the audit log cannot be opened, read or verified. The operator must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes this log.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The policy file makes no sense. Line 0 is the file as a whole.
    #[error("audit policy {}, line {line}: {why}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The log is not the one that was written. It is not continued: that would bury the evidence.
    #[error(
        "the audit log in {} was changed: {why}. It is kept as it is; look into it with `chronolith \
         ctl audit verify`, then move the directory away to begin a new log", dir.display()
    )]
    Changed {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Hashes, proofs, checkpoints, keys.
    #[error(transparent)]
    Ledger(#[from] chronolith_ledger::Error),
    /// The writer is gone or can write no more; see the log for the first failure.
    #[error("the audit log is not being written: {0}")]
    Stopped(String),
}

impl Error {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Why a request may not be served: its event would be lost (`fail-closed` only).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue is at its limit. The client may try again.
    #[error(
        "chronolith: the audit queue is full (limit {limit} events, --audit-queue-events) and \
         --audit-fail-mode is closed: nothing was done, try again later"
    )]
    Full {
        /// Events that it holds.
        limit: usize,
    },
    /// The log cannot be written. The operator must act.
    #[error(
        "chronolith: the audit log cannot be written ({cause}) and --audit-fail-mode is closed: nothing \
         was done; the operator must mend it, or serve with --audit-fail-mode open"
    )]
    NotWritten {
        /// What failed.
        cause: String,
    },
}

/// An event was taken in, but is not known to be on the disk (`fail-closed` only).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "chronolith: the request was carried out, but its audit event could not be written ({cause}): the \
     operator must mend the audit log"
)]
pub struct NotDurable {
    /// What failed.
    pub cause: String,
}
