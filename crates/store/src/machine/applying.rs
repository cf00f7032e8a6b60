//! One run of commands at work.

use super::{Answer, ApplyError, Columns, Outcome, State};
use crate::{
    command::{Change, Command, Erase, LeaseCheckpoint, LeaseRemaining, Restore},
    error::StoreError,
    history::past::prefix_end,
    lease::{TTL_MAX_S, TTL_MIN_S, records::Lease},
};
use bytes::Bytes;
use chronolith_mvcc::{Kind, Leases, Run, Stamp};
use chronolith_proto::etcdserverpb::{
    AlarmType, LeaseGrantRequest, LeaseGrantResponse, RequestOp, TxnRequest, request_op::Request,
};
use std::{collections::BTreeMap, sync::Arc};

/// What the rest of the store hears of once a run is committed.
#[derive(Debug)]
pub(crate) enum Effect {
    Granted(i64, Lease),
    Revoked(i64),
    Recorded(LeaseRemaining),
    Compacted,
}

/// See the module.
pub(crate) struct Applying<'a> {
    pub(crate) versions: Run<'a>,
    pub(crate) effects: Vec<Effect>,
    state: &'a mut State,
    columns: Columns,
    /// Keys that the command at work moves between leases.
    moves: Vec<Move>,
}

/// A key, the lease it leaves and the one it goes to; 0 is none.
type Move = (Bytes, i64, i64);

/// Why a command did nothing.
enum Refusal {
    /// The client's fault, the same on every replica.
    Answer(StoreError),
    /// This member's.
    Fatal(ApplyError),
}

impl From<chronolith_mvcc::Error> for Refusal {
    fn from(error: chronolith_mvcc::Error) -> Self {
        use chronolith_mvcc::Error;
        match error {
            Error::Engine(_) | Error::Corrupt { .. } => Self::Fatal(ApplyError::Versions(error)),
            error => Self::Answer(StoreError::Request(Arc::new(error))),
        }
    }
}

impl From<chronolith_engine::Error> for Refusal {
    fn from(error: chronolith_engine::Error) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

/// The leases as a command of mvcc sees them.
struct LeaseView<'a> {
    leases: &'a BTreeMap<i64, Lease>,
    moves: &'a mut Vec<Move>,
}

impl Leases for LeaseView<'_> {
    fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    fn moved(&mut self, key: &Bytes, from: i64, to: i64) {
        self.moves.push((key.clone(), from, to));
    }
}

impl<'a> Applying<'a> {
    pub(crate) fn new(versions: Run<'a>, state: &'a mut State, columns: Columns) -> Self {
        Self { versions, effects: Vec::new(), state, columns, moves: Vec::new() }
    }

    pub(crate) fn command(
        &mut self,
        (command, change): (Command, Change),
    ) -> Result<Outcome, ApplyError> {
        let stamp =
            Stamp { time_ms: command.time_ms, actor: command.actor(), salt: command.salt() };
        let result = match self.change(change, &stamp) {
            Ok(answer) => Ok(answer),
            Err(Refusal::Answer(error)) => Err(error),
            Err(Refusal::Fatal(error)) => return Err(error),
        };
        self.record_moves(result.is_ok());
        Ok(Outcome { revision: self.versions.revision(), result })
    }

    fn change(&mut self, change: Change, stamp: &Stamp) -> Result<Answer, Refusal> {
        self.check_alarms(&change)?;
        let view = &mut LeaseView { leases: &self.state.leases, moves: &mut self.moves };
        match change {
            Change::Put(request) => Ok(Answer::Put(self.versions.put(&request, view, stamp)?)),
            Change::DeleteRange(request) => {
                Ok(Answer::DeleteRange(self.versions.delete_range(&request, view, stamp)?))
            }
            Change::Txn(request) => Ok(Answer::Txn(self.versions.txn(&request, view, stamp)?)),
            Change::Compact(request) => {
                self.versions.compact(request.revision)?;
                self.effects.push(Effect::Compacted);
                Ok(Answer::Done)
            }
            Change::LeaseGrant(request) => self.grant(&request),
            Change::LeaseRevoke(request) => self.end_lease(request.id, Kind::Delete, stamp),
            Change::LeaseExpire(request) => self.end_lease(request.id, Kind::Expire, stamp),
            Change::Restore(request) => self.restore(&request, stamp),
            Change::Erase(Erase { key, from, to, .. }) => {
                Ok(Answer::Erased(self.versions.erase(&key, from, to)?))
            }
            Change::LeaseCheckpoint(checkpoint) => Ok(self.checkpoint(&checkpoint)),
            Change::Alarm(request) => {
                let batch = self.versions.overlay();
                Ok(Answer::Alarm(self.state.alarms.apply(&request, batch, self.columns.state)))
            }
        }
    }

    fn check_alarms(&self, change: &Change) -> Result<(), StoreError> {
        let alarms = &self.state.alarms;
        if alarms.is_on(AlarmType::Corrupt) && !matches!(change, Change::Alarm(_)) {
            return Err(StoreError::Corrupt);
        }
        if alarms.is_on(AlarmType::Nospace) && takes_space(change) {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Result<Answer, Refusal> {
        let id = request.id;
        if id == 0 {
            return Err(StoreError::LeaseNotFound.into());
        }
        if request.ttl > TTL_MAX_S {
            return Err(StoreError::LeaseTtlTooLarge.into());
        }
        if self.state.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists.into());
        }
        let lease = Lease::new(request.ttl.max(TTL_MIN_S));
        self.set_lease(id, lease);
        self.effects.push(Effect::Granted(id, lease));
        let ttl = lease.ttl_s;
        Ok(Answer::LeaseGrant(LeaseGrantResponse { id, ttl, ..LeaseGrantResponse::default() }))
    }

    fn restore(&mut self, request: &Restore, stamp: &Stamp) -> Result<Answer, Refusal> {
        let (start, end) = (&request.prefix, prefix_end(&request.prefix));
        if self.versions.changed_since(start, end.as_ref(), request.since)? {
            return Err(StoreError::Overtaken.into());
        }
        let Some(writes) = &request.writes else { return Ok(Answer::Done) };
        let view = &mut LeaseView { leases: &self.state.leases, moves: &mut self.moves };
        self.versions.txn(writes, view, stamp)?;
        Ok(Answer::Done)
    }

    fn end_lease(&mut self, id: i64, kind: Kind, stamp: &Stamp) -> Result<Answer, Refusal> {
        if !self.state.leases.contains_key(&id) {
            return Err(StoreError::LeaseNotFound.into());
        }
        let keys = self.columns.leases.keys_in_run(self.versions.overlay(), id)?;
        let view = &mut LeaseView { leases: &self.state.leases, moves: &mut self.moves };
        match kind {
            Kind::Expire => self.versions.expire_keys(&keys, view, stamp)?,
            Kind::Put | Kind::Delete => self.versions.delete_keys(&keys, view, stamp)?,
        };
        self.columns.leases.delete(self.versions.overlay(), id);
        self.state.leases.remove(&id);
        self.effects.push(Effect::Revoked(id));
        Ok(Answer::Done)
    }

    fn checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> Answer {
        for remaining in &checkpoint.leases {
            let Some(lease) = self.state.leases.get(&remaining.id) else { continue };
            let remaining_s = remaining.remaining_s.clamp(1, lease.ttl_s);
            self.set_lease(remaining.id, Lease { remaining_s, ..*lease });
            self.effects.push(Effect::Recorded(LeaseRemaining { remaining_s, ..*remaining }));
        }
        Answer::Done
    }

    fn set_lease(&mut self, id: i64, lease: Lease) {
        self.columns.leases.put(self.versions.overlay(), id, lease);
        self.state.leases.insert(id, lease);
    }

    /// Adds the command's attachments to the batch, where the next command finds them.
    fn record_moves(&mut self, succeeded: bool) {
        for (key, from, to) in self.moves.drain(..).filter(|_| succeeded) {
            self.columns.leases.attach(self.versions.overlay(), &key, from, to);
        }
    }
}

/// Whether a change is refused when the space is used up: what stores something new is.
pub(crate) fn takes_space(change: &Change) -> bool {
    match change {
        Change::Put(_) | Change::LeaseGrant(_) => true,
        Change::Txn(request) => puts(request),
        Change::Restore(request) => request.writes.as_ref().is_some_and(puts),
        _ => false,
    }
}

fn puts(request: &TxnRequest) -> bool {
    let puts_one = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    };
    request.success.iter().chain(&request.failure).any(puts_one)
}
