//! Memory for points: large mappings cut into units. The only module with `unsafe`.
//!
//! ```text
//!   Slab (one mapping, huge pages asked for)
//!   │ unit 0 │ unit 1 │ unit 2 │ …            a unit = 1,024 cells of payload + one spare line
//! ```
//!
//! A unit is 129 cache lines: an odd number, so that the same cell of many units falls into different
//! cache sets. With 8,192-byte units, a tick over 1,024 series would fight for 16 sets.
//!
//! Why the `unsafe` here is sound, in full:
//! - every cell is an `AtomicU64`, so no access from any thread is a data race, whoever holds a unit;
//! - fresh anonymous pages are zero, and any 64 bits are a valid `AtomicU64`;
//! - a unit's address is 8-aligned: the mapping starts at a page and a unit is a multiple of 64 bytes;
//! - a unit lies inside its mapping: `Slab::map` makes only units that fit;
//! - the mapping outlives its units: each holds the `Arc` of the slab, which unmaps on its last drop.
#![cfg_attr(
    not(loom),
    expect(unsafe_code, reason = "mapping huge pages; proof in the module text")
)]

use crate::sync::AtomicU64;

/// Cells of payload in a unit.
pub(crate) const UNIT_CELLS: usize = 1024;
/// Cells from one unit to the next: one line more, see the module text.
const STRIDE_CELLS: usize = UNIT_CELLS + 8;
/// What a unit takes from the memory budget.
pub(crate) const UNIT_BYTES: usize = STRIDE_CELLS * 8;

#[cfg(not(loom))]
pub(crate) use mapped::{Cells, map};

#[cfg(not(loom))]
mod mapped {
    use std::ffi::c_void;
    use std::io;
    use std::ops::Deref;
    use std::ptr::{self, NonNull};
    use std::sync::Arc;

    use rustix::mm::{self, MapFlags, ProtFlags};

    use super::{AtomicU64, STRIDE_CELLS, UNIT_BYTES, UNIT_CELLS};

    /// Size and alignment of a huge page on the platforms that have them.
    const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// One mapping. Unmapped when its last unit is gone.
    struct Slab {
        start: NonNull<c_void>,
        bytes: usize,
    }

    // SAFETY: the slab is an address and a length; the memory behind it is reached through atomics only.
    unsafe impl Send for Slab {}
    // SAFETY: as above; `&Slab` offers nothing at all.
    unsafe impl Sync for Slab {}

    impl Drop for Slab {
        fn drop(&mut self) {
            // SAFETY: start and bytes are what mmap returned; no unit is left, as each holds this slab.
            let unmapped = unsafe { mm::munmap(self.start.as_ptr(), self.bytes) };
            debug_assert!(unmapped.is_ok());
        }
    }

    /// One unit: `UNIT_CELLS` atomic cells. A pool gives it to one block at a time; a clone of the handle
    /// lets that block's readers reach the cells without a detour.
    #[derive(Clone)]
    pub(crate) struct Cells {
        first: NonNull<AtomicU64>,
        _slab: Arc<Slab>,
    }

    // SAFETY: the cells are atomics, and the slab they live in is Send and Sync.
    unsafe impl Send for Cells {}
    // SAFETY: as above.
    unsafe impl Sync for Cells {}

    impl Deref for Cells {
        type Target = [AtomicU64; UNIT_CELLS];

        #[inline]
        fn deref(&self) -> &Self::Target {
            // SAFETY: `map` made `first` the start of STRIDE_CELLS zeroed, aligned cells inside the
            // mapping that `_slab` keeps alive for as long as `self`.
            unsafe { self.first.cast::<[AtomicU64; UNIT_CELLS]>().as_ref() }
        }
    }

    /// Maps `bytes` of zeroed memory in huge pages where the system has them, cut into units.
    pub(crate) fn map(bytes: usize) -> io::Result<Vec<Cells>> {
        // One huge page more than asked for, so that the units can start at a huge page's boundary.
        let mapped_bytes = bytes + HUGE_PAGE_BYTES;
        // SAFETY: a fresh private anonymous mapping at an address of the system's choice aliases nothing.
        let start = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                mapped_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mmap gave null"))?;
        let slab = Arc::new(Slab { start, bytes: mapped_bytes });
        let skip = start.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
        // SAFETY: skip ≤ HUGE_PAGE_BYTES, so `skip + bytes` stays inside the mapping.
        let base = unsafe { start.cast::<u8>().add(skip) };
        ask_for_huge_pages(base, bytes);
        let unit = |at: usize| {
            // SAFETY: at < bytes / UNIT_BYTES, so the unit ends inside the mapping.
            let first = unsafe { base.add(at * UNIT_BYTES) }.cast::<AtomicU64>();
            Cells { first, _slab: Arc::clone(&slab) }
        };
        const { assert!(STRIDE_CELLS * 8 == UNIT_BYTES) };
        Ok((0..bytes / UNIT_BYTES).map(unit).collect())
    }

    /// Without huge pages everything works, with a page fault every 4 KiB: so a refusal is no error.
    fn ask_for_huge_pages(base: NonNull<u8>, bytes: usize) {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: the range lies inside our mapping, and this advice changes no content.
            let asked =
                unsafe { mm::madvise(base.as_ptr().cast(), bytes, mm::Advice::LinuxHugepage) };
            let _refused_is_fine = asked;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (base, bytes);
    }
}

#[cfg(loom)]
pub(crate) use modelled::{Cells, map};

/// loom's atomics have no plain layout, so under loom a unit is an ordinary vector.
#[cfg(loom)]
mod modelled {
    use std::sync::Arc;

    use super::{AtomicU64, UNIT_CELLS};

    #[derive(Clone)]
    pub(crate) struct Cells(Arc<[AtomicU64]>);

    impl std::ops::Deref for Cells {
        type Target = [AtomicU64];

        fn deref(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    /// A model needs a handful of units of a few cells.
    pub(crate) fn map(_bytes: usize) -> std::io::Result<Vec<Cells>> {
        let _ = UNIT_CELLS;
        Ok((0..2).map(|_| Cells((0..16).map(|_| AtomicU64::new(0)).collect())).collect())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn units_are_zeroed_aligned_disjoint_and_writable_to_the_last_cell() {
        let units = map(64 * UNIT_BYTES).unwrap();
        assert_eq!(units.len(), 64);
        for (n, unit) in units.iter().enumerate() {
            assert_eq!(unit.as_ptr() as usize % 64, 0);
            assert!(unit.iter().all(|cell| cell.load(Ordering::Relaxed) == 0));
            unit.iter().for_each(|cell| cell.store(n as u64, Ordering::Relaxed));
        }
        for (n, unit) in units.iter().enumerate() {
            assert!(unit.iter().all(|cell| cell.load(Ordering::Relaxed) == n as u64));
        }
    }

    #[test]
    fn a_unit_outlives_the_others_of_its_slab() {
        let mut units = map(8 * UNIT_BYTES).unwrap();
        let kept = units.pop().unwrap();
        drop(units);
        kept[UNIT_CELLS - 1].store(7, Ordering::Relaxed);
        assert_eq!(kept[UNIT_CELLS - 1].load(Ordering::Relaxed), 7);
    }
}
