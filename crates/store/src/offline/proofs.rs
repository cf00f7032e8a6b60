//! Proofs made from a directory that is only read: under its newest signed checkpoint, since none is
//! signed for the occasion.

use super::{Offline, unverifiable};
use crate::history::{Prover, Result, Shown, newest_signed};
use chronolith_ledger::{Bundle, MAX_BUNDLE_BYTES, TileFiles};

/// What to do about revisions that no checkpoint speaks of.
const SIGN_FIRST: &str = "a node signs them when it is started, and when it stops; \
     for an embedded database its program must call `checkpoint`";

impl Offline {
    /// Proof of every version of a key that is still there. Refused where the newest of them is not signed
    /// yet, or where there is none: what is not there has no proof.
    pub fn prove_key(&self, key: &[u8]) -> Result<Bundle> {
        self.key_proven(key).map_err(|error| self.about(error))
    }

    /// Proof of whole revisions, with all they did. Refused unless all of them are signed.
    pub fn prove_range(&self, from: i64, to: i64) -> Result<Bundle> {
        self.range_proven(from, to).map_err(|error| self.about(error))
    }

    fn key_proven(&self, key: &[u8]) -> Result<Bundle> {
        let prover = self.prover()?;
        let newest = self.reader.key_history(key, 0, i64::MAX, 1)?;
        let Some(newest) = newest.first() else {
            let key = String::from_utf8_lossy(key);
            return Err(unverifiable(&format!(
                "there is no version of {key:?} in this directory, and that is not provable"
            )));
        };
        refuse_unsigned(newest.revision, newest.revision, prover.newest())?;
        prover.prove(Shown::Key(key), MAX_BUNDLE_BYTES)
    }

    fn range_proven(&self, from: i64, to: i64) -> Result<Bundle> {
        let (prover, last) = (self.prover()?, self.reader.current_revision());
        if from < 2 || from > to || to > last {
            return Err(unverifiable(&format!(
                "there are no revisions {from} to {to}: the history has revisions 2 to {last}"
            )));
        }
        refuse_unsigned(from, to, prover.newest())?;
        prover.prove(Shown::Revisions(from, to), MAX_BUNDLE_BYTES)
    }

    fn prover(&self) -> Result<Prover<'_>> {
        let note = newest_signed(&self.ledger)?;
        let note = note
            .ok_or_else(|| unverifiable(&format!("nothing is signed in here yet: {SIGN_FIRST}")))?;
        Prover::new(&self.reader, TileFiles::at(self.ledger.join("tlog")), note)
    }
}

fn refuse_unsigned(from: i64, to: i64, signed: i64) -> Result<()> {
    if to <= signed {
        return Ok(());
    }
    let from = from.max(signed + 1);
    let which = match from == to {
        true => format!("revision {to} is"),
        false => format!("revisions {from} to {to} are"),
    };
    Err(unverifiable(&format!(
        "{which} not signed yet, the newest checkpoint speaks up to revision {signed}: {SIGN_FIRST}"
    )))
}
