//! What can go wrong in an engine, and who must act.

use std::path::{Path, PathBuf};

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
    /// A key, a value or a batch beyond its limit: the caller must split it.
    #[error("{what} has {size_bytes} bytes, the limit is {limit_bytes}: split it")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Records to ingest were not in ascending order of their keys, each key once: sort them.
    #[error("record {position} to ingest is not above its predecessor: sort the records")]
    NotAscending {
        /// The first record out of order, counted from 0.
        position: u64,
    },
    /// The backend refused.
    #[error("storage backend: {0}")]
    Backend(String),
}

impl Error {
    /// The same error, about files in `dir` where it names those of a copy.
    #[must_use]
    pub fn about(self, copy: &Path, dir: &Path) -> Self {
        let copy = copy.canonicalize().unwrap_or_else(|_| copy.to_owned());
        let path =
            |path: PathBuf| path.strip_prefix(&copy).map_or(path.clone(), |name| dir.join(name));
        let text = |text: String| text.replace(&*copy.to_string_lossy(), &dir.to_string_lossy());
        match self {
            Self::Corrupt { path: at, what } => Self::Corrupt { path: path(at), what: text(what) },
            Self::Io { path: at, source } => Self::Io { path: path(at), source },
            Self::Backend(what) => Self::Backend(text(what)),
            other => other,
        }
    }
}
