//! What can go wrong in an engine, and who must act.

use std::path::PathBuf;

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An engine error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller named a column that this engine does not have.
    #[error("column {0} does not exist: create it with Engine::column")]
    UnknownColumn(u32),
    /// The engine was closed.
    #[error("the engine is closed: open it again")]
    Closed,
    /// An earlier write or sync failed; nothing more is written, since it could be lost silently.
    #[error(
        "the engine stopped after a failed write ({cause}): check the disk, then open it again"
    )]
    Poisoned {
        /// What failed first.
        cause: String,
    },
    /// A file does not hold what was written to it.
    #[error("{path} is corrupt: {what}; restore it from a checkpoint or a replica")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        what: String,
    },
    /// The directory is open in another process.
    #[error("{path} is in use by another process: stop that process, or choose another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The backend refused.
    #[error("storage backend: {0}")]
    Backend(String),
}
