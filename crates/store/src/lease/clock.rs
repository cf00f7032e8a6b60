//! Deadlines, on the leader only: when a lease has to be revoked, and when its remaining time is to
//! be recorded.
//!
//! ```text
//! granted, renewed ─▶ deadline ── time passes ──▶ due(): revoke these, checkpoint those
//! ```
//! * Nothing here reads a clock: the time comes in, so that tests choose it.
//! * Renewing is one table entry: the queue is corrected only when the old moment comes.
//! * Remaining time is recorded whenever it has fallen by a step since the last record. A step is half
//!   of the time to live, so a lease that is renewed as clients do (at a third) never costs an entry; and
//!   at most five minutes. A renewal of a lease with less than all of its time on record has to be
//!   recorded first, or a restart would end it early.

use super::{CHECKPOINT_STEP_MAX_S, records::Lease};
use crate::command::LeaseRemaining;
use rustc_hash::FxHashMap;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

/// Leases revoked, and remaining times recorded, at one moment; the rest follows at the next one.
/// etcd's rate: a mass expiry must not fill the log's queue.
const DUE_AT_ONCE: usize = 500;

/// Below so many entries the queue is not worth cleaning.
const QUEUE_SLACK: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    leases: FxHashMap<i64, Running>,
    /// The next moment at which a lease may have something due; may be early, never late.
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
}

#[derive(Debug)]
struct Running {
    ttl_s: i64,
    /// Remaining time on record.
    recorded_s: i64,
    deadline: Instant,
    /// Its end was proposed.
    ending: bool,
}

/// What a keep-alive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// There is no such lease, or it has just expired.
    Gone,
    /// It runs for its whole time again.
    Renewed {
        /// In seconds.
        ttl_s: i64,
    },
    /// First record that all of its time remains, then renew again.
    RecordFirst {
        /// In seconds.
        ttl_s: i64,
    },
}

/// What is due at a moment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Due {
    /// Leases to revoke.
    pub(crate) expired: Vec<i64>,
    /// Remaining times to record.
    pub(crate) checkpoints: Vec<LeaseRemaining>,
    /// When to ask again, if nothing else happens.
    pub(crate) next: Option<Instant>,
}

impl LeaseClock {
    /// Starts all leases with their recorded remaining times, as at a start or when this member
    /// becomes the leader.
    pub(crate) fn start(&mut self, leases: &BTreeMap<i64, Lease>, now: Instant) {
        self.leases.clear();
        self.queue.clear();
        for (id, lease) in leases {
            self.granted(*id, *lease, now);
        }
    }

    /// Starts all leases anew with the remaining times on record.
    pub(crate) fn restart(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.deadline = now + seconds(lease.recorded_s);
            lease.ending = false;
        }
        self.queue = self.leases.iter().map(|(id, lease)| Reverse((lease.next(), *id))).collect();
    }

    pub(crate) fn granted(&mut self, id: i64, lease: Lease, now: Instant) {
        let Lease { ttl_s, remaining_s: recorded_s } = lease;
        let running =
            Running { ttl_s, recorded_s, deadline: now + seconds(recorded_s), ending: false };
        self.queue.push(Reverse((running.next(), id)));
        self.leases.insert(id, running);
        self.clean_queue();
    }

    pub(crate) fn revoked(&mut self, id: i64) {
        self.leases.remove(&id);
        self.clean_queue();
    }

    /// The remaining time on record changed.
    pub(crate) fn recorded(&mut self, remaining: LeaseRemaining) {
        if let Some(lease) = self.leases.get_mut(&remaining.id) {
            lease.recorded_s = remaining.remaining_s;
            self.queue.push(Reverse((lease.next(), remaining.id)));
            self.clean_queue();
        }
    }

    /// Renews a lease that has not expired.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Renewal {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.deadline > now) else {
            return Renewal::Gone;
        };
        let ttl_s = lease.ttl_s;
        if lease.recorded_s < ttl_s {
            return Renewal::RecordFirst { ttl_s };
        }
        lease.deadline = now + seconds(ttl_s);
        Renewal::Renewed { ttl_s }
    }

    /// Granted and remaining time to live of a lease that has not expired.
    pub(crate) fn time_to_live(&self, id: i64, now: Instant) -> Option<(i64, i64)> {
        let lease = self.leases.get(&id).filter(|lease| lease.deadline > now)?;
        Some((lease.ttl_s, whole_seconds(lease.deadline - now)))
    }

    /// The leases that have not expired, in order.
    pub(crate) fn ids(&self, now: Instant) -> Vec<i64> {
        let alive = self.leases.iter().filter(|(_, lease)| lease.deadline > now);
        let mut ids: Vec<i64> = alive.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The end of this lease could not be proposed: it is due again.
    pub(crate) fn revoke_failed(&mut self, id: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.ending = false;
            self.queue.push(Reverse((lease.deadline, id)));
        }
    }

    /// Takes what is due.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            due.next = Some(at);
            let full = due.expired.len() >= DUE_AT_ONCE || due.checkpoints.len() >= DUE_AT_ONCE;
            if at > now || full {
                break;
            }
            due.next = None;
            self.queue.pop();
            self.take_due(id, now, &mut due);
        }
        due
    }

    fn take_due(&mut self, id: i64, now: Instant, due: &mut Due) {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| !lease.ending) else { return };
        if lease.deadline <= now {
            lease.ending = true;
            due.expired.push(id);
            return;
        }
        if lease.next() <= now {
            lease.recorded_s = whole_seconds(lease.deadline - now).max(1);
            due.checkpoints.push(LeaseRemaining { id, remaining_s: lease.recorded_s });
        }
        self.queue.push(Reverse((lease.next(), id)));
    }

    /// Entries of leases that are gone or moved on are dropped once they are the majority.
    fn clean_queue(&mut self) {
        if self.queue.len() <= 2 * self.leases.len() + QUEUE_SLACK {
            return;
        }
        let running = self.leases.iter().filter(|(_, lease)| !lease.ending);
        self.queue = running.map(|(id, lease)| Reverse((lease.next(), *id))).collect();
    }
}

impl Running {
    /// When something is due: the next record of the remaining time, or the end.
    fn next(&self) -> Instant {
        let step_s = (self.ttl_s / 2).clamp(1, CHECKPOINT_STEP_MAX_S);
        let at_remaining_s = self.recorded_s - step_s;
        if at_remaining_s < 1 {
            return self.deadline;
        }
        self.deadline - seconds(at_remaining_s)
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(ttl_s: i64) -> (LeaseClock, Instant) {
        let (mut clock, now) = (LeaseClock::default(), Instant::now());
        clock.granted(7, Lease::new(ttl_s), now);
        (clock, now)
    }

    #[test]
    fn a_lease_expires_once_and_then_is_gone() {
        let (mut clock, now) = clock(2);
        assert_eq!(clock.due(now), Due { next: Some(now + seconds(1)), ..Due::default() });
        clock.due(now + seconds(1));
        let end = now + seconds(2);
        assert_eq!(clock.due(end).expired, [7]);
        assert_eq!(clock.due(end).expired, [0; 0], "its end is proposed once");
        assert_eq!(clock.renew(7, end), Renewal::Gone);
        assert_eq!(clock.time_to_live(7, end), None);
        assert_eq!(clock.ids(end), [0; 0]);
        clock.revoke_failed(7);
        assert_eq!(clock.due(end).expired, [7], "and again if that failed");
    }

    #[test]
    fn a_lease_renewed_in_time_never_costs_a_record() {
        let (mut clock, mut now) = clock(60);
        for _ in 0..100 {
            now += seconds(20);
            assert_eq!(clock.renew(7, now), Renewal::Renewed { ttl_s: 60 });
            let due = clock.due(now);
            assert_eq!((due.expired.len(), due.checkpoints.len()), (0, 0));
        }
        assert_eq!(clock.time_to_live(7, now), Some((60, 60)));
    }

    #[test]
    fn the_remaining_time_is_recorded_in_steps() {
        let (mut clock, now) = clock(1000);
        let mut recorded = Vec::new();
        for second in 0..1000 {
            let due = clock.due(now + seconds(second));
            assert!(due.expired.is_empty());
            recorded.extend(due.checkpoints.iter().map(|checkpoint| checkpoint.remaining_s));
        }
        assert_eq!(recorded, [700, 400, 100]);
        assert_eq!(clock.due(now + seconds(1000)).expired, [7]);
    }

    #[test]
    fn a_renewal_after_a_record_is_recorded_first() {
        let (mut clock, now) = clock(10);
        let later = now + seconds(5);
        assert_eq!(clock.due(later).checkpoints, [LeaseRemaining { id: 7, remaining_s: 5 }]);
        assert_eq!(clock.renew(7, later), Renewal::RecordFirst { ttl_s: 10 });
        clock.recorded(LeaseRemaining { id: 7, remaining_s: 10 });
        assert_eq!(clock.renew(7, later), Renewal::Renewed { ttl_s: 10 });
        assert_eq!(clock.time_to_live(7, later), Some((10, 10)));
    }

    #[test]
    fn a_start_continues_with_what_was_recorded() {
        let leases = BTreeMap::from([(7, Lease { ttl_s: 600, remaining_s: 30 })]);
        let (mut clock, now) = (LeaseClock::default(), Instant::now());
        clock.start(&leases, now);
        assert_eq!(clock.time_to_live(7, now), Some((600, 30)));
        assert_eq!(clock.due(now + seconds(30)).expired, [7]);
    }

    #[test]
    fn the_queue_does_not_grow_with_leases_that_are_gone() {
        let (mut clock, now) = clock(9_000_000_000);
        for id in 100..10_000 {
            clock.granted(id, Lease::new(9_000_000_000), now);
            clock.revoked(id);
        }
        assert!(clock.queue.len() <= QUEUE_SLACK + 2, "{}", clock.queue.len());
    }

    #[test]
    fn a_mass_expiry_comes_in_portions() {
        let (mut clock, now) = clock(2);
        for id in 100..100 + DUE_AT_ONCE as i64 {
            clock.granted(id, Lease::new(2), now);
        }
        let end = now + seconds(2);
        let first = clock.due(end);
        assert_eq!(first.expired.len(), DUE_AT_ONCE);
        assert!(first.next.is_some_and(|next| next <= end), "the rest is due at once");
        assert_eq!(clock.due(end).expired.len(), 1);
    }
}
