//! One client connection: which protocol it speaks, and the loop that drives it.
//!
//! ```text
//! socket ──peek──▶ "PRI " HTTP/2: one task polls the connection and all its calls
//!            └───▶ otherwise HTTP/1.1: probes, metrics, the history as JSON and tiles
//! ```
//! Invariant: a connection and its calls are one task. A request costs no spawn and no hand-over to
//! another thread, and all answers that are ready together leave in one write. When the connection
//! ends, its calls are dropped with it, and with them their watchers and what they counted.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, Connection};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::FIRST_BYTE_TIMEOUT,
    dispatch,
    node::{Node, Phase},
    plain::{self, Body},
    socket::Socket,
};

/// What every HTTP/2 connection begins with; nothing else does.
const HTTP2_PREFACE: &[u8; 4] = b"PRI ";
/// How often the rest of a preface that came byte by byte is looked for.
const PEEK_AGAIN: Duration = Duration::from_millis(2);
/// Silence after which the kernel asks whether the peer is still there; etcd's interval.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Room for one largest request without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Room for several streams' requests at once.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Metadata of one request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// What one stream may have waiting in the transport before its writer has to wait.
const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// Serves a connection until it ends or the server closes.
pub(crate) async fn serve(node: Arc<Node>, socket: TcpStream) {
    let mut phases = node.phases();
    let closed = async move { _ = phases.wait_for(|phase| *phase == Phase::Closed).await };
    tokio::select! {
        () = speak(node, socket) => {}
        () = closed => {}
    }
}

async fn speak(node: Arc<Node>, socket: TcpStream) {
    let _connected = node.metrics.connections.enter();
    tune(&socket);
    let first = tokio::select! {
        first = timeout(FIRST_BYTE_TIMEOUT, speaks_http2(&socket)) => first,
        // Who has said nothing yet has nothing to lose.
        () = node.stopping() => return,
    };
    match first {
        Ok(Ok(true)) => http2(&node, socket).await,
        Ok(Ok(false)) => http1(&node, socket).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Answers are small and wanted at once; a peer that is gone must not hold its place for ever. A socket
/// that refuses either still works.
fn tune(socket: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

async fn speaks_http2(socket: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = socket.peek(&mut start).await?;
        if seen == 0 || start[..seen] != HTTP2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == start.len() {
            return Ok(true);
        }
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}

/// The client's address, for the audit trail; empty where the client is gone already.
fn peer_of(socket: &TcpStream) -> String {
    socket.peer_addr().map_or_else(|_| String::new(), |peer| peer.to_string())
}

async fn http2(node: &Arc<Node>, stream: TcpStream) {
    let peer = peer_of(&stream);
    let socket = Socket::new(stream);
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(node.limits.streams_per_connection_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .handshake::<_, Bytes>(socket.clone());
    let Ok(Ok(mut connection)) = timeout(FIRST_BYTE_TIMEOUT, handshake).await else { return };
    let mut calls = FuturesUnordered::new();
    let mut phases = node.phases();
    let mut draining =
        pin!(async move { _ = phases.wait_for(|phase| *phase != Phase::Running).await });
    let mut drains = false;
    poll_fn(|cx| {
        if !drains && draining.as_mut().poll(cx).is_ready() {
            drains = true;
            connection.graceful_shutdown();
        }
        let serve_call =
            |(request, respond)| dispatch::call(Arc::clone(node), &peer, request, respond);
        let driven = drive(cx, &mut connection, &mut calls, serve_call);
        match socket.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => driven,
        }
    })
    .await;
}

type Arrival = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// Takes in what came, works on every call that can go on, sends what is ready; ends with the connection.
fn drive<F: Future<Output = ()>>(
    cx: &mut Context<'_>,
    connection: &mut Connection<Socket, Bytes>,
    calls: &mut FuturesUnordered<F>,
    serve_call: impl Fn(Arrival) -> F,
) -> Poll<()> {
    loop {
        let mut moved = false;
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(arrival))) => {
                    calls.push(serve_call(arrival));
                    moved = true;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some(())) = calls.poll_next_unpin(cx) {
            moved = true;
        }
        if !moved {
            return Poll::Pending;
        }
    }
}

async fn http1(node: &Arc<Node>, socket: TcpStream) {
    let peer = &peer_of(&socket);
    let service = service_fn(|request: http::Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let response = plain::answer(node, peer, &head, Body::Http1(body)).await;
        Ok::<_, Infallible>(response.map(Full::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_BYTE_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut phases = node.phases();
    let draining = async move { _ = phases.wait_for(|phase| *phase != Phase::Running).await };
    tokio::select! {
        // A client that breaks off or talks nonsense has had its answer from hyper.
        _ = connection.as_mut() => return,
        () = draining => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
