//! What can go wrong, in etcd's words: clients match on the texts.

/// Result of an operation on versions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was refused. All but [`Error::Engine`] and [`Error::Corrupt`] are the
/// client's to mend, and are the same on every replica.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that is not there, or an empty transaction operation.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A put under a lease that does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// One transaction branch writes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// More operations or comparisons than a transaction may have.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// A sort order or target that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision lies before the last compaction.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// A value that the read needs was erased. The reader asks for a later revision, for fewer keys, or
    /// for keys without values.
    #[error(
        "mvcc: a value of the required revision has been erased: read a later revision, or leave the key out"
    )]
    Erased,
    /// The value that is to be erased is the key's current one.
    #[error(
        "mvcc: the current value of a key cannot be erased: put another value or delete the key first, then erase revision {revision}"
    )]
    StillCurrent {
        /// The revision of the current value.
        revision: i64,
    },
    /// Erasure would leave nothing that proves that something was there.
    #[error("mvcc: nothing can be erased: no log commits to the values")]
    NoCommitment,
    /// The answer would be larger than one may be. The client asks for less at once.
    #[error(
        "grpc: trying to send message larger than max (more than {max_bytes} bytes): ask for the range in pages, with a limit and from behind the last key of the page before"
    )]
    AnswerTooLarge {
        /// What an answer may take.
        max_bytes: usize,
    },
    /// The revision does not exist yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// A watch range that no key can lie in.
    #[error("mvcc: watcher range is empty")]
    EmptyWatchRange,
    /// A watcher needs events that a compaction removed; it has been cancelled.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    WatchCompacted {
        /// The compaction's revision: the oldest from which a watch can start again.
        compact_revision: i64,
    },
    /// No watcher of this id; it was cancelled.
    #[error("mvcc: watcher not found")]
    WatcherNotFound,
    /// Two threads catch up for one watcher; only one may.
    #[error("mvcc: another thread is catching up for this watcher")]
    CatchUpInProgress,
    /// The engine failed: the operator must act, the store stops.
    #[error(transparent)]
    Engine(#[from] chronolith_engine::Error),
    /// A stored record cannot be read back: restore from a checkpoint or a replica.
    #[error("stored {what} is corrupt: restore it from a checkpoint or a replica")]
    Corrupt {
        /// What was being read.
        what: &'static str,
    },
}
