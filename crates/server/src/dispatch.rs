//! From a request's path to the store and back.
//!
//! ```text
//! call ─▶ path → method ─▶ decode ─▶ admit (limits) ─▶ store ─▶ encode ─▶ audited ─▶ reply
//!   └ not gRPC: plain HTTP        └──────── contained: a panic answers INTERNAL ────────┘
//! ```
//! Whatever ends a call, its trail is told before its answer leaves.

use std::{future::Future, sync::Arc, time::Instant};

use bytes::Bytes;
use chronolith_proto::etcdserverpb::{
    DefragmentRequest, HashRequest, LeaseLeasesRequest, RangeResponse, StatusRequest, TxnResponse,
    response_op::Response,
};
use chronolith_store::StoreError;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, header::CONTENT_TYPE};
use prost::Message;

use crate::{
    audit::{self, Answered, Asked, Trail},
    call::{Messages, Reply, frame_within},
    contain::contain,
    health, history, lease,
    methods::{Kind, Method},
    node::Node,
    plain::{self, Body},
    status::{Code, Status},
    watch,
};

/// Answers one HTTP/2 request.
pub(crate) async fn call(
    node: Arc<Node>,
    peer: &str,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let mut reply = Reply::new(&node, respond);
    let (head, body) = request.into_parts();
    if !is_grpc(&head.headers) {
        return reply.plain(plain::answer(&node, peer, &head, Body::Http2(body)).await);
    }
    let method = match Method::of_path(head.uri.path()) {
        Ok(method) => method,
        Err(status) => {
            let trail = Trail::unknown(&node, head.uri.path(), &head.headers, peer);
            return reply.finish(&refused(trail.as_ref(), status).await);
        }
    };
    let since = Instant::now();
    node.metrics.start(method);
    // In a box: most nodes keep no audit trail, and every call would carry its room.
    let trail = Trail::begin(&node, method, &head.headers, peer).map(Box::new);
    let messages = Messages::new(&node, trail.as_deref(), body);
    let outcome = contain(answer(&node, method, &head.headers, messages, &mut reply)).await;
    let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&node, method, &panic)));
    let code = match outcome {
        Ok(()) => Code::Ok,
        Err(status) => {
            let status = refused(trail.as_deref(), status).await;
            reply.finish(&status);
            status.code
        }
    };
    node.metrics.handled(method, code, since);
}

/// Tells a call's trail how it ended, if it does not know yet; the status that the client is to hear.
async fn refused(trail: Option<&Trail<'_>>, status: Status) -> Status {
    let Some(trail) = trail else { return status };
    match trail.finish(Err(&status)).await {
        Ok(()) => status,
        Err(lost) => lost,
    }
}

fn panicked(node: &Node, method: Method, panic: &str) -> Status {
    node.metrics.panics.add(1);
    tracing::error!(method = method.name(), "a request panicked: {panic}");
    Status::new(Code::Internal, format!("chronolith: the request panicked: {panic}"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Runs a method to its end; the caller sends the status if it failed.
async fn answer(
    node: &Arc<Node>,
    method: Method,
    headers: &HeaderMap,
    messages: Messages<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Status> {
    #[cfg(test)]
    tests::panic_if_asked(headers);
    require_leader(node, headers)?;
    let trail = messages.trail();
    if method.kind() != Kind::Unary {
        Box::pin(stream(node, method, messages, reply)).await?;
        finish(trail).await?;
        reply.finish_ok();
        return Ok(());
    }
    let frame = match method {
        Method::Range => {
            let max_bytes = node.limits.response_bytes_max;
            let framed = move |response: RangeResponse| {
                let frame = frame_within(&response, max_bytes);
                // Of a large answer, letting go of its keys takes its time too: here, not there.
                (RangeResponse { kvs: Vec::new(), ..response }, frame)
            };
            framed_unary(node, messages, |request| node.store.range_then(request, framed)).await?
        }
        Method::Put => {
            let acting = trail.map(|trail| trail.store(&node.store));
            let store = acting.as_ref().unwrap_or(&node.store);
            unary(node, messages, |request| store.put(request)).await?
        }
        _ => Box::pin(rare(node, method, messages)).await?,
    };
    finish(trail).await?;
    reply.unary(frame);
    Ok(())
}

/// Tells a call's trail that all went well, before the client hears it.
async fn finish(trail: Option<&Trail<'_>>) -> Result<(), Status> {
    match trail {
        None => Ok(()),
        Some(trail) => trail.finish(Ok(())).await,
    }
}

/// The unary methods that are not worth their room in every call's future.
async fn rare(node: &Node, method: Method, messages: Messages<'_>) -> Result<Bytes, Status> {
    let acting = messages.trail().map(|trail| trail.store(&node.store));
    let store = acting.as_ref().unwrap_or(&node.store);
    match method {
        Method::DeleteRange => unary(node, messages, |request| store.delete_range(request)).await,
        Method::Txn => {
            let max_bytes = node.limits.response_bytes_max;
            let framed = move |mut response: TxnResponse| {
                let frame = frame_within(&response, max_bytes);
                for op in &mut response.responses {
                    if let Some(Response::ResponseRange(range)) = &mut op.response {
                        range.kvs = Vec::new();
                    }
                }
                (response, frame)
            };
            framed_unary(node, messages, |request| store.txn_then(request, framed)).await
        }
        Method::Compact => unary(node, messages, |request| store.compact(request)).await,
        Method::LeaseGrant => unary(node, messages, |request| store.lease_grant(request)).await,
        Method::LeaseRevoke => unary(node, messages, |request| store.lease_revoke(request)).await,
        Method::LeaseTimeToLive => {
            unary(node, messages, |request| store.lease_time_to_live(request)).await
        }
        Method::LeaseLeases => {
            unary(node, messages, |_: LeaseLeasesRequest| store.lease_leases()).await
        }
        Method::MemberList => unary(node, messages, |request| store.member_list(request)).await,
        Method::Alarm => unary(node, messages, |request| store.alarm(request)).await,
        Method::MaintenanceStatus => unary(node, messages, |_: StatusRequest| store.status()).await,
        Method::HashKv => unary(node, messages, |request| store.hash_kv(request)).await,
        Method::Hash => unary(node, messages, |_: HashRequest| store.hash()).await,
        Method::Defragment => {
            unary(node, messages, |_: DefragmentRequest| store.defragment()).await
        }
        Method::AuditQuery => unary(node, messages, |request| audit::query(node, request)).await,
        Method::AuditCheckpoint => {
            unary(node, messages, |request| audit::checkpoint(node, request)).await
        }
        Method::Checkpoint => {
            unary(node, messages, |request| history::checkpoint(node, request)).await
        }
        Method::Consistency => {
            unary(node, messages, |request| history::consistency(node, request)).await
        }
        Method::Prove => unary(node, messages, |request| history::prove(node, request)).await,
        Method::KeyHistory => {
            unary(node, messages, |request| history::key_history(node, request)).await
        }
        Method::VerifiedGet => {
            unary(node, messages, |request| history::verified_get(node, request)).await
        }
        Method::VerifiedPut => {
            unary(node, messages, |request| history::verified_put(node, store, request)).await
        }
        Method::Diff => unary(node, messages, |request| history::diff(node, request)).await,
        Method::RestorePrefix => {
            unary(node, messages, |request| history::restore_prefix(node, store, request)).await
        }
        Method::Erase => {
            unary(node, messages, |request| history::erase(node, store, request)).await
        }
        Method::HealthCheck => health::check(node, messages).await,
        _ => Err(unimplemented(method)),
    }
}

async fn stream(
    node: &Arc<Node>,
    method: Method,
    messages: Messages<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Status> {
    match method {
        Method::Watch => watch::serve(node, messages, reply).await?,
        Method::LeaseKeepAlive => lease::keep_alive(node, messages, reply).await?,
        _ => return Err(unimplemented(method)),
    }
    Ok(())
}

/// Clients that must not be served by a cut-off member say so in each request.
fn require_leader(node: &Node, headers: &HeaderMap) -> Result<(), Status> {
    match headers.contains_key("hasleader")
        && matches!(node.store.health(), Err(StoreError::NoLeader))
    {
        true => Err(StoreError::NoLeader.into()),
        false => Ok(()),
    }
}

/// What grpc-go answers for a method that is declared and not implemented.
fn unimplemented(method: Method) -> Status {
    Status::new(Code::Unimplemented, format!("method {} not implemented", method.name()))
}

async fn unary<Q, A, F, E>(
    node: &Node,
    messages: Messages<'_>,
    serve: impl FnOnce(Q) -> F,
) -> Result<Bytes, Status>
where
    Q: Message + Default + Asked,
    A: Message + Answered,
    F: Future<Output = Result<A, E>>,
    Status: From<E>,
{
    let serve = |request| async {
        let answer = serve(request).await?;
        let frame = frame_within(&answer, node.limits.response_bytes_max);
        Ok::<_, Status>((answer, frame))
    };
    framed_unary::<Q, A, _, Status>(node, messages, serve).await
}

/// The same for an answer that comes with its frame: who makes large ones encodes them too.
async fn framed_unary<Q, A, F, E>(
    node: &Node,
    messages: Messages<'_>,
    serve: impl FnOnce(Q) -> F,
) -> Result<Bytes, Status>
where
    Q: Message + Default + Asked,
    A: Answered,
    F: Future<Output = Result<(A, Result<Bytes, Status>), E>>,
    Status: From<E>,
{
    let trail = messages.trail();
    let request = messages.only().await?;
    if let Some(trail) = trail {
        trail.admit(&request)?;
    }
    // Not before the request is whole: who sends slowly takes no one else's place.
    let _admitted = node.admit()?;
    let (answer, frame) = serve(request).await?;
    if let Some(trail) = trail {
        trail.hear(&answer);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Server};
    use chronolith_proto::etcdserverpb::{PutRequest, kv_client::KvClient};

    const PANIC: &str = "chronolith-test-panic";

    /// Stands for a bug in request code.
    pub(super) fn panic_if_asked(headers: &HeaderMap) {
        assert!(!headers.contains_key(PANIC), "asked to panic");
    }

    #[tokio::test]
    async fn a_panic_is_answered_counted_and_leaves_the_connection_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(Config::new(directory.path().join("data"))).await.unwrap();
        let endpoint = format!("http://{}", server.address());
        let mut kv = KvClient::connect(endpoint).await.unwrap();
        let mut request = tonic::Request::new(PutRequest::default());
        request.metadata_mut().insert(PANIC, "yes".parse().unwrap());
        let refused = kv.put(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Internal);
        assert_eq!(refused.message(), "chronolith: the request panicked: asked to panic");
        assert_eq!(server.node().metrics.panics.get(), 1);
        let request = PutRequest { key: "k".into(), ..PutRequest::default() };
        kv.put(request).await.unwrap();
    }
}
