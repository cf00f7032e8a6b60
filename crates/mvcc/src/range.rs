//! Answers to range requests, exactly as etcd gives them.
//!
//! ```text
//! revision check → count all, fetch up to limit + 1 → min/max filters → sort → cut at limit → more
//! ```
//! The order of these steps is visible to clients: the count is taken before filters and limit; with
//! a sort order or a filter everything is looked at first; with a sort target but no order, the first
//! limit + 1 keys are fetched, and only those are sorted, ascending.
//!
//! Invariants of what is held meanwhile: no value that the answer does not show, unless it is sorted by;
//! of keys that are sorted and cut, twice the limit at most; and never more bytes than the caller allows,
//! of which the answer of a transaction knows none: replicas must not differ in what they refuse.

use crate::{
    Error, Result,
    core::Head,
    scan::{Entry, Source, Stretch, scan, scan_stretch},
    span::Span,
};
use bytes::Bytes;
use chronolith_engine::ColumnId;
use chronolith_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};
use prost::{Message, encoding::encoded_len_varint};
use std::{cell::Cell, cmp::Ordering, ops::ControlFlow};

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
    /// The first so many are looked at, and no others.
    fetch: usize,
    order: SortOrder,
    target: SortTarget,
    /// Values are shown, or sorted by.
    values: bool,
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
        let values = !request.keys_only || target == SortTarget::Value;
        Self { limit: limit.unwrap_or(usize::MAX), fetch, order, target, values }
    }

    /// So many of those that were found are enough: the answer, and one that says that there are more.
    fn enough(&self) -> usize {
        self.limit.saturating_add(1)
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

/// Answers `request` from `view` in at most so many bytes.
pub(crate) fn range<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &RangeRequest,
    max_bytes: usize,
) -> Result<RangeResult> {
    let mut ranging = Ranging::new(view, request.clone(), max_bytes)?;
    // There are fewer keys than a number can count, so it neither pauses nor finds too many.
    while !matches!(ranging.advance(view, &Pause::NEVER, usize::MAX)?, Advanced::ToTheEnd) {}
    Ok(ranging.finish(view.current))
}

/// The answer of which the number of keys is known already.
pub(crate) fn counted<S: Source + ?Sized>(
    view: &View<'_, S>,
    request: &RangeRequest,
    count: i64,
    max_bytes: usize,
) -> Result<RangeResult> {
    let mut ranging = Ranging::new(view, request.clone(), max_bytes)?;
    let found = &mut ranging.found;
    if found.first > 0 {
        scan(view.source, view.versions, &ranging.span, view.current, |entry| {
            found.push(&ranging.request, &ranging.shape, &entry)?;
            let full = found.kvs.len() >= found.first;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    ranging.found.count = count;
    Ok(ranging.finish(view.current))
}

/// Whether the answer needs only the first keys of a range, and the number of all.
pub(crate) fn needs_only_the_first(request: &RangeRequest) -> bool {
    request.count_only || Shape::new(request).fetch < usize::MAX
}

/// The answer to a request for one key whose visible version is `head`.
pub(crate) fn one(request: &RangeRequest, head: Head, current: i64) -> RangeResult {
    let Head { revision, record } = head;
    let count = i64::from(record.is_some());
    let wanted = record.filter(|_| !request.count_only);
    let kv = wanted.map(|record| record.into_key_value(request.key.clone(), revision));
    let kvs = kv.into_iter().filter(|kv| passes_filters(request, kv)).collect();
    finish(request, &Shape::new(request), kvs, count, current)
}

/// Sorts and cuts what a scan or a point read found.
fn finish(
    request: &RangeRequest,
    shape: &Shape,
    mut kvs: Vec<KeyValue>,
    count: i64,
    revision: i64,
) -> RangeResult {
    shape.sort(&mut kvs);
    let more = kvs.len() > shape.limit;
    kvs.truncate(shape.limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    RangeResult { kvs, more, count, revision }
}

/// When to pause a range that is being answered.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// After so many keys that were looked at, living ones and others.
    pub after_keys: usize,
    /// After so many bytes that were found.
    pub after_bytes: usize,
}

impl Pause {
    pub(crate) const NEVER: Self = Self { after_keys: usize::MAX, after_bytes: usize::MAX };
}

/// How far a range got.
pub(crate) enum Advanced {
    ToTheEnd,
    Paused,
    /// There are more keys than were to be looked at one by one.
    Many,
}

/// A range that is being answered, at one revision.
pub(crate) struct Ranging {
    request: RangeRequest,
    shape: Shape,
    span: Span,
    at: i64,
    found: Found,
    from: Option<Bytes>,
}

impl Ranging {
    pub(crate) fn new<S: Source + ?Sized>(
        view: &View<'_, S>,
        request: RangeRequest,
        max_bytes: usize,
    ) -> Result<Self> {
        let at = revision_to_read(request.revision, view.current, view.compact)?;
        let span = Span::new(&request.key, &request.range_end);
        let shape = Shape::new(&request);
        let first = if request.count_only { 0 } else { shape.fetch };
        let found = Found { first, max_bytes, ..Found::default() };
        Ok(Self { request, shape, span, at, found, from: None })
    }

    /// Goes on to the end or to the next pause, or to the `most` keys beyond those that are wanted.
    pub(crate) fn advance<S: Source + ?Sized>(
        &mut self,
        view: &View<'_, S>,
        pause: &Pause,
        most: usize,
    ) -> Result<Advanced> {
        if self.found_more_than(most) {
            return Ok(Advanced::Many);
        }
        let Self { request, shape, span, at, found, from } = self;
        let most = found.with_wanted(most);
        let keys = Cell::new(pause.after_keys);
        let pause_bytes = found.size_bytes.saturating_add(pause.after_bytes);
        let stretch = Stretch { from: from.as_ref(), keys: &keys };
        let next = scan_stretch(view.source, view.versions, span, *at, &stretch, |entry| {
            found.push(request, shape, &entry)?;
            if found.size_bytes > pause_bytes {
                keys.set(0);
            }
            Ok(if found.count > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if found.count > most {
            return Ok(Advanced::Many);
        }
        *from = next;
        Ok(if from.is_some() { Advanced::Paused } else { Advanced::ToTheEnd })
    }

    /// Whether there are more keys than `most` beyond those that are wanted.
    pub(crate) fn found_more_than(&self, most: usize) -> bool {
        self.found.count > self.found.with_wanted(most)
    }

    pub(crate) fn finish(self, revision: i64) -> RangeResult {
        let Self { request, shape, found, .. } = self;
        finish(&request, &shape, found.kvs, found.count, revision)
    }
}

/// What a scan has found so far.
#[derive(Default)]
struct Found {
    kvs: Vec<KeyValue>,
    count: i64,
    /// Keep the first so many.
    first: usize,
    /// Of `kvs` on the wire.
    size_bytes: usize,
    max_bytes: usize,
}

impl Found {
    fn with_wanted(&self, most: usize) -> i64 {
        i64::try_from(self.first.saturating_add(most)).unwrap_or(i64::MAX)
    }

    fn push(&mut self, request: &RangeRequest, shape: &Shape, entry: &Entry<'_>) -> Result<()> {
        self.count += 1;
        if self.kvs.len() >= self.first {
            return Ok(());
        }
        let kv = if shape.values { entry.key_value()? } else { entry.key_without_value()? };
        if !passes_filters(request, &kv) {
            return Ok(());
        }
        self.size_bytes += size_bytes(&kv);
        self.kvs.push(kv);
        if self.first == usize::MAX && self.kvs.len() >= shape.enough().saturating_mul(2) {
            self.keep_enough(shape);
        }
        if self.size_bytes > self.max_bytes {
            self.keep_enough(shape);
        }
        match self.size_bytes > self.max_bytes {
            true => Err(Error::AnswerTooLarge { max_bytes: self.max_bytes }),
            false => Ok(()),
        }
    }

    /// Lets go of what is cut off whatever follows. The sort is stable, as the last one is: of two that
    /// are level, the one with the lower key stays before the other.
    fn keep_enough(&mut self, shape: &Shape) {
        if self.kvs.len() > shape.enough() {
            shape.sort(&mut self.kvs);
            self.kvs.truncate(shape.enough());
            self.size_bytes = self.kvs.iter().map(size_bytes).sum();
        }
    }
}

/// What a key takes in an answer: a tag of one byte, its length, itself.
fn size_bytes(kv: &KeyValue) -> usize {
    let length = kv.encoded_len();
    1 + encoded_len_varint(length as u64) + length
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key, record::Record};
    use chronolith_engine::{
        Cursor, Durability, Engine, KeyRange, MemoryEngine, Snapshot, WriteBatch,
    };
    use std::sync::Arc;

    /// A snapshot of which no value may be taken.
    struct Sealed(Arc<dyn Snapshot>);

    struct SealedCursor<'a>(Box<dyn Cursor + 'a>);

    impl Source for Sealed {
        fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
            Ok(Box::new(SealedCursor(self.0.cursor(column, range)?)))
        }
    }

    impl Cursor for SealedCursor<'_> {
        fn seek_to_first(&mut self) -> chronolith_engine::Result<()> {
            self.0.seek_to_first()
        }
        fn seek_to_last(&mut self) -> chronolith_engine::Result<()> {
            self.0.seek_to_last()
        }
        fn seek(&mut self, key: &[u8]) -> chronolith_engine::Result<()> {
            self.0.seek(key)
        }
        fn seek_for_prev(&mut self, key: &[u8]) -> chronolith_engine::Result<()> {
            self.0.seek_for_prev(key)
        }
        fn next(&mut self) -> chronolith_engine::Result<()> {
            self.0.next()
        }
        fn prev(&mut self) -> chronolith_engine::Result<()> {
            self.0.prev()
        }
        fn valid(&self) -> bool {
            self.0.valid()
        }
        fn key(&self) -> &[u8] {
            self.0.key()
        }
        fn value(&self) -> &[u8] {
            self.0.value()
        }
        fn value_bytes(&self) -> Bytes {
            panic!("a value was taken")
        }
    }

    fn answer(request: &RangeRequest) -> RangeResult {
        let engine = MemoryEngine::new();
        let versions = engine.column("versions").unwrap();
        let mut batch = WriteBatch::new();
        for main in 2..6i64 {
            let value = Bytes::from(vec![b'v'; 100]);
            let record = Record { create_revision: main, version: 1, lease: 0, value };
            let at = key::Revision { main, sub: 0 };
            let name = format!("k{main}");
            batch.put(versions, key::version(name.as_bytes(), at), record.encode());
        }
        engine.write(batch, Durability::NoWal).unwrap();
        let source = Sealed(engine.snapshot().unwrap());
        let view = View { source: &source, versions, current: 5, compact: -1 };
        range(&view, request, 1_000).unwrap()
    }

    #[test]
    fn keys_without_values_and_counts_take_no_value() {
        let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
        let counted = answer(&RangeRequest { count_only: true, ..all.clone() });
        assert_eq!((counted.count, counted.kvs.len()), (4, 0));
        let keys = answer(&RangeRequest { keys_only: true, ..all.clone() });
        let shown: Vec<_> = keys.kvs.iter().map(|kv| (kv.mod_revision, kv.value.len())).collect();
        assert_eq!(shown, [(2, 0), (3, 0), (4, 0), (5, 0)]);
        let newest = RangeRequest {
            keys_only: true,
            limit: 1,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Mod as i32,
            ..all
        };
        assert_eq!(answer(&newest).kvs[0].key, "k5");
    }
}
