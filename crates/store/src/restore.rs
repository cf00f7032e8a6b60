//! Bringing a prefix back to what it was, by new revisions.
//!
//! ```text
//! plan (writes, since) ─▶ chunk: "if nothing under the prefix changed after SINCE, write these" ─▶ revision r
//!                         next chunk: the same, SINCE is r …
//! ```
//! A plan that fits one command is one revision, whole or not at all. A larger one is several: if
//! somebody else writes under the prefix in between, the rest is refused, and planning again finishes it.

use crate::{
    Store, StoreError,
    command::{Change, Restore},
    history::{RestorePlan, Write},
};
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
};

/// Writes of one revision: some tens of milliseconds of the apply thread, during which nothing else is
/// applied.
const MAX_CHUNK_WRITES: usize = 10_000;
/// What a write takes in a command beside its key and value.
const WRITE_BYTES: usize = 32;

/// What a restoration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// The revision that was restored.
    pub to: i64,
    /// The new revisions; several where the plan was too large for one command.
    pub revisions: Vec<i64>,
}

impl Store {
    /// Carries out a plan of [`History::plan_restore`](crate::history::History::plan_restore), unless
    /// something under its prefix changed since it was made.
    pub async fn restore_prefix(&self, plan: RestorePlan) -> Result<Restoration, StoreError> {
        let RestorePlan { prefix, to, mut since, writes } = plan;
        let mut revisions = Vec::new();
        for chunk in chunks(writes, self.inner.limits.max_request_bytes) {
            let writes = Some(TxnRequest { success: chunk, ..TxnRequest::default() });
            let restore = Restore { prefix: prefix.clone(), since, writes };
            let (_, header) = self.change(Change::Restore(restore)).await?;
            since = header.map_or(since, |header| header.revision);
            revisions.push(since);
        }
        Ok(Restoration { to, revisions })
    }
}

/// The writes in their order, in as few commands as the limits allow.
fn chunks(writes: Vec<Write>, max_bytes: usize) -> Vec<Vec<RequestOp>> {
    let mut chunks: Vec<Vec<RequestOp>> = Vec::new();
    let mut size_bytes = 0;
    for write in writes {
        let added = WRITE_BYTES + size(&write);
        let full = chunks.last().is_none_or(|chunk| {
            chunk.len() >= MAX_CHUNK_WRITES || size_bytes + added > max_bytes / 2
        });
        if full {
            chunks.push(Vec::new());
            size_bytes = 0;
        }
        size_bytes += added;
        chunks.last_mut().expect("one was pushed").push(operation(write));
    }
    chunks
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    }
}

/// A write as an operation of a transaction.
pub(crate) fn operation(write: Write) -> RequestOp {
    let request = match write {
        Write::Put(key, value) => {
            Request::RequestPut(PutRequest { key, value, ..PutRequest::default() })
        }
        Write::Delete(key) => {
            Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
        }
    };
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_plan_is_cut_and_nothing_of_it_is_lost() {
        let write = |n: usize| Write::Put(format!("{n}").into(), vec![b'v'; 100].into());
        let all = || (0..25_000).map(write).collect();
        let lengths =
            |max_bytes| -> Vec<usize> { chunks(all(), max_bytes).iter().map(Vec::len).collect() };
        assert_eq!(lengths(usize::MAX), [10_000, 10_000, 5_000]);
        assert_eq!(lengths(0), vec![1; 25_000]);
        let flat: Vec<_> = chunks(all(), 100_000).into_iter().flatten().collect();
        let expected: Vec<_> = (0..25_000).map(write).map(operation).collect();
        assert_eq!(flat, expected);
        assert!(chunks(Vec::new(), 1).is_empty());
    }
}
