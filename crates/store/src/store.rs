//! The store as its users see it: requests in, answers with headers out.
//!
//! ```text
//! write   check ─▶ admit ─▶ quota ─▶ propose ─▶ (log, quorum, apply) ─▶ header
//! read    check ─▶ admit ─▶ confirm, unless serializable ─▶ snapshot ─▶ header
//! ```

use crate::{
    admission::{Admission, Admitted},
    command::{Actor, Change, LeaseCheckpoint, LeaseRemaining},
    config::Limits,
    directory::{Directory, Identity},
    error::StoreError,
    history::History,
    lease::{TTL_MAX_S, clock::Renewal},
    machine::{Answer, Columns, Outcome, applying::takes_space},
    proposer::Proposer,
    reserve::Reserve,
    shared::Shared,
    space::Space,
};
use chronolith_engine::Engine;
use chronolith_mvcc::{Reader, WatchHub, validate};
use chronolith_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, ResponseHeader,
    TxnRequest, TxnResponse, alarm_request::AlarmAction,
};
use parking_lot::Mutex;
use std::{sync::Arc, thread::JoinHandle, time::Instant};
use tokio::sync::Semaphore;

/// A store that is open. Cheap to clone; all clones are the same store.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use chronolith_proto::etcdserverpb::{PutRequest, RangeRequest};
/// use chronolith_store::{Store, StoreConfig};
/// let store = Store::open(StoreConfig::new("./chronolith-data"))?;
/// store.put(PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }).await?;
/// let found = store.range(RangeRequest { key: "k".into(), ..Default::default() }).await?;
/// assert_eq!(found.kvs[0].value, "v");
/// store.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    actor: Actor,
}

/// What all clones of a [`Store`] share.
pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) client_urls: Mutex<Vec<String>>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) reader: Reader,
    pub(crate) columns: Columns,
    pub(crate) shared: Arc<Shared>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) history: Option<History>,
    pub(crate) admission: Admission,
    /// Places for reads that take their time.
    pub(crate) large_reads: Arc<Semaphore>,
    pub(crate) space: Space,
    pub(crate) reserve: Reserve,
    pub(crate) running: Mutex<Option<Running>>,
}

/// What ends with the store.
pub(crate) struct Running {
    pub(crate) upkeep: JoinHandle<()>,
    pub(crate) directory: Directory,
}

impl Store {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), actor: Actor::default() }
    }

    /// The same store, for requests of this actor: its id is recorded with what it changes.
    #[must_use]
    pub fn acting_as(&self, actor: Actor) -> Self {
        Self { actor, ..self.clone() }
    }

    /// Sets a key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, StoreError> {
        validate::put(&request)?;
        let (answer, header) = self.change(Change::Put(request)).await?;
        match answer {
            Answer::Put(response) => Ok(PutResponse { header, ..response }),
            other => Err(mismatch(&other)),
        }
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StoreError> {
        validate::delete_range(&request)?;
        let (answer, header) = self.change(Change::DeleteRange(request)).await?;
        match answer {
            Answer::DeleteRange(response) => Ok(DeleteRangeResponse { header, ..response }),
            other => Err(mismatch(&other)),
        }
    }

    /// Carries out a transaction. One that only reads needs no consensus.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        self.txn_then(request, |response| response).await
    }

    /// The same, and does with the answer what is to be done where it was made; see
    /// [`range_then`](Self::range_then).
    pub async fn txn_then<T: Send + 'static>(
        &self,
        request: TxnRequest,
        then: impl FnOnce(TxnResponse) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        validate::txn(&request, self.inner.limits.max_txn_operations)?;
        if Reader::txn_is_read_only(&request) {
            return self.read_only_txn(request, then).await;
        }
        let (answer, header) = self.change(Change::Txn(request)).await?;
        match answer {
            Answer::Txn(response) => Ok(then(TxnResponse { header, ..response })),
            other => Err(mismatch(&other)),
        }
    }

    /// Makes revisions before the given one unreadable; `physical` waits until they are removed.
    pub async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, StoreError> {
        let (_, header) = self.change(Change::Compact(request)).await?;
        if request.physical {
            self.inner.shared.wait_scrubbed(request.revision).await?;
        }
        Ok(CompactionResponse { header })
    }

    /// Grants a lease; id 0 lets the store choose.
    pub async fn lease_grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, StoreError> {
        if request.ttl > TTL_MAX_S {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        loop {
            // Chosen here and not in apply, which knows no randomness.
            let id = if request.id == 0 { rand::random_range(1..=i64::MAX) } else { request.id };
            match self.change(Change::LeaseGrant(LeaseGrantRequest { id, ..request })).await {
                Err(StoreError::LeaseExists) if request.id == 0 => {}
                Err(error) => return Err(error),
                Ok((Answer::LeaseGrant(response), header)) => {
                    return Ok(LeaseGrantResponse { header, ..response });
                }
                Ok((other, _)) => return Err(mismatch(&other)),
            }
        }
    }

    /// Ends a lease: its keys are deleted, all in one revision.
    pub async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, StoreError> {
        let (_, header) = self.change(Change::LeaseRevoke(request)).await?;
        Ok(LeaseRevokeResponse { header })
    }

    /// Lets a lease run for its whole time again. A time to live of 0 says that it is gone.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, StoreError> {
        loop {
            let _admitted = self.admit()?;
            let renewal = self.inner.shared.clock.lock().renew(id, Instant::now());
            let ttl = match renewal {
                Renewal::Gone => 0,
                Renewal::Renewed { ttl_s } => ttl_s,
                Renewal::RecordFirst { ttl_s } => {
                    let remaining = LeaseRemaining { id, remaining_s: ttl_s };
                    let record =
                        Change::LeaseCheckpoint(LeaseCheckpoint { leases: vec![remaining] });
                    self.inner.proposer.propose(record, self.actor).await?.result?;
                    continue;
                }
            };
            return Ok(LeaseKeepAliveResponse { header: Some(self.header()), id, ttl });
        }
    }

    /// How long a lease still runs, and its keys if asked for. Minus one says that it is gone.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, StoreError> {
        let _admitted = self.admit_read()?;
        self.inner.proposer.confirm_read().await?;
        let (header, id) = (Some(self.header()), request.id);
        let times = self.inner.shared.clock.lock().time_to_live(id, Instant::now());
        let Some((granted_ttl, ttl)) = times else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
        };
        let keys = if request.keys { self.lease_keys(id)? } else { Vec::new() };
        Ok(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys })
    }

    fn lease_keys(&self, id: i64) -> Result<Vec<bytes::Bytes>, StoreError> {
        let snapshot = self.inner.engine.snapshot()?;
        Ok(self.inner.columns.leases.keys(&*snapshot, id)?)
    }

    /// All leases.
    pub async fn lease_leases(&self) -> Result<LeaseLeasesResponse, StoreError> {
        let _admitted = self.admit_read()?;
        self.inner.proposer.confirm_read().await?;
        let ids = self.inner.shared.clock.lock().ids(Instant::now());
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.header()), leases })
    }

    /// The history: its past, its proofs and its checkpoints. None with [`Verify::Off`](crate::Verify).
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        self.inner.history.as_ref()
    }

    /// Where watchers register.
    #[must_use]
    pub fn watch_hub(&self) -> &Arc<WatchHub> {
        self.inner.reader.watch_hub()
    }

    /// A header with the current revision.
    #[must_use]
    pub fn header(&self) -> ResponseHeader {
        self.header_with(self.inner.reader.current_revision())
    }

    pub(crate) fn header_at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(self.header_with(revision))
    }

    pub(crate) fn header_with(&self, revision: i64) -> ResponseHeader {
        let Identity { cluster_id, member_id, .. } = self.inner.identity;
        ResponseHeader { cluster_id, member_id, revision, raft_term: self.inner.shared.term() }
    }

    pub(crate) fn admit(&self) -> Result<Admitted<'_>, StoreError> {
        self.inner.admission.enter()
    }

    pub(crate) fn admit_read(&self) -> Result<Admitted<'_>, StoreError> {
        if self.inner.shared.is_corrupt() {
            return Err(StoreError::Corrupt);
        }
        self.admit()
    }

    /// Admits a change, proposes it and waits until it is applied.
    pub(crate) async fn change(
        &self,
        change: Change,
    ) -> Result<(Answer, Option<ResponseHeader>), StoreError> {
        let _admitted = self.admit()?;
        let size_bytes = change.request_bytes();
        if size_bytes > self.inner.limits.max_request_bytes {
            return Err(StoreError::RequestTooLarge);
        }
        if takes_space(&change) {
            self.inner.check_space(size_bytes)?;
        }
        let Outcome { revision, result } = self.inner.proposer.propose(change, self.actor).await?;
        Ok((result?, self.header_at(revision)))
    }

    /// Refuses new requests, waits for those under way, and closes everything in order. The data
    /// directory is free afterwards.
    pub async fn shutdown(&self) {
        let inner = Arc::clone(&self.inner);
        let (done, stopped) = tokio::sync::oneshot::channel();
        // Joining threads blocks, which a task must not.
        let spawned = std::thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
            inner.stop();
            let _ = done.send(());
        });
        match spawned {
            Ok(_) => drop(stopped.await),
            Err(_) => self.inner.stop(),
        }
    }
}

impl Inner {
    /// Refuses what would pass the quota or take of the disk's reserve, and raises the alarm that makes all members do so.
    fn check_space(&self, size_bytes: usize) -> Result<(), StoreError> {
        if self.shared.is_out_of_space() {
            return Err(StoreError::NoSpace);
        }
        if !self.space.has_room(&*self.engine, size_bytes)? {
            tracing::warn!("the space quota is used up: raising the NOSPACE alarm");
        } else if !self.disk_has_room(size_bytes)? {
            let reserve_bytes = self.reserve.bytes();
            tracing::warn!(
                reserve_bytes,
                "the file system of the data directory has less free than the reserve (and the next \
                 checkpoint): raising the NOSPACE alarm. Free some, then disarm it"
            );
        } else {
            return Ok(());
        }
        let member_id = self.identity.member_id;
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id,
            alarm: AlarmType::Nospace as i32,
        };
        self.proposer.propose_quietly(Change::Alarm(alarm), |_| ());
        Err(StoreError::NoSpace)
    }

    fn disk_has_room(&self, size_bytes: usize) -> Result<bool, StoreError> {
        let next_checkpoint = || match self.identity.writes_checkpoints() {
            true => Ok(self.engine.size_bytes()?.unwrap_or(0)),
            false => Ok(0),
        };
        self.reserve.has_room(size_bytes, Instant::now(), next_checkpoint)
    }

    /// Closes in order: no new requests; no work of our own; the log, with what was queued; the
    /// history; the engine; the directory. The second time it does nothing.
    pub(crate) fn stop(&self) {
        self.admission.close();
        let Some(Running { upkeep, directory }) = self.running.lock().take() else { return };
        self.shared.upkeep.ring(|wanted| wanted.stop = true);
        if upkeep.join().is_err() {
            tracing::error!("the upkeep thread had panicked");
        }
        self.proposer.stop();
        if let Some(Err(error)) = self.history.as_ref().map(History::close) {
            // Nothing is lost: the next start appends what is missing.
            tracing::error!(%error, "the history's log did not close cleanly");
        }
        if let Err(error) = self.engine.flush().and_then(|()| self.engine.close()) {
            // Nothing acknowledged is lost: the log has it.
            tracing::error!(%error, "the engine did not close cleanly; the log will make up for it");
        }
        drop(directory);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A command was answered as if it were another: a bug, told instead of a panic.
pub(crate) fn mismatch(answer: &Answer) -> StoreError {
    StoreError::Storage(format!("a command of another kind answered: {answer:?}"))
}

impl From<chronolith_mvcc::Error> for StoreError {
    fn from(error: chronolith_mvcc::Error) -> Self {
        use chronolith_mvcc::Error;
        match error {
            Error::Engine(error) => error.into(),
            Error::Corrupt { .. } => Self::Storage(error.to_string()),
            error => Self::Request(Arc::new(error)),
        }
    }
}

impl From<chronolith_engine::Error> for StoreError {
    fn from(error: chronolith_engine::Error) -> Self {
        use chronolith_engine::Error;
        match error {
            Error::Closed => Self::Stopped,
            Error::Poisoned { cause } => Self::Poisoned { cause },
            error => Self::Storage(error.to_string()),
        }
    }
}
