//! What the apply thread tells the rest of the store, after each commit.

use crate::{
    error::StoreError,
    figures::Durations,
    lease::{clock::LeaseClock, records::Lease},
    machine::{alarms::Alarms, applying::Effect},
};
use chronolith_proto::etcdserverpb::AlarmType;
use chronolith_raft::Applied;
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) clock: Mutex<LeaseClock>,
    pub(crate) alarms: RwLock<Alarms>,
    /// [`AlarmType::Nospace`] is on, for a look without a lock.
    no_space: AtomicBool,
    /// [`AlarmType::Corrupt`] is on.
    corrupt: AtomicBool,
    /// The newest term heard of.
    term: AtomicU64,
    /// Terms that were heard of since the replay: each has a leader.
    pub(crate) leader_changes: AtomicU64,
    pub(crate) commits: Durations,
    pub(crate) wal_syncs: Arc<Durations>,
    scrubbed: watch::Sender<Scrubbed>,
    pub(crate) upkeep: Upkeep,
}

/// How far the removal of compacted revisions got.
#[derive(Debug, Default)]
struct Scrubbed {
    revision: i64,
    /// Why it goes no further.
    end: Option<StoreError>,
}

/// What the upkeep thread is to do, and its bell.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    pub(crate) wanted: Mutex<Wanted>,
    pub(crate) bell: Condvar,
}

/// See [`Upkeep`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) scrub: bool,
    pub(crate) stop: bool,
}

impl Upkeep {
    pub(crate) fn ring(&self, want: impl FnOnce(&mut Wanted)) {
        want(&mut self.wanted.lock());
        self.bell.notify_one();
    }
}

impl Shared {
    /// Begins with what the engine holds.
    pub(crate) fn start(&self, leases: &BTreeMap<i64, Lease>, alarms: &Alarms) {
        self.clock.lock().start(leases, Instant::now());
        self.set_alarms(alarms);
    }

    /// A run was committed.
    pub(crate) fn publish(&self, effects: Vec<Effect>, alarms: &Alarms, applied: &Applied) {
        self.raise_term(applied.term);
        if *alarms != *self.alarms.read() {
            self.set_alarms(alarms);
        }
        if !effects.is_empty() {
            self.take_effects(effects);
        }
    }

    fn take_effects(&self, effects: Vec<Effect>) {
        let now = Instant::now();
        let mut clock = self.clock.lock();
        for effect in effects {
            match effect {
                Effect::Granted(id, lease) => clock.granted(id, lease, now),
                Effect::Revoked(id) => clock.revoked(id),
                Effect::Recorded(remaining) => clock.recorded(remaining),
                Effect::Compacted => self.upkeep.ring(|wanted| wanted.scrub = true),
            }
        }
    }

    fn set_alarms(&self, alarms: &Alarms) {
        self.no_space.store(alarms.is_on(AlarmType::Nospace), Ordering::Release);
        self.corrupt.store(alarms.is_on(AlarmType::Corrupt), Ordering::Release);
        *self.alarms.write() = alarms.clone();
    }

    /// This member begins to lead.
    pub(crate) fn restart_clock(&self, now: Instant) {
        self.clock.lock().restart(now);
    }

    /// Nothing is left of what compactions up to `revision` superseded.
    pub(crate) fn scrubbed(&self, revision: i64) {
        self.scrubbed.send_replace(Scrubbed { revision, end: None });
    }

    /// There will be no more scrubbing, or not before the next compaction: nobody waits in vain.
    pub(crate) fn scrubbing_ended(&self, end: StoreError) {
        self.scrubbed.send_modify(|scrubbed| scrubbed.end = Some(end));
    }

    /// Waits until nothing is left of what a compaction at `revision` superseded.
    pub(crate) async fn wait_scrubbed(&self, revision: i64) -> Result<(), StoreError> {
        let mut scrubbed = self.scrubbed.subscribe();
        let reached = |scrubbed: &Scrubbed| scrubbed.revision >= revision || scrubbed.end.is_some();
        let scrubbed = scrubbed.wait_for(reached).await.map_err(|_| StoreError::Stopped)?;
        match &scrubbed.end {
            Some(end) if scrubbed.revision < revision => Err(end.clone()),
            _ => Ok(()),
        }
    }

    /// A term was heard of; terms only grow.
    pub(crate) fn raise_term(&self, term: u64) {
        if self.term.fetch_max(term, Ordering::AcqRel) < term {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    pub(crate) fn is_out_of_space(&self) -> bool {
        self.no_space.load(Ordering::Acquire)
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt.load(Ordering::Acquire)
    }
}
