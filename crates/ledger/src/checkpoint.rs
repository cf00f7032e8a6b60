//! Checkpoints (C2SP tlog-checkpoint): the log's name, its size and its root, signed.

use crate::{Error, Hash, KeyKind, Result, SignedNote, SigningKey, VerifierKey};
use std::fmt;

/// What a log says it holds.
///
/// ```
/// use chronolith_ledger::{Checkpoint, Hash, KeyKind, Policy, SigningKey};
/// let key = SigningKey::from_seed("example.org/log", KeyKind::Log, &[7; 32])?;
/// let checkpoint = Checkpoint { origin: "example.org/log".into(), size: 0, root: Hash::of_empty_tree() };
/// let note = checkpoint.sign(&key)?;
/// let policy = Policy::log_only(key.verifier().clone())?;
/// assert_eq!(policy.open(&note)?, checkpoint);
/// # Ok::<(), chronolith_ledger::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Its leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

fn malformed(why: &'static str) -> Error {
    Error::Malformed { what: "checkpoint", why }
}

impl Checkpoint {
    /// Reads a note's text. Extension lines are refused: nothing here makes any.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_suffix('\n').ok_or_else(|| malformed("does not end in a newline"))?;
        let lines: Vec<_> = text.split('\n').collect();
        let [origin, size, root] = lines[..] else { return Err(malformed("not three lines")) };
        if origin.is_empty() {
            return Err(malformed("no origin"));
        }
        let root = Hash::from_base64(root)?;
        Ok(Self { origin: origin.to_owned(), size: decimal(size, "checkpoint")?, root })
    }

    /// Signs it with the log's key.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedNote> {
        let text = self.to_string();
        let signature = key.sign(&text, 0);
        SignedNote::new(text, vec![signature])
    }

    /// The last revision that it speaks of.
    pub fn revision(&self) -> u64 {
        self.size + 1
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root.to_base64())
    }
}

/// A number in the one decimal form: no sign, no leading zeros.
pub(crate) fn decimal(text: &str, what: &'static str) -> Result<u64> {
    let number: u64 = text.parse().map_err(|_| Error::Malformed { what, why: "not a number" })?;
    if number.to_string() != text {
        return Err(Error::Malformed { what, why: "a number in another form than plain decimal" });
    }
    Ok(number)
}

/// Whose signatures a checkpoint needs to be believed.
#[derive(Clone, Debug)]
pub struct Policy {
    origin: String,
    log: VerifierKey,
    cosigners: Vec<VerifierKey>,
    quorum: usize,
}

impl Policy {
    /// The log's key must have signed; its name is the log's origin.
    pub fn log_only(log: VerifierKey) -> Result<Self> {
        Self::with_cosigners(log, Vec::new(), 0)
    }

    /// Besides, `quorum` of the cosigners must have signed.
    pub fn with_cosigners(
        log: VerifierKey,
        cosigners: Vec<VerifierKey>,
        quorum: usize,
    ) -> Result<Self> {
        let kinds = cosigners.iter().all(|key| key.kind() == KeyKind::Cosigner);
        if log.kind() != KeyKind::Log || !kinds || quorum > cosigners.len() {
            return Err(Error::Unverifiable("the policy needs keys of another kind".to_owned()));
        }
        Ok(Self { origin: log.name().to_owned(), log, cosigners, quorum })
    }

    /// Accepts checkpoints of another origin than the log key's name.
    #[must_use]
    pub fn for_origin(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.origin);
        self
    }

    /// The checkpoint of a note, if enough keys signed it.
    pub fn open(&self, note: &SignedNote) -> Result<Checkpoint> {
        let keys: Vec<_> = std::iter::once(&self.log).chain(&self.cosigners).collect();
        let signers = note.signers(&keys)?;
        if !signers.contains(&&self.log) {
            let name = self.log.name();
            return Err(Error::Unverifiable(format!("the checkpoint is not signed by {name}")));
        }
        let cosigned = signers.len() - 1;
        if cosigned < self.quorum {
            let quorum = self.quorum;
            return Err(Error::Unverifiable(format!(
                "{cosigned} of the {quorum} cosignatures needed"
            )));
        }
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != self.origin {
            return Err(Error::mismatch("origin of the checkpoint"));
        }
        Ok(checkpoint)
    }
}
