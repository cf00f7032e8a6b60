//! The memory budget: every block and every late point is charged to it; a full budget makes writers wait.
//!
//! No wake-up is lost: who waits first counts itself in `waiting` and then tries `used`; who gives back first
//! lowers `used` and then looks at `waiting`. Both change `used` by a read-modify-write, so one of them comes
//! second and sees what the other did before: the waiter the room, or the giver the waiter. Models of this run
//! under loom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sync::Ordering::{AcqRel, Acquire};
use crate::sync::{AtomicU64, AtomicUsize, Condvar, Mutex};

/// What a writer does when the memory budget is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Waits until there is room.
    Forever,
    /// Waits at most this long, then gets [`Error::BudgetFull`].
    AtMost(Duration),
    /// Gets [`Error::BudgetFull`] at once.
    Never,
}

/// How long a call waited for memory. Zero for nearly every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Waited {
    nanos: u64,
}

impl Waited {
    pub(crate) const NOT: Waited = Waited { nanos: 0 };

    pub(crate) fn since(start: Instant) -> Waited {
        Waited { nanos: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn and(self, more: Waited) -> Waited {
        Waited { nanos: self.nanos.saturating_add(more.nanos) }
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    waiting: AtomicUsize,
    gate: Mutex<()>,
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            gate: Mutex::new(()),
            freed: Condvar::new(),
        })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Acquire)
    }

    /// Charges at once, or not at all.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let before = self.used.fetch_add(bytes, AcqRel);
        if before + bytes <= self.limit {
            return Some(Charge { budget: Arc::clone(self), bytes });
        }
        self.give(bytes);
        None
    }

    /// Charges even above the limit: for what must not fail and is soon smaller, such as packing a block.
    pub(crate) fn take_anyway(self: &Arc<Self>, bytes: u64) -> Charge {
        self.used.fetch_add(bytes, AcqRel);
        Charge { budget: Arc::clone(self), bytes }
    }

    /// Charges, waiting as `wait` says.
    pub(crate) fn take(
        self: &Arc<Self>,
        bytes: u64,
        wait: Wait,
    ) -> Result<(Charge, Waited), Error> {
        if let Some(charge) = self.try_take(bytes) {
            return Ok((charge, Waited::NOT));
        }
        if bytes > self.limit {
            return Err(Error::NeverFits { wanted_bytes: bytes, limit_bytes: self.limit });
        }
        let start = Instant::now();
        let deadline = match wait {
            Wait::Forever => None,
            Wait::AtMost(most) => start.checked_add(most),
            Wait::Never => Some(start),
        };
        self.wait_for(bytes, start, deadline)
    }

    fn wait_for(
        self: &Arc<Self>,
        bytes: u64,
        start: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Charge, Waited), Error> {
        let mut gate = self.gate.lock();
        self.waiting.fetch_add(1, AcqRel);
        let result = loop {
            if let Some(charge) = self.try_take_quietly(bytes) {
                break Ok((charge, Waited::since(start)));
            }
            if deadline.is_some_and(|end| Instant::now() >= end) {
                let waited = start.elapsed();
                break Err(Error::BudgetFull { limit_bytes: self.limit, waited });
            }
            match deadline {
                Some(end) => {
                    let _looked_at_above = self.freed.wait_until(&mut gate, end);
                }
                None => self.freed.wait(&mut gate),
            }
        };
        self.waiting.fetch_sub(1, AcqRel);
        result
    }

    /// As `try_take`, for callers that hold the gate: giving back by `give` would take it again.
    fn try_take_quietly(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let before = self.used.fetch_add(bytes, AcqRel);
        if before + bytes <= self.limit {
            return Some(Charge { budget: Arc::clone(self), bytes });
        }
        self.used.fetch_sub(bytes, AcqRel);
        None
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, AcqRel);
        if self.waiting.load(Acquire) > 0 {
            let _gate = self.gate.lock();
            self.freed.notify_all();
        }
    }
}

/// Bytes charged to a budget: given back when dropped.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_refuses_or_waits_and_says_how_long() {
        let budget = Budget::new(100);
        let (held, waited) = budget.take(60, Wait::Never).unwrap();
        assert_eq!(waited, Waited::NOT);
        assert!(matches!(budget.take(60, Wait::Never), Err(Error::BudgetFull { .. })));
        let short = Duration::from_millis(5);
        let Err(Error::BudgetFull { waited, .. }) = budget.take(60, Wait::AtMost(short)) else {
            panic!("there is no room")
        };
        assert!(waited >= short);
        assert!(matches!(budget.take(101, Wait::Forever), Err(Error::NeverFits { .. })));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_waits_is_woken_by_who_gives_back() {
        let budget = Budget::new(100);
        let held = budget.try_take(100).unwrap();
        let waiter = std::thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.take(50, Wait::Forever).map(|(_charge, waited)| waited)
        });
        while budget.waiting.load(Acquire) == 0 {
            std::thread::yield_now();
        }
        drop(held);
        assert!(waiter.join().unwrap().unwrap() > Waited::NOT);
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p chronolith-series --release --lib loom`
#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use crate::sync::{model, thread};

    /// A lost wake-up is a deadlock, which loom reports.
    #[test]
    fn loom_every_waiter_is_woken_when_there_is_room() {
        model(|| {
            let budget = Budget::new(2);
            let held = [budget.try_take(1), budget.try_take(1)];
            assert!(held.iter().all(Option::is_some));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let budget = Arc::clone(&budget);
                    thread::spawn(move || budget.take(1, Wait::Forever).map(|_charge| ()).is_ok())
                })
                .collect();
            held.into_iter().for_each(drop);
            assert!(waiters.into_iter().all(|waiter| waiter.join().expect("no panic")));
            assert_eq!(budget.used(), 0);
        });
    }

    /// Who tries in vain has charged for a moment: whoever that turned away is woken again.
    #[test]
    fn loom_a_vain_attempt_keeps_nobody_waiting() {
        model(|| {
            let budget = Budget::new(2);
            let held = budget.try_take(1).expect("there is room");
            let waiter = {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.take(2, Wait::Forever).map(|_charge| ()).is_ok())
            };
            let vain = {
                let budget = Arc::clone(&budget);
                thread::spawn(move || drop(budget.try_take(2)))
            };
            drop(held);
            vain.join().expect("no panic");
            assert!(waiter.join().expect("no panic"));
            assert_eq!(budget.used(), 0);
        });
    }
}
