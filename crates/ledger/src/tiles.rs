//! Flat tile files: the tree as tlog-tiles lays it out, 32 bytes an entry and nothing else.
//!
//! ```text
//! entries  entry 0 · entry 1 · …                          70 bytes each, what the leaves are hashes of
//! L0       hash of leaf 0 · hash of leaf 1 · …            tile n of level L = bytes 8192·n ‥ 8192·(n+1)
//! L1       root of leaves 0‥255 · root of 256‥511 · …
//! L2       …                                              state    size and root at the last sync
//!          ╰ pruned: leaves and entries below `pruned` are holes ╯
//! ```
//! Writing only appends, and only flushes to the disk now and then: the files are derived data. `state`
//! names a size up to which everything is on the disk, and its root. Opening cuts the files back to it,
//! checks the root, and whoever follows the revisions appends the rest again.
//!
//! Pruning takes whole tiles of leaves and entries from the front. The levels above stay, and they are
//! all that a proof about a later leaf, or between two later sizes, needs of them: every subtree beside
//! such a path that is smaller than a tile lies in a tile that was kept.

use crate::{
    ENTRY_BYTES, Entries, Entry, Error, Frontier, HASH_BYTES, Hash, Readers, Result,
    checkpoint::decimal, prune, replace_file, revision_of_leaf,
};
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
const ENTRIES: &str = "entries";

pub(crate) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

fn whole_records(path: &Path, width: usize) -> Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() / width as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_at(path)(error)),
    }
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
        whole_records(&level_path(&self.dir, 0), HASH_BYTES)
    }

    /// Whole entries on the disk: as many as leaves, unless something ended between the two.
    pub fn entries_size(&self) -> Result<u64> {
        whole_records(&self.dir.join(ENTRIES), ENTRY_BYTES)
    }

    /// Leaves up to which everything was on the disk at the last sync.
    pub fn synced(&self) -> Result<u64> {
        Ok(read_state(&self.dir)?.map_or(0, |(size, _)| size))
    }

    /// The bytes of a tile, as served to tlog clients.
    pub fn tile(&self, level: u32, index: u64, width: u64) -> Result<Vec<u8>> {
        let entries = self.entries(level, index * TILE_WIDTH, width)?;
        Ok(entries.iter().flat_map(|entry| entry.0).collect())
    }

    /// The first leaf that is still there; everything from it on can be proven.
    pub fn min_index(&self) -> Result<u64> {
        prune::min_index(&self.dir)
    }

    /// Entries of leaves, one behind the other: 70 bytes each.
    pub fn entry_bytes(&self, start: u64, count: u64) -> Result<Vec<u8>> {
        let bytes = self.records(&self.dir.join(ENTRIES), ENTRY_BYTES, start, count)?;
        let hole = |entry: &[u8]| entry.iter().all(|byte| *byte == 0);
        match bytes.chunks_exact(ENTRY_BYTES).position(hole) {
            Some(at) => Err(self.missing(start + at as u64)),
            None => Ok(bytes),
        }
    }

    /// A leaf's entry.
    pub fn entry(&self, index: u64) -> Result<Entry> {
        Entry::decode(&self.entry_bytes(index, 1)?)
    }

    /// A bundle of entries, as served to tlog clients (`tile/entries/…`): each behind its 2-byte length.
    pub fn entry_bundle(&self, index: u64, width: u64) -> Result<Vec<u8>> {
        let length = u16::try_from(ENTRY_BYTES).expect("70 bytes").to_be_bytes();
        let entries = self.entry_bytes(index * TILE_WIDTH, width)?;
        let framed = |entry: &[u8]| [&length, entry].concat();
        Ok(entries.chunks_exact(ENTRY_BYTES).flat_map(framed).collect())
    }

    fn records(&self, path: &Path, width: usize, start: u64, count: u64) -> Result<Vec<u8>> {
        let out_of = |size| Error::OutOfTree { index: start.saturating_add(count), size };
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
        let at = start.checked_mul(width as u64);
        let (Some(length), Some(at)) = (length, at) else { return Err(out_of(self.size()?)) };
        let file = File::open(path).map_err(io_at(path))?;
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(out_of(self.size()?)),
            Err(error) => Err(io_at(path)(error)),
        }
    }

    /// What zeros in the place of a leaf mean: no hash is zero, and no entry.
    fn missing(&self, index: u64) -> Error {
        match self.min_index() {
            Ok(min_index) if index < min_index => Error::Pruned { index, min_index },
            Ok(_) => Error::Mismatch {
                what: "leaf in the tiles (there are zeros in its place)",
                revision: Some(revision_of_leaf(index)),
            },
            Err(error) => error,
        }
    }

    /// The right edge of the tree at `size`.
    pub fn frontier_at(&self, size: u64) -> Result<Frontier> {
        let heights = (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1);
        let peaks =
            heights.map(|height| self.node(height, (size >> height) - 1)).collect::<Result<_>>()?;
        Ok(Frontier::from_peaks(size, peaks).expect("one peak for each bit set in the size"))
    }
}

impl Entries for TileFiles {
    fn entries(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>> {
        let bytes = self.records(&level_path(&self.dir, level), HASH_BYTES, start, count)?;
        let found = hashes(&bytes);
        match found.iter().position(|hash| hash.0 == [0; HASH_BYTES]) {
            Some(at) => Err(self.missing((start + at as u64) << (8 * level))),
            None => Ok(found),
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
    fn open(path: PathBuf, size_bytes: u64) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path).map_err(io_at(&path))?;
        // What is missing at the end may not come back as zeros.
        let found = file.metadata().map_err(io_at(&path))?.len();
        if found < size_bytes {
            return Err(Error::mismatch("length of the tile files and their state"));
        }
        file.set_len(size_bytes).map_err(io_at(&path))?;
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
    /// None where the log's owner keeps the entries elsewhere.
    entries: Option<Level>,
    frontier: Frontier,
    synced: u64,
}

impl TileWriter {
    /// Opens the files in `dir` as of their last sync; what was appended later is cut off.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, |size| {
            Level::open(dir.join(ENTRIES), size * ENTRY_BYTES as u64).map(Some)
        })
    }

    /// The same for a log whose entries are not revisions and are kept elsewhere, such as lines of text.
    pub fn open_without_entries(dir: &Path) -> Result<Self> {
        Self::open_with(dir, |_| Ok(None))
    }

    fn open_with(dir: &Path, entries: impl FnOnce(u64) -> Result<Option<Level>>) -> Result<Self> {
        fs::create_dir_all(dir).map_err(io_at(dir))?;
        let (size, root) = read_state(dir)?.unwrap_or((0, Hash::of_empty_tree()));
        let level =
            |level| Level::open(level_path(dir, level), (size >> (8 * level)) * HASH_BYTES as u64);
        let levels: Vec<_> = (0..LEVELS).map(level).collect::<Result<_>>()?;
        let entries = entries(size)?;
        let frontier = TileFiles::at(dir).frontier_at(size)?;
        if frontier.root() != root {
            return Err(Error::mismatch("tile files and their state"));
        }
        let writer = Self { dir: dir.to_owned(), levels, entries, frontier, synced: size };
        // A crash may have come between the order and the holes.
        writer.make_holes(prune::min_index(dir)?)?;
        Ok(writer)
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

    /// Appends a leaf, with its entry, in memory.
    pub fn append(&mut self, entry: &[u8; ENTRY_BYTES]) {
        self.append_leaf(Hash::of_leaf(entry));
        if let Some(entries) = &mut self.entries {
            entries.pending.extend_from_slice(entry);
        }
    }

    /// Appends a leaf in memory, of a log that was opened without entries.
    pub fn append_leaf(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        self.frontier.append_with(leaf, |height, hash| {
            if height % 8 == 0 {
                levels[(height / 8) as usize].pending.extend_from_slice(&hash.0);
            }
        });
    }

    /// Drops the leaves and entries below `min_index`, in whole tiles, and answers with the first one
    /// that is left. The newest leaves stay whatever is asked for: only what is on the disk can go.
    pub fn prune(&mut self, min_index: u64) -> Result<u64> {
        let whole = min_index.min(self.synced) / TILE_WIDTH * TILE_WIDTH;
        let before = prune::min_index(&self.dir)?;
        if whole <= before {
            return Ok(before);
        }
        // First the order, then the holes: zeros that nobody ordered are damage.
        prune::write_min_index(&self.dir, whole)?;
        self.make_holes(whole)?;
        Ok(whole)
    }

    fn make_holes(&self, min_index: u64) -> Result<()> {
        prune::make_hole(&self.levels[0].path, min_index * HASH_BYTES as u64)?;
        match &self.entries {
            Some(entries) => prune::make_hole(&entries.path, min_index * ENTRY_BYTES as u64),
            None => Ok(()),
        }
    }

    fn all_files(&mut self) -> impl Iterator<Item = &mut Level> {
        self.levels.iter_mut().chain(&mut self.entries)
    }

    /// Hands what was appended to the system, so that readers see it.
    pub fn flush(&mut self) -> Result<()> {
        self.all_files().filter(|file| !file.pending.is_empty()).try_for_each(Level::flush)
    }

    /// Puts everything on the disk and remembers it in `state`.
    pub fn sync(&mut self) -> Result<()> {
        let size = self.frontier.size();
        if size == self.synced {
            return Ok(());
        }
        self.all_files().try_for_each(Level::sync)?;
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

fn write_state(dir: &Path, size: u64, root: &Hash) -> Result<()> {
    let path = dir.join(STATE);
    let text = format!("{size}\n{}\n", root.to_base64());
    replace_file(&path, &text, Readers::All).map_err(io_at(&path))
}
