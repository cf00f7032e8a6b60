//! Flat tile files: the tree as tlog-tiles lays it out, 32 bytes an entry and nothing else.
//!
//! ```text
//! L0     hash of leaf 0 · hash of leaf 1 · …            tile n of level L = bytes 8192·n ‥ 8192·(n+1)
//! L1     root of leaves 0‥255 · root of 256‥511 · …
//! L2     …                                              state    size and root at the last sync
//! ```
//! Writing only appends, and only flushes to the disk now and then: the files are derived data. `state`
//! names a size up to which everything is on the disk, and its root. Opening cuts the files back to it,
//! checks the root, and whoever follows the revisions appends the rest again.

use crate::{Entries, Error, Frontier, HASH_BYTES, Hash, Result, checkpoint::decimal, proof::node};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Entries of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// 256^8 leaves are more than 2^63.
const LEVELS: u32 = 8;
const STATE: &str = "state";

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

fn level_path(dir: &Path, level: u32) -> PathBuf {
    dir.join(format!("L{level}"))
}

/// The path under which tlog clients ask for a tile, with the width for a partial one.
///
/// ```
/// assert_eq!(chronolith_ledger::tile_path(0, 1_234_067, 256), "tile/0/x001/x234/067");
/// assert_eq!(chronolith_ledger::tile_path(1, 5, 17), "tile/1/005.p/17");
/// ```
pub fn tile_path(level: u32, index: u64, width: u64) -> String {
    let mut name = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        name = format!("x{:03}/{name}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{name}{partial}")
}

/// Tile files for reading.
#[derive(Clone, Debug)]
pub struct TileFiles {
    dir: PathBuf,
}

impl TileFiles {
    /// The tile files in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Whole leaves on the disk, synced or not.
    pub fn size(&self) -> Result<u64> {
        let path = level_path(&self.dir, 0);
        match fs::metadata(&path) {
            Ok(found) => Ok(found.len() / HASH_BYTES as u64),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(io_at(&path)(error)),
        }
    }

    /// The bytes of a tile, as served to tlog clients.
    pub fn tile(&self, level: u32, index: u64, width: u64) -> Result<Vec<u8>> {
        let entries = self.entries(level, index * TILE_WIDTH, width)?;
        Ok(entries.iter().flat_map(|entry| entry.0).collect())
    }

    /// The right edge of the tree at `size`.
    pub fn frontier_at(&self, size: u64) -> Result<Frontier> {
        let heights = (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1);
        let peaks = heights
            .map(|height| node(self, height, (size >> height) - 1))
            .collect::<Result<_>>()?;
        Ok(Frontier::from_peaks(size, peaks).expect("one peak for each bit set in the size"))
    }
}

impl Entries for TileFiles {
    fn entries(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>> {
        let path = level_path(&self.dir, level);
        let file = File::open(&path).map_err(io_at(&path))?;
        let length =
            usize::try_from(count).map_err(|_| Error::OutOfTree { index: start, size: 0 })?;
        let mut bytes = vec![0; length * HASH_BYTES];
        match file.read_exact_at(&mut bytes, start * HASH_BYTES as u64) {
            Ok(()) => Ok(hashes(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::OutOfTree { index: (start + count) << (8 * level), size: self.size()? })
            }
            Err(error) => Err(io_at(&path)(error)),
        }
    }
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    let hash = |bytes: &[u8]| Hash(bytes.try_into().expect("32 bytes"));
    bytes.chunks_exact(HASH_BYTES).map(hash).collect()
}

struct Level {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
}

impl Level {
    fn open(dir: &Path, level: u32, entries: u64) -> Result<Self> {
        let path = level_path(dir, level);
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(io_at(&path))?;
        file.set_len(entries * HASH_BYTES as u64).map_err(io_at(&path))?;
        Ok(Self { path, file, pending: Vec::new() })
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.pending).map_err(io_at(&self.path))?;
        self.pending.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_data().map_err(io_at(&self.path))
    }
}

/// Appends leaves to tile files. There is one writer for a directory.
pub struct TileWriter {
    dir: PathBuf,
    levels: Vec<Level>,
    frontier: Frontier,
    synced: u64,
}

impl TileWriter {
    /// Opens the files in `dir` as of their last sync; what was appended later is cut off.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(io_at(dir))?;
        let (size, root) = read_state(dir)?.unwrap_or((0, Hash::of_empty_tree()));
        let tiles = TileFiles::at(dir);
        if tiles.size()? < size {
            return Err(Error::mismatch("length of the tile files and their state"));
        }
        let levels: Vec<_> = (0..LEVELS)
            .map(|level| Level::open(dir, level, size >> (8 * level)))
            .collect::<Result<_>>()?;
        let frontier = tiles.frontier_at(size)?;
        if frontier.root() != root {
            return Err(Error::mismatch("tile files and their state"));
        }
        Ok(Self { dir: dir.to_owned(), levels, frontier, synced: size })
    }

    /// The right edge of the tree.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Leaves that a crash cannot take.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The files, for proofs over what was flushed.
    pub fn files(&self) -> TileFiles {
        TileFiles::at(&self.dir)
    }

    /// Appends a leaf in memory.
    pub fn append(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        self.frontier.append_with(leaf, |height, hash| {
            if height % 8 == 0 {
                levels[(height / 8) as usize].pending.extend_from_slice(&hash.0);
            }
        });
    }

    /// Hands what was appended to the system, so that readers see it.
    pub fn flush(&mut self) -> Result<()> {
        self.levels.iter_mut().filter(|level| !level.pending.is_empty()).try_for_each(Level::flush)
    }

    /// Puts everything on the disk and remembers it in `state`.
    pub fn sync(&mut self) -> Result<()> {
        let size = self.frontier.size();
        if size == self.synced {
            return Ok(());
        }
        self.levels.iter_mut().try_for_each(Level::sync)?;
        write_state(&self.dir, size, &self.frontier.root())?;
        self.synced = size;
        Ok(())
    }
}

fn read_state(dir: &Path) -> Result<Option<(u64, Hash)>> {
    let path = dir.join(STATE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at(&path)(error)),
    };
    let malformed =
        || Error::Malformed { what: "state of the tile files", why: "not size and root" };
    let (size, root) = text.trim_end().split_once('\n').ok_or_else(malformed)?;
    Ok(Some((decimal(size, "state of the tile files")?, Hash::from_base64(root)?)))
}

/// Replaces the state as a whole: the old one stays until the new one is on the disk.
fn write_state(dir: &Path, size: u64, root: &Hash) -> Result<()> {
    let (path, new) = (dir.join(STATE), dir.join("state.new"));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{size}\n{}", root.to_base64())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_at(&path))
}
