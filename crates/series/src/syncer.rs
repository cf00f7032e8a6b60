//! The thread that syncs by itself, and once more when the last handle of the index is dropped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::index::Inner;

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

pub(crate) struct Syncer {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(crate) fn start(inner: Arc<Inner>, every: Duration) -> Syncer {
        let stop = Arc::new(Stop::default());
        let thread = std::thread::Builder::new().name("series-sync".into()).spawn({
            let stop = Arc::clone(&stop);
            move || run(&inner, &stop, every)
        });
        // Without the thread `Index::sync` still works: the caller finds out by what it waits for.
        Syncer { stop, thread: thread.ok() }
    }
}

fn run(inner: &Arc<Inner>, stop: &Stop, every: Duration) {
    let Some(files) = inner.persist.get() else { return };
    let mut asked = stop.asked.lock();
    loop {
        if !*asked {
            stop.changed.wait_for(&mut asked, every);
        }
        let last = *asked;
        drop(asked);
        // A failure poisons the files: every later sync of a caller reports it, and the statistics do.
        if files.sync(inner).is_err() || last {
            return;
        }
        asked = stop.asked.lock();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *self.stop.asked.lock() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _a_panic_was_reported_by_its_thread = thread.join();
        }
    }
}
