//! Ctrl-C as a wish: whoever works in rounds asks between them, and ends as if it were done.
//!
//! ```text
//! SIGINT, SIGTERM ─▶ asked() is true ─▶ the loop ends, files are removed, what was measured is printed
//! the second one  ─▶ exit at once
//! ```

use anyhow::{Context, Result, bail};
use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// As shells have it for a process that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
static LISTENING: Once = Once::new();

/// From now on the first signal to end only asks. One listener serves the whole process.
///
/// # Errors
/// If the system gives no runtime, signal handler or thread.
pub(crate) fn listen() -> Result<()> {
    let mut outcome = Ok(());
    LISTENING.call_once(|| outcome = start());
    outcome.context("cannot listen for Ctrl-C")
}

fn start() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let (interrupt, terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(entered);
    let wait = move || runtime.block_on(obey(interrupt, terminate));
    std::thread::Builder::new().name("interrupt".into()).spawn(wait)?;
    Ok(())
}

async fn obey(mut interrupt: Signal, mut terminate: Signal) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
}

/// Whether somebody asked to end.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Ends the work that calls this, if somebody asked to.
///
/// # Errors
/// If somebody asked to end.
pub(crate) fn check() -> Result<()> {
    if asked() {
        bail!("interrupted: what was measured until then is above");
    }
    Ok(())
}
