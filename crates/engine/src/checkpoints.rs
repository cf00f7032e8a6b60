//! A directory of checkpoints, of which the newest few are kept.
//!
//! ```text
//! ROOT/checkpoint-00000000000000000001  …-2  …-3     numbers only grow
//! ```
//! An interrupted checkpoint leaves a name that is not one of these, so it is never listed; the next
//! one removes it. A checkpoint is only ever read: [`copy_checkpoint`] makes a database of it.

use crate::{Engine, Result, disk};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PREFIX: &str = "checkpoint-";
/// Digits of a number, so that names sort like numbers.
const DIGITS: usize = 20;

/// See the module.
///
/// ```
/// use chronolith_engine::{Checkpoints, Engine, MemoryEngine};
/// # let dir = tempfile::tempdir().unwrap();
/// # let root = dir.path().join("checkpoints");
/// let engine = MemoryEngine::new();
/// let checkpoints = Checkpoints::new(&root, 2);
/// for _ in 0..3 {
///     checkpoints.take(&engine)?;
/// }
/// assert_eq!(checkpoints.list()?.len(), 2);
/// let newest = checkpoints.newest()?.expect("three were taken");
/// let restored = MemoryEngine::restore(newest)?;
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Checkpoints in `root`, of which `keep` stay (at least one).
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, keep: usize) -> Self {
        Self { root: root.into(), keep: keep.max(1) }
    }

    /// Takes a checkpoint, then removes the oldest beyond those to keep.
    pub fn take(&self, engine: &dyn Engine) -> Result<PathBuf> {
        fs::create_dir_all(&self.root).map_err(|source| disk::io(&self.root, source))?;
        self.remove_interrupted()?;
        let next = self.numbered()?.last().map_or(1, |(number, _)| number + 1);
        let dir = self.root.join(format!("{PREFIX}{next:0DIGITS$}"));
        engine.checkpoint(&dir)?;
        self.prune()?;
        Ok(dir)
    }

    /// All checkpoints, the oldest first.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        Ok(self.numbered()?.into_iter().map(|(_, dir)| dir).collect())
    }

    /// The newest checkpoint.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.list()?.pop())
    }

    fn prune(&self) -> Result<()> {
        let all = self.list()?;
        let surplus = all.len().saturating_sub(self.keep);
        all.iter().take(surplus).try_for_each(|dir| disk::remove_dir(dir))
    }

    fn numbered(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<_> =
            disk::entries(&self.root)?.into_iter().filter_map(numbered).collect();
        found.sort_unstable();
        Ok(found)
    }

    fn remove_interrupted(&self) -> Result<()> {
        let is_ours = |dir: &PathBuf| file_name(dir).is_some_and(|name| name.starts_with(PREFIX));
        let entries = disk::entries(&self.root)?.into_iter().filter(is_ours);
        let interrupted = entries.filter(|dir| numbered(dir.clone()).is_none());
        interrupted.into_iter().try_for_each(|dir| disk::remove_dir(&dir))
    }
}

fn file_name(dir: &Path) -> Option<&str> {
    dir.file_name()?.to_str()
}

fn numbered(dir: PathBuf) -> Option<(u64, PathBuf)> {
    let digits = file_name(&dir)?.strip_prefix(PREFIX)?;
    (digits.len() == DIGITS).then_some(())?;
    Some((digits.parse().ok()?, dir))
}

/// Makes a database of a checkpoint:
///
/// ```
/// use chronolith_engine::{Engine, MemoryEngine, copy_checkpoint};
/// # let dir = tempfile::tempdir().unwrap();
/// # let (checkpoint, copy) = (dir.path().join("checkpoint"), dir.path().join("copy"));
/// let engine = MemoryEngine::new();
/// engine.checkpoint(&checkpoint)?;
/// copy_checkpoint(&checkpoint, &copy)?;
/// let restored = MemoryEngine::restore(&copy)?;
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
///
/// Copies a checkpoint into the new directory `to`, synced, and leaves the checkpoint as it was.
/// Files that never change (RocksDB's tables) are linked where the file system can.
pub fn copy_checkpoint(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let from = from.as_ref();
    disk::create_dir_whole(to.as_ref(), |partial| {
        disk::entries(from)?.iter().try_for_each(|file| copy_file(file, partial))
    })
}

fn copy_file(file: &Path, into: &Path) -> Result<()> {
    let to = into.join(file.file_name().expect("a directory entry has a name"));
    let never_changes = file.extension().is_some_and(|extension| extension == "sst");
    if never_changes && fs::hard_link(file, &to).is_ok() {
        return Ok(());
    }
    fs::copy(file, &to).map_err(|source| disk::io(file, source))?;
    disk::sync_file(&to)
}
