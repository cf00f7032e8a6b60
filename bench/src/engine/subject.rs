//! The engines that are measured.

use anyhow::Result;
use chronolith_engine::{Engine, MemoryEngine, Profile};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// In RAM; its log only where a case asks for durability.
    Memory,
    /// On disk; needs a build with `--features rocksdb`.
    Rocksdb,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rocksdb => "rocksdb",
        }
    }

    /// The engines of this build.
    pub(super) fn built() -> Vec<Self> {
        match cfg!(feature = "rocksdb") {
            true => vec![Self::Memory, Self::Rocksdb],
            false => vec![Self::Memory],
        }
    }
}

/// A fresh engine in a directory of its own, which goes with it.
pub(super) struct Subject {
    pub(super) engine: Arc<dyn Engine>,
    kind: Kind,
    dir: PathBuf,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Subject {
    /// A durable engine (with its log).
    pub(super) fn new(kind: Kind, root: &Path, profile: &Profile) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("{}-{number}", kind.name()));
        Ok(Self { engine: open(kind, &dir, profile)?, kind, dir })
    }

    /// The same data, opened again.
    pub(super) fn reopen(&mut self, profile: &Profile) -> Result<()> {
        self.engine.close()?;
        // The closed engine still holds its directory; an empty one takes its place meanwhile.
        self.engine = Arc::new(MemoryEngine::new());
        self.engine = open(self.kind, &self.dir, profile)?;
        Ok(())
    }
}

fn open(kind: Kind, dir: &Path, profile: &Profile) -> Result<Arc<dyn Engine>> {
    match kind {
        Kind::Memory => Ok(Arc::new(MemoryEngine::open(dir)?)),
        Kind::Rocksdb => rocksdb(dir, profile),
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The measurement is done; a directory that stays is visible to the user.
        let _ = self.engine.close();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(feature = "rocksdb")]
fn rocksdb(dir: &Path, profile: &Profile) -> Result<Arc<dyn Engine>> {
    Ok(Arc::new(chronolith_engine::RocksEngine::open(dir, profile)?))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_dir: &Path, _profile: &Profile) -> Result<Arc<dyn Engine>> {
    anyhow::bail!("this build has no RocksDB: build with --features rocksdb")
}
