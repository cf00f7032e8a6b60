//! Applied runs on their way to the thread that hashes them.
//!
//! ```text
//! writer ─ push ─▶ runs (bounded by bytes; at the bound the writer waits) ─ take all ─▶ follower
//! ```
//! * Runs are taken in the order in which they were pushed, and none is ever dropped.
//! * The follower is woken for the first run after a pause, for a queue that is half full, and by who
//!   waits for it; otherwise it looks by itself, every [`TICK`]: a wake-up costs a writer more than
//!   hashing its revision does.

use chronolith_mvcc::Applied;
use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Keys and values that may wait: they are applied already, so this is memory on top of the engine's.
/// A run may be larger than this by itself; it is let in when the queue is empty.
const QUEUED_BYTES: usize = 16 << 20;
/// How long runs gather.
const TICK: Duration = Duration::from_millis(2);
/// What a change weighs besides its key and value.
const CHANGE_BYTES: usize = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    runs: Vec<Applied>,
    size_bytes: usize,
    /// The follower sleeps until somebody rings.
    asleep: bool,
    /// Somebody waits for what is in here.
    urgent: bool,
    closed: bool,
}

impl Queue {
    /// Adds a run; waits while the queue is full. False if the follower has ended.
    pub(super) fn push(&self, run: Applied) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.size_bytes >= QUEUED_BYTES && !waiting.closed {
            self.room.wait(&mut waiting);
        }
        if waiting.closed {
            return false;
        }
        waiting.size_bytes += run.size_bytes() + run.changes() * CHANGE_BYTES;
        waiting.runs.push(run);
        if waiting.asleep || waiting.size_bytes >= QUEUED_BYTES / 2 {
            self.bell.notify_one();
        }
        true
    }

    /// Everything that waits, when there is enough of it, or when it waited for long enough; nothing
    /// once `until` has come. None when the queue is closed and empty.
    pub(super) fn take(&self, until: Option<Instant>) -> Option<Vec<Applied>> {
        let mut waiting = self.waiting.lock();
        while waiting.runs.is_empty() && !waiting.closed {
            waiting.asleep = true;
            let timed_out = match until {
                Some(until) => self.bell.wait_until(&mut waiting, until).timed_out(),
                None => {
                    self.bell.wait(&mut waiting);
                    false
                }
            };
            waiting.asleep = false;
            if timed_out {
                break;
            }
        }
        let ready = waiting.closed || waiting.urgent || waiting.size_bytes >= QUEUED_BYTES / 2;
        if !ready && !waiting.runs.is_empty() {
            self.bell.wait_for(&mut waiting, TICK);
        }
        let runs = std::mem::take(&mut waiting.runs);
        waiting.size_bytes = 0;
        waiting.urgent = false;
        if runs.is_empty() && waiting.closed {
            return None;
        }
        self.room.notify_all();
        Some(runs)
    }

    /// Somebody waits for what is in here.
    pub(super) fn hurry(&self) {
        self.waiting.lock().urgent = true;
        self.bell.notify_one();
    }

    /// Nothing more comes in; what is in here may still be taken.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.bell.notify_one();
        self.room.notify_all();
    }
}
