//! A database's directory that no program has open.

use super::{
    Error, Progress, Report, Result,
    store::{engine, lock},
};
use crate::history::verify_log;
use chronolith_ledger::{Policy, SignedNote, VerifierKey};
use chronolith_mvcc::Mvcc;
use std::{fs, path::Path, sync::Arc};

/// Checks a database's directory that no program has open, writing nothing into its log. Without a
/// trusted key, the one in the directory is used: that finds damage, not somebody who signs anew.
pub fn verify_directory(
    dir: &Path,
    trusted: Option<&VerifierKey>,
    pinned: Option<&SignedNote>,
    progress: Progress<'_>,
) -> Result<Report> {
    let _lock = lock(dir)?;
    let path = dir.join("log.vkey");
    let key = match trusted {
        Some(key) => key.clone(),
        None => {
            VerifierKey::parse(fs::read_to_string(&path).map_err(Error::io(&path))?.trim_end())?
        }
    };
    let policy = Policy::log_only(key)?;
    let on_disk = dir.join("engine/CURRENT").exists();
    let engine = engine(dir, on_disk)?;
    let reader = Mvcc::open(Arc::clone(&engine))?.reader();
    let report = verify_log(dir, &reader, &policy, pinned, progress);
    engine.close()?;
    report
}
