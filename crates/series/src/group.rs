//! Row groups: series that are always measured together, one row of values a tick.
//!
//! ```text
//!   tile of 8 rows × up to 128 columns = one unit
//!     column 0: r0 r1 … r7 │ column 1: r0 r1 … r7 │ …          one cache line per column and tile
//! ```
//!
//! Writing a row touches consecutive lines; reading a column touches one line every eight points. The
//! rows become visible all at once, by the same protocol as a raw block: cells first, then the number of
//! rows (release). Each member series links the group block into its own list, as one of its columns.

use crate::block::BLOCK_POINTS;
use crate::budget::Charge;
use crate::memory::{UNIT_BYTES, UNIT_CELLS};
use crate::point::Point;
use crate::pool::Unit;
use crate::sync::{AtomicU32, Ordering};

/// Rows of a tile: eight values are one cache line.
const TILE_ROWS: usize = 8;
/// Columns that a unit can hold beside each other.
const UNIT_COLUMNS: usize = UNIT_CELLS / TILE_ROWS;
/// Rows of a group block. As many as a block has points, so that a column is a block.
pub(crate) const GROUP_ROWS: usize = BLOCK_POINTS;
const TILES: usize = GROUP_ROWS / TILE_ROWS;

/// Where the cells of a group of `width` series lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    width: usize,
    /// Columns side by side in one unit.
    columns: usize,
    tiles_per_unit: usize,
    units_per_strip: usize,
}

impl Layout {
    pub(crate) fn new(width: usize) -> Layout {
        let columns = width.min(UNIT_COLUMNS);
        let tiles_per_unit = UNIT_COLUMNS / columns;
        Layout { width, columns, tiles_per_unit, units_per_strip: TILES.div_ceil(tiles_per_unit) }
    }

    /// Units for the values, and one for the times.
    pub(crate) fn units(&self) -> usize {
        1 + self.width.div_ceil(self.columns) * self.units_per_strip
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        (self.units() * UNIT_BYTES) as u64
    }

    /// Unit and first cell of the tile that holds `row` for the strip of columns `strip`.
    #[inline]
    fn tile(&self, strip: usize, row: usize) -> (usize, usize) {
        let tile = row / TILE_ROWS;
        let unit = 1 + strip * self.units_per_strip + tile / self.tiles_per_unit;
        (unit, (tile % self.tiles_per_unit) * self.columns * TILE_ROWS)
    }
}

/// Up to 512 rows of one group.
#[repr(align(64))]
pub(crate) struct GroupBlock {
    layout: Layout,
    /// The times, then the strips of columns.
    units: Vec<Unit>,
    rows: AtomicU32,
    _charge: Charge,
}

impl GroupBlock {
    pub(crate) fn new(layout: Layout, units: Vec<Unit>, charge: Charge) -> GroupBlock {
        debug_assert_eq!(units.len(), layout.units());
        GroupBlock { layout, units, rows: AtomicU32::new(0), _charge: charge }
    }

    /// Writes row `at` and publishes it. Only the owner calls this, with `at` = rows published.
    #[inline]
    pub(crate) fn append(&self, at: usize, time: i64, values: &[f64]) {
        self.units[0].cells()[at].store(time.cast_unsigned(), Ordering::Relaxed);
        for (strip, values) in values.chunks(self.layout.columns).enumerate() {
            let (unit, tile) = self.layout.tile(strip, at);
            let cells = &self.units[unit].cells()[tile..tile + values.len() * TILE_ROWS];
            for (column, value) in cells.chunks_exact(TILE_ROWS).zip(values) {
                column[at % TILE_ROWS].store(value.to_bits(), Ordering::Relaxed);
            }
        }
        self.rows.store(at as u32 + 1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Acquire) as usize
    }

    #[inline]
    pub(crate) fn time(&self, row: usize) -> i64 {
        self.units[0].cells()[row].load(Ordering::Relaxed).cast_signed()
    }

    #[inline]
    pub(crate) fn value(&self, row: usize, column: usize) -> f64 {
        let (unit, tile) = self.layout.tile(column / self.layout.columns, row);
        let cell = tile + column % self.layout.columns * TILE_ROWS + row % TILE_ROWS;
        f64::from_bits(self.units[unit].cells()[cell].load(Ordering::Relaxed))
    }

    /// Appends the points `from..to` of one column, tile by tile.
    pub(crate) fn copy(&self, column: usize, from: usize, to: usize, out: &mut Vec<Point>) {
        out.reserve(to - from);
        let times = &self.units[0].cells()[..to];
        let (strip, lane) = (column / self.layout.columns, column % self.layout.columns);
        let mut row = from;
        while row < to {
            let end = (row / TILE_ROWS * TILE_ROWS + TILE_ROWS).min(to);
            let (unit, tile) = self.layout.tile(strip, row);
            let line = &self.units[unit].cells()[tile + lane * TILE_ROWS..][..TILE_ROWS];
            out.extend((row..end).map(|row| Point {
                time: times[row].load(Ordering::Relaxed).cast_signed(),
                value: f64::from_bits(line[row % TILE_ROWS].load(Ordering::Relaxed)),
            }));
            row = end;
        }
    }

    /// One column's share of the memory.
    pub(crate) fn column_bytes(&self) -> u64 {
        self.layout.size_bytes() / self.layout.width as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::budget::Budget;
    use crate::pool::Pool;

    fn block(width: usize) -> GroupBlock {
        let (pool, budget) = (Arc::new(Pool::new()), Budget::new(1 << 40));
        let layout = Layout::new(width);
        let units = (0..layout.units()).map(|_| pool.take().expect("memory")).collect();
        GroupBlock::new(layout, units, budget.take_anyway(layout.size_bytes()))
    }

    #[test]
    fn every_cell_of_every_width_is_its_own() {
        for width in [1, 2, 3, 7, 8, 100, 127, 128, 129, 300, 1024] {
            let block = block(width);
            for row in 0..GROUP_ROWS {
                let values: Vec<f64> = (0..width).map(|c| (row * width + c) as f64).collect();
                block.append(row, row as i64 * 10, &values);
            }
            for column in 0..width {
                let mut got = Vec::new();
                block.copy(column, 3, GROUP_ROWS - 1, &mut got);
                let expected: Vec<Point> = (3..GROUP_ROWS - 1)
                    .map(|row| Point::new(row as i64 * 10, (row * width + column) as f64))
                    .collect();
                assert_eq!(got, expected, "width {width}, column {column}");
                assert_eq!(block.value(5, column), (5 * width + column) as f64);
            }
        }
    }
}
