//! A database's directory that no program has open.

use super::{Progress, Report, Result};
use crate::offline::Offline;
use chronolith_ledger::{Policy, SignedNote, VerifierKey};
use std::path::Path;

/// Checks the directory of an embedded or a served database that no program has open, and writes nothing
/// into it. Without a trusted key, the one in the directory is used: that finds damage, not somebody who
/// signs anew.
pub fn verify_directory(
    dir: &Path,
    trusted: Option<&VerifierKey>,
    pinned: Option<&SignedNote>,
    progress: Progress<'_>,
) -> Result<Report> {
    let offline = Offline::open(dir)?;
    let key = trusted.map_or_else(|| offline.verifier_key(), |key| Ok(key.clone()))?;
    offline.verify(&Policy::log_only(key)?, pinned, progress)
}
