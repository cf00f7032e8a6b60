//! Threads that do something at an interval, until the last handle of the index is dropped: one syncs, one
//! retains. Each is told when it runs for the last time, and is waited for then.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

/// Why a ticker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    /// The interval has passed.
    Due,
    /// The last handle is being dropped.
    Last,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

pub(crate) struct Ticker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Does `work` after every interval, and once more at the end, unless it broke off before.
    pub(crate) fn start(
        name: &str,
        every: Duration,
        mut work: impl FnMut(Tick) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Ticker, Error> {
        let stop = Arc::new(Stop::default());
        let thread = std::thread::Builder::new().name(name.into()).spawn({
            let stop = Arc::clone(&stop);
            move || while stop.work_after(every, &mut work).is_continue() {}
        });
        let thread = thread.map_err(Error::io(format!("start the thread {name}")))?;
        Ok(Ticker { stop, thread: Some(thread) })
    }
}

impl Stop {
    fn work_after(
        &self,
        every: Duration,
        work: &mut impl FnMut(Tick) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, every);
        }
        let tick = if *asked { Tick::Last } else { Tick::Due };
        drop(asked);
        work(tick)?;
        if tick == Tick::Last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.asked.lock() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _a_panic_was_reported_by_its_thread = thread.join();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_ticks_by_itself_and_a_last_time_when_dropped() {
        let (told, heard) = std::sync::mpsc::channel();
        let tick = move |tick| {
            told.send(tick).expect("the test listens to the end");
            ControlFlow::Continue(())
        };
        let ticker = Ticker::start("ticks", Duration::from_millis(1), tick).unwrap();
        assert_eq!(heard.recv().unwrap(), Tick::Due);
        assert_eq!(heard.recv().unwrap(), Tick::Due);
        drop(ticker);
        assert_eq!(heard.iter().last(), Some(Tick::Last));
    }

    #[test]
    fn a_long_interval_does_not_delay_the_end() {
        let (told, heard) = std::sync::mpsc::channel();
        let tick = move |tick| {
            told.send(tick).expect("the test listens to the end");
            ControlFlow::Continue(())
        };
        drop(Ticker::start("ticks", Duration::from_secs(3600), tick).unwrap());
        assert_eq!(heard.iter().collect::<Vec<_>>(), [Tick::Last]);
    }
}
