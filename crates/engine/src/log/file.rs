//! The file of a log, and how much of it is durable.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// One appends, others sync meanwhile.
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    /// Where the last record ends.
    appended: AtomicU64,
    /// What a sync that ended has made durable.
    durable: AtomicU64,
}

impl LogFile {
    /// A file whose first `durable` bytes are synced.
    pub(super) fn new(file: File, path: PathBuf, durable: u64) -> Self {
        Self { file, path, appended: durable.into(), durable: durable.into() }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    pub(super) fn set_appended(&self, appended: u64) {
        self.appended.store(appended, Ordering::Release);
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Makes durable what is appended by now, the bytes copied into a mapping included: Linux finds
    /// the blocks that were changed through one when it syncs the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        let appended = self.appended();
        self.file.sync_data()?;
        self.durable.fetch_max(appended, Ordering::AcqRel);
        Ok(())
    }
}
