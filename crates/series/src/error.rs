//! One error type. Every variant says who must act, and nothing stored is lost by any of them.

use std::path::PathBuf;
use std::time::Duration;

use crate::point::SeriesId;

/// What can go wrong, and whose turn it is then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller named a series that was never registered, or was removed.
    #[error("series {0} is not registered: register it first")]
    UnknownSeries(SeriesId),
    /// The caller sent a time that delta arithmetic could not hold.
    #[error("time {0} is out of range: use times between -2^60 and 2^60")]
    TimeOutOfRange(i64),
    /// The caller sent a point that retention would remove at once.
    #[error("time {time} is older than retention keeps (from {keeps_from})")]
    TooOld {
        /// The time that was sent.
        time: i64,
        /// The oldest time that is kept.
        keeps_from: i64,
    },
    /// Memory is full and the caller chose not to wait longer: free memory, or raise the budget.
    #[error("memory budget of {limit_bytes} bytes is full (waited {waited:?}): nothing was stored")]
    BudgetFull {
        /// The budget.
        limit_bytes: u64,
        /// How long the call waited before it gave up.
        waited: Duration,
    },
    /// A single request is larger than the whole budget: the budget must be raised.
    #[error("{wanted_bytes} bytes can never fit in a budget of {limit_bytes} bytes")]
    NeverFits {
        /// What the request needs.
        wanted_bytes: u64,
        /// The budget.
        limit_bytes: u64,
    },
    /// The caller registers more series than the limit allows.
    #[error("no more than {0} series: raise `max_series`, or remove series")]
    TooManySeries(u32),
    /// The caller sent labels that break a limit.
    #[error("labels refused: {0}")]
    Labels(String),
    /// The caller gave a row of another width than the group has.
    #[error("a row of {got} values for a group of {expected} series")]
    RowWidth {
        /// Series in the group.
        expected: usize,
        /// Values in the row.
        got: usize,
    },
    /// A group holds at least one series, each once.
    #[error("group refused: {0}")]
    Group(&'static str),
    /// A writer did not release its series in time: try again, or drop the writer.
    #[error("series {0} is owned by a writer that did not let go in time")]
    Busy(SeriesId),
    /// The operating system gave no memory, or a file operation failed: the operator must act.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is damaged: restore it from a backup, or move it away and lose what it held.
    #[error("{file} is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What does not hold.
        what: String,
    },
    /// Another process has the directory open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// An earlier write to disk failed. Memory is intact and readable, but nothing more can become durable,
    /// so nothing more is taken: mend the disk, then open the index again.
    #[error("durability stopped after an earlier failure, open the index again: {0}")]
    Poisoned(String),
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}
