//! A pool of units: maps slabs when it is empty, takes units back, and never gives one out twice.
//!
//! Fresh memory costs a page fault and a zeroing; recycled memory costs neither. So a freed unit stays
//! here for the next block, of this index or of another one that was given the same pool. A pool is an
//! ordinary value: nothing in this crate is process-wide.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Error;
use crate::memory::{self, Cells, UNIT_BYTES};
use crate::sync::Ordering;

/// The first slab is one huge page; each further one doubles, so that small indexes stay small …
const FIRST_SLAB_BYTES: usize = 2 << 20;
/// … and large ones map rarely. Beyond this, nothing is gained by mapping more at a time.
const LARGEST_SLAB_BYTES: usize = 64 << 20;

/// Memory for the blocks of one or more indexes.
///
/// ```
/// use std::sync::Arc;
/// use chronolith_series::{Index, Options, Pool};
/// let pool = Arc::new(Pool::new());
/// pool.prefault(4 << 20)?;
/// let index = Index::with(Options { pool: Some(Arc::clone(&pool)), ..Options::default() })?;
/// # Ok::<(), chronolith_series::Error>(())
/// ```
pub struct Pool {
    state: Mutex<State>,
}

struct State {
    free: Vec<Cells>,
    next_slab_bytes: usize,
    mapped_bytes: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

impl Pool {
    /// An empty pool: it maps memory when first asked.
    #[must_use]
    pub fn new() -> Pool {
        let state = State { free: Vec::new(), next_slab_bytes: FIRST_SLAB_BYTES, mapped_bytes: 0 };
        Pool { state: Mutex::new(state) }
    }

    /// Maps memory until at least `bytes` are free, and touches it, so that no writer waits for a page.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no memory to give.
    pub fn prefault(&self, bytes: usize) -> Result<(), Error> {
        let mut state = self.state.lock();
        while state.free.len() * UNIT_BYTES < bytes {
            state.map_slab()?;
        }
        for unit in &state.free {
            unit.iter().step_by(64).for_each(|cell| cell.store(0, Ordering::Relaxed));
        }
        Ok(())
    }

    /// Bytes that this pool ever mapped.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.state.lock().mapped_bytes
    }

    /// Bytes that no block uses now.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        (self.state.lock().free.len() * UNIT_BYTES) as u64
    }

    pub(crate) fn take(self: &Arc<Self>) -> Result<Unit, Error> {
        let mut state = self.state.lock();
        if state.free.is_empty() {
            state.map_slab()?;
        }
        let cells = state.free.pop();
        Ok(Unit { cells, home: Arc::clone(self) })
    }
}

impl State {
    fn map_slab(&mut self) -> Result<(), Error> {
        let bytes = self.next_slab_bytes;
        let mut units = memory::map(bytes).map_err(Error::io("mapping memory for points"))?;
        // The lowest address is popped first: a fresh slab is then walked upwards.
        units.reverse();
        units.append(&mut self.free);
        self.free = units;
        self.mapped_bytes += bytes as u64;
        self.next_slab_bytes = (bytes * 2).min(LARGEST_SLAB_BYTES);
        Ok(())
    }
}

/// One unit on loan: it goes back to its pool when dropped.
pub(crate) struct Unit {
    cells: Option<Cells>,
    home: Arc<Pool>,
}

impl Unit {
    /// The cells of this unit.
    #[inline]
    pub(crate) fn cells(&self) -> &Cells {
        self.cells.as_ref().expect("taken only by drop")
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(cells) = self.cells.take() {
            self.home.state.lock().free.push(cells);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn units_come_back_and_are_used_again() {
        let pool = Arc::new(Pool::new());
        let first = pool.take().unwrap();
        let address = first.cells().as_ptr();
        let mapped = pool.mapped_bytes();
        drop(first);
        assert_eq!(pool.take().unwrap().cells().as_ptr(), address);
        assert_eq!(pool.mapped_bytes(), mapped);
    }

    #[test]
    fn prefault_makes_room() {
        let pool = Pool::new();
        pool.prefault(5 << 20).unwrap();
        assert!(pool.free_bytes() >= 5 << 20);
    }
}
