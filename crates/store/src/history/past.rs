//! Reading the past, and planning to bring it back.
//!
//! A difference is found by walking two states side by side, a page of each at a time: what it costs
//! grows with the keys under the prefix, and what it holds in memory does not.

use super::{Result, Write};
use bytes::Bytes;
use chronolith_mvcc::{KeyVersion, Reader};
use chronolith_proto::{etcdserverpb::RangeRequest, mvccpb::KeyValue};
use std::{cmp::Ordering, collections::VecDeque, iter::Peekable};

/// Keys of one state that are read at once.
const PAGE_KEYS: usize = 1_000;

/// A moment of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A revision.
    Revision(i64),
    /// The newest revision not later than this, in milliseconds since 1970.
    Time(u64),
}

/// What a key was.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The revision that the moment means.
    pub revision: i64,
    /// The key as it was then; none where it was not there.
    pub kv: Option<KeyValue>,
}

/// What two moments disagree about.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// As it was first.
    pub before: Option<KeyValue>,
    /// As it was later.
    pub after: Option<KeyValue>,
}

impl Difference {
    fn size_bytes(&self) -> usize {
        let sides = [&self.before, &self.after].into_iter().flatten();
        sides.map(|kv| kv.key.len() + kv.value.len()).sum()
    }
}

/// Differences up to a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffPage {
    /// The revision that the first moment means.
    pub from: i64,
    /// The revision that the second moment means.
    pub to: i64,
    /// The differences, by key.
    pub differences: Vec<Difference>,
    /// Whether the limit cut them off: go on after the last key.
    pub more: bool,
}

/// What a restoration would write.
#[derive(Clone, Debug, PartialEq)]
pub struct RestorePlan {
    /// The prefix.
    pub prefix: Bytes,
    /// The revision that is restored.
    pub to: i64,
    /// The newest revision when the plan was made: it holds as long as nothing under the prefix
    /// changes after it.
    pub since: i64,
    /// The changes, by key.
    pub writes: Vec<Write>,
}

/// What a restoration did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The revision that was restored.
    pub to: i64,
    /// The new revision; none for a dry run, and where nothing differed.
    pub revision: Option<i64>,
    /// The changes.
    pub writes: Vec<Write>,
}

/// The end of the keys that begin with `prefix`; none where there is no end.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// The request for all keys with a prefix, as of a revision (0 is the newest).
pub(crate) fn prefix_request(prefix: &[u8], revision: i64) -> RangeRequest {
    // etcd's spelling: an end of one zero byte has no end, and the empty key is the first of all.
    let zero = || Bytes::from_static(&[0]);
    let key = if prefix.is_empty() { zero() } else { Bytes::copy_from_slice(prefix) };
    let range_end = prefix_end(prefix).unwrap_or_else(zero);
    RangeRequest { key, range_end, revision, ..RangeRequest::default() }
}

/// The revision that a moment means.
pub(crate) fn resolve(reader: &Reader, at: At) -> Result<i64> {
    let newest = reader.current_revision();
    match at {
        At::Revision(revision) if revision > newest => {
            Err(chronolith_mvcc::Error::FutureRevision.into())
        }
        At::Revision(revision) => Ok(revision.max(1)),
        At::Time(time_ms) => match reader.revision_at_time(time_ms)? {
            Some(revision) => Ok(revision),
            None if reader.compact_revision() > 1 => Err(chronolith_mvcc::Error::Compacted.into()),
            None => Ok(1),
        },
    }
}

/// A key as it was.
pub(crate) fn get_at(reader: &Reader, key: Bytes, at: At) -> Result<Found> {
    let revision = resolve(reader, at)?;
    let request = RangeRequest { key, revision, ..RangeRequest::default() };
    Ok(Found { revision, kv: reader.range(&request)?.kvs.pop() })
}

/// The versions of a key, newest first.
pub(crate) fn versions(
    reader: &Reader,
    key: &[u8],
    (from, to): (i64, i64),
    limit: usize,
) -> Result<Vec<KeyVersion>> {
    Ok(reader.key_history(key, from, to, limit)?)
}

/// The differences under a prefix behind `after_key`, up to `limit` of them, and up to `max_bytes` of
/// keys and values (one, if the first is larger).
pub(crate) fn diff(
    reader: &Reader,
    prefix: &[u8],
    (from, to): (At, At),
    after_key: &[u8],
    (limit, max_bytes): (usize, usize),
) -> Result<DiffPage> {
    let (from, to) = (resolve(reader, from)?, resolve(reader, to)?);
    let start = match after_key {
        [] => Bytes::copy_from_slice(prefix),
        // The smallest key behind it; keys before the prefix are not looked at.
        after => Bytes::from([after, &[0]].concat()).max(Bytes::copy_from_slice(prefix)),
    };
    let end = prefix_end(prefix);
    let state = |at| State {
        reader,
        at,
        end: end.clone(),
        next: Some(start.clone()),
        page: VecDeque::new(),
    };
    let mut found = SideBySide { before: state(from).peekable(), after: state(to).peekable() };
    let mut differences: Vec<Difference> = Vec::new();
    let mut size_bytes = 0;
    while let Some(difference) = found.next_difference()? {
        size_bytes += difference.size_bytes();
        if differences.len() == limit || (size_bytes > max_bytes && !differences.is_empty()) {
            return Ok(DiffPage { from, to, differences, more: true });
        }
        differences.push(difference);
    }
    Ok(DiffPage { from, to, differences, more: false })
}

/// The changes that make the keys under a prefix what they were.
pub(crate) fn plan_restore(reader: &Reader, prefix: &[u8], to: At) -> Result<RestorePlan> {
    let (to, since) = (resolve(reader, to)?, reader.current_revision());
    let moments = (At::Revision(to), At::Revision(since));
    let page = diff(reader, prefix, moments, &[], (usize::MAX, usize::MAX))?;
    let value = |kv: &Option<KeyValue>| kv.as_ref().map(|kv| kv.value.clone());
    let differs = |difference: &Difference| value(&difference.before) != value(&difference.after);
    let write = |Difference { key, before, .. }| match before {
        Some(kv) => Write::Put(key, kv.value),
        None => Write::Delete(key),
    };
    let writes = page.differences.into_iter().filter(differs).map(write).collect();
    Ok(RestorePlan { prefix: Bytes::copy_from_slice(prefix), to, since, writes })
}

/// The keys of one state, in order, read page by page.
struct State<'a> {
    reader: &'a Reader,
    at: i64,
    end: Option<Bytes>,
    /// Where the next page begins.
    next: Option<Bytes>,
    page: VecDeque<KeyValue>,
}

impl State<'_> {
    fn fill(&mut self) -> Result<()> {
        let Some(start) = self.next.take().filter(|_| self.page.is_empty()) else { return Ok(()) };
        let page = self.reader.keys_at(&start, self.end.as_ref(), self.at, PAGE_KEYS)?;
        let last = page.last().filter(|_| page.len() == PAGE_KEYS);
        self.next = last.map(|kv| [&kv.key[..], &[0]].concat().into());
        self.page = page.into();
        Ok(())
    }
}

impl Iterator for State<'_> {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}

struct SideBySide<'a> {
    before: Peekable<State<'a>>,
    after: Peekable<State<'a>>,
}

impl SideBySide<'_> {
    fn next_difference(&mut self) -> Result<Option<Difference>> {
        loop {
            let (before, after) = self.next_key()?;
            let Some(key) = before.as_ref().or(after.as_ref()).map(|kv| kv.key.clone()) else {
                return Ok(None);
            };
            let revision = |kv: &Option<KeyValue>| kv.as_ref().map(|kv| kv.mod_revision);
            if revision(&before) != revision(&after) {
                return Ok(Some(Difference { key, before, after }));
            }
        }
    }

    /// The next key of either state, as each of them has it.
    fn next_key(&mut self) -> Result<(Option<KeyValue>, Option<KeyValue>)> {
        let order = match (self.before.peek(), self.after.peek()) {
            (Some(Ok(before)), Some(Ok(after))) => before.key.cmp(&after.key),
            (Some(Err(_)), _) | (_, None) => Ordering::Less,
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let before = if order.is_le() { self.before.next().transpose()? } else { None };
        let after = if order.is_ge() { self.after.next().transpose()? } else { None };
        Ok((before, after))
    }
}
