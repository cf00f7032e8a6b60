//! Segments in waiting: zeroed and synced aside, so that no write of the log extends a file.
//!
//! ```text
//! purged segment ─▶ retired-N ──┐
//!                   (new file) ─┴▶ zeroed by a job, off the log's thread ─▶ spare-N ─▶ next segment
//! ```

use crate::{disk::Disk, error::Error, log::io_error};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

/// Spares kept: one for the next segment, one while the job makes another.
const SPARES_MAX: usize = 2;

/// Work for another thread: it may take as long as a disk takes to write a segment.
pub type Housekeeping = Box<dyn FnOnce() -> Result<(), Error> + Send>;

pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<String>,
    retired: VecDeque<String>,
    jobs: usize,
    made: u64,
    /// The disk refused the last one: no other is tried before the next segment begins.
    refused: bool,
}

impl Spares {
    pub(super) fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> Self {
        Self { disk, segment_bytes, state: Arc::default() }
    }

    pub(super) fn take(&self) -> Option<String> {
        let mut state = self.state.lock();
        state.refused = false;
        state.ready.pop_front()
    }

    /// Hands over a file that the log does not need any more.
    pub(super) fn retire(&self, name: String) {
        self.state.lock().retired.push_back(name);
    }

    /// The next piece of work; `wanted` tells whether the log will need a segment soon.
    pub(super) fn job(&self, wanted: bool) -> Option<Housekeeping> {
        let mut state = self.state.lock();
        let full = state.ready.len() + state.jobs >= SPARES_MAX;
        let old = state.retired.pop_front();
        let disk = Arc::clone(&self.disk);
        if let Some(name) = old.clone().filter(|_| full) {
            return Some(Box::new(move || disk.remove(&name).map_err(io_error(&name, "removal"))));
        }
        let none_coming = state.ready.is_empty() && state.jobs == 0 && !state.refused;
        if old.is_none() && !(wanted && none_coming) {
            return None;
        }
        state.jobs += 1;
        state.made += 1;
        let name = format!("spare-{}", state.made);
        let (shared, size) = (Arc::clone(&self.state), self.segment_bytes);
        Some(Box::new(move || {
            let result = make(&*disk, old.as_deref(), &name, size);
            let mut state = shared.lock();
            state.jobs -= 1;
            state.refused = result.is_err();
            result.map(|()| state.ready.push_back(name))
        }))
    }
}

fn make(disk: &dyn Disk, old: Option<&str>, name: &str, size_bytes: u64) -> Result<(), Error> {
    if let Some(old) = old {
        disk.rename(old, name).map_err(io_error(old, "renaming"))?;
    }
    disk.zero(name, size_bytes).map_err(|refusal| {
        // What is there of it takes space on a disk that is likely full; the refusal is what counts.
        let _ = disk.remove(name);
        io_error(name, "zeroing a spare segment")(refusal)
    })
}
