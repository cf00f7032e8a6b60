//! Writing: a run of commands becomes one engine batch.
//!
//! ```text
//! begin_run ─▶ put, delete_range, txn, ... each its own revision ─▶ commit: one engine write,
//!                │                                                     then readers see it,
//!                └─ a command that fails leaves nothing                then watchers hear of it
//! ```
//! * A command's changes carry its revision and their position in it. No change, no revision.
//! * Later commands, and later operations of one transaction, see what earlier ones wrote: the newest
//!   version of each key written in this run is remembered, everything is in the overlay.
//! * An error before the first change is the rule (all checks come first); one after it (only the
//!   engine can cause it) is undone from the command's own list of changes.

use crate::{
    Applied, Error, Kind, Leases, Mvcc, Result, Stamp,
    applied::Stamped,
    compare::{self, Path},
    core::{COMPACT_KEY, Columns, Core, Head},
    key::{self, Revision},
    log::{self, LogWriter},
    range::{self, RangeResult, View},
    record::Record,
    span::Span,
    watch::Published,
};
use bytes::Bytes;
use chronolith_engine::{Durability, Overlay};
use chronolith_proto::{
    etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        request_op::Request, response_op::Response,
    },
    mvccpb::KeyValue,
};
use rustc_hash::FxHashMap;

/// See the module. Dropped without [`Run::commit`], it never was.
pub struct Run<'a> {
    pub(crate) mvcc: &'a mut Mvcc,
    pub(crate) overlay: Overlay,
    pub(crate) columns: Columns,
    /// Newest versions of the keys written in this run.
    heads: FxHashMap<Bytes, Head>,
    /// Changes of this run's revisions, for the watchers and the followers of the history.
    published: Vec<Published>,
    /// The run's revisions.
    revisions: Vec<Stamped>,
    /// Keys and values of all that is published.
    size_bytes: usize,
    /// Which changes brought a key to life or ended it, and by how much.
    turns: Vec<(usize, i64)>,
    /// Changes of the command at work.
    changes: Vec<Change>,
    /// What the command at work does to leases, told to the caller when it has succeeded.
    lease_moves: Vec<(Bytes, i64, i64)>,
    revision: i64,
    compact: i64,
    pub(crate) time_ms: u64,
}

/// A change of the command at work.
struct Change {
    key: Bytes,
    /// The version before it.
    before: Head,
    /// Whether `before` was already known in this run.
    known: bool,
    kind: Kind,
    /// What it leaves; none for a removal.
    after: Option<Record>,
}

impl Change {
    /// Whether the key came to life by it (1), or died (-1).
    fn turn(&self) -> i64 {
        i64::from(self.after.is_some()) - i64::from(self.before.record.is_some())
    }
}

impl<'a> Run<'a> {
    pub(crate) fn new(mvcc: &'a mut Mvcc) -> Result<Self> {
        let core = &mvcc.core;
        let overlay = Overlay::new(core.engine.clone())?;
        let (columns, revision, compact) = (core.columns, core.current(), core.compact());
        let time_ms = mvcc.time_ms;
        Ok(Self {
            mvcc,
            overlay,
            columns,
            heads: FxHashMap::default(),
            published: Vec::new(),
            revisions: Vec::new(),
            size_bytes: 0,
            turns: Vec::new(),
            changes: Vec::new(),
            lease_moves: Vec::new(),
            revision,
            compact,
            time_ms,
        })
    }

    /// The newest revision, this run's included.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compact revision, this run's compactions included.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.compact
    }

    /// The batch of this run, to which the caller adds its own records.
    pub fn overlay(&mut self) -> &mut Overlay {
        &mut self.overlay
    }

    /// Sets a key, in a revision of its own.
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<PutResponse> {
        self.command(leases, stamp, |run, leases| {
            check_lease(request, leases)?;
            run.put_one(request)
        })
    }

    /// Removes keys, all in one revision; none if there is nothing to remove.
    pub fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<DeleteRangeResponse> {
        self.command(leases, stamp, |run, _| run.delete_span(request))
    }

    /// Carries out a transaction, all in one revision.
    ///
    /// The answers to its operations carry the revision each of them saw; the transaction's own
    /// header is left to the caller, and nested transactions have none.
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<TxnResponse> {
        self.command(leases, stamp, |run, leases| {
            let path = compare::path(request, &mut |span| run.read(span))?;
            run.check(request, &mut path.clone(), leases)?;
            run.execute(request, &mut path.clone())
        })
    }

    /// Removes these keys, all in one revision, and says how many there were (a revoked lease's keys).
    pub fn delete_keys(
        &mut self,
        keys: &[Bytes],
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<i64> {
        self.remove_keys(keys, Kind::Delete, leases, stamp)
    }

    /// [`delete_keys`](Self::delete_keys), of a lease that ran out: the history says so.
    pub fn expire_keys(
        &mut self,
        keys: &[Bytes],
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<i64> {
        self.remove_keys(keys, Kind::Expire, leases, stamp)
    }

    fn remove_keys(
        &mut self,
        keys: &[Bytes],
        kind: Kind,
        leases: &mut dyn Leases,
        stamp: &Stamp,
    ) -> Result<i64> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        self.command(leases, stamp, |run, _| {
            let mut deleted = 0;
            for key in keys {
                let (head, known) = run.head(&key)?;
                if head.record.is_some() {
                    run.change(key, (head, known), kind, None);
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
    }

    /// Whether any key from `start` (in) to `end` (out; none has no end) changed after revision `since`,
    /// removals and this run's changes included.
    pub fn changed_since(&self, start: &Bytes, end: Option<&Bytes>, since: i64) -> Result<bool> {
        if since >= self.revision {
            return Ok(false);
        }
        if since < self.compact - 1 {
            return Err(Error::Compacted);
        }
        let span = Span::Range { start: start.clone(), end: end.cloned() };
        let mut cursor = self.overlay.cursor(self.columns.log, Core::log_from(since + 1))?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let revision = key::log_revision(cursor.key()).ok_or(CORRUPT_LOG)?;
            let entry = log::decode(revision, &cursor.value_bytes())?;
            if entry.changes.iter().any(|change| span.contains(&change.key)) {
                return Ok(true);
            }
            cursor.next()?;
        }
        Ok(false)
    }

    /// Makes revisions before `revision` unreadable. Their records are removed step by step
    /// afterwards, by [`Mvcc::scrub_step`].
    pub fn compact(&mut self, revision: i64) -> Result<()> {
        if revision <= self.compact {
            return Err(Error::Compacted);
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compact = revision;
        let bytes = Bytes::copy_from_slice(&revision.to_be_bytes());
        self.overlay.put(self.columns.meta, COMPACT_KEY, bytes);
        Ok(())
    }

    /// Writes the run in one engine batch; then readers see it, then watchers hear of it. What it did,
    /// for whoever follows the history.
    pub fn commit(self, durability: Durability) -> Result<Applied> {
        let Self { mvcc, overlay, published, turns, revision, compact, time_ms, .. } = self;
        overlay.commit(durability)?;
        mvcc.time_ms = time_ms;
        mvcc.core.advance(revision, compact, &turns, &published);
        mvcc.hub.publish(&published, revision);
        Ok(Applied::new(published, self.revisions, self.size_bytes))
    }

    /// Runs one command: on success its changes become a revision, on error they are undone.
    fn command<T>(
        &mut self,
        leases: &mut dyn Leases,
        stamp: &Stamp,
        work: impl FnOnce(&mut Self, &dyn Leases) -> Result<T>,
    ) -> Result<T> {
        let result = work(self, leases);
        match &result {
            Ok(_) => self.close_revision(leases, stamp),
            Err(_) => self.undo(),
        }
        result
    }

    fn close_revision(&mut self, leases: &mut dyn Leases, stamp: &Stamp) {
        if self.changes.is_empty() {
            return;
        }
        self.revision += 1;
        // Time never goes back in the log, whatever a proposer's clock does: the search by time
        // relies on it.
        self.time_ms = self.time_ms.max(stamp.time_ms);
        let stamp = Stamp { time_ms: self.time_ms, ..*stamp };
        let room_bytes = self.changes.iter().map(|change| change.key.len() + 8).sum();
        let turns = (self.published.len()..).zip(self.changes.iter().map(Change::turn));
        self.turns.extend(turns.filter(|(_, change)| *change != 0));
        name_versions_before(self.revision, &mut self.changes);
        let mut entry = LogWriter::new(self.revision, &stamp, room_bytes);
        for change in &self.changes {
            let value = change.after.as_ref().map_or(0, |after| after.value.len());
            self.size_bytes += change.key.len() + value;
            entry.push(change.kind, &change.key, change.before.revision);
        }
        let key = Bytes::copy_from_slice(&key::log(self.revision));
        self.overlay.put(self.columns.log, key, entry.finish());
        self.published.extend(self.changes.drain(..).map(|change| {
            let Change { key, before, kind, after, .. } = change;
            Published { revision: self.revision, kind, key, after, before }
        }));
        self.revisions.push(Stamped { revision: self.revision, stamp, end: self.published.len() });
        for (key, from, to) in self.lease_moves.drain(..) {
            leases.moved(&key, from, to);
        }
    }

    fn undo(&mut self) {
        let main = self.revision + 1;
        self.lease_moves.clear();
        while let Some(Change { key, before, known, .. }) = self.changes.pop() {
            let version = key::version(&key, self.next_place(main));
            self.overlay.delete(self.columns.versions, version);
            if known {
                self.heads.insert(key, before);
            } else {
                self.heads.remove(&key);
            }
        }
    }

    fn next_place(&self, main: i64) -> Revision {
        let sub = u32::try_from(self.changes.len()).expect("fewer than 2^32 changes a revision");
        Revision { main, sub }
    }

    /// The newest version of `key`, and whether this run wrote it.
    fn head(&self, key: &[u8]) -> Result<(Head, bool)> {
        let (head, known) = match self.heads.get(key) {
            Some(head) => (head.clone(), true),
            None => (self.mvcc.core.head(key, i64::MAX)?, false),
        };
        // Some replicas have removed a compacted tombstone already, others have not: none sees it.
        let gone = head.record.is_none() && head.revision < self.compact;
        Ok((if gone { Head::default() } else { head }, known))
    }

    /// Writes one version of a key: `after`, or a tombstone. `known` says that this run wrote `before`.
    fn change(
        &mut self,
        key: Bytes,
        (before, known): (Head, bool),
        kind: Kind,
        after: Option<Record>,
    ) {
        let place = self.next_place(self.revision + 1);
        let stored = after.as_ref().map_or_else(Record::tombstone, |after| after.encode().into());
        self.overlay.put(self.columns.versions, key::version(&key, place), stored);
        let lease = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.lease);
        let (from, to) = (lease(&before.record), lease(&after));
        if from != to {
            self.lease_moves.push((key.clone(), from, to));
        }
        self.heads.insert(key.clone(), Head { revision: place.main, record: after.clone() });
        self.changes.push(Change { key, before, known, kind, after });
    }

    fn put_one(&mut self, request: &PutRequest) -> Result<PutResponse> {
        let (before, known) = self.head(&request.key)?;
        let old = before.record.as_ref();
        if old.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(Error::KeyNotFound);
        }
        let kept = |ignored: bool| old.filter(|_| ignored);
        let record = Record {
            create_revision: old.map_or(self.revision + 1, |old| old.create_revision),
            version: old.map_or(1, |old| old.version + 1),
            lease: kept(request.ignore_lease).map_or(request.lease, |old| old.lease),
            value: kept(request.ignore_value).map_or(&request.value, |old| &old.value).clone(),
        };
        let prev_kv = match old.filter(|_| request.prev_kv) {
            Some(old) => Some(old.clone().into_key_value(request.key.clone(), before.revision)),
            None => None,
        };
        self.change(request.key.clone(), (before, known), Kind::Put, Some(record));
        Ok(PutResponse { header: None, prev_kv })
    }

    fn delete_span(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse> {
        let doomed = self.read(&Span::new(&request.key, &request.range_end))?;
        let deleted = i64::try_from(doomed.len()).expect("fewer than 2^63 keys");
        for kv in &doomed {
            let before = Head { revision: kv.mod_revision, record: Some(record_of(kv)) };
            let known = self.heads.contains_key(&kv.key);
            self.change(kv.key.clone(), (before, known), Kind::Delete, None);
        }
        let prev_kvs = if request.prev_kv { doomed } else { Vec::new() };
        Ok(DeleteRangeResponse { header: None, deleted, prev_kvs })
    }

    /// The keys of `span` as this command sees them.
    fn read(&self, span: &Span) -> Result<Vec<KeyValue>> {
        if let Span::Point(key) = span {
            let (head, _) = self.head(key)?;
            let Head { revision, record } = head;
            return Ok(record
                .map(|record| record.into_key_value(key.clone(), revision))
                .into_iter()
                .collect());
        }
        range::all(&self.view(), span)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResult> {
        match Span::new(&request.key, &request.range_end) {
            Span::Point(key) if request.revision <= 0 => {
                Ok(range::one(request, self.head(&key)?.0, self.seen_revision()))
            }
            // Every replica answers it, whatever its own limits are.
            _ => range::range(&self.view(), request, usize::MAX),
        }
    }

    fn view(&self) -> View<'_, Overlay> {
        View {
            source: &self.overlay,
            versions: self.columns.versions,
            current: self.seen_revision(),
            compact: self.compact,
        }
    }

    /// The revision an operation sees: the coming one as soon as it has a change.
    fn seen_revision(&self) -> i64 {
        self.revision + i64::from(!self.changes.is_empty())
    }

    /// Checks what a transaction will do, before it does any of it.
    fn check(&self, request: &TxnRequest, path: &mut Path, leases: &dyn Leases) -> Result<()> {
        for operation in taken(request, path) {
            match &operation.request {
                Some(Request::RequestRange(range)) => {
                    check_range(range, self.revision, self.compact)?;
                }
                Some(Request::RequestPut(put)) => {
                    let needs_key = put.ignore_value || put.ignore_lease;
                    if needs_key && self.head(&put.key)?.0.record.is_none() {
                        return Err(Error::KeyNotFound);
                    }
                    check_lease(put, leases)?;
                }
                Some(Request::RequestTxn(nested)) => self.check(nested, path, leases)?,
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn execute(&mut self, request: &TxnRequest, path: &mut Path) -> Result<TxnResponse> {
        let succeeded = path.as_slice().first() == Some(&true);
        let mut responses = Vec::new();
        for operation in taken(request, path) {
            let response = match &operation.request {
                Some(request) => Some(self.execute_one(request, path)?),
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }

    fn execute_one(&mut self, request: &Request, path: &mut Path) -> Result<Response> {
        Ok(match request {
            Request::RequestRange(request) => {
                Response::ResponseRange(range_response(self.range(request)?))
            }
            Request::RequestPut(request) => {
                let mut response = self.put_one(request)?;
                response.header = self.seen_header();
                Response::ResponsePut(response)
            }
            Request::RequestDeleteRange(request) => {
                let mut response = self.delete_span(request)?;
                response.header = self.seen_header();
                Response::ResponseDeleteRange(response)
            }
            Request::RequestTxn(request) => Response::ResponseTxn(self.execute(request, path)?),
        })
    }

    fn seen_header(&self) -> Option<ResponseHeader> {
        header(self.seen_revision())
    }
}

const CORRUPT_LOG: Error = Error::Corrupt { what: "key of the log" };

/// The operations of the branch that the path takes here.
fn taken<'r>(request: &'r TxnRequest, path: &mut Path) -> &'r [RequestOp] {
    compare::branch(request, path.next().expect("the path names every transaction it leads to"))
}

fn check_lease(request: &PutRequest, leases: &dyn Leases) -> Result<()> {
    let known = request.lease == 0 || leases.contains(request.lease);
    if known { Ok(()) } else { Err(Error::LeaseNotFound) }
}

/// Inside a transaction a negative revision is a compacted one; by itself it means the newest.
pub(crate) fn check_range(request: &RangeRequest, current: i64, compact: i64) -> Result<()> {
    match request.revision {
        0 => Ok(()),
        revision if revision > current => Err(Error::FutureRevision),
        revision if revision < compact => Err(Error::Compacted),
        _ => Ok(()),
    }
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

pub(crate) fn range_response(result: RangeResult) -> RangeResponse {
    let header = header(result.revision);
    let mut response = result.into_response();
    response.header = header;
    response
}

fn record_of(kv: &KeyValue) -> Record {
    Record {
        create_revision: kv.create_revision,
        version: kv.version,
        lease: kv.lease,
        value: kv.value.clone(),
    }
}

/// Lets every change name the version before the revision, not one from inside it: that is what
/// watchers and the log call previous.
fn name_versions_before(revision: i64, changes: &mut [Change]) {
    for index in 0..changes.len() {
        if changes[index].before.revision == revision {
            let key = &changes[index].key;
            let first = changes[..index].iter().find(|change| change.key == key);
            let before =
                first.expect("a key's version of this revision has a change").before.clone();
            changes[index].before = before;
        }
    }
}
