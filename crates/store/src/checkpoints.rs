//! Checkpoints of the memory engine: what it starts from, before the log.
//!
//! ```text
//! checkpoints/1200/ ─ checkpoints/2400/ ─ log from 1201 on
//!    previous            newest            reaches back to the previous one
//! ```
//! * A checkpoint appears under its name whole and synced, or not at all.
//! * The newest [`KEPT`] stay; an older one goes only after the new one is synced. The log is kept from
//!   the oldest of them on, so a damaged newest one costs time and no data.

use crate::{directory::io_error, error::OpenError, machine::ApplyError};
use chronolith_engine::{Engine, MemoryEngine};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Checkpoints on the disk: the newest one, and one to fall back to.
const KEPT: usize = 2;

/// What the engine's unfinished checkpoints end in.
const PARTIAL: &str = ".partial";

/// The directory of checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    path: PathBuf,
}

impl Checkpoints {
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenError> {
        fs::create_dir_all(&path).map_err(io_error(&path))?;
        let checkpoints = Self { path };
        for name in checkpoints.names()?.iter().filter(|name| name.ends_with(PARTIAL)) {
            remove(&checkpoints.path.join(name))?;
        }
        Ok(checkpoints)
    }

    /// The directory as it is: nothing in it is created or cleared away.
    pub(crate) fn existing(path: PathBuf) -> Self {
        Self { path }
    }

    /// [`restore`](Self::restore), and every other checkpoint is read as well.
    pub(crate) fn restore_all(&self) -> Result<Restored, OpenError> {
        let Restored { engine, mut damaged } = self.restore()?;
        let known = damaged.len() + 1;
        for index in self.indexes()?.into_iter().rev().skip(known) {
            let path = self.path.join(index.to_string());
            let what = MemoryEngine::restore(&path).err().map(|error| error.to_string());
            damaged.extend(what.map(|what| Damaged { index, what }));
        }
        Ok(Restored { engine, damaged })
    }

    /// The newest state that is whole; an empty one if there never was a checkpoint. If all are
    /// damaged, an empty one as well: the log may still reach back to the beginning, and says so
    /// itself if it does not.
    pub(crate) fn restore(&self) -> Result<Restored, OpenError> {
        let mut damaged = Vec::new();
        for index in self.indexes()?.into_iter().rev() {
            let path = self.path.join(index.to_string());
            match MemoryEngine::restore(&path) {
                Ok(engine) => return Ok(Restored { engine, damaged }),
                Err(error) => {
                    tracing::error!(%error, "checkpoint {index} is damaged: trying the one before");
                    damaged.push(Damaged { index, what: error.to_string() });
                }
            }
        }
        Ok(Restored { engine: MemoryEngine::new(), damaged })
    }

    /// Writes a checkpoint that holds at least what the log says up to `index`; answers up to where
    /// the log is no longer needed.
    pub(crate) fn write(&self, engine: &dyn Engine, index: u64) -> Result<u64, ApplyError> {
        let dir = self.path.join(index.to_string());
        if !dir.exists() {
            engine.checkpoint(&dir)?;
        }
        let indexes = self.indexes()?;
        let (old, kept) = indexes.split_at(indexes.len().saturating_sub(KEPT));
        for index in old {
            remove(&self.path.join(index.to_string()))?;
        }
        // With a single one, the log itself is what to fall back to.
        Ok(if kept.len() < KEPT { 0 } else { kept[0] })
    }

    /// Renames what is damaged, once the store runs without it: it is kept for examination, but never
    /// counted as something to fall back to.
    pub(crate) fn set_aside(&self, damaged: &[Damaged]) -> Result<(), OpenError> {
        for Damaged { index, .. } in damaged {
            let path = self.path.join(index.to_string());
            let aside = path.with_extension("damaged");
            if aside.exists() {
                remove(&aside)?;
            }
            fs::rename(&path, &aside).map_err(io_error(&path))?;
        }
        Ok(())
    }

    /// The checkpoints that are complete, ascending.
    fn indexes(&self) -> Result<Vec<u64>, OpenError> {
        let names = self.names()?;
        let mut indexes: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        indexes.sort_unstable();
        Ok(indexes)
    }

    fn names(&self) -> Result<Vec<String>, OpenError> {
        let entries = fs::read_dir(&self.path).map_err(io_error(&self.path))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let names: io::Result<Vec<String>> = entries.map(|entry| entry.map(name)).collect();
        names.map_err(io_error(&self.path))
    }
}

/// What there was to start from.
pub(crate) struct Restored {
    pub(crate) engine: MemoryEngine,
    /// Newer checkpoints that could not be used, newest first.
    pub(crate) damaged: Vec<Damaged>,
}

/// A checkpoint that cannot be used.
pub(crate) struct Damaged {
    pub(crate) index: u64,
    pub(crate) what: String,
}

fn remove(path: &Path) -> Result<(), OpenError> {
    fs::remove_dir_all(path).map_err(io_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_engine::{Durability, WriteBatch};

    fn write(checkpoints: &Checkpoints, index: u64) -> u64 {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let mut batch = WriteBatch::new();
        batch.put(column, "index", index.to_string());
        engine.write(batch, Durability::NoWal).unwrap();
        checkpoints.write(&engine, index).unwrap()
    }

    fn restored(checkpoints: &Checkpoints) -> (Option<String>, Vec<u64>) {
        let Restored { engine, damaged } = checkpoints.restore().unwrap();
        let value = engine.get(engine.column("c").unwrap(), b"index").unwrap();
        let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        checkpoints.set_aside(&damaged).unwrap();
        (value, damaged.iter().map(|damaged| damaged.index).collect())
    }

    fn damage(checkpoints: &Checkpoints, index: u64) {
        let path = checkpoints.path.join(index.to_string()).join("state");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn open(dir: &tempfile::TempDir) -> Checkpoints {
        Checkpoints::open(dir.path().join("checkpoints")).unwrap()
    }

    #[test]
    fn two_are_kept_and_the_log_from_the_older_one_on() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(&dir);
        assert_eq!(restored(&checkpoints), (None, vec![]));
        assert_eq!(write(&checkpoints, 9), 0);
        assert_eq!(write(&checkpoints, 10), 9);
        assert_eq!(write(&checkpoints, 100), 10);
        assert_eq!(write(&checkpoints, 100), 10, "nothing new, nothing changes");
        assert_eq!(checkpoints.indexes().unwrap(), [10, 100]);
        assert_eq!(restored(&checkpoints), (Some("100".into()), vec![]));
    }

    #[test]
    fn a_damaged_one_is_passed_over_and_never_counted() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(&dir);
        write(&checkpoints, 1);
        write(&checkpoints, 2);
        damage(&checkpoints, 2);
        assert_eq!(restored(&checkpoints), (Some("1".into()), vec![2]));
        assert_eq!(write(&checkpoints, 2), 1, "its place is free again");
        assert_eq!(restored(&checkpoints), (Some("2".into()), vec![]));
        damage(&checkpoints, 2);
        damage(&checkpoints, 1);
        assert_eq!(restored(&checkpoints), (None, vec![2, 1]));
    }

    #[test]
    fn what_a_crash_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        write(&open(&dir), 1);
        let partial = dir.path().join("checkpoints/2.partial");
        fs::create_dir(&partial).unwrap();
        assert_eq!(restored(&open(&dir)), (Some("1".into()), vec![]));
        assert!(!partial.exists());
    }
}
