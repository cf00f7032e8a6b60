//! The files under the log, as few operations as it needs, so that a simulated disk can stand in.
//!
//! * A write is torn by a crash at [`SECTOR`] boundaries at the finest: each sector is old or new.
//! * What was not synced may be lost by a crash, whole or in part.

use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The unit a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// The unit of our writes: what page cache and modern disks handle without reading first.
pub const BLOCK: usize = 4096;

/// A directory of log files.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file of zeros, allocated and synced; an old file of that name is overwritten.
    fn zero(&self, name: &str, size_bytes: u64) -> io::Result<()>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that never grows.
pub trait DiskFile: Send + Sync + 'static {
    /// The size, allocated for good.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Reads exactly as much.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes whole blocks and makes them durable before it returns.
    fn write_synced(&self, offset: u64, blocks: &[u8]) -> io::Result<()>;
    /// Makes everything in the file durable.
    fn sync(&self) -> io::Result<()>;
}

/// How a synced write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Past the page cache where the file system allows it, else as `Cached`.
    #[default]
    Direct,
    /// Through the page cache, followed by fdatasync.
    Cached,
}

/// A real directory.
pub struct Directory {
    path: PathBuf,
    mode: SyncMode,
}

impl Directory {
    /// Opens the directory, and makes it where it is missing.
    pub fn open(path: &Path, mode: SyncMode) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), mode })
    }

    fn direct(&self, name: &str) -> Option<File> {
        if self.mode == SyncMode::Cached {
            return None;
        }
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(flags.bits().cast_signed());
        options.open(self.path.join(name)).ok()
    }
}

/// Bytes a zero-filling write takes at once: large enough to be cheap, small enough for a cache.
const ZERO_CHUNK: usize = 256 << 10;

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn zero(&self, name: &str, size_bytes: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(self.path.join(name))?;
        file.set_len(size_bytes)?;
        let zeros = vec![0; ZERO_CHUNK];
        for offset in (0..size_bytes).step_by(ZERO_CHUNK) {
            let rest = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX);
            file.write_all_at(&zeros[..rest.min(ZERO_CHUNK)], offset)?;
        }
        file.sync_all()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile { direct: self.direct(name), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

struct RealFile {
    file: File,
    /// The same file, opened so that a write returns when it is durable.
    direct: Option<File>,
}

impl DiskFile for RealFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_synced(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref().filter(|_| is_aligned(blocks)) {
            match direct.write_all_at(blocks, offset) {
                // Some file systems take the flag and refuse the write.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => return result,
            }
        }
        self.file.write_all_at(blocks, offset)?;
        self.file.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn is_aligned(blocks: &[u8]) -> bool {
    blocks.as_ptr().addr().is_multiple_of(BLOCK) && blocks.len().is_multiple_of(BLOCK)
}
