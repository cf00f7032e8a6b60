//! Answers to range requests, exactly as etcd gives them.
//!
//! ```text
//! revision check → count all, fetch up to limit + 1 → min/max filters → sort → cut at limit → more
//! ```
//! The order of these steps is visible to clients: the count is taken before filters and limit; with
//! a sort order or a filter everything is fetched first; with a sort target but no order, the first
//! limit + 1 keys are fetched, and only those are sorted, ascending.

use crate::{
    Error, Result,
    core::Head,
    scan::{Entry, Source, scan},
    span::Span,
};
use chronolith_engine::ColumnId;
use chronolith_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};
use std::{cmp::Ordering, collections::VecDeque, ops::ControlFlow};

/// A state to read: the newest revision of it, and the oldest that is still there.
pub(crate) struct View<'a, S: ?Sized> {
    pub(crate) source: &'a S,
    pub(crate) versions: ColumnId,
    pub(crate) current: i64,
    pub(crate) compact: i64,
}

/// The answer to a range request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeResult {
    /// The keys, filtered, sorted and cut.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// Keys in the range, before filters and limit.
    pub count: i64,
    /// The store's revision when it was read.
    pub revision: i64,
}

impl RangeResult {
    /// The answer on the wire, still without header.
    #[must_use]
    pub fn into_response(self) -> RangeResponse {
        RangeResponse { header: None, kvs: self.kvs, more: self.more, count: self.count }
    }
}

/// The revision to read: the requested one, or the newest.
pub(crate) fn revision_to_read(requested: i64, current: i64, compact: i64) -> Result<i64> {
    if requested > current {
        return Err(Error::FutureRevision);
    }
    let at = if requested <= 0 { current } else { requested };
    if at < compact { Err(Error::Compacted) } else { Ok(at) }
}

/// How a request wants its keys.
struct Shape {
    limit: usize,
    fetch: usize,
    order: SortOrder,
    target: SortTarget,
}

impl Shape {
    fn new(request: &RangeRequest) -> Self {
        let (order, target) = (request.sort_order(), request.sort_target());
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let in_key_order =
            order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key);
        let fetch = match limit {
            Some(limit) if in_key_order && !has_filters(request) => limit.saturating_add(1),
            _ => usize::MAX,
        };
        let order = match (order, target) {
            (SortOrder::None, SortTarget::Key) | (SortOrder::Ascend, SortTarget::Key) => {
                SortOrder::None
            }
            (SortOrder::None, _) => SortOrder::Ascend,
            (order, _) => order,
        };
        Self { limit: limit.unwrap_or(usize::MAX), fetch, order, target }
    }

    /// Keys in descending order with a limit: only the last ones need to be kept while scanning.
    fn keeps_last(&self, request: &RangeRequest) -> Option<usize> {
        let last = self.order == SortOrder::Descend && self.target == SortTarget::Key;
        (last && !has_filters(request)).then(|| self.limit.saturating_add(1))
    }

    fn sort(&self, kvs: &mut [KeyValue]) {
        match self.order {
            SortOrder::None => {}
            SortOrder::Ascend => kvs.sort_by(|a, b| compare(self.target, a, b)),
            SortOrder::Descend => kvs.sort_by(|a, b| compare(self.target, b, a)),
        }
    }
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

fn passes_filters(request: &RangeRequest, kv: &KeyValue) -> bool {
    let at_least = |bound: i64, revision: i64| bound == 0 || revision >= bound;
    let at_most = |bound: i64, revision: i64| bound == 0 || revision <= bound;
    at_most(request.max_mod_revision, kv.mod_revision)
        && at_least(request.min_mod_revision, kv.mod_revision)
        && at_most(request.max_create_revision, kv.create_revision)
        && at_least(request.min_create_revision, kv.create_revision)
}

/// Answers `request` from `view`.
pub(crate) fn range<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &RangeRequest,
) -> Result<RangeResult> {
    let whole = range_up_to(view, request, usize::MAX)?;
    Ok(whole.expect("there are fewer keys than a number can count"))
}

/// Answers `request` from `view`, unless there are more than `most` keys beyond those it wants.
pub(crate) fn range_up_to<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &RangeRequest,
    most: usize,
) -> Result<Option<RangeResult>> {
    let at = revision_to_read(request.revision, view.current, view.compact)?;
    let span = Span::new(&request.key, &request.range_end);
    let shape = Shape::new(request);
    let mut found = Found::new(request, &shape);
    let most = i64::try_from(found.first.saturating_add(most)).unwrap_or(i64::MAX);
    scan(view.source, view.versions, &span, at, |entry| {
        found.push(&entry)?;
        Ok(if found.count > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let whole = found.count <= most;
    Ok(whole.then(|| finish(request, &shape, found.kvs.into(), found.count, view.current)))
}

/// Whether the answer needs only the first keys of a range, and the number of all.
pub(crate) fn needs_only_the_first(request: &RangeRequest) -> bool {
    request.count_only || Shape::new(request).fetch < usize::MAX
}

/// The answer of which the number of keys is known already.
pub(crate) fn counted<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &RangeRequest,
    count: i64,
) -> Result<RangeResult> {
    let span = Span::new(&request.key, &request.range_end);
    let shape = Shape::new(request);
    let mut found = Found::new(request, &shape);
    if found.first > 0 {
        scan(view.source, view.versions, &span, view.current, |entry| {
            found.push(&entry)?;
            let full = found.kvs.len() >= found.first;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(finish(request, &shape, found.kvs.into(), count, view.current))
}

/// The answer to a request for one key whose visible version is `head`.
pub(crate) fn one(request: &RangeRequest, head: Head, current: i64) -> RangeResult {
    let Head { revision, record } = head;
    let count = i64::from(record.is_some());
    let wanted = record.filter(|_| !request.count_only);
    let kv = wanted.map(|record| record.into_key_value(request.key.clone(), revision));
    finish(request, &Shape::new(request), kv.into_iter().collect(), count, current)
}

/// Filters, sorts and cuts what a scan or a point read found.
fn finish(
    request: &RangeRequest,
    shape: &Shape,
    mut kvs: Vec<KeyValue>,
    count: i64,
    revision: i64,
) -> RangeResult {
    if has_filters(request) {
        kvs.retain(|kv| passes_filters(request, kv));
    }
    shape.sort(&mut kvs);
    let more = kvs.len() > shape.limit;
    kvs.truncate(shape.limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    RangeResult { kvs, more, count, revision }
}

/// What a scan has found so far.
struct Found {
    kvs: VecDeque<KeyValue>,
    count: i64,
    /// Keep the first so many.
    first: usize,
    /// Keep the last so many.
    last: usize,
}

impl Found {
    fn new(request: &RangeRequest, shape: &Shape) -> Self {
        let first = if request.count_only { 0 } else { shape.fetch };
        let last = shape.keeps_last(request).unwrap_or(usize::MAX);
        Self { kvs: VecDeque::new(), count: 0, first, last }
    }

    fn push(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.count += 1;
        if self.kvs.len() < self.first {
            if self.kvs.len() >= self.last {
                self.kvs.pop_front();
            }
            self.kvs.push_back(entry.key_value()?);
        }
        Ok(())
    }
}

/// All keys of `span` at the newest revision.
pub(crate) fn all<S: Source + ?Sized>(view: &View<'_, S>, span: &Span) -> Result<Vec<KeyValue>> {
    let mut kvs = Vec::new();
    scan(view.source, view.versions, span, view.current, |entry| {
        kvs.push(entry.key_value()?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kvs)
}
