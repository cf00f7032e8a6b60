//! The replicated state machine: what the log's entries do.
//!
//! ```text
//! run of entries ─▶ Applying: decode, alarms, leases, mvcc ─▶ + applied index ─▶ ONE engine batch
//!                                                                  │
//!                   leader's lease clock, alarm flags, status ◀────┤ only after the commit
//!                   the history's follower ◀───────────────────────┘
//! ```
//! * A pure function of the log: no clock, no randomness, no hash-map order, nothing of this member.
//!   The same log in other runs gives the same engine content, byte for byte.
//! * The applied index stands in the same batch as the changes, so that nothing is applied twice.
//! * An error that every replica meets is an answer to the client; any other one poisons the member.

pub(crate) mod alarms;
mod applied;
pub(crate) mod applying;
pub(crate) mod storage;
#[cfg(test)]
mod tests;

use crate::{
    command::{Change, Command},
    error::{OpenError, StoreError},
    history::History,
    lease::records::{Lease, LeaseColumns},
    shared::Shared,
};
use alarms::Alarms;
use applying::Applying;
use bytes::Bytes;
use chronolith_engine::{ColumnId, Durability, Engine};
use chronolith_mvcc::Mvcc;
use chronolith_proto::etcdserverpb::{
    AlarmMember, DeleteRangeResponse, LeaseGrantResponse, PutResponse, TxnResponse,
};
use chronolith_raft::{Applied, CheckpointJob, Committed, StateMachine};
use parking_lot::Mutex;
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};
use storage::Storage;

/// Why this member can no longer apply: an operator must look at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] chronolith_engine::Error),
    /// The engine failed under the versions, or holds what does not read.
    #[error(transparent)]
    Versions(chronolith_mvcc::Error),
    /// An entry of the log does not read: written by a newer build, or damaged.
    #[error(
        "log entry {index} holds no command that this build knows: use the build that wrote it"
    )]
    UnknownCommand {
        /// The entry.
        index: u64,
    },
    /// The log that proves the history failed: nothing is written that it would not have.
    #[error("history: {0}")]
    History(#[from] crate::history::Error),
    /// The state could not be copied or replaced.
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
}

/// What a command came to, and at which revision.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The newest revision after the command.
    pub(crate) revision: i64,
    pub(crate) result: Result<Answer, StoreError>,
}

/// Answers to commands, headers still to be filled in.
#[derive(Debug)]
pub(crate) enum Answer {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    LeaseGrant(LeaseGrantResponse),
    Alarm(Vec<AlarmMember>),
    /// Revisions of which a value was erased.
    Erased(Vec<i64>),
    /// Of a compaction, a lease's revocation or checkpoint.
    Done,
}

/// What is replicated beside the versions, in memory as it is in the engine.
pub(crate) struct State {
    pub(crate) leases: BTreeMap<i64, Lease>,
    pub(crate) alarms: Alarms,
}

/// The columns of the state.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) state: ColumnId,
    pub(crate) leases: LeaseColumns,
}

/// See the module.
pub(crate) struct Machine {
    engine: Arc<dyn Engine>,
    /// Also taken by the scrubber, between runs.
    mvcc: Arc<Mutex<Mvcc>>,
    columns: Columns,
    state: State,
    shared: Arc<Shared>,
    storage: Storage,
    history: Follows,
}

/// Who follows the history; nobody during the replay, nor where no log is kept. Set under the writer's
/// lock, when it has caught up, so that it misses nothing.
pub(crate) type Follows = Arc<OnceLock<History>>;

impl Columns {
    pub(crate) fn open(engine: &dyn Engine) -> Result<Self, chronolith_engine::Error> {
        Ok(Self { state: engine.column("store")?, leases: LeaseColumns::open(engine)? })
    }
}

impl Machine {
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        mvcc: Arc<Mutex<Mvcc>>,
        shared: Arc<Shared>,
        storage: Storage,
        history: Follows,
    ) -> Result<Self, OpenError> {
        let columns = Columns::open(&*engine)?;
        let leases = columns.leases.load(&*engine)?;
        let alarms = Alarms::load(&*engine, columns.state)?;
        shared.start(&leases, &alarms);
        Ok(Self {
            engine,
            mvcc,
            columns,
            state: State { leases, alarms },
            shared,
            storage,
            history,
        })
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;
    type Error = ApplyError;

    fn applied(&self) -> Result<Option<Applied>, ApplyError> {
        Ok(applied::read(&*self.engine, self.columns.state)?)
    }

    /// Applies a run of entries as one engine batch; one outcome for each.
    fn apply(&mut self, run: &[Committed], applied: &Applied) -> Result<Vec<Outcome>, ApplyError> {
        let mvcc = Arc::clone(&self.mvcc);
        let mut mvcc = mvcc.lock();
        let versions = mvcc.begin_run().map_err(ApplyError::Versions)?;
        let mut applying = Applying::new(versions, &mut self.state, self.columns);
        let mut outcomes = Vec::with_capacity(run.len());
        for entry in run {
            outcomes.push(applying.command(decode(entry)?)?);
        }
        let Applying { mut versions, effects, .. } = applying;
        applied::write(versions.overlay(), self.columns.state, applied);
        let since = Instant::now();
        let done = versions.commit(Durability::NoWal).map_err(ApplyError::Versions)?;
        self.shared.commits.record(since.elapsed());
        // With the lock held: the follower takes runs in their order.
        self.history.get().map_or(Ok(()), |history| history.follow(done))?;
        drop(mvcc);
        self.shared.publish(effects, &self.state.alarms, applied);
        Ok(outcomes)
    }

    fn begin_checkpoint(&mut self) -> Result<CheckpointJob<ApplyError>, ApplyError> {
        // What is applied while the job is on its way is in the copy as well: it holds this much at least.
        let index = self.applied()?.map_or(0, |applied| applied.index);
        let (engine, storage) = (Arc::clone(&self.engine), self.storage.clone());
        Ok(Box::new(move || storage.checkpoint(&engine, index)))
    }
}

fn decode(entry: &Committed) -> Result<(Command, Change), ApplyError> {
    let unknown = || ApplyError::UnknownCommand { index: entry.index };
    let mut command = Command::decode(Bytes::clone(&entry.command)).map_err(|_| unknown())?;
    let change = command.change.take().ok_or_else(unknown)?;
    Ok((command, change))
}
