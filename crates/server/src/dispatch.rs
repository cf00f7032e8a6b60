//! From a request's path to the store and back.
//!
//! ```text
//! call ─▶ path → method ─▶ admit (limits) ─▶ decode ─▶ store ─▶ encode ─▶ reply
//!   └ not gRPC: plain HTTP        └──────── contained: a panic answers INTERNAL ────────┘
//! ```

use std::{future::Future, sync::Arc, time::Instant};

use bytes::Bytes;
use chronolith_proto::etcdserverpb::{DefragmentRequest, LeaseLeasesRequest, StatusRequest};
use chronolith_store::StoreError;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, header::CONTENT_TYPE};
use prost::Message;

use crate::{
    call::{Messages, Reply, frame},
    contain::contain,
    health, lease,
    methods::{Kind, Method},
    node::Node,
    probe,
    status::{Code, Status},
    watch,
};

/// Answers one HTTP/2 request.
pub(crate) async fn call(
    node: Arc<Node>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let mut reply = Reply::new(&node, respond);
    let (head, body) = request.into_parts();
    if !is_grpc(&head.headers) {
        return reply.plain(probe::answer(&node, &head.method, &head.uri).await);
    }
    let method = match Method::of_path(head.uri.path()) {
        Ok(method) => method,
        Err(status) => return reply.finish(&status),
    };
    let since = Instant::now();
    node.metrics.start(method);
    let outcome = contain(answer(&node, method, &head.headers, body, &mut reply)).await;
    let status = outcome.unwrap_or_else(|panic| Err(panicked(&node, method, &panic)));
    let code = status.as_ref().err().map_or(Code::Ok, |status| status.code);
    if let Err(status) = status {
        reply.finish(&status);
    }
    node.metrics.handled(method, code, since);
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
    body: RecvStream,
    reply: &mut Reply<'_>,
) -> Result<(), Status> {
    require_leader(node, headers)?;
    let messages = Messages::new(node, body);
    if method.kind() != Kind::Unary {
        return Box::pin(stream(node, method, messages, reply)).await;
    }
    let _admitted = node.admit()?;
    let frame = match method {
        Method::Range => unary(messages, |request| node.store.range(request)).await?,
        Method::Put => unary(messages, |request| node.store.put(request)).await?,
        _ => Box::pin(rare(node, method, messages)).await?,
    };
    reply.unary(frame);
    Ok(())
}

/// The unary methods that are not worth their room in every call's future.
async fn rare(node: &Node, method: Method, messages: Messages<'_>) -> Result<Bytes, Status> {
    let store = &node.store;
    match method {
        Method::DeleteRange => unary(messages, |request| store.delete_range(request)).await,
        Method::Txn => unary(messages, |request| store.txn(request)).await,
        Method::Compact => unary(messages, |request| store.compact(request)).await,
        Method::LeaseGrant => unary(messages, |request| store.lease_grant(request)).await,
        Method::LeaseRevoke => unary(messages, |request| store.lease_revoke(request)).await,
        Method::LeaseTimeToLive => {
            unary(messages, |request| store.lease_time_to_live(request)).await
        }
        Method::LeaseLeases => unary(messages, |_: LeaseLeasesRequest| store.lease_leases()).await,
        Method::MemberList => unary(messages, |request| store.member_list(request)).await,
        Method::Alarm => unary(messages, |request| store.alarm(request)).await,
        Method::MaintenanceStatus => unary(messages, |_: StatusRequest| store.status()).await,
        Method::Defragment => unary(messages, |_: DefragmentRequest| store.defragment()).await,
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
    reply.finish_ok();
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

async fn unary<Q, A, F>(messages: Messages<'_>, serve: impl FnOnce(Q) -> F) -> Result<Bytes, Status>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, StoreError>>,
{
    let request = messages.only().await?;
    Ok(frame(&serve(request).await?))
}
