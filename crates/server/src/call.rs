//! One gRPC call over one HTTP/2 stream: messages in, messages out, a status at the end.
//!
//! ```text
//! in   HEADERS  DATA [flag 1][length 4][message] …            END_STREAM
//! out  HEADERS  DATA [flag 1][length 4][message] …  TRAILERS grpc-status, grpc-message
//! ```
//! Invariants: a message's declared length is checked before a byte of it is kept; what a call
//! buffers is counted against the server's receive budget until the call ends; whatever happens,
//! the stream ends with exactly one status or is reset.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use prost::Message;

use crate::{
    audit::Trail,
    metrics::Metrics,
    node::Node,
    status::{Code, Status, ok_trailers},
};

/// Flag byte and length before each message.
const PREFIX_BYTES: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Bytes of requests being received, over all connections, and the most there may be.
#[derive(Debug)]
pub(crate) struct ReceiveBudget {
    used_bytes: AtomicUsize,
    max_bytes: usize,
}

impl ReceiveBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        ReceiveBudget { used_bytes: AtomicUsize::new(0), max_bytes }
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.max_bytes {
            return Ok(());
        }
        self.give_back(bytes);
        let text = format!(
            "chronolith: too many request bytes being received (limit {}, --max-receive-bytes)",
            self.max_bytes
        );
        Err(Status::new(Code::ResourceExhausted, text))
    }

    /// Holds bytes until the guard is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held<'_>, Status> {
        self.take(bytes)?;
        Ok(Held { budget: self, bytes })
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are held of a [`ReceiveBudget`].
pub(crate) struct Held<'a> {
    budget: &'a ReceiveBudget,
    bytes: usize,
}

impl Held<'_> {
    /// Holds more.
    pub(crate) fn more(&mut self, bytes: usize) -> Result<(), Status> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The messages of a request.
pub(crate) struct Messages<'a> {
    node: &'a Node,
    body: RecvStream,
    trail: Option<&'a Trail<'a>>,
    /// Received, not yet handed out; at most one message and what came in its last frame.
    pending: Bytes,
    /// Taken from the receive budget.
    held_bytes: usize,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(node: &'a Node, trail: Option<&'a Trail<'a>>, body: RecvStream) -> Self {
        Messages { node, body, trail, pending: Bytes::new(), held_bytes: 0 }
    }

    /// What the audit trail hears of the call.
    pub(crate) fn trail(&self) -> Option<&'a Trail<'a>> {
        self.trail
    }

    /// The only message of a unary call; waits for the end of the request.
    pub(crate) async fn only<M: Message + Default>(mut self) -> Result<M, Status> {
        let message = self
            .next::<M>()
            .await?
            .ok_or_else(|| Status::new(Code::Internal, "grpc: the request holds no message"))?;
        while !self.body.is_end_stream() {
            match self.chunk().await? {
                None => break,
                Some(chunk) if chunk.is_empty() => {}
                Some(_) => {
                    return Err(Status::new(
                        Code::Internal,
                        "grpc: the request holds more than one message",
                    ));
                }
            }
        }
        Ok(message)
    }

    /// The next message, or none when the client will send no more.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if !self.fill(PREFIX_BYTES).await? {
            return match self.pending.is_empty() {
                true => Ok(None),
                false => Err(Status::new(Code::Internal, "unexpected EOF")),
            };
        }
        let length = self.message_length()?;
        if self.pending.len() < PREFIX_BYTES + length {
            self.hold(length)?;
        }
        if !self.fill(PREFIX_BYTES + length).await? {
            return Err(Status::new(Code::Internal, "unexpected EOF"));
        }
        self.pending.advance(PREFIX_BYTES);
        let message = self.pending.split_to(length);
        self.release();
        self.node.metrics.bytes_received.add(length as u64);
        M::decode(message).map(Some).map_err(|error| {
            let text = format!("grpc: error unmarshalling request: {error}");
            Status::new(Code::Internal, text)
        })
    }

    fn message_length(&self) -> Result<usize, Status> {
        let mut prefix = &self.pending[..PREFIX_BYTES];
        if prefix.get_u8() != 0 {
            return Err(Status::new(
                Code::Unimplemented,
                "grpc: Decompressor is not installed for grpc-encoding",
            ));
        }
        let length = prefix.get_u32() as usize;
        let limit = self.node.limits.message_bytes_max();
        if length > limit {
            let text = format!("grpc: received message larger than max ({length} vs. {limit})");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        Ok(length)
    }

    /// Receives until `pending` holds `wanted` bytes; false when the request ends before.
    ///
    /// A message that came in one frame is not copied.
    async fn fill(&mut self, wanted: usize) -> Result<bool, Status> {
        while self.pending.len() < wanted {
            let Some(chunk) = self.chunk().await? else { return Ok(false) };
            self.append(chunk, wanted);
        }
        Ok(true)
    }

    fn append(&mut self, chunk: Bytes, wanted: usize) {
        if self.pending.is_empty() {
            self.pending = chunk;
            return;
        }
        let mut joined =
            std::mem::take(&mut self.pending).try_into_mut().unwrap_or_else(|shared| {
                let mut own = BytesMut::with_capacity(wanted.max(shared.len() + chunk.len()));
                own.extend_from_slice(&shared);
                own
            });
        joined.extend_from_slice(&chunk);
        self.pending = joined.freeze();
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        match poll_fn(|cx| self.body.poll_data(cx)).await {
            None => Ok(None),
            Some(Err(_)) => Err(Status::cancelled()),
            Some(Ok(chunk)) => {
                // Fails only when the stream is gone, which the next read says too.
                let _ = self.body.flow_control().release_capacity(chunk.len());
                Ok(Some(chunk))
            }
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        // A receive that was interrupted and is taken up again holds its bytes already.
        if self.held_bytes == 0 {
            self.node.received.take(bytes)?;
            self.held_bytes = bytes;
        }
        Ok(())
    }

    fn release(&mut self) {
        if self.held_bytes > 0 {
            self.node.received.give_back(std::mem::take(&mut self.held_bytes));
        }
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// A message with its prefix, ready to be sent, unless it is larger than an answer may be.
pub(crate) fn frame_within<M: Message>(message: &M, max_bytes: usize) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    if length > max_bytes {
        // grpc-go's words.
        let text =
            format!("grpc: trying to send message larger than max ({length} vs. {max_bytes})");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(frame(message))
}

/// A message with its prefix, ready to be sent.
pub(crate) fn frame<M: Message>(message: &M) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    put_prefix(&mut out, length);
    message.encode_raw(&mut out);
    out.freeze()
}

/// The prefix of a message of `length` bytes.
pub(crate) fn put_prefix(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("no message reaches 4 GiB"));
}

/// The answering half of a call.
pub(crate) struct Reply<'a> {
    metrics: &'a Metrics,
    respond: SendResponse<Bytes>,
    /// Set once the response headers have gone out.
    stream: Option<SendStream<Bytes>>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(node: &'a Node, respond: SendResponse<Bytes>) -> Self {
        Reply { metrics: &node.metrics, respond, stream: None }
    }

    /// Sends the whole answer of a unary call. A client that is gone is no error of ours.
    pub(crate) fn unary(&mut self, frame: Bytes) {
        self.metrics.bytes_sent.add(frame.len() as u64);
        if let Ok(mut stream) = self.respond.send_response(grpc_headers(), false)
            && stream.send_data(frame, false).is_ok()
        {
            let _ = stream.send_trailers(ok_trailers());
        }
    }

    /// Sends the response headers, so that the client knows that its stream stands.
    pub(crate) fn open(&mut self) -> Result<(), Status> {
        if self.stream.is_none() {
            let stream = self.respond.send_response(grpc_headers(), false);
            self.stream = Some(stream.map_err(|_| Status::cancelled())?);
        }
        Ok(())
    }

    /// Sends one message of a stream, when the client has room for it.
    pub(crate) async fn send(&mut self, frame: Bytes) -> Result<(), Status> {
        self.open()?;
        let stream = self.stream.as_mut().expect("opened in the line above");
        wait_for_room(stream).await?;
        self.metrics.bytes_sent.add(frame.len() as u64);
        stream.send_data(frame, false).map_err(|_| Status::cancelled())
    }

    /// Resolves when the client has given the stream up.
    pub(crate) async fn abandoned(&mut self) {
        poll_fn(|cx| match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        })
        .await;
    }

    /// Ends the call.
    pub(crate) fn finish(&mut self, status: &Status) {
        match &mut self.stream {
            Some(stream) => {
                let _ = stream.send_trailers(status.trailers());
            }
            None => {
                let mut response = grpc_headers();
                response.headers_mut().extend(status.trailers());
                let _ = self.respond.send_response(response, true);
            }
        }
    }

    /// Ends a stream that went well.
    pub(crate) fn finish_ok(&mut self) {
        if self.open().is_ok()
            && let Some(stream) = &mut self.stream
        {
            let _ = stream.send_trailers(ok_trailers());
        }
    }

    /// Answers a plain HTTP request that came over HTTP/2.
    pub(crate) fn plain(&mut self, response: Response<Bytes>) {
        let (head, body) = response.into_parts();
        let ends = body.is_empty();
        if let Ok(mut stream) = self.respond.send_response(Response::from_parts(head, ()), ends)
            && !ends
        {
            let _ = stream.send_data(body, true);
        }
    }
}

/// Waits until the transport would take at least a byte, so that a slow client is not buffered for.
async fn wait_for_room(stream: &mut SendStream<Bytes>) -> Result<(), Status> {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => Poll::Ready(Ok(())),
            Poll::Ready(None | Some(Err(_))) => Poll::Ready(Err(Status::cancelled())),
            Poll::Pending => stream.poll_reset(cx).map(|_| Err(Status::cancelled())),
        }
    })
    .await
}

fn grpc_headers() -> Response<()> {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
}
