//! Checks of requests by themselves, before anything is proposed: pure, and in etcd's words.

use crate::{Error, Result};
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use std::collections::{BTreeMap, BTreeSet};

/// Operations or comparisons a transaction may have, unless configured otherwise (etcd's default).
pub const DEFAULT_MAX_TXN_OPERATIONS: usize = 128;

/// Checks a range request.
pub fn range(request: &RangeRequest) -> Result<()> {
    non_empty(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<()> {
    non_empty(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<()> {
    non_empty(&request.key)
}

/// Checks a transaction, nested ones too: each list has at most `max_operations` entries, of which a
/// nested transaction has what its parents' longest lists leave; and no branch writes a key twice.
pub fn txn(request: &TxnRequest, max_operations: usize) -> Result<()> {
    operations(request, max_operations)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

fn non_empty(key: &[u8]) -> Result<()> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn operations(request: &TxnRequest, max_operations: usize) -> Result<()> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_operations.checked_sub(longest).ok_or(Error::TooManyOperations)?;
    request.compare.iter().try_for_each(|comparison| non_empty(&comparison.key))?;
    let both = request.success.iter().chain(&request.failure);
    both.into_iter().try_for_each(|operation| one(operation, left))
}

fn one(operation: &RequestOp, max_operations: usize) -> Result<()> {
    match &operation.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => operations(request, max_operations),
        None => Err(Error::KeyNotFound),
    }
}

/// What a list of operations writes, branches of nested transactions included.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

impl<'a> Writes<'a> {
    /// Deletes of this level are gathered first, then nested transactions, then this level's puts:
    /// deletes may overlap one another, a put may overlap nothing but a put of the opposite branch.
    fn of(operations: &'a [RequestOp]) -> Result<Self> {
        let mut writes = Self::default();
        let requests = || operations.iter().filter_map(|operation| operation.request.as_ref());
        for request in requests() {
            if let Request::RequestDeleteRange(request) = request {
                writes.deletes.insert(&request.key, &request.range_end);
            }
        }
        for request in requests() {
            if let Request::RequestTxn(request) = request {
                writes.nested(Self::of(&request.success)?, Self::of(&request.failure)?)?;
            }
        }
        for request in requests() {
            if let Request::RequestPut(request) = request {
                writes.put(&request.key)?;
            }
        }
        Ok(writes)
    }

    fn nested(&mut self, then: Self, otherwise: Self) -> Result<()> {
        for key in &then.puts {
            self.put(key)?;
        }
        for key in otherwise.puts.difference(&then.puts) {
            self.put(key)?;
        }
        self.deletes.join(then.deletes);
        self.deletes.join(otherwise.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a [u8]) -> Result<()> {
        if self.deletes.contain(key) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }
}

/// Keys that are deleted: ranges are kept joined, so that a request of many puts and many deletes
/// does not compare each with each.
#[derive(Default)]
struct Deletes<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// Start and end of ranges that neither overlap nor touch.
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    /// A "\0" end, "from here on", is taken literally here and thus holds no key: etcd does not see
    /// that overlap either.
    fn insert(&mut self, start: &'a [u8], end: &'a [u8]) {
        if end.is_empty() {
            self.keys.insert(start);
        } else if start < end {
            self.insert_range(start, end);
        }
    }

    fn insert_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    fn join(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        other.ranges.into_iter().for_each(|(start, end)| self.insert_range(start, end));
    }

    fn contain(&self, key: &[u8]) -> bool {
        let range = self.ranges.range(..=key).next_back();
        self.keys.contains(key) || range.is_some_and(|(_, end)| key < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::Deletes;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn joined_ranges_hold_what_the_ranges_hold(
            deletes in vec((vec(0u8..4, 1..3), vec(0u8..4, 0..3)), 0..12), key in vec(0u8..4, 1..3),
        ) {
            let (mut whole, mut halves) = (Deletes::default(), [Deletes::default(), Deletes::default()]);
            for (index, (start, end)) in deletes.iter().enumerate() {
                whole.insert(start, end);
                halves[index % 2].insert(start, end);
            }
            let expected = deletes.iter().any(|(start, end)| match &end[..] {
                [] => key == *start,
                end => *start <= key && &key[..] < end,
            });
            prop_assert_eq!(whole.contain(&key), expected);
            let [mut one, other] = halves;
            one.join(other);
            prop_assert_eq!(one.contain(&key), expected);
        }
    }
}
