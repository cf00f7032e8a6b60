//! Tiles that were read a moment ago, for who makes many proofs at once.
//!
//! ```text
//! rows[0]  256 hashes, as read        node of height 8·L + h = rows[h][index within the tile]
//! rows[1]  128 parents … rows[7]  2
//! ```
//! A path goes through one tile a level and the right edge of the tree. Neighbouring leaves share all of
//! it but a few hashes, so a tile is read, and its inner nodes are computed, once and not for each leaf.
//!
//! Invariants: what is answered is what the files answer; at most [`TILES_MAX`] tiles are held.

use crate::{Entries, Error, Hash, Result, TILE_WIDTH, TileFiles};
use std::{cell::RefCell, collections::BTreeMap};

/// One megabyte. At the limit all are let go: leaves come in order, so few are needed again.
const TILES_MAX: usize = 64;

/// A tile's hashes and, row by row, the nodes above them.
type Rows = Vec<Vec<Hash>>;

/// Reads the tile files of a log as it was when it had so many leaves; see the module.
#[derive(Debug)]
pub struct RecentTiles {
    files: TileFiles,
    size: u64,
    /// By level and number.
    tiles: RefCell<BTreeMap<(u32, u64), Rows>>,
}

impl RecentTiles {
    /// The files must hold `size` leaves.
    pub fn new(files: TileFiles, size: u64) -> Self {
        Self { files, size, tiles: RefCell::default() }
    }

    /// The files.
    pub fn files(&self) -> &TileFiles {
        &self.files
    }

    /// A tile with its inner nodes.
    fn read(&self, level: u32, tile: u64) -> Result<Rows> {
        let first = tile * TILE_WIDTH;
        let there = self.size.checked_shr(8 * level).unwrap_or(0).saturating_sub(first);
        let lowest = self.files.entries(level, first, there.min(TILE_WIDTH))?;
        let mut rows = vec![lowest];
        while let Some(row) = rows.last().filter(|row| row.len() > 1 && rows.len() < 8) {
            let pairs = row.chunks_exact(2);
            rows.push(pairs.map(|pair| Hash::of_node(&pair[0], &pair[1])).collect());
        }
        Ok(rows)
    }
}

impl Entries for RecentTiles {
    fn entries(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>> {
        self.files.entries(level, start, count)
    }

    fn node(&self, height: u32, index: u64) -> Result<Hash> {
        let (level, within) = (height / 8, height % 8);
        let (tile, width) = ((index << within) / TILE_WIDTH, TILE_WIDTH >> within);
        let mut tiles = self.tiles.borrow_mut();
        if !tiles.contains_key(&(level, tile)) {
            if tiles.len() >= TILES_MAX {
                tiles.clear();
            }
            tiles.insert((level, tile), self.read(level, tile)?);
        }
        let row = tiles.get(&(level, tile)).and_then(|rows| rows.get(within as usize));
        let at = usize::try_from(index % width).expect("a tile has 256");
        let found = row.and_then(|row| row.get(at)).copied();
        found.ok_or(Error::OutOfTree { index: index << height, size: self.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TileWriter, consistency_proof, inclusion_proof};

    /// Files of so many leaves.
    fn files(leaves: u64) -> (tempfile::TempDir, TileFiles) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TileWriter::open_without_entries(dir.path()).unwrap();
        for leaf in 0..leaves {
            writer.append_leaf(Hash::of_leaf(&leaf.to_be_bytes()));
        }
        writer.flush().unwrap();
        let files = TileFiles::at(dir.path());
        (dir, files)
    }

    #[test]
    fn its_proofs_are_those_of_the_files() {
        let (_dir, files) = files(66_000);
        for size in [1, 2, 255, 256, 257, 300, 4_097, 65_535, 65_536, 65_537, 66_000] {
            let recent = RecentTiles::new(files.clone(), size);
            for index in (0..size).step_by(97).chain([size - 1]) {
                let expected = inclusion_proof(&files, index, size).unwrap();
                assert_eq!(
                    inclusion_proof(&recent, index, size).unwrap(),
                    expected,
                    "{index}/{size}"
                );
            }
            let expected = consistency_proof(&files, size / 2, size).unwrap();
            assert_eq!(consistency_proof(&recent, size / 2, size).unwrap(), expected);
            assert!(recent.tiles.borrow().len() <= TILES_MAX);
        }
    }

    #[test]
    fn neighbours_read_their_tile_once() {
        let (dir, files) = files(600);
        let recent = RecentTiles::new(files, 600);
        inclusion_proof(&recent, 300, 600).unwrap();
        std::fs::remove_dir_all(dir.path()).unwrap();
        for index in 256..512 {
            inclusion_proof(&recent, index, 600).unwrap();
        }
        assert!(inclusion_proof(&recent, 7, 600).is_err(), "that tile was not read");
    }
}
