//! The way into the log and back.

use crate::{
    command::{Actor, Change, Envelopes},
    error::StoreError,
    figures::Proposals,
    machine::Outcome,
};
use chronolith_raft::{ProposeError, RaftHandle, RaftStatus, ReadError, Role};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Proposes changes, and asks whether this member may answer reads.
pub(crate) struct Proposer {
    raft: RaftHandle<Outcome>,
    envelopes: Envelopes,
    pub(crate) proposals: Proposals,
}

impl Proposer {
    pub(crate) fn new(raft: RaftHandle<Outcome>, envelopes: Envelopes) -> Self {
        Self { raft, envelopes, proposals: Proposals::default() }
    }

    /// Proposes a change, and waits until it is applied.
    pub(crate) async fn propose(
        &self,
        change: Change,
        actor: Actor,
    ) -> Result<Outcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = self.envelopes.seal(change, actor);
        self.raft.propose(
            command,
            Box::new(move |result| {
                // Nobody listens to a request that was cancelled.
                let _ = reply.send(result);
            }),
        );
        let _pending = self.proposals.begin();
        let outcome = match answer.await {
            Ok(Ok(reply)) => return Ok(reply.outcome),
            Ok(Err(error)) => error.into(),
            Err(_) => StoreError::Stopped,
        };
        self.proposals.failed.fetch_add(1, Ordering::Relaxed);
        Err(outcome)
    }

    /// Proposes a change of the system's own; tells whether it was applied.
    pub(crate) fn propose_quietly(&self, change: Change, done: impl FnOnce(bool) + Send + 'static) {
        let command = self.envelopes.seal(change, Actor::default());
        self.raft.propose(command, Box::new(move |result| done(result.is_ok())));
    }

    /// Waits until this member has applied all that any member had acknowledged by now. Where this
    /// member decides alone there is nothing to wait for.
    pub(crate) async fn confirm_read(&self) -> Result<(), StoreError> {
        if self.raft.read_index_alone().is_some() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.raft.read_index(Box::new(move |result| {
            // Nobody listens to a request that was cancelled.
            let _ = reply.send(result);
        }));
        answer.await.map_err(|_| StoreError::Stopped)?.map(drop).map_err(StoreError::from)
    }

    pub(crate) fn status(&self) -> RaftStatus {
        self.raft.status()
    }

    /// The term, while this member leads.
    pub(crate) fn led_term(&self) -> Option<u64> {
        let status = self.raft.status();
        (status.role == Role::Leader).then_some(status.term)
    }

    /// Waits for what is queued, then stops.
    pub(crate) fn stop(&self) {
        self.raft.stop();
    }
}

impl From<ProposeError> for StoreError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Overloaded => Self::TooManyRequests,
            ProposeError::NotLeader { leader: Some(_) } => Self::NotLeader,
            ProposeError::NotLeader { leader: None } => Self::NoLeader,
            ProposeError::TooLarge { .. } => Self::RequestTooLarge,
            ProposeError::Unknown => Self::LeaderChanged,
            ProposeError::Stopped => Self::Stopped,
            error => Self::Poisoned { cause: error.to_string() },
        }
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Overloaded => Self::TooManyRequests,
            ReadError::Stopped => Self::Stopped,
            error => Self::Poisoned { cause: error.to_string() },
        }
    }
}
