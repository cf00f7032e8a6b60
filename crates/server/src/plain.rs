//! HTTP that is not gRPC, over HTTP/1.1 and HTTP/2 alike: who answers which path.
//!
//! ```text
//! /health /livez /readyz /version /metrics ─▶ probe
//! /api/v1/history/… /api/v1/audit/…         ─▶ history::http
//! /tlog/main/…                             ─▶ history::tiles
//! ```
//! Only some paths take a body; it is read when it is wanted, within a limit of bytes and of time, and
//! counted against the server's receive budget.

use std::{future::poll_fn, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    contain::contain,
    history,
    node::Node,
    probe,
    status::{Code, Status},
};

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";

/// How long a body may take to arrive: it holds its place in the receive budget meanwhile.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of a request, not yet read.
pub(crate) enum Body {
    /// Of HTTP/1.1.
    Http1(Incoming),
    /// Of HTTP/2.
    Http2(RecvStream),
}

impl Body {
    /// The whole body, if it comes in time and is not too large.
    pub(crate) async fn read(mut self, node: &Node) -> Result<Bytes, Status> {
        // Base64 makes a largest message a third larger.
        let limit = node.limits.message_bytes_max() / 3 * 4;
        let read = async {
            let mut all = BytesMut::new();
            let mut held = node.received.hold(0)?;
            while let Some(chunk) = self.chunk().await? {
                if all.len() + chunk.len() > limit {
                    let text = format!("chronolith: the body is larger than {limit} bytes");
                    return Err(Status::new(Code::ResourceExhausted, text));
                }
                held.more(chunk.len())?;
                all.extend_from_slice(&chunk);
            }
            Ok(all.freeze())
        };
        let late = || {
            let seconds = BODY_TIMEOUT.as_secs();
            let text = format!("chronolith: the body did not come within {seconds} s");
            Status::new(Code::DeadlineExceeded, text)
        };
        timeout(BODY_TIMEOUT, read).await.map_err(|_| late())?
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        match self {
            Body::Http1(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Err(_)) => return Err(Status::cancelled()),
                    // Trailers are of no interest.
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            },
            Body::Http2(body) => match poll_fn(|cx| body.poll_data(cx)).await {
                None => Ok(None),
                Some(Err(_)) => Err(Status::cancelled()),
                Some(Ok(chunk)) => {
                    // Fails only when the stream is gone, which the next read says too.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    Ok(Some(chunk))
                }
            },
        }
    }
}

/// Answers a request that is not gRPC.
pub(crate) async fn answer(node: &Node, peer: &str, head: &Parts, body: Body) -> Response<Bytes> {
    let path = head.uri.path();
    let answered = contain(async {
        if path.starts_with(history::HTTP_ROOT) {
            Box::pin(history::http(node, peer, head, body)).await
        } else if path.starts_with(history::TILES_ROOT) {
            match head.method {
                Method::GET => Box::pin(history::tiles(node, path)).await,
                _ => method_not_allowed("GET"),
            }
        } else {
            probe::answer(node, &head.method, &head.uri).await
        }
    });
    answered.await.unwrap_or_else(|panic| {
        node.metrics.panics.add(1);
        tracing::error!(path, "a request panicked: {panic}");
        status_page(&Status::new(
            Code::Internal,
            format!("chronolith: the request panicked: {panic}"),
        ))
    })
}

/// A page of a type.
pub(crate) fn page(
    code: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The type is what we say, whatever the body looks like.
pub(crate) fn no_sniffing(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn method_not_allowed(allowed: &'static str) -> Response<Bytes> {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    no_sniffing(response)
}

/// An error as etcd's gateway shows it.
pub(crate) fn status_page(status: &Status) -> Response<Bytes> {
    let text = serde_json::Value::from(status.message.as_str());
    let body = format!("{{\"code\":{},\"error\":{text},\"message\":{text}}}\n", status.code as u16);
    no_sniffing(page(status_code(status.code), JSON, body))
}

/// The HTTP code that stands for a gRPC code, as in grpc-gateway.
fn status_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
