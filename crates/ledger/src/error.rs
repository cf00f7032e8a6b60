//! What can go wrong, and what it says about the history.

use std::{io, path::PathBuf};

/// Result of the ledger's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not in the one encoding the format has. The sender must make them again.
    #[error("{what}: malformed: {why}")]
    Malformed {
        /// The format.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Data and proof contradict each other: somebody changed one of them.
    #[error("{what} does not match{}", at(*.revision))]
    Mismatch {
        /// What does not match what.
        what: &'static str,
        /// The first revision known to be concerned.
        revision: Option<u64>,
    },
    /// A signature of a trusted key does not fit the text.
    #[error("the signature of {name} is not valid")]
    Signature {
        /// Name of the key.
        name: String,
    },
    /// The reader must supply something before this can be decided.
    #[error("cannot be verified: {0}")]
    Unverifiable(String),
    /// The caller asked for a proof outside the tree.
    #[error("there is no leaf {index} in a tree of {size}")]
    OutOfTree {
        /// The leaf asked for.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The leaf was pruned: what was kept begins later. Ask for a later one, or a log that was not pruned.
    #[error("leaf {index} was pruned: the log is kept from leaf {min_index} on")]
    Pruned {
        /// The leaf asked for.
        index: u64,
        /// The first one that is kept.
        min_index: u64,
    },
    /// A run was handed to the follower out of order. The caller must send the revisions in order.
    #[error("the ledger expects revision {expected}, not {given}")]
    OutOfOrder {
        /// The next revision the ledger can take.
        expected: u64,
        /// The one it was given.
        given: u64,
    },
    /// Tile files could not be read or written. The operator must look at the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn at(revision: Option<u64>) -> String {
    revision.map(|revision| format!(" at revision {revision}")).unwrap_or_default()
}

/// What a verification found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was looked at is what the signed checkpoint says.
    Proven,
    /// Something was changed.
    Tampered,
    /// There is too little to decide.
    Unverifiable,
}

impl Verdict {
    /// Exit code of `chronolith verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Proven => 0,
            Self::Tampered => 1,
            Self::Unverifiable => 2,
        }
    }
}

impl Error {
    /// What this error says about the history.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Malformed { .. } | Self::Mismatch { .. } | Self::Signature { .. } => {
                Verdict::Tampered
            }
            _ => Verdict::Unverifiable,
        }
    }

    /// The first revision known to be bad.
    pub fn revision(&self) -> Option<u64> {
        match self {
            Self::Mismatch { revision, .. } => *revision,
            _ => None,
        }
    }

    pub(crate) fn mismatch(what: &'static str) -> Self {
        Self::Mismatch { what, revision: None }
    }

    /// The same error, with the revision where it was found.
    #[must_use]
    pub fn at_revision(self, found: u64) -> Self {
        match self {
            Self::Mismatch { what, revision: None } => {
                Self::Mismatch { what, revision: Some(found) }
            }
            Self::Malformed { why, .. } => Self::Mismatch { what: why, revision: Some(found) },
            other => other,
        }
    }
}
