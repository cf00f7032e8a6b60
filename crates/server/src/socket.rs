//! A socket that sends once for all that was written in a round.
//!
//! The HTTP/2 library hands every frame with a payload to the socket on its own, which costs a system
//! call, and a packet, for each answer. Here writes collect in a buffer, and the task that drives the
//! connection sends the buffer when nothing can go on: one system call for all answers of a round.
//!
//! Invariants: bytes leave in the order in which they were written; a buffer at its limit makes the
//! writer wait; a flush asked for by the library is a no-op, so who drives the connection must call
//! [`Socket::poll_send`] before it waits.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Unsent bytes at which the writer has to wait: a few of the kernel's own send buffers.
const UNSENT_MAX_BYTES: usize = 256 * 1024;
/// An empty buffer larger than this is given back, so that idle connections stay small.
const IDLE_BYTES: usize = 16 * 1024;

/// See the module. Clones are the same socket.
#[derive(Clone)]
pub(crate) struct Socket(Arc<Mutex<Inner>>);

struct Inner {
    stream: TcpStream,
    unsent: BytesMut,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Socket(Arc::new(Mutex::new(Inner { stream, unsent: BytesMut::new() })))
    }

    /// Sends what was written; pending while the peer's window is full.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }
}

impl Inner {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        match self.unsent.capacity() > IDLE_BYTES {
            true => self.unsent = BytesMut::new(),
            false => self.unsent.clear(),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        if inner.unsent.len() >= UNSENT_MAX_BYTES {
            ready!(inner.poll_send(cx))?;
        }
        inner.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0), peer)
    }

    #[tokio::test]
    async fn what_was_written_leaves_in_order_when_it_is_sent() {
        let (mut socket, mut peer) = pair().await;
        socket.write_all(b"one ").await.unwrap();
        socket.write_all(b"two").await.unwrap();
        socket.flush().await.unwrap();
        let mut heard = [0; 7];
        let early = timeout(Duration::from_millis(20), peer.read(&mut heard)).await;
        assert!(early.is_err(), "nothing leaves before it is sent");
        poll_fn(|cx| socket.poll_send(cx)).await.unwrap();
        peer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"one two");
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_peer_that_does_not_read() {
        let (mut socket, mut peer) = pair().await;
        let block = vec![7; 64 * 1024];
        let write = async {
            for _ in 0..1_000 {
                socket.write_all(&block).await.unwrap();
            }
            socket.shutdown().await.unwrap();
        };
        tokio::pin!(write);
        assert!(timeout(Duration::from_millis(100), &mut write).await.is_err());
        let mut heard = Vec::new();
        let (_, read) = tokio::join!(write, peer.read_to_end(&mut heard));
        assert_eq!(read.unwrap(), 64_000 * 1024);
    }
}
