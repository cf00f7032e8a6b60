//! Whom a verb believes: a key that the caller knows, or a checkpoint that the caller kept.
//!
//! ```text
//! --trust KEY   the log's key, taken over another way: its signatures are believed
//! --pin FILE    first use: the newest checkpoint is written there, on the server's word
//!               later:     the server's log must continue it, under the same key; then it moves on
//! ```
//! Invariants: the file moves forward only, and only after everything that the verb verifies has held;
//! a key that the server names is believed only where a pin binds it, or where the verb says so aloud.

use super::{connection::Client, failure::Failure, output::Output};
use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, Hash, Policy, Readers, SignedNote, VerifierKey, replace_file,
    verify_consistency,
};
use chronolith_proto::history::CheckpointRequest;
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a proof is measured with.
#[derive(Args, Clone, Debug)]
pub(crate) struct Trust {
    /// The log's public key (`name+id+key`), or a file that holds it.
    #[arg(long, value_name = "KEY")]
    pub(crate) trust: Option<String>,
    /// A file with a checkpoint that is kept: written at its first use, later the log must continue it.
    /// Finds rollback and forks.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin: Option<PathBuf>,
}

/// A policy, and the checkpoint that was kept.
pub(crate) struct Trusted {
    pub(crate) policy: Policy,
    /// The log's public key: the trusted one, or the one that the server names.
    pub(crate) key: VerifierKey,
    /// Whether somebody else than the server vouches for the key.
    pub(crate) is_known: bool,
    pin: Option<Pin>,
}

struct Pin {
    path: PathBuf,
    kept: Option<(SignedNote, Checkpoint)>,
}

/// What became of the pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// There is none.
    No,
    /// Written for the first time: nothing was compared.
    First,
    /// The log continues the checkpoint of this revision.
    Continues(u64),
}

impl Trust {
    /// Demands that somebody else than the server decides.
    pub(crate) fn must_be_given(&self) -> Result<(), Failure> {
        match self.trust.is_none() && self.pin.is_none() {
            true => Err(Failure::undecided(
                "cannot be verified: whom should be believed? Name the log's public key with \
                 --trust KEY, or keep a checkpoint with --pin FILE",
            )),
            false => Ok(()),
        }
    }

    /// Reads the key and the pin; asks the server for its key where the caller names none.
    pub(crate) async fn read(&self, client: &Client) -> Result<Trusted, Failure> {
        let key = match &self.trust {
            Some(text) => key(text)?,
            None => {
                let answer = client.ask(client.history().checkpoint(CheckpointRequest {})).await?;
                parse_key(&answer.verifier_key)?
            }
        };
        let policy = Policy::log_only(key.clone())?;
        let pin = match &self.pin {
            Some(path) => Some(self.pin(path, &policy)?),
            None => None,
        };
        let is_known = self.trust.is_some() || pin.as_ref().is_some_and(|pin| pin.kept.is_some());
        Ok(Trusted { policy, key, is_known, pin })
    }

    fn pin(&self, path: &Path, policy: &Policy) -> Result<Pin, Failure> {
        if !path.exists() {
            return Ok(Pin { path: path.to_owned(), kept: None });
        }
        let note = note(path)?;
        let kept = policy.open(&note).map_err(|error| match self.trust {
            Some(_) => Failure::Undecided(format!("{}: {error}: a pin of another log?", path.display())),
            None => Failure::Tampered(format!(
                "the server's log is rolled back or forked: the checkpoint pinned in {} is not signed \
                 with the key that the server uses now ({error})",
                path.display()
            )),
        })?;
        Ok(Pin { path: path.to_owned(), kept: Some((note, kept)) })
    }
}

impl Trusted {
    /// Size of the pinned checkpoint, to be sent with requests; 0 is none.
    pub(crate) fn pinned_size(&self) -> u64 {
        self.kept().map_or(0, |kept| kept.size)
    }

    fn kept(&self) -> Option<&Checkpoint> {
        self.pin.as_ref().and_then(|pin| pin.kept.as_ref()).map(|(_, checkpoint)| checkpoint)
    }

    /// The checkpoint of a note, if it is signed and continues the pinned one.
    pub(crate) fn accept(&self, note: &str, consistency: &[Bytes]) -> Result<Checkpoint, Failure> {
        let checkpoint = self.policy.open(&SignedNote::parse(note.as_bytes())?)?;
        if let Some(kept) = self.kept() {
            continues(kept, &checkpoint, consistency)?;
        }
        Ok(checkpoint)
    }

    /// Moves the pin to a checkpoint that was accepted, once all else has held.
    pub(crate) fn keep(&self, note: &str, checkpoint: &Checkpoint) -> Result<Pinned, Failure> {
        let Some(pin) = &self.pin else { return Ok(Pinned::No) };
        let old = pin.kept.as_ref().map(|(_, kept)| kept);
        if old.is_none_or(|kept| kept.size < checkpoint.size) {
            replace_file(&pin.path, note, Readers::All).map_err(Failure::file(&pin.path))?;
        }
        Ok(old.map_or(Pinned::First, |kept| Pinned::Continues(kept.revision())))
    }

    /// The same, and says so where the pin is new.
    pub(crate) fn keep_and_tell(
        &self,
        note: &str,
        checkpoint: &Checkpoint,
        output: &Output,
    ) -> Result<(), Failure> {
        if self.keep(note, checkpoint)? == Pinned::First {
            output.note(&format!(
                "pinned: the log as of revision {}; from now on it must continue this",
                checkpoint.revision()
            ));
        }
        Ok(())
    }
}

/// Checks that a newer checkpoint continues an older one.
pub(crate) fn continues(
    old: &Checkpoint,
    new: &Checkpoint,
    consistency: &[Bytes],
) -> Result<(), Failure> {
    let broken = |why: &str| {
        Failure::Tampered(format!(
            "the log was rolled back or forked: {why} (kept: revision {}, now: revision {})",
            old.revision(),
            new.revision()
        ))
    };
    if new.size < old.size {
        return Err(broken("it is shorter than the checkpoint that was kept"));
    }
    let path: Option<Vec<_>> = consistency.iter().map(hash).collect();
    let path = path.ok_or_else(|| broken("its consistency proof is malformed"))?;
    verify_consistency(old.size, &old.root, new.size, &new.root, &path)
        .map_err(|_| broken("it does not continue the checkpoint that was kept"))
}

fn hash(bytes: &Bytes) -> Option<Hash> {
    bytes.as_ref().try_into().ok().map(Hash)
}

/// A key, or the file that holds it. A key that cannot be read decides nothing.
fn key(text: &str) -> Result<VerifierKey, Failure> {
    match Path::new(text).is_file() {
        true => parse_key(&fs::read_to_string(text).map_err(Failure::file(Path::new(text)))?),
        false => parse_key(text),
    }
}

fn parse_key(text: &str) -> Result<VerifierKey, Failure> {
    VerifierKey::parse(text.trim_end()).map_err(|error| Failure::Undecided(error.to_string()))
}

/// A signed note from a file. One that cannot be read decides nothing.
pub(crate) fn note(path: &Path) -> Result<SignedNote, Failure> {
    let bytes = fs::read(path).map_err(Failure::file(path))?;
    SignedNote::parse(&bytes)
        .map_err(|error| Failure::Undecided(format!("{}: {error}", path.display())))
}

impl Trusted {
    /// A bundle whose every part holds, and which is of the checkpoint that was accepted.
    pub(crate) fn verify(&self, bytes: &[u8], accepted: &Checkpoint) -> Result<Bundle, Failure> {
        let bundle = Bundle::decode(bytes)?;
        match bundle.verify(&self.policy)? == *accepted {
            true => Ok(bundle),
            false => Err(Failure::Tampered("the proof is of another checkpoint".to_owned())),
        }
    }
}
