//! What a request asks for and what its answer says, in the terms of the audit trail.

use bytes::Bytes;
use chronolith_audit::{Action, Class, Operation};
use chronolith_proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
        DefragmentRequest, DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse,
        HashKvRequest, HashKvResponse, HashRequest, HashResponse, LeaseGrantRequest,
        LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest,
        LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListRequest,
        MemberListResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
        ResponseHeader, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest,
        alarm_request::AlarmAction, request_op::Request, response_op::Response,
    },
    history::{
        AuditCheckpointRequest, AuditCheckpointResponse, AuditQueryRequest, AuditQueryResponse,
        CheckpointRequest, CheckpointResponse, ConsistencyRequest, ConsistencyResponse,
        DiffRequest, DiffResponse, EraseRequest, EraseResponse, KeyHistoryRequest,
        KeyHistoryResponse, ProveRequest, ProveResponse, RestorePrefixRequest,
        RestorePrefixResponse, VerifiedGetRequest, VerifiedGetResponse, VerifiedPutRequest,
        VerifiedPutResponse, prove_request::What,
    },
};
use prost::Message;

/// What is known of a call besides who makes it.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) class: Class,
    pub(crate) operations: Vec<Operation>,
    /// Messages of a stream.
    pub(crate) ops: Option<u64>,
    pub(crate) lease: Option<i64>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) succeeded: Option<bool>,
    pub(crate) revision: Option<i64>,
    /// The call made the revision.
    pub(crate) made_revision: bool,
    pub(crate) reason: String,
}

impl Facts {
    /// The revision that a change was made on.
    pub(crate) fn prev_revision(&self) -> Option<i64> {
        match self.made_revision {
            true => self.revision.map(|revision| revision - 1),
            false => self.revision,
        }
    }

    fn add(&mut self, action: Action, key: &Bytes, range_end: &Bytes) {
        let (key, range_end) = (key.clone(), range_end.clone());
        self.operations.push(Operation { action, key, range_end, value: None });
    }

    fn put(&mut self, put: &PutRequest, keeps_values: bool) {
        self.operations.push(Operation {
            action: Action::Put,
            key: put.key.clone(),
            range_end: Bytes::new(),
            value: keeps_values.then(|| put.value.clone()),
        });
        if put.lease != 0 {
            self.lease = Some(put.lease);
        }
    }

    fn requests(&mut self, requests: &[RequestOp], keeps_values: bool) {
        for request in requests.iter().filter_map(|operation| operation.request.as_ref()) {
            match request {
                Request::RequestRange(range) => self.add(Action::Get, &range.key, &range.range_end),
                Request::RequestPut(put) => self.put(put, keeps_values),
                Request::RequestDeleteRange(delete) => {
                    self.add(Action::Delete, &delete.key, &delete.range_end);
                }
                Request::RequestTxn(txn) => {
                    self.requests(&txn.success, keeps_values);
                    self.requests(&txn.failure, keeps_values);
                }
            }
        }
    }

    fn header(&mut self, header: Option<&ResponseHeader>, made_revision: bool) {
        self.revision = header.map(|header| header.revision);
        self.made_revision = made_revision;
    }
}

/// A request that can say what it asks for.
pub(crate) trait Asked: Message {
    /// Adds it; values only where a rule wants them.
    fn ask(&self, facts: &mut Facts, keeps_values: bool) {
        let _ = keeps_values;
        facts.size_bytes = Some(self.encoded_len() as u64);
    }
}

/// An answer that can say what was done.
pub(crate) trait Answered {
    /// Adds it.
    fn answer(&self, facts: &mut Facts) {
        let _ = facts;
    }
}

/// Requests that name no key, and answers that made no revision.
macro_rules! plain {
    (asked: $($asked:ty),*; answered: $($answered:ty),*;) => {
        $(impl Asked for $asked {})*
        $(impl Answered for $answered {})*
    };
}

plain! {
    asked: LeaseLeasesRequest, MemberListRequest, StatusRequest, HashRequest, HashKvRequest,
        DefragmentRequest, CheckpointRequest, ConsistencyRequest, AuditQueryRequest,
        AuditCheckpointRequest;
    answered: LeaseLeasesResponse, LeaseTimeToLiveResponse, MemberListResponse, StatusResponse,
        HashResponse, HashKvResponse, DefragmentResponse, AlarmResponse, CheckpointResponse,
        ConsistencyResponse, AuditQueryResponse, AuditCheckpointResponse, ProveResponse;
}

macro_rules! asked {
    ($($request:ty: |$this:ident, $facts:ident, $keeps_values:ident| $body:block)*) => {
        $(impl Asked for $request {
            fn ask(&self, facts: &mut Facts, keeps_values: bool) {
                facts.size_bytes = Some(self.encoded_len() as u64);
                let ($this, $facts, $keeps_values) = (self, facts, keeps_values);
                let _ = $keeps_values;
                $body
            }
        })*
    };
}

asked! {
    RangeRequest: |it, facts, _values| { facts.add(Action::Get, &it.key, &it.range_end); }
    PutRequest: |it, facts, values| { facts.put(it, values); }
    DeleteRangeRequest: |it, facts, _values| {
        facts.add(Action::Delete, &it.key, &it.range_end);
    }
    TxnRequest: |it, facts, values| {
        facts.requests(&it.success, values);
        facts.requests(&it.failure, values);
        if facts.operations.iter().all(|operation| operation.action == Action::Get) {
            facts.class = Class::Read;
        }
    }
    CompactionRequest: |it, facts, _values| {
        facts.reason = format!("up to revision {}", it.revision);
    }
    LeaseGrantRequest: |it, facts, _values| {
        facts.lease = Some(it.id);
        facts.reason = format!("{} s", it.ttl);
    }
    LeaseRevokeRequest: |it, facts, _values| { facts.lease = Some(it.id); }
    LeaseTimeToLiveRequest: |it, facts, _values| { facts.lease = Some(it.id); }
    AlarmRequest: |it, facts, _values| {
        if it.action == AlarmAction::Get as i32 {
            facts.class = Class::Read;
        }
        let action = AlarmAction::try_from(it.action).map_or("UNKNOWN", |it| it.as_str_name());
        let alarm = AlarmType::try_from(it.alarm).map_or("UNKNOWN", |it| it.as_str_name());
        facts.reason = format!("{action} {alarm} of member {:x}", it.member_id);
    }
    KeyHistoryRequest: |it, facts, _values| { facts.add(Action::Get, &it.key, &Bytes::new()); }
    VerifiedGetRequest: |it, facts, _values| { facts.add(Action::Get, &it.key, &Bytes::new()); }
    VerifiedPutRequest: |it, facts, values| {
        if let Some(put) = &it.put {
            facts.put(put, values);
        }
    }
    ProveRequest: |it, facts, _values| {
        if let Some(What::Key(key)) = &it.what {
            facts.add(Action::Get, key, &Bytes::new());
        }
    }
    DiffRequest: |it, facts, _values| {
        facts.operations.push(Operation::under(Action::Get, &it.prefix));
    }
    RestorePrefixRequest: |it, facts, _values| {
        facts.operations.push(Operation::under(Action::Put, &it.prefix));
        if it.dry_run {
            facts.class = Class::Read;
            facts.reason = "dry run".to_owned();
        }
    }
    EraseRequest: |it, facts, _values| {
        facts.add(Action::Delete, &it.key, &Bytes::new());
        facts.reason.clone_from(&it.reason);
    }
}

macro_rules! answered {
    ($($answer:ty: |$this:ident, $facts:ident| $body:block)*) => {
        $(impl Answered for $answer {
            fn answer(&self, facts: &mut Facts) {
                let ($this, $facts) = (self, facts);
                $body
            }
        })*
    };
}

answered! {
    RangeResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    PutResponse: |it, facts| { facts.header(it.header.as_ref(), true); }
    DeleteRangeResponse: |it, facts| { facts.header(it.header.as_ref(), it.deleted > 0); }
    TxnResponse: |it, facts| {
        facts.succeeded = Some(it.succeeded);
        facts.header(it.header.as_ref(), wrote(it));
    }
    CompactionResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    LeaseGrantResponse: |it, facts| {
        facts.lease = Some(it.id);
        facts.header(it.header.as_ref(), false);
    }
    LeaseRevokeResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    KeyHistoryResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    VerifiedGetResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    VerifiedPutResponse: |it, facts| {
        if let Some(put) = &it.put {
            put.answer(facts);
        }
    }
    DiffResponse: |it, facts| { facts.header(it.header.as_ref(), false); }
    RestorePrefixResponse: |it, facts| {
        facts.header(it.header.as_ref(), it.new_revision > 0);
        if it.new_revision > 0 {
            facts.revision = Some(it.new_revision);
        }
        facts.ops = u64::try_from(it.puts + it.deletes).ok();
    }
    EraseResponse: |it, facts| {
        facts.header(it.header.as_ref(), false);
        facts.ops = Some(it.revisions.len() as u64);
    }
}

/// Whether a transaction changed a key, and so made a revision.
fn wrote(txn: &TxnResponse) -> bool {
    txn.responses.iter().filter_map(|answer| answer.response.as_ref()).any(|answer| match answer {
        Response::ResponseRange(_) => false,
        Response::ResponsePut(_) => true,
        Response::ResponseDeleteRange(deleted) => deleted.deleted > 0,
        Response::ResponseTxn(txn) => wrote(txn),
    })
}

/// What a watch watches.
pub(crate) fn watched(create: &WatchCreateRequest) -> Operation {
    Operation {
        action: Action::Watch,
        key: create.key.clone(),
        range_end: create.range_end.clone(),
        value: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_proto::etcdserverpb::ResponseOp;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn a_transaction_tells_all_its_operations_and_is_a_read_if_they_are() {
        let read =
            op(Request::RequestRange(RangeRequest { key: "r".into(), ..Default::default() }));
        let put = op(Request::RequestPut(PutRequest {
            key: "p".into(),
            value: "v".into(),
            lease: 7,
            ..Default::default()
        }));
        let inner = TxnRequest { failure: vec![put], ..Default::default() };
        let nested = op(Request::RequestTxn(inner));
        let mut facts = Facts { class: Class::Write, ..Facts::default() };
        let txn = TxnRequest { success: vec![read.clone(), nested], ..Default::default() };
        txn.ask(&mut facts, true);
        let keys: Vec<_> = facts.operations.iter().map(|op| (op.action, &op.key[..])).collect();
        assert_eq!(keys, [(Action::Get, b"r".as_slice()), (Action::Put, b"p")]);
        assert_eq!(facts.operations[1].value.as_deref(), Some(b"v".as_slice()));
        assert_eq!((facts.class, facts.lease), (Class::Write, Some(7)));
        let mut facts = Facts { class: Class::Write, ..Facts::default() };
        TxnRequest { success: vec![read], ..Default::default() }.ask(&mut facts, false);
        assert_eq!(facts.class, Class::Read);
    }

    #[test]
    fn the_revision_before_is_told_apart_from_one_that_was_only_looked_at() {
        let header = Some(ResponseHeader { revision: 9, ..Default::default() });
        let mut facts = Facts::default();
        DeleteRangeResponse { header, deleted: 0, ..Default::default() }.answer(&mut facts);
        assert_eq!((facts.prev_revision(), facts.revision), (Some(9), Some(9)));
        DeleteRangeResponse { header, deleted: 2, ..Default::default() }.answer(&mut facts);
        assert_eq!((facts.prev_revision(), facts.revision), (Some(8), Some(9)));
        let deleted = DeleteRangeResponse { deleted: 1, ..Default::default() };
        let inner = TxnResponse {
            responses: vec![ResponseOp { response: Some(Response::ResponseDeleteRange(deleted)) }],
            ..Default::default()
        };
        let nested = ResponseOp { response: Some(Response::ResponseTxn(inner)) };
        let txn = TxnResponse { header, responses: vec![nested], ..Default::default() };
        txn.answer(&mut facts);
        assert_eq!(facts.prev_revision(), Some(8));
    }
}
