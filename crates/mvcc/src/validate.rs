//! Checks of requests by themselves, before anything is proposed: pure, and in etcd's words.

use crate::{Error, Result};
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use std::collections::BTreeSet;

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
    /// Start and end; an empty end is the one key.
    deletes: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Writes<'a> {
    /// Deletes of this level are gathered first, then nested transactions, then this level's puts:
    /// deletes may overlap one another, a put may overlap nothing but a put of the opposite branch.
    fn of(operations: &'a [RequestOp]) -> Result<Self> {
        let mut writes = Self::default();
        let requests = || operations.iter().filter_map(|operation| operation.request.as_ref());
        for request in requests() {
            if let Request::RequestDeleteRange(request) = request {
                writes.deletes.push((&request.key, &request.range_end));
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
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a [u8]) -> Result<()> {
        let deleted = self.deletes.iter().any(|(start, end)| match end {
            [] => key == *start,
            // A "\0" end, "from here on", is taken literally here and thus holds no key: etcd
            // does not see this overlap either.
            end => *start <= key && key < *end,
        });
        if deleted || !self.puts.insert(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }
}
