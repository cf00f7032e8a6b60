//! What can go wrong, and who must act.

use std::{io, sync::Arc};

/// Why a node does not start, or why it stopped for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operator: the disk under the log refuses.
    #[error("raft log {file}: {action} failed: {source}")]
    Io {
        /// The file in the log's directory.
        file: String,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The operator: bytes that were acknowledged do not read any more.
    #[error(
        "raft log {file}, offset {offset}: {what}. This is damage, not an interrupted write, so \
         nothing was repaired: restore this member from a snapshot or backup, or let it rejoin \
         with an empty data directory; keep the directory for examination"
    )]
    Corrupt {
        /// The file in the log's directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The operator: log and state machine are not of one member, or one of them went back in time.
    #[error("raft log and state do not belong together: {0}")]
    Mismatch(String),
    /// The developer or operator: the settings cannot work.
    #[error("raft settings: {0}")]
    Config(String),
    /// The state machine said no.
    #[error("state machine: {0}")]
    StateMachine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node stopped for good while it started.
    #[error("{0}")]
    Poisoned(Arc<str>),
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The client: try again later; nothing was proposed.
    #[error("too many proposals wait: try again later")]
    Overloaded,
    /// The client: ask the leader; nothing was proposed.
    #[error("this member is not the leader")]
    NotLeader {
        /// The leader, where it is known.
        leader: Option<u64>,
    },
    /// The client: the command exceeds the limit.
    #[error("the command has {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Of the command.
        size_bytes: usize,
        /// What fits.
        limit_bytes: usize,
    },
    /// The client: leadership was lost on the way; the command may or may not take effect.
    #[error("leadership was lost: the command may or may not take effect")]
    Unknown,
    /// The node was stopped.
    #[error("the node is stopped")]
    Stopped,
    /// The operator: the node stopped for good.
    #[error("{0}")]
    Poisoned(Arc<str>),
}

/// Why a read could not be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The client: try again later.
    #[error("too many reads wait: try again later")]
    Overloaded,
    /// The node was stopped.
    #[error("the node is stopped")]
    Stopped,
    /// The operator: the node stopped for good.
    #[error("{0}")]
    Poisoned(Arc<str>),
}
