//! What keeps a verb from its answer, and which exit code says so.

use chronolith_ledger::Verdict;
use std::path::Path;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What the server showed contradicts its proof, its signature or the pinned checkpoint.
    #[error("tampered: {0}")]
    Tampered(String),
    /// Nothing was decided: something is missing, or the server could not be asked.
    #[error("{0}")]
    Undecided(String),
    /// Whoever reads our output has seen enough.
    #[error("nobody reads the output")]
    OutputClosed,
}

impl Failure {
    pub(crate) fn undecided(why: impl Into<String>) -> Self {
        Self::Undecided(why.into())
    }

    /// A local file that could not be read or written.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| Self::Undecided(format!("{}: {error}", path.display()))
    }

    /// The exit code. A verb that verifies answers as `chronolith verify` does: 1 is tampered, 2 is
    /// undecided. Every other verb has only 1 for failed.
    pub(crate) fn exit_code(&self, verifies: bool) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Tampered(_) => Verdict::Tampered.exit_code(),
            Self::Undecided(_) if verifies => Verdict::Unverifiable.exit_code(),
            Self::Undecided(_) => 1,
        }
    }
}

impl From<chronolith_ledger::Error> for Failure {
    fn from(error: chronolith_ledger::Error) -> Self {
        match error.verdict() {
            Verdict::Tampered => Self::Tampered(error.to_string()),
            Verdict::Unverifiable | Verdict::Proven => Self::Undecided(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_verify() {
        let tampered = Failure::Tampered(String::new());
        let undecided = Failure::undecided("");
        assert_eq!((tampered.exit_code(true), undecided.exit_code(true)), (1, 2));
        assert_eq!((tampered.exit_code(false), undecided.exit_code(false)), (1, 1));
        assert_eq!(Failure::OutputClosed.exit_code(true), 0);
    }
}
