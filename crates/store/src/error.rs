//! What can go wrong, for the operator ([`OpenError`]) and for the client ([`StoreError`]).
//!
//! Clients match on etcd's gRPC codes and texts, so a [`StoreError`] keeps both wherever etcd has
//! the same case.

use std::{path::PathBuf, sync::Arc};

/// Why a store could not be opened. All of them are the operator's to mend; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process works on the directory.
    #[error(
        "{path} is in use by another process{holder}: stop that process, or choose another --data-dir"
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// ` (process 4711)` where known.
        holder: String,
    },
    /// The directory holds files, but not ours.
    #[error(
        "{path} holds {found:?} but no Chronolith data: choose an empty or a new directory with --data-dir"
    )]
    ForeignDirectory {
        /// The data directory.
        path: PathBuf,
        /// One of the strange files.
        found: String,
    },
    /// The identity file does not read.
    #[error(
        "{path} is damaged ({what}): restore the directory from a backup, or start with a new one"
    )]
    DamagedIdentity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a later Chronolith.
    #[error("{path} has format {found}, this build reads up to {supported}: use a newer build")]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// The directory's format.
        found: u32,
        /// The newest format that this build reads.
        supported: u32,
    },
    /// The directory was created with the other engine.
    #[error(
        "{path} was created with --engine {found}, not {wanted}: start with --engine {found}, or choose another --data-dir"
    )]
    OtherEngine {
        /// The data directory.
        path: PathBuf,
        /// The engine that it was created with.
        found: String,
        /// The engine that was asked for.
        wanted: String,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{path} belongs to the cluster {found:?}, not {wanted:?}: choose the right --data-dir or --initial-cluster-token"
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: String,
        /// The cluster that was asked for.
        wanted: String,
    },
    /// This build lacks the engine.
    #[error(
        "this build has no {0} engine: build with `--features rocksdb`, or use --engine memory"
    )]
    EngineNotBuilt(&'static str),
    /// The log was there at an earlier start.
    #[error(
        "{path} is empty, but what was acknowledged stood there: put it back, restore the data directory from a backup, or start with a new one"
    )]
    MissingLog {
        /// The directory of the log.
        path: PathBuf,
    },
    /// No checkpoint is whole, and the log does not reach back to the beginning.
    #[error(
        "no usable checkpoint in {path} ({what}), and the log does not hold what they held: \
         restore the data directory from a backup or start with a new one"
    )]
    NoUsableCheckpoint {
        /// The directory of checkpoints.
        path: PathBuf,
        /// What was wrong with the newest.
        what: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The engine could not be opened.
    #[error("engine: {0}")]
    Engine(#[from] chronolith_engine::Error),
    /// The stored versions could not be opened.
    #[error("versions: {0}")]
    Versions(#[from] chronolith_mvcc::Error),
    /// The log that proves the history could not be opened, or does not fit the data.
    #[error("history: {0}")]
    History(#[from] crate::history::Error),
    /// The log could not be opened, or does not fit the data.
    #[error("{0}")]
    Raft(#[from] chronolith_raft::Error),
    /// A record of the store's own does not read.
    #[error("stored {what} is corrupt: restore the data directory from a backup")]
    CorruptRecord {
        /// Which record.
        what: &'static str,
    },
}

/// gRPC's status codes, as far as the store answers with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Nobody knows better.
    Unknown = 2,
    /// The request makes no sense, whatever the state.
    InvalidArgument = 3,
    /// What was named does not exist.
    NotFound = 5,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The request does not fit the state.
    FailedPrecondition = 9,
    /// Beyond what there is, like a compacted revision.
    OutOfRange = 11,
    /// A bug or a failed device here.
    Internal = 13,
    /// Not now; try again or elsewhere.
    Unavailable = 14,
    /// Stored data is damaged.
    DataLoss = 15,
}

/// Why a request was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Refused by the version store: the client must change the request.
    #[error(transparent)]
    Request(Arc<chronolith_mvcc::Error>),
    /// The lease is not there (any more).
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of this id is there already.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// The time to live is beyond 9,000,000,000 seconds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The quota is used up: delete and compact, then disarm the NOSPACE alarm.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is on: replicas differ, an operator must act.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// The request is beyond `--max-request-bytes`.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// As many requests wait as may: try again later.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// There is no leader at the moment: try again.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Another member leads.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// The leader changed while the request was under way; it may or may not have been applied.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// What a plan to restore a prefix was made for has changed: plan again.
    #[error("chronolith: something under the prefix changed since the plan was made: plan again")]
    Overtaken,
    /// An erasure without a reason.
    #[error("chronolith: an erasure needs a reason, for whoever reads the audit trail: give one")]
    NoReason,
    /// The store shuts down.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The member stopped after a failed write or a bug; an operator must look at it.
    #[error("chronolith: this member stopped, since it can no longer vouch for its data: {cause}")]
    Poisoned {
        /// What failed first.
        cause: String,
    },
    /// The file system does not say how much is free, so nobody knows whether a write would be its last;
    /// an operator must look at it.
    #[error("chronolith: cannot tell the free space of the data directory: {0}")]
    UnknownSpace(Arc<std::io::Error>),
    /// Reading failed.
    #[error("chronolith: {0}")]
    Storage(String),
}

impl StoreError {
    /// The gRPC code and the text that etcd answers with.
    #[must_use]
    pub fn status(&self) -> (Code, String) {
        (self.code(), self.to_string())
    }

    /// The gRPC code that etcd answers with.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => request_code(error),
            Self::LeaseNotFound => Code::NotFound,
            Self::LeaseExists | Self::NotLeader | Self::Overtaken => Code::FailedPrecondition,
            Self::LeaseTtlTooLarge => Code::OutOfRange,
            Self::NoSpace | Self::TooManyRequests => Code::ResourceExhausted,
            Self::RequestTooLarge | Self::NoReason => Code::InvalidArgument,
            Self::Corrupt => Code::DataLoss,
            Self::NoLeader | Self::LeaderChanged | Self::Stopped | Self::Poisoned { .. } => {
                Code::Unavailable
            }
            Self::UnknownSpace(_) | Self::Storage(_) => Code::Internal,
        }
    }
}

fn request_code(error: &chronolith_mvcc::Error) -> Code {
    use chronolith_mvcc::Error;
    match error {
        Error::LeaseNotFound => Code::NotFound,
        Error::Compacted | Error::Erased | Error::FutureRevision | Error::WatchCompacted { .. } => {
            Code::OutOfRange
        }
        Error::StillCurrent { .. } => Code::FailedPrecondition,
        Error::AnswerTooLarge { .. } => Code::ResourceExhausted,
        Error::Engine(_) | Error::Corrupt { .. } => Code::Internal,
        _ => Code::InvalidArgument,
    }
}
