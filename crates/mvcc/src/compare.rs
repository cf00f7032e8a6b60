//! Transaction comparisons, and the branches they choose.
//!
//! All comparisons of a transaction, nested ones too, are evaluated before its first operation, on
//! the state before it. What follows is then known: the path of branches taken.

use crate::{Result, span::Span};
use chronolith_proto::{
    etcdserverpb::{
        Compare, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
    },
    mvccpb::KeyValue,
};
use std::cmp::Ordering;

/// Whether each transaction's comparisons held: the outer one first, then those nested in the
/// branch it takes, in order, depth first.
pub(crate) type Path = std::vec::IntoIter<bool>;

/// Evaluates the comparisons of `request` on the keys that `read` finds.
pub(crate) fn path(
    request: &TxnRequest,
    read: &mut impl FnMut(&Span) -> Result<Vec<KeyValue>>,
) -> Result<Path> {
    let mut path = Vec::new();
    walk(request, read, &mut path)?;
    Ok(path.into_iter())
}

fn walk(
    request: &TxnRequest,
    read: &mut impl FnMut(&Span) -> Result<Vec<KeyValue>>,
    path: &mut Vec<bool>,
) -> Result<()> {
    let mut succeeded = true;
    for comparison in &request.compare {
        if !holds_for_all(comparison, &read(&Span::new(&comparison.key, &comparison.range_end))?) {
            succeeded = false;
            break;
        }
    }
    path.push(succeeded);
    for operation in branch(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            walk(nested, read, path)?;
        }
    }
    Ok(())
}

/// The operations that are carried out.
pub(crate) fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn holds_for_all(comparison: &Compare, kvs: &[KeyValue]) -> bool {
    if kvs.is_empty() {
        // No value can be compared with that of a key that is not there; all numbers of such a
        // key are 0.
        return comparison.target != CompareTarget::Value as i32
            && holds(comparison, &KeyValue::default());
    }
    kvs.iter().all(|kv| holds(comparison, kv))
}

/// A union that does not fit the target counts as 0 or empty; an unknown target compares equal, and
/// an unknown result holds. etcd does the same.
fn holds(comparison: &Compare, kv: &KeyValue) -> bool {
    let union = comparison.target_union.as_ref();
    let ordering = match CompareTarget::try_from(comparison.target) {
        Ok(CompareTarget::Version) => match union {
            Some(TargetUnion::Version(version)) => kv.version.cmp(version),
            _ => kv.version.cmp(&0),
        },
        Ok(CompareTarget::Create) => match union {
            Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
            _ => kv.create_revision.cmp(&0),
        },
        Ok(CompareTarget::Mod) => match union {
            Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
            _ => kv.mod_revision.cmp(&0),
        },
        Ok(CompareTarget::Value) => match union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value[..].cmp(&[]),
        },
        Ok(CompareTarget::Lease) => match union {
            Some(TargetUnion::Lease(lease)) => kv.lease.cmp(lease),
            _ => kv.lease.cmp(&0),
        },
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(comparison.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Err(_) => true,
    }
}
