//! Lines on standard output too, for whoever collects it.
//!
//! A reader that is slow must not hold up the log: what it does not take in time is left out there, and
//! counted as a failure. The files have it.

use crate::{Error, Result, log::Shared};
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// Lines that wait for a slow reader: a second of a busy server.
const WAITING_LINES: usize = 16_384;

pub(crate) struct Echo {
    lines: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

impl Echo {
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self> {
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let counted = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("audit-stdout".to_owned());
        let spawned = thread.spawn(move || print(&waiting, &counted));
        spawned
            .map_err(|error| Error::Stopped(format!("no thread for standard output: {error}")))?;
        Ok(Self { lines, shared })
    }

    pub(crate) fn line(&self, line: &[u8]) {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.shared.stats.failures.fetch_add(1, Relaxed);
        }
    }
}

fn print(waiting: &Receiver<Vec<u8>>, shared: &Shared) {
    let mut out = io::stdout();
    for line in waiting {
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            shared.stats.failures.fetch_add(1, Relaxed);
        }
    }
}
