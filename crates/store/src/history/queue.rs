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
/// How long runs gather. Who wants a proof hurries the follower, so this only keeps the unasked
/// checkpoints waiting; the follower wakes up fifty times a second then, under a steady load of small writes.
const TICK: Duration = Duration::from_millis(20);
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

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_engine::{Durability, MemoryEngine};
    use chronolith_mvcc::{Leases, Mvcc, Stamp};
    use chronolith_proto::etcdserverpb::PutRequest;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    struct NoLeases;

    impl Leases for NoLeases {
        fn contains(&self, _: i64) -> bool {
            false
        }

        fn moved(&mut self, _: &bytes::Bytes, _: i64, _: i64) {}
    }

    fn run(mvcc: &mut Mvcc, value_bytes: usize) -> Applied {
        let mut run = mvcc.begin_run().unwrap();
        let value = vec![0; value_bytes].into();
        let put = PutRequest { key: "k".into(), value, ..Default::default() };
        run.put(&put, &mut NoLeases, &Stamp::default()).unwrap();
        run.commit(Durability::NoWal).unwrap()
    }

    fn numbers(runs: &[Applied]) -> Vec<i64> {
        runs.iter().flat_map(Applied::revisions).map(|it| it.revision).collect()
    }

    #[test]
    fn a_full_queue_makes_the_writer_wait_and_drops_nothing() {
        const RUNS: usize = 40;
        let (queue, pushed) = (Queue::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
                for _ in 0..RUNS {
                    assert!(queue.push(run(&mut mvcc, QUEUED_BYTES / 4)));
                    pushed.fetch_add(1, Ordering::SeqCst);
                }
                queue.close();
            });
            while queue.waiting.lock().size_bytes < QUEUED_BYTES {
                thread::yield_now();
            }
            assert!(pushed.load(Ordering::SeqCst) < RUNS, "the writer went on beyond the bound");
            let mut taken = Vec::new();
            while let Some(runs) = queue.take(None) {
                assert!(runs.len() <= 4);
                taken.extend(numbers(&runs));
            }
            assert_eq!(taken, (2..2 + RUNS as i64).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_run_larger_than_the_queue_goes_through() {
        let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
        let queue = Queue::default();
        assert!(queue.push(run(&mut mvcc, 2 * QUEUED_BYTES)));
        assert_eq!(queue.take(None).map(|runs| numbers(&runs)), Some(vec![2]));
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_takes_nothing() {
        let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
        let queue = Queue::default();
        assert!(queue.push(run(&mut mvcc, 1)));
        queue.close();
        assert!(!queue.push(run(&mut mvcc, 1)));
        assert_eq!(queue.take(None).map(|runs| numbers(&runs)), Some(vec![2]));
        assert!(queue.take(None).is_none());
    }
}
