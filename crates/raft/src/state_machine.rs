//! What commands mean is somebody else's business: the seam to it.

use bytes::Bytes;

/// A command whose place is decided. The commands of one entry share its index and term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the entry.
    pub index: u64,
    /// Of the entry.
    pub term: u64,
    /// What was proposed.
    pub command: Bytes,
}

/// How far the log is applied. The state machine keeps it in the same batch as what it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The members of the cluster; opaque.
    pub conf_state: Bytes,
}

/// A copy of a state, for a member that lags too far behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotData {
    /// Up to where.
    pub applied: Applied,
    /// The state, in the state machine's own form.
    pub state: Bytes,
}

/// The second half of a checkpoint, run off the apply thread: makes it durable and answers up to
/// which index the log may be purged.
pub type CheckpointJob<E> = Box<dyn FnOnce() -> Result<u64, E> + Send>;

/// What the log's commands do. Must be a pure function of them.
pub trait StateMachine: Send + 'static {
    /// What a command came to.
    type Outcome: Send + 'static;
    /// Why this member cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// How far the log is applied durably; `None` in a new state.
    fn applied(&self) -> Result<Option<Applied>, Self::Error>;

    /// Applies commands, and keeps `applied` with what they change. One outcome for each command;
    /// the run may be empty. An error poisons the node.
    fn apply(
        &mut self,
        run: &[Committed],
        applied: &Applied,
    ) -> Result<Vec<Self::Outcome>, Self::Error>;

    /// Begins a checkpoint of the present state, as fast as can be.
    fn begin_checkpoint(&mut self) -> Result<CheckpointJob<Self::Error>, Self::Error>;

    /// A copy of the state for another member; `None` where that is not supported.
    fn snapshot(&mut self) -> Result<Option<SnapshotData>, Self::Error> {
        Ok(None)
    }

    /// Replaces the state, durable when it returns; `false` where that is not supported.
    fn restore(&mut self, snapshot: &SnapshotData) -> Result<bool, Self::Error> {
        let _ = snapshot;
        Ok(false)
    }
}
