//! Questions about the member itself, and the few orders that concern all of it.

use crate::{
    command::Change,
    error::StoreError,
    figures::Figures,
    machine::Answer,
    store::{Store, mismatch},
};
use chronolith_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentResponse, DowngradeInfo,
    HashKvRequest, HashKvResponse, HashResponse, Member, MemberListRequest, MemberListResponse,
    ResponseHeader, StatusResponse, alarm_request::AlarmAction,
};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// The etcd whose behaviour is followed: clients turn features on by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// The version of the cluster and of the storage that etcd of [`ETCD_VERSION`] reports.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

impl Store {
    /// Waits until everything that was acknowledged before this call is applied here: what is read
    /// afterwards is not older.
    pub async fn confirm_read(&self) -> Result<(), StoreError> {
        let _admitted = self.admit_read()?;
        self.inner.proposer.confirm_read().await
    }

    /// What was counted since the store was opened.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (shared, proposals) = (&self.inner.shared, &self.inner.proposer.proposals);
        Figures {
            wal_syncs: shared.wal_syncs.counts(),
            commits: shared.commits.counts(),
            proposals_pending: proposals.pending.load(Ordering::Relaxed),
            proposals_failed: proposals.failed.load(Ordering::Relaxed),
            leader_changes: shared.leader_changes.load(Ordering::Relaxed),
        }
    }

    /// How the member does.
    pub async fn status(&self) -> Result<StatusResponse, StoreError> {
        let raft = self.inner.proposer.status();
        let used = self.inner.engine.size_bytes()?;
        let size = signed(used.unwrap_or(0));
        let alarms = self.inner.shared.alarms.read().list(AlarmType::None);
        let mut errors: Vec<String> = alarms.iter().map(alarm_text).collect();
        errors.extend(raft.poisoned);
        errors.extend(raft.checkpoint_error.map(|cause| format!("checkpoint: {cause}")));
        if raft.leader.is_none() {
            errors.push(StoreError::NoLeader.to_string());
        }
        let revision = self.inner.reader.current_revision();
        Ok(StatusResponse {
            header: Some(ResponseHeader { raft_term: raft.term, ..self.header_with(revision) }),
            version: ETCD_VERSION.to_owned(),
            db_size: size,
            db_size_in_use: size,
            db_size_quota: signed(self.inner.limits.quota_backend_bytes),
            leader: raft.leader.unwrap_or(0),
            raft_index: raft.commit,
            raft_term: raft.term,
            raft_applied_index: raft.applied,
            errors,
            is_learner: false,
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            downgrade_info: Some(DowngradeInfo::default()),
        })
    }

    /// Whether requests can be served: an error says why not.
    pub fn health(&self) -> Result<(), StoreError> {
        let raft = self.inner.proposer.status();
        if let Some(cause) = raft.poisoned {
            return Err(StoreError::Poisoned { cause });
        }
        if raft.leader.is_none() {
            return Err(StoreError::NoLeader);
        }
        if self.inner.shared.is_corrupt() {
            return Err(StoreError::Corrupt);
        }
        Ok(())
    }

    /// The members of the cluster. As in etcd, the header has no revision.
    pub async fn member_list(
        &self,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, StoreError> {
        let _admitted = self.admit()?;
        if request.linearizable {
            self.inner.proposer.confirm_read().await?;
        }
        let member = Member {
            id: self.inner.identity.member_id,
            name: self.inner.name.clone(),
            peer_ur_ls: self.inner.peer_urls.clone(),
            client_ur_ls: self.inner.client_urls.lock().clone(),
            is_learner: false,
        };
        Ok(MemberListResponse { header: Some(self.header_with(0)), members: vec![member] })
    }

    /// Says where clients reach this member, once that is known.
    pub fn set_client_urls(&self, urls: Vec<String>) {
        *self.inner.client_urls.lock() = urls;
    }

    /// Lists alarms, raises one or ends one.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, StoreError> {
        if request.action() == AlarmAction::Get {
            let _admitted = self.admit()?;
            self.inner.proposer.confirm_read().await?;
            let alarms = self.inner.shared.alarms.read().list(request.alarm());
            return Ok(AlarmResponse { header: Some(self.header()), alarms });
        }
        match self.change(Change::Alarm(request)).await? {
            (Answer::Alarm(alarms), header) => Ok(AlarmResponse { header, alarms }),
            (other, _) => Err(mismatch(&other)),
        }
    }

    /// A checksum of the versions up to a revision (0: the newest), which is the same on all members.
    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, StoreError> {
        let _admitted = self.admit()?;
        let (reader, (reply, answer)) = (self.inner.reader.clone(), oneshot::channel());
        // It reads everything, for seconds perhaps: not on a thread that serves others.
        let work = move || {
            // Nobody listens to a request that was cancelled.
            let _ = reply.send(reader.hash_kv(request.revision));
        };
        let thread = std::thread::Builder::new().name("hash".to_owned());
        thread.spawn(work).map_err(|error| StoreError::Storage(error.to_string()))?;
        let hashed = answer.await.map_err(|_| StoreError::Stopped)??;
        Ok(HashKvResponse {
            header: Some(self.header()),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        })
    }

    /// A checksum of all versions as they are now.
    pub async fn hash(&self) -> Result<HashResponse, StoreError> {
        let hashed = self.hash_kv(HashKvRequest::default()).await?;
        Ok(HashResponse { header: hashed.header, hash: hashed.hash })
    }

    /// Nothing to do: neither engine keeps free pages that only this would give back.
    pub async fn defragment(&self) -> Result<DefragmentResponse, StoreError> {
        let _admitted = self.admit()?;
        Ok(DefragmentResponse { header: None })
    }
}

/// An alarm as etcd writes it into a status.
fn alarm_text(alarm: &AlarmMember) -> String {
    let AlarmMember { member_id, .. } = alarm;
    format!("memberID:{member_id} alarm:{} ", alarm.alarm().as_str_name())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
