//! `/api/v1/history/…` and `/api/v1/audit/…`: the calls of the history and of the audit trail for whoever
//! has no gRPC.
//!
//! Reading is GET with a query, bytes percent-encoded; writing is POST with a JSON body. Both answer JSON,
//! and an error as etcd's gateway does: `{"code": …, "error": …, "message": …}`.

use super::{
    answers,
    json::{Answer, Fields, Request},
};
use crate::{
    audit::{self, Answered, Asked, Trail},
    methods::Method as Rpc,
    node::Node,
    plain::{Body, JSON, method_not_allowed, page, status_page},
    query::Query,
    status::{Code, Status},
};
use bytes::Bytes;
use chronolith_proto::history::{
    AuditCheckpointRequest, AuditQueryRequest, CheckpointRequest, ConsistencyRequest, DiffRequest,
    EraseRequest, KeyHistoryRequest, Moment, ProveRequest, RestorePrefixRequest, RevisionRange,
    VerifiedGetRequest, VerifiedPutRequest, moment, prove_request::What,
};
use chronolith_store::Store;
use http::{Method, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use std::time::Instant;

/// What all paths begin with; the service's name and the call's follow.
pub(crate) const ROOT: &str = "/api/v1/";

/// Answers a request below [`ROOT`].
pub(crate) async fn answer(node: &Node, peer: &str, head: &Parts, body: Body) -> Response<Bytes> {
    let name = head.uri.path().strip_prefix(ROOT).unwrap_or_default();
    let call = Call { node, peer, head };
    let answer = match (is_read(name), is_write(name)) {
        (true, _) if head.method == Method::GET => call.read(name).await,
        (_, true) if head.method == Method::POST => call.write(name, body).await,
        (true, _) => return method_not_allowed("GET"),
        (_, true) => return method_not_allowed("POST"),
        _ => Err(Status::new(Code::NotFound, format!("chronolith: there is no {ROOT}{name}"))),
    };
    match answer {
        Ok(json) => page(StatusCode::OK, JSON, json),
        Err(status) => status_page(&status),
    }
}

fn is_read(name: &str) -> bool {
    matches!(
        name,
        "history/checkpoint"
            | "history/consistency"
            | "history/proof"
            | "history/versions"
            | "history/get"
            | "history/diff"
            | "audit/query"
            | "audit/checkpoint"
    )
}

fn is_write(name: &str) -> bool {
    matches!(name, "history/put" | "history/restore" | "history/erase")
}

/// One request, which is counted and audited as the gRPC method that it stands for.
struct Call<'a> {
    node: &'a Node,
    peer: &'a str,
    head: &'a Parts,
}

impl Call<'_> {
    async fn read(&self, name: &str) -> Result<Bytes, Status> {
        let (node, query) = (self.node, &Query::of(&self.head.uri));
        match name {
            "history/checkpoint" => {
                let request = query.only(&[]).map(|()| CheckpointRequest {});
                let request = request.map_err(|why| invalid(&why));
                self.carry_out(Rpc::Checkpoint, request, |_, it| answers::checkpoint(node, it))
                    .await
            }
            "history/consistency" => {
                let request = consistency(query);
                self.carry_out(Rpc::Consistency, request, |_, it| answers::consistency(node, it))
                    .await
            }
            "history/proof" => {
                self.carry_out(Rpc::Prove, proof(query), |_, it| answers::prove(node, it)).await
            }
            "history/versions" => {
                let request = versions(query);
                self.carry_out(Rpc::KeyHistory, request, |_, it| answers::key_history(node, it))
                    .await
            }
            "history/get" => {
                let request = get(query);
                self.carry_out(Rpc::VerifiedGet, request, |_, it| answers::verified_get(node, it))
                    .await
            }
            "audit/query" => {
                let request = audit_query(query);
                self.carry_out(Rpc::AuditQuery, request, |_, it| audit::query(node, it)).await
            }
            "audit/checkpoint" => {
                let request = audit_checkpoint(query);
                self.carry_out(Rpc::AuditCheckpoint, request, |_, it| audit::checkpoint(node, it))
                    .await
            }
            _ => self.carry_out(Rpc::Diff, diff(query), |_, it| answers::diff(node, it)).await,
        }
    }

    async fn write(&self, name: &str, body: Body) -> Result<Bytes, Status> {
        let node = self.node;
        let body = self.body(body).await;
        match name {
            "history/put" => {
                let request = body.and_then(|body| parse::<VerifiedPutRequest>(&body));
                let serve = async |store, it| answers::verified_put(node, &store, it).await;
                self.carry_out(Rpc::VerifiedPut, request, serve).await
            }
            "history/restore" => {
                let request = body.and_then(|body| parse::<RestorePrefixRequest>(&body));
                let serve = async |store, it| answers::restore_prefix(node, &store, it).await;
                self.carry_out(Rpc::RestorePrefix, request, serve).await
            }
            _ => {
                let request = body.and_then(|body| parse::<EraseRequest>(&body));
                let serve = async |store, it| answers::erase(node, &store, it).await;
                self.carry_out(Rpc::Erase, request, serve).await
            }
        }
    }

    async fn body(&self, body: Body) -> Result<Bytes, Status> {
        // Forms of other sites' pages cannot send this type unasked.
        let kind = self.head.headers.get(CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
        match kind.starts_with(JSON.as_bytes()) {
            true => body.read(self.node).await,
            false => Err(invalid(&format!("send the request as {JSON}"))),
        }
    }

    /// As a gRPC call goes: its trail hears it before the store does, and its end before the client.
    async fn carry_out<Q: Asked, A: Answer + Answered>(
        &self,
        method: Rpc,
        request: Result<Q, Status>,
        serve: impl AsyncFnOnce(Store, Q) -> Result<A, Status>,
    ) -> Result<Bytes, Status> {
        let node = self.node;
        let since = Instant::now();
        node.metrics.start(method);
        let trail = Trail::begin(node, method, &self.head.headers, self.peer);
        let outcome = async {
            let request = request?;
            if let Some(trail) = &trail {
                trail.admit(&request)?;
            }
            let _admitted = node.admit()?;
            let acting = trail.as_ref().map(|trail| trail.store(&node.store));
            let answer = serve(acting.unwrap_or_else(|| node.store.clone()), request).await?;
            if let Some(trail) = &trail {
                trail.hear(&answer);
            }
            Ok(Bytes::from(format!("{}\n", answer.to_json())))
        };
        let mut outcome = outcome.await;
        if let Some(trail) = &trail
            && let Err(lost) = trail.finish(outcome.as_ref().map(drop)).await
        {
            outcome = Err(lost);
        }
        let code = outcome.as_ref().map_or_else(|status| status.code, |_| Code::Ok);
        node.metrics.handled(method, code, since);
        outcome
    }
}

fn parse<R: Request>(body: &[u8]) -> Result<R, Status> {
    R::from_json(Fields::parse(body)?)
}

fn invalid(why: &str) -> Status {
    Status::new(Code::InvalidArgument, format!("chronolith: {why}"))
}

/// A number of the query; 0 where it is not given.
fn number<T: std::str::FromStr + Default>(query: &Query<'_>, name: &str) -> Result<T, Status> {
    match query.value(name) {
        None | Some("") => Ok(T::default()),
        Some(text) => {
            text.parse().map_err(|_| invalid(&format!("{name}={text} is not such a number")))
        }
    }
}

fn bytes(query: &Query<'_>, name: &str) -> Result<Bytes, Status> {
    let decoded = query.bytes(name).map(Option::unwrap_or_default);
    decoded.map(Bytes::from).ok_or_else(|| invalid(&format!("{name} is not percent-encoded")))
}

fn text(query: &Query<'_>, name: &str) -> Result<String, Status> {
    let bytes = bytes(query, name)?.to_vec();
    String::from_utf8(bytes).map_err(|_| invalid(&format!("{name} is not UTF-8")))
}

/// `NAME` as a revision, or `NAME_time_ms`.
fn moment_of(query: &Query<'_>, revision: &str, time: &str) -> Result<Option<Moment>, Status> {
    let at = match (query.value(revision), query.value(time)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(invalid(&format!("give {revision} or {time}, not both")));
        }
        (Some(_), None) => moment::At::Revision(number(query, revision)?),
        (None, Some(_)) => moment::At::TimeMs(number(query, time)?),
    };
    Ok(Some(Moment { at: Some(at) }))
}

fn consistency(query: &Query<'_>) -> Result<ConsistencyRequest, Status> {
    query.only(&["from_size", "to_size"]).map_err(|why| invalid(&why))?;
    Ok(ConsistencyRequest {
        from_size: number(query, "from_size")?,
        to_size: number(query, "to_size")?,
    })
}

fn proof(query: &Query<'_>) -> Result<ProveRequest, Status> {
    query.only(&["key", "revision", "from", "to"]).map_err(|why| invalid(&why))?;
    let revisions = |from, to| -> Result<_, Status> {
        Ok(What::Revisions(RevisionRange { from: number(query, from)?, to: number(query, to)? }))
    };
    let what = match (query.value("key"), query.value("revision"), query.value("from")) {
        (Some(_), None, None) => What::Key(bytes(query, "key")?),
        (None, Some(_), None) => revisions("revision", "revision")?,
        (None, None, Some(_)) => revisions("from", "to")?,
        _ => return Err(invalid("give key, or revision, or from and to")),
    };
    Ok(ProveRequest { what: Some(what) })
}

fn versions(query: &Query<'_>) -> Result<KeyHistoryRequest, Status> {
    query.only(&["key", "from", "to", "limit"]).map_err(|why| invalid(&why))?;
    Ok(KeyHistoryRequest {
        key: bytes(query, "key")?,
        from_revision: number(query, "from")?,
        to_revision: number(query, "to")?,
        limit: number(query, "limit")?,
    })
}

fn get(query: &Query<'_>) -> Result<VerifiedGetRequest, Status> {
    query
        .only(&["key", "revision", "time_ms", "pinned_size", "without_proof"])
        .map_err(|why| invalid(&why))?;
    Ok(VerifiedGetRequest {
        key: bytes(query, "key")?,
        at: moment_of(query, "revision", "time_ms")?,
        pinned_size: number(query, "pinned_size")?,
        without_proof: query.value("without_proof").is_some_and(|value| value != "false"),
    })
}

fn diff(query: &Query<'_>) -> Result<DiffRequest, Status> {
    query
        .only(&["prefix", "from", "from_time_ms", "to", "to_time_ms", "limit", "after_key"])
        .map_err(|why| invalid(&why))?;
    let from = moment_of(query, "from", "from_time_ms")?;
    Ok(DiffRequest {
        prefix: bytes(query, "prefix")?,
        from: Some(from.ok_or_else(|| invalid("give from or from_time_ms: since when?"))?),
        to: moment_of(query, "to", "to_time_ms")?,
        limit: number(query, "limit")?,
        after_key: bytes(query, "after_key")?,
    })
}

fn audit_query(query: &Query<'_>) -> Result<AuditQueryRequest, Status> {
    query
        .only(&[
            "from_ms",
            "to_ms",
            "user",
            "key_prefix",
            "call",
            "only_failed",
            "limit",
            "after_sequence",
        ])
        .map_err(|why| invalid(&why))?;
    Ok(AuditQueryRequest {
        from_ms: number(query, "from_ms")?,
        to_ms: number(query, "to_ms")?,
        user: text(query, "user")?,
        key_prefix: bytes(query, "key_prefix")?,
        call: text(query, "call")?,
        only_failed: query.value("only_failed").is_some_and(|value| value != "false"),
        limit: number(query, "limit")?,
        after_sequence: number(query, "after_sequence")?,
    })
}

fn audit_checkpoint(query: &Query<'_>) -> Result<AuditCheckpointRequest, Status> {
    query.only(&["pinned_size"]).map_err(|why| invalid(&why))?;
    Ok(AuditCheckpointRequest { pinned_size: number(query, "pinned_size")? })
}
