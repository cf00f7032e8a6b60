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
    fs,
    path::{Path, PathBuf},
};

/// Checkpoints on the disk: the newest one, and one to fall back to.
const KEPT: usize = 2;

/// The directory of checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    path: PathBuf,
}

impl Checkpoints {
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenError> {
        fs::create_dir_all(&path).map_err(io_error(&path))?;
        Ok(Self { path })
    }

    /// The newest state that is whole; an empty one if there never was a checkpoint. If all are
    /// damaged, an empty one as well: the log may still reach back to the beginning, and says so
    /// itself if it does not.
    pub(crate) fn restore(&self) -> Result<Restored, OpenError> {
        let mut damage = None;
        for index in self.indexes()?.into_iter().rev() {
            let path = self.path.join(index.to_string());
            match MemoryEngine::restore(&path) {
                Ok(engine) => return Ok(Restored { engine, damage }),
                Err(error) => {
                    tracing::error!(%error, "checkpoint {index} is damaged: trying the one before");
                    damage.get_or_insert_with(|| error.to_string());
                }
            }
        }
        Ok(Restored { engine: MemoryEngine::new(), damage })
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

    /// Removes all: a state that was received replaces them.
    pub(crate) fn clear(&self) -> Result<(), OpenError> {
        for index in self.indexes()? {
            remove(&self.path.join(index.to_string()))?;
        }
        Ok(())
    }

    /// The checkpoints that are complete, ascending.
    fn indexes(&self) -> Result<Vec<u64>, OpenError> {
        let mut indexes = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io_error(&self.path))? {
            let name = entry.map_err(io_error(&self.path))?.file_name();
            // Others are remains of a checkpoint that was cut off.
            indexes.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        indexes.sort_unstable();
        Ok(indexes)
    }
}

/// What there was to start from.
pub(crate) struct Restored {
    pub(crate) engine: MemoryEngine,
    /// What was wrong with the newest checkpoint, if it could not be used.
    pub(crate) damage: Option<String>,
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

    fn restored(checkpoints: &Checkpoints) -> (Option<String>, bool) {
        let Restored { engine, damage } = checkpoints.restore().unwrap();
        let value = engine.get(engine.column("c").unwrap(), b"index").unwrap();
        (value.map(|value| String::from_utf8(value.to_vec()).unwrap()), damage.is_some())
    }

    fn damage(checkpoints: &Checkpoints, index: u64) {
        let path = checkpoints.path.join(index.to_string()).join("state");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn two_are_kept_and_the_log_from_the_older_one_on() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path().join("checkpoints")).unwrap();
        assert_eq!(restored(&checkpoints), (None, false));
        assert_eq!(write(&checkpoints, 9), 0);
        assert_eq!(write(&checkpoints, 10), 9);
        assert_eq!(write(&checkpoints, 100), 10);
        assert_eq!(write(&checkpoints, 100), 10, "nothing new, nothing changes");
        assert_eq!(checkpoints.indexes().unwrap(), [10, 100]);
        assert_eq!(restored(&checkpoints), (Some("100".into()), false));
    }

    #[test]
    fn a_damaged_one_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path().join("checkpoints")).unwrap();
        write(&checkpoints, 1);
        write(&checkpoints, 2);
        damage(&checkpoints, 2);
        assert_eq!(restored(&checkpoints), (Some("1".into()), true));
        damage(&checkpoints, 1);
        assert_eq!(restored(&checkpoints), (None, true));
        checkpoints.clear().unwrap();
        assert_eq!(restored(&checkpoints), (None, false));
    }
}
