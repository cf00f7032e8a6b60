//! The work that nobody asks for: ending leases, recording their remaining times, and removing what a
//! compaction left over.
//!
//! ```text
//! thread: wait (bell, next deadline, at most a tick) ─▶ leases, if this member leads ─▶ a step of scrubbing
//! ```
//! * Nothing is removed that the history's log does not have on the disk.
//! * Scrubbing holds the writer for one short step at a time; between steps writes go on.
//! * Only the leader ends leases; a new leader starts all of them with the remaining time on record.

use crate::{
    command::{Change, LeaseCheckpoint},
    error::StoreError,
    history::{self, History},
    proposer::Proposer,
    shared::{Shared, Wanted},
};
use chronolith_mvcc::Mvcc;
use chronolith_proto::etcdserverpb::LeaseRevokeRequest;
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Longest wait: etcd looks for expired leases as often.
const TICK: Duration = Duration::from_millis(500);

/// Shortest wait while leases are due but not applied yet.
const PACE: Duration = Duration::from_millis(10);

/// Records looked at in one step: some milliseconds of the writer's time, at about 6 µs each in memory.
const SCRUB_RECORDS: usize = 500;

/// See the module.
pub(crate) struct UpkeepThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mvcc: Arc<Mutex<Mvcc>>,
    pub(crate) proposer: Arc<Proposer>,
    /// The log that must have revisions before they may go.
    pub(crate) history: Option<History>,
}

impl UpkeepThread {
    pub(crate) fn start(self) -> std::io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("upkeep".to_owned()).spawn(move || self.run())
    }

    fn run(self) {
        let mut scrubbing = true;
        let mut led_term = None;
        loop {
            let now = Instant::now();
            led_term = self.follow_leadership(led_term, now);
            let next = if led_term.is_some() { self.leases(now) } else { None };
            scrubbing = scrubbing && self.scrub();
            let wait = if scrubbing { Duration::ZERO } else { wait(next, now) };
            let wanted = self.wait(wait);
            if wanted.stop {
                return self.shared.scrubbing_ended(StoreError::Stopped);
            }
            scrubbing |= wanted.scrub;
        }
    }

    /// The term in which this member leads; the lease clock starts anew with each.
    fn follow_leadership(&self, led_term: Option<u64>, now: Instant) -> Option<u64> {
        let term = self.proposer.led_term();
        if term.is_some() && term != led_term {
            self.shared.restart_clock(now);
        }
        term
    }

    /// Proposes what is due of leases; answers when to look again.
    fn leases(&self, now: Instant) -> Option<Instant> {
        let due = self.shared.clock.lock().due(now);
        for id in due.expired {
            let shared = Arc::clone(&self.shared);
            let expire = Change::LeaseExpire(LeaseRevokeRequest { id });
            self.proposer.propose_quietly(expire, move |proposed| {
                if !proposed {
                    shared.clock.lock().revoke_failed(id);
                }
            });
        }
        if !due.checkpoints.is_empty() {
            let checkpoint = LeaseCheckpoint { leases: due.checkpoints };
            // One that is lost is made up for by the next.
            self.proposer.propose_quietly(Change::LeaseCheckpoint(checkpoint), |_| ());
        }
        due.next
    }

    /// Removes a little of what compactions left; true if there is more.
    fn scrub(&self) -> bool {
        let mut mvcc = match self.lock_when_logged() {
            Ok(mvcc) => mvcc,
            Err(error) => {
                tracing::error!(%error, "compacted revisions stay: the history's log cannot have them");
                self.shared.scrubbing_ended(StoreError::Storage(error.to_string()));
                return false;
            }
        };
        let step = mvcc.scrub_step(SCRUB_RECORDS);
        let compacted = mvcc.reader().compact_revision();
        // Handed over to a waiting write: let go as usual, this thread would take it again first, step
        // after step, and one write would wait for the whole removal.
        MutexGuard::unlock_fair(mvcc);
        match step {
            Ok(true) => true,
            Ok(false) => {
                self.shared.scrubbed(compacted);
                false
            }
            Err(error) => {
                // Nothing is lost: the engine is poisoned if it must be, and the rest is done at the
                // next compaction.
                tracing::error!(%error, "removing compacted revisions failed");
                self.shared.scrubbing_ended(error.into());
                false
            }
        }
    }

    /// The writer, while the history's log has, on the disk, everything that a compaction hides: what is
    /// removed could not be hashed any more after a crash.
    fn lock_when_logged(&self) -> Result<MutexGuard<'_, Mvcc>, history::Error> {
        loop {
            let mvcc = self.mvcc.lock();
            let compacted = mvcc.reader().compact_revision();
            match &self.history {
                Some(history) if history.synced() < compacted => {
                    drop(mvcc);
                    history.sync()?;
                }
                _ => return Ok(mvcc),
            }
        }
    }

    fn wait(&self, wait: Duration) -> Wanted {
        let upkeep = &self.shared.upkeep;
        let mut wanted = upkeep.wanted.lock();
        if !wanted.scrub && !wanted.stop && !wait.is_zero() {
            upkeep.bell.wait_for(&mut wanted, wait);
        }
        Wanted { scrub: std::mem::take(&mut wanted.scrub), ..*wanted }
    }
}

fn wait(next: Option<Instant>, now: Instant) -> Duration {
    next.map_or(TICK, |next| next.saturating_duration_since(now).clamp(PACE, TICK))
}
