//! The end of a log, mapped into memory: a small record is handed to the system by copying it.
//!
//! ```text
//! file:  … records … │ record │ zeros, whose space is allocated │
//!                    └──── window: WINDOW_BYTES from a block on ┘
//! ```
//! What is copied is in the system's cache, as if it had been written: it survives the process, and
//! syncing the file makes it durable.
//!
//! A store into a mapping cannot report an error: where the disk had no room for it, the process would
//! be killed. So the space is allocated first, and where the file system cannot promise it (or is full)
//! there is no window, and records are written the ordinary way, which reports every error.

use memmap2::{MmapMut, MmapOptions};
use std::fs::File;

/// Asked for at once: some thousands of small records. A log takes so much more of the disk than it
/// holds, until it is sealed.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// Windows begin at multiples of it; no system has larger pages for files.
const ALIGNMENT: u64 = 64 << 10;

/// See the module.
pub(super) struct Window {
    map: MmapMut,
    start: u64,
}

impl Window {
    /// The file from `at` on; none where the file system does not allocate ahead.
    #[cfg(target_os = "linux")]
    pub(super) fn open(file: &File, at: u64) -> Option<Self> {
        let start = at / ALIGNMENT * ALIGNMENT;
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(file, flags, start, WINDOW_BYTES).ok()?;
        Self::map(file, start)
    }

    /// Only Linux is known to sync what was changed through a mapping with the file.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(_file: &File, _at: u64) -> Option<Self> {
        None
    }

    #[cfg(target_os = "linux")]
    fn map(file: &File, start: u64) -> Option<Self> {
        let mut options = MmapOptions::new();
        options.offset(start).len(WINDOW_BYTES as usize);
        // SAFETY: nobody else changes the mapped bytes or cuts the file short while the map lives. The
        // directory has one owner, by its lock; in this process only `Log` has the file for writing,
        // it drops its window before it cuts the file, and it writes only behind what it has copied.
        #[expect(unsafe_code, reason = "a sixth of a write's time, measured: see MAPPED_BYTES")]
        let map = unsafe { options.map_mut(file) };
        Some(Self { map: map.ok()?, start })
    }

    /// Copies a record to `at` in the file; false where it does not lie in the window.
    pub(super) fn copy(&mut self, at: u64, header: &[u8], payload: &[&[u8]]) -> bool {
        let size = payload.iter().fold(header.len(), |size, part| size + part.len());
        let place = at.checked_sub(self.start).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            self.map.get_mut(from..from.checked_add(size)?)
        });
        let Some(mut place) = place else { return false };
        for part in std::iter::once(&header).chain(payload) {
            let (here, rest) = place.split_at_mut(part.len());
            here.copy_from_slice(part);
            place = rest;
        }
        true
    }
}
