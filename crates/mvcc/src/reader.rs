//! Reading, next to the writer and without waiting for it.
//!
//! A reader loads the current revision, then reads the engine: whatever is written meanwhile carries
//! a higher revision and is passed over. A read at an old revision loads the compact revision after
//! its snapshot: if that has not passed the revision, nothing the read needs was removed from the
//! snapshot either, for removal follows compaction.

use crate::{
    Error, Result,
    compare::{self, Path},
    core::{Core, NEVER_COMPACTED},
    counts::{Found, Look},
    listing::{Begun, Listing},
    range::{self, Pause, RangeResult, Ranging, View},
    run,
    scan::{Source, scan},
    span::Span,
    watch::WatchHub,
};
use bytes::Bytes;
use chronolith_engine::Snapshot;
use chronolith_proto::{
    etcdserverpb::{
        RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use prost::Message;
use std::{ops::ControlFlow, sync::Arc};

/// Reads the store. Cheap to clone; see the module.
#[derive(Clone)]
pub struct Reader {
    pub(crate) core: Arc<Core>,
    pub(crate) hub: Arc<WatchHub>,
}

/// The answer to a read-only transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnResult {
    /// The answer, its own header still to be filled in.
    pub response: TxnResponse,
    /// The revision that all of it was read at.
    pub revision: i64,
}

impl Reader {
    /// Revision of the newest change.
    #[must_use]
    pub fn current_revision(&self) -> i64 {
        self.core.current()
    }

    /// Revision of the last compaction; -1 if there was none.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.core.compact()
    }

    /// Where watchers register.
    #[must_use]
    pub fn watch_hub(&self) -> &Arc<WatchHub> {
        &self.hub
    }

    /// Answers a range request.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult> {
        let mut begun = self.begin_range(request, Pause::NEVER, usize::MAX)?;
        loop {
            match begun {
                Begun::Answered(answer) => return Ok(answer),
                Begun::Paused(listing) => begun = listing.advance(&Pause::NEVER)?,
            }
        }
    }

    /// Answers a range request that is soon answered; one that is not is handed back at the pause, to be
    /// finished where it may take its time.
    ///
    /// # Errors
    /// Also [`Error::AnswerTooLarge`], when the keys of the answer would take more than `max_bytes` on
    /// the wire; nothing larger than that is held meanwhile.
    pub fn begin_range(
        &self,
        request: &RangeRequest,
        pause: Pause,
        max_bytes: usize,
    ) -> Result<Begun> {
        match Span::new(&request.key, &request.range_end) {
            Span::Point(_) => self.get(request).map(Begun::Answered),
            Span::Range { .. } => self.list(request, max_bytes)?.advance(&pause),
        }
    }

    /// Begins to answer a request for a range. Where only its first keys are wanted and many follow,
    /// these are not looked at one by one to be counted.
    fn list(&self, request: &RangeRequest, max_bytes: usize) -> Result<Listing> {
        let by_plan = request.revision <= 0 && range::needs_only_the_first(request);
        let most = if by_plan { self.core.counts.lock().worth_a_plan() } else { usize::MAX };
        loop {
            let current = self.core.current();
            let snapshot = self.core.engine.snapshot()?;
            let compact = self.core.compact();
            if compact > current {
                continue;
            }
            let view =
                View { source: &*snapshot, versions: self.core.columns.versions, current, compact };
            let ranging = Ranging::new(&view, request.clone(), max_bytes)?;
            let (reader, request) = (self.clone(), request.clone());
            return Ok(Listing {
                reader,
                request,
                snapshot,
                current,
                compact,
                ranging,
                most,
                max_bytes,
            });
        }
    }

    /// Whether nothing but a part of a block is to be looked at to count the keys of a range.
    pub(crate) fn has_counted(&self, request: &RangeRequest) -> bool {
        let (start, end) = bounds(request);
        self.core.counts.lock().knows(start, end)
    }

    /// Answers a request for the first keys of a range of which most are counted already.
    pub(crate) fn list_by_plan(
        &self,
        request: &RangeRequest,
        max_bytes: usize,
    ) -> Result<RangeResult> {
        let (start, end) = bounds(request);
        loop {
            let (current, block_keys, plan) = {
                let mut counts = self.core.counts.lock();
                (self.core.current(), counts.block_keys, counts.plan(start, end))
            };
            let counted = self.with_view_at(current, |view| {
                let mut count = plan.known;
                for look in &plan.looks {
                    let found = look_at(view, look, (start, end), block_keys)?;
                    count += found.counted;
                    self.core.counts.lock().learn(look, found);
                }
                range::counted(view, request, count, max_bytes)
            });
            // What was not learnt, whatever the reason, is to be learnt by the next one.
            let mut counts = self.core.counts.lock();
            plan.looks.iter().for_each(|look| counts.forget(look));
            drop(counts);
            if let Some(answer) = counted.transpose() {
                return answer;
            }
        }
    }

    /// Answers a request for one key: one seek, no snapshot.
    fn get(&self, request: &RangeRequest) -> Result<RangeResult> {
        loop {
            let current = self.core.current();
            let at = range::revision_to_read(request.revision, current, NEVER_COMPACTED)?;
            let head = self.core.head(&request.key, at)?;
            if at >= self.core.compact() {
                return Ok(range::one(request, head, current));
            }
            if request.revision > 0 {
                return Err(Error::Compacted);
            }
            // The newest revision was overtaken and compacted while it was read: read again.
        }
    }

    /// Up to `limit` keys from `start` (in) to `end` (out; none has no end) as they were at revision
    /// `at`, in order, without counting those that follow.
    pub fn keys_at(
        &self,
        start: &Bytes,
        end: Option<&Bytes>,
        at: i64,
        limit: usize,
    ) -> Result<Vec<KeyValue>> {
        self.with_view(|view| {
            let at = range::revision_to_read(at, view.current, view.compact)?;
            let span = Span::Range { start: start.clone(), end: end.cloned() };
            let mut found = Vec::new();
            scan(view.source, view.versions, &span, at, |entry| {
                found.push(entry.key_value()?);
                let full = found.len() >= limit;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            Ok(found)
        })
    }

    /// Whether a transaction only reads, and so needs no consensus. One with nested transactions
    /// takes the writing path, as in etcd.
    #[must_use]
    pub fn txn_is_read_only(request: &TxnRequest) -> bool {
        let mut operations = request.success.iter().chain(&request.failure);
        operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
    }

    /// Whether a transaction looks at single keys only, and so is soon answered.
    #[must_use]
    pub fn txn_names_its_keys(request: &TxnRequest) -> bool {
        let mut operations = request.success.iter().chain(&request.failure);
        let is_one = |operation: &RequestOp| match &operation.request {
            Some(Request::RequestRange(range)) => range.range_end.is_empty(),
            _ => false,
        };
        request.compare.iter().all(|compare| compare.range_end.is_empty()) && operations.all(is_one)
    }

    /// Answers a read-only transaction, all of it at one revision.
    ///
    /// # Errors
    /// Also [`Error::AnswerTooLarge`], when the keys of its answers would take more than `max_bytes`.
    pub fn txn(&self, request: &TxnRequest, max_bytes: usize) -> Result<TxnResult> {
        self.with_view(|view| {
            let mut path = compare::path(request, &mut |span| range::all(view, span))?;
            let response = read_only(view, request, &mut path, max_bytes)?;
            Ok(TxnResult { response, revision: view.current })
        })
    }

    /// Calls `read` with a view that nothing moves.
    pub(crate) fn with_view<T>(
        &self,
        read: impl FnOnce(&View<'_, dyn Snapshot>) -> Result<T>,
    ) -> Result<T> {
        let mut read = Some(read);
        loop {
            let current = self.core.current();
            let once = |view: &View<'_, dyn Snapshot>| {
                read.take().map_or(Err(Error::Compacted), |read| read(view))
            };
            if let Some(answer) = self.with_view_at(current, once)? {
                return Ok(answer);
            }
        }
    }

    /// Calls `read` with a view of a revision that was current; none, and no call, if it was
    /// overtaken and compacted meanwhile.
    fn with_view_at<T>(
        &self,
        current: i64,
        read: impl FnOnce(&View<'_, dyn Snapshot>) -> Result<T>,
    ) -> Result<Option<T>> {
        let snapshot = self.core.engine.snapshot()?;
        let (versions, compact) = (self.core.columns.versions, self.core.compact());
        if compact > current {
            return Ok(None);
        }
        read(&View { source: &*snapshot, versions, current, compact }).map(Some)
    }
}

/// Where a range begins and ends; without end, all that follow belong to it.
fn bounds(request: &RangeRequest) -> (&Bytes, Option<&Bytes>) {
    (&request.key, Some(&request.range_end).filter(|end| end[..] != [0]))
}

/// Looks at the keys of a block, or of a part of it, and counts those from `start` to `end`.
fn look_at(
    view: &View<'_, dyn Snapshot>,
    look: &Look,
    (start, end): (&Bytes, Option<&Bytes>),
    block_keys: usize,
) -> Result<Found> {
    let mut found = Found::default();
    let wanted = Span::Range { start: start.clone(), end: end.cloned() };
    scan(view.source, view.versions, &look.span, view.current, |entry| {
        let counted = !look.learns() || wanted.contains(&entry.key());
        found.push(counted, block_keys, || entry.key());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn read_only<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &TxnRequest,
    path: &mut Path,
    max_bytes: usize,
) -> Result<TxnResponse> {
    let succeeded = path.next() == Some(true);
    let operations = compare::branch(request, succeeded);
    let ranges = || {
        operations.iter().filter_map(|operation| match &operation.request {
            Some(Request::RequestRange(request)) => Some(request),
            _ => None,
        })
    };
    ranges().try_for_each(|request| run::check_range(request, view.current, view.compact))?;
    let mut responses = Vec::with_capacity(operations.len());
    let mut left_bytes = max_bytes;
    for request in ranges() {
        let answer = range::range(view, request, left_bytes);
        let response = run::range_response(answer.map_err(|error| match error {
            Error::AnswerTooLarge { .. } => Error::AnswerTooLarge { max_bytes },
            other => other,
        })?);
        left_bytes = left_bytes.saturating_sub(response.encoded_len());
        responses.push(ResponseOp { response: Some(Response::ResponseRange(response)) });
    }
    Ok(TxnResponse { header: None, succeeded, responses })
}
