//! What the store's writer has for a stream and the stream has not sent yet.
//!
//! Offering is a lock and a push, and a run ends with one wake-up: the writer must not wait. Batches are shared
//! between watchers, so a batch counts once however many watchers of the stream are offered it.

use std::{future::poll_fn, mem, sync::Arc, task::Poll};

use chronolith_store::watch::{EventBatch, WatchSink, WatcherId};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// What one offer occupies beside the batch it shares.
const OFFER_BYTES: usize = size_of::<(WatcherId, Arc<EventBatch>)>();

/// What was offered and refused since the last look.
#[derive(Default)]
pub(super) struct Taken {
    /// In the order in which they were offered.
    pub(super) offers: Vec<(WatcherId, Arc<EventBatch>)>,
    /// Watchers that lag from now on.
    pub(super) refused: Vec<WatcherId>,
    size_bytes: usize,
}

/// See the module.
pub(super) struct Queue {
    taken: Mutex<Taken>,
    filled: AtomicWaker,
    max_bytes: usize,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Queue { taken: Mutex::default(), filled: AtomicWaker::new(), max_bytes }
    }

    /// Resolves when there is something to take. Only one task may wait.
    pub(super) async fn filled(&self) {
        poll_fn(|cx| {
            self.filled.register(cx.waker());
            let taken = self.taken.lock();
            match taken.offers.is_empty() && taken.refused.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Takes everything, and with it makes room.
    pub(super) fn take(&self) -> Taken {
        mem::take(&mut self.taken.lock())
    }
}

impl WatchSink for Queue {
    fn offer(&self, watcher: WatcherId, batch: &Arc<EventBatch>) -> bool {
        let mut taken = self.taken.lock();
        let shared = taken.offers.last().is_some_and(|(_, last)| Arc::ptr_eq(last, batch));
        let fits = taken.size_bytes < self.max_bytes;
        if fits {
            taken.size_bytes += OFFER_BYTES + if shared { 0 } else { batch.size_bytes() };
            taken.offers.push((watcher, Arc::clone(batch)));
        } else {
            taken.refused.push(watcher);
        }
        fits
    }

    fn wake(&self) {
        self.filled.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(queue: &Queue, watcher: u64) -> bool {
        queue.offer(WatcherId(watcher), &Arc::new(EventBatch::default()))
    }

    #[test]
    fn a_full_queue_refuses_and_remembers_whom() {
        let queue = Queue::new(2 * OFFER_BYTES);
        assert!(offer(&queue, 1) && offer(&queue, 2));
        assert!(!offer(&queue, 3));
        let taken = queue.take();
        let offered: Vec<u64> = taken.offers.iter().map(|(id, _)| id.0).collect();
        assert_eq!((offered, taken.refused), (vec![1, 2], vec![WatcherId(3)]));
        assert!(offer(&queue, 3), "taking makes room");
    }

    #[tokio::test]
    async fn a_wake_reaches_who_waits() {
        let queue = Arc::new(Queue::new(1024));
        let waiting = Arc::clone(&queue);
        let waiter = tokio::spawn(async move { waiting.filled().await });
        tokio::task::yield_now().await;
        offer(&queue, 1);
        queue.wake();
        waiter.await.unwrap();
    }
}
