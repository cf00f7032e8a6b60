//! Where calls to the history wait their turn, and where one signature serves many.
//!
//! ```text
//! call ─▶ permit (so many at once) ─▶ a thread that may block ─▶ History
//! proof ─▶ turn ─▶ newest checkpoint covers its revision? ─ yes ─▶ use it
//!                                                         └ no ──▶ sign a new one, for all who wait
//! ```
//! Whoever waits for the turn was applied before the one in front signed; so at most two signatures
//! lie between a write and its proof, however many writers there are.

use crate::{
    config::HISTORY_CALLS_MAX,
    node::Node,
    status::{Code, Status},
};
use chronolith_ledger::{Checkpoint, SignedNote};
use chronolith_store::{
    StoreError,
    history::{Error, History},
};
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};

/// See the module.
pub(crate) struct Desk {
    permits: Arc<Semaphore>,
    newest: Mutex<Option<Signed>>,
}

/// A checkpoint of this node's log.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) note: SignedNote,
    /// Leaves.
    pub(crate) size: u64,
    /// The last revision that it speaks of.
    pub(crate) revision: i64,
}

impl Default for Desk {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(HISTORY_CALLS_MAX)), newest: Mutex::new(None) }
    }
}

impl Signed {
    fn read(note: SignedNote) -> Result<Self, Status> {
        let checkpoint = Checkpoint::parse(note.text()).map_err(Error::from)?;
        let revision = checkpoint.revision().cast_signed();
        Ok(Self { note, size: checkpoint.size, revision })
    }
}

/// What a node without its log answers.
fn off() -> Status {
    Status::new(
        Code::FailedPrecondition,
        "chronolith: this node keeps no log of its history: start it with --verify async",
    )
}

/// Asks the history on a thread that may block.
pub(crate) async fn ask<T: Send + 'static>(
    node: &Node,
    question: impl FnOnce(&History) -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let history = node.store.history().ok_or_else(off)?.clone();
    let permit = Arc::clone(&node.desk.permits).acquire_owned().await;
    let permit = permit.expect("the semaphore is never closed");
    let asked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        question(&history)
    });
    match asked.await {
        Ok(answer) => Ok(answer?),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shut down cancels.
            Err(_) => Err(Status::stopped()),
        },
    }
}

/// A checkpoint that covers `revision`: the newest one, if it does, or a new one.
pub(crate) async fn covering(node: &Node, revision: i64) -> Result<Signed, Status> {
    let mut newest = node.desk.newest.lock().await;
    if let Some(signed) = newest.as_ref().filter(|signed| signed.revision >= revision) {
        return Ok(signed.clone());
    }
    let signed = Signed::read(ask(node, History::checkpoint).await?)?;
    Ok(newest.insert(signed).clone())
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Request(error) => return StoreError::from(error).into(),
            Error::Engine(error) => return StoreError::from(error).into(),
            Error::Invalid(_) => Code::InvalidArgument,
            Error::Ledger(chronolith_ledger::Error::OutOfTree { .. }) => Code::OutOfRange,
            Error::Damaged { .. } => Code::DataLoss,
            Error::Stopped(_) => Code::Unavailable,
            _ => Code::Internal,
        };
        Status::new(code, format!("chronolith: {error}"))
    }
}
