//! A persistent pool of threads that share out work item by item: who is done first takes the next.
//!
//! `for_each` spreads items over the pool and its caller, who works along: a pool of zero threads is a
//! plain loop, and nothing ever waits for a thread to start. `hand_over` leaves one piece of work to the
//! pool and returns. Dropping the pool first finishes what was handed over. No job outlives the pool's
//! owner or keeps it alive: what `for_each` lends is taken back before it returns, and `hand_over` is
//! given parts of an index, never the index.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// One call of `for_each`: the items, who takes the next, and what came out.
struct Round<T, R, W> {
    items: Vec<T>,
    next: AtomicUsize,
    outcomes: Mutex<Vec<R>>,
    state: Mutex<State<W>>,
    left: Condvar,
}

/// Who may still use what the caller lent.
struct State<W> {
    /// Gone when the caller has left: a thread that comes late finds nothing to hold on to.
    work: Option<Arc<W>>,
    /// Threads that hold `work` now.
    helpers: usize,
}

impl Workers {
    pub(crate) fn start(count: usize) -> Workers {
        let shared = Arc::new(Shared::default());
        let spawn = |n| {
            let shared = Arc::clone(&shared);
            let named = Builder::new().name(format!("series-worker-{n}"));
            named.spawn(move || run(&shared)).ok()
        };
        // A thread that the system refuses is one helper fewer: callers do the work themselves.
        let threads = (0..count).filter_map(spawn).collect();
        Workers { shared, threads }
    }

    /// Does `work` to every item, on all threads and on this one; returns when all are done.
    pub(crate) fn for_each<T, R>(
        &self,
        items: Vec<T>,
        work: impl Fn(&T) -> R + Send + Sync + 'static,
    ) -> Vec<R>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let helpers = self.threads.len().min(items.len().saturating_sub(1));
        let work = Arc::new(work);
        let round = Arc::new(Round {
            outcomes: Mutex::new(Vec::with_capacity(items.len())),
            items,
            next: AtomicUsize::new(0),
            state: Mutex::new(State { work: Some(Arc::clone(&work)), helpers: 0 }),
            left: Condvar::new(),
        });
        for _ in 0..helpers {
            let round = Arc::clone(&round);
            self.push(Box::new(move || round.help()));
        }
        round.work(&*work);
        let mut state = round.state.lock();
        // What `work` holds (an index, its files) must not outlive this call in a thread that comes late.
        state.work = None;
        while state.helpers > 0 {
            round.left.wait(&mut state);
        }
        drop(state);
        std::mem::take(&mut round.outcomes.lock())
    }

    /// Leaves `job` to a thread that has nothing to do. `false` if there is none: then the caller had better
    /// do it itself, and nothing was done with it.
    pub(crate) fn hand_over(&self, job: impl FnOnce() + Send + 'static) -> bool {
        {
            let mut queue = self.shared.queue.lock();
            if queue.jobs.len() >= queue.idle {
                return false;
            }
            queue.jobs.push_back(Box::new(job));
        }
        self.shared.changed.notify_one();
        true
    }

    fn push(&self, job: Job) {
        self.shared.queue.lock().jobs.push_back(job);
        self.shared.changed.notify_one();
    }
}

impl<T, R, W: Fn(&T) -> R> Round<T, R, W> {
    /// A thread of the pool joins in, if the caller is still there.
    fn help(&self) {
        let work = {
            let mut state = self.state.lock();
            let Some(work) = state.work.clone() else { return };
            state.helpers += 1;
            work
        };
        self.work(&*work);
        drop(work);
        self.state.lock().helpers -= 1;
        self.left.notify_all();
    }

    fn work(&self, work: &W) {
        let mut mine = Vec::new();
        while let Some(item) = self.items.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            mine.push(work(item));
        }
        self.outcomes.lock().append(&mut mine);
    }
}

fn run(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue.idle += 1;
                shared.changed.wait(&mut queue);
                queue.idle -= 1;
            }
        };
        job();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _a_panic_was_reported_by_its_thread = thread.join();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_with_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let workers = Workers::start(threads);
            for items in [0, 1, 2, 100] {
                let mut doubled = workers.for_each((0..items).collect(), |n| n * 2);
                doubled.sort_unstable();
                assert_eq!(doubled, (0..items).map(|n| n * 2).collect::<Vec<i32>>());
            }
        }
    }

    #[test]
    fn what_was_handed_over_is_done_before_the_pool_is_gone() {
        let done = Arc::new(AtomicUsize::new(0));
        for threads in [1, 3] {
            let workers = Workers::start(threads);
            for _ in 0..100 {
                let job = Arc::clone(&done);
                let taken = workers.hand_over(move || {
                    job.fetch_add(1, Ordering::Relaxed);
                });
                done.fetch_add(usize::from(!taken), Ordering::Relaxed);
            }
        }
        assert_eq!(done.load(Ordering::Relaxed), 200);
        assert!(!Workers::start(0).hand_over(|| unreachable!("nobody takes it")));
    }

    #[test]
    fn nothing_that_was_lent_is_held_after_the_call() {
        let workers = Workers::start(4);
        for round in 0..2000_usize {
            let lent = Arc::new(round);
            let held = Arc::clone(&lent);
            let sums = workers.for_each((0..6).collect(), move |item: &usize| item + *held);
            assert_eq!(sums.iter().sum::<usize>(), 15 + 6 * round);
            assert_eq!(Arc::strong_count(&lent), 1, "a late thread still holds it");
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p chronolith-series --release --lib loom`
#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use crate::sync::model;

    #[test]
    fn loom_a_pool_that_is_dropped_first_does_what_it_took_and_always_ends() {
        model(|| {
            let done = Arc::new(AtomicUsize::new(0));
            let workers = Workers::start(1);
            let mut taken = 0;
            for _ in 0..2 {
                let done = Arc::clone(&done);
                taken += usize::from(workers.hand_over(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                }));
            }
            drop(workers);
            assert_eq!(done.load(Ordering::Relaxed), taken, "what was taken is done, once");
        });
    }

    #[test]
    fn loom_every_item_is_worked_on_once_and_nothing_lent_is_held_after_the_call() {
        model(|| {
            let workers = Workers::start(1);
            let lent = Arc::new(());
            let held = Arc::clone(&lent);
            let mut got = workers.for_each(vec![1, 2], move |item| {
                let _lent = &held;
                item * 10
            });
            got.sort_unstable();
            assert_eq!(got, [10, 20]);
            assert_eq!(Arc::strong_count(&lent), 1, "a late thread still holds it");
        });
    }
}
