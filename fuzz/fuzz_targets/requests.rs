//! Bytes as every request that a socket delivers. What decodes is encoded, decodes again, and is the same.
#![no_main]

use chronolith_proto::{etcdserverpb as etcd, history};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fn same<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let encoded = message.encode_to_vec();
    let again = M::decode(&encoded[..]).expect("what was encoded decodes");
    assert!(message == again, "{message:?} is not {again:?}");
}

macro_rules! each {
    ($bytes:expr, $($message:ty),+ $(,)?) => {
        match $bytes.split_first() {
            None => {}
            Some((choice, rest)) => {
                let each: &[fn(&[u8])] = &[$(same::<$message>),+];
                each[usize::from(*choice) % each.len()](rest);
            }
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    each!(
        bytes,
        etcd::RangeRequest,
        etcd::PutRequest,
        etcd::DeleteRangeRequest,
        etcd::TxnRequest,
        etcd::CompactionRequest,
        etcd::WatchRequest,
        etcd::LeaseGrantRequest,
        etcd::LeaseRevokeRequest,
        etcd::LeaseKeepAliveRequest,
        etcd::LeaseTimeToLiveRequest,
        etcd::AlarmRequest,
        etcd::MemberAddRequest,
        history::ConsistencyRequest,
        history::ProveRequest,
        history::KeyHistoryRequest,
        history::VerifiedGetRequest,
        history::VerifiedPutRequest,
        history::DiffRequest,
        history::RestorePrefixRequest,
        history::EraseRequest,
        history::AuditQueryRequest,
    );
    if let Ok(request) = etcd::TxnRequest::decode(bytes) {
        let _ = chronolith_mvcc::validate::txn(&request, 128);
    }
});
