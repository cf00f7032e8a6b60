//! A server in this process, and clients of it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part, and a failure is a test that fails"
)]

use chronolith_proto::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use chronolith_proto::history::history_client::HistoryClient;
use chronolith_server::{Config, RunningServer, Server};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Long enough for any answer on a busy machine; only a broken server reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long silence has to last to count as silence.
pub const SILENCE: Duration = Duration::from_millis(150);

pub struct Node {
    pub server: RunningServer,
    _directory: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path().join("data"));
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        Node { server, _directory: directory }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.endpoint()).unwrap().connect().await.unwrap()
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub async fn watch(&self) -> WatchStream {
        let mut client =
            WatchClient::new(self.channel().await).max_decoding_message_size(usize::MAX);
        let (requests, receiver) = mpsc::unbounded_channel();
        let answers = client.watch(UnboundedReceiverStream::new(receiver)).await.unwrap();
        WatchStream { requests: Some(requests), answers: answers.into_inner() }
    }

    /// Status, headers and body of an HTTP/1.1 request.
    pub async fn http(&self, method: &str, path: &str) -> (u16, String, String) {
        let answer = self.fetch(method, path, &[], b"").await;
        (answer.code, answer.head, String::from_utf8(answer.body).unwrap())
    }

    /// The answer to an HTTP/1.1 request with headers (each `name: value`) and a body.
    pub async fn fetch(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> HttpAnswer {
        let mut socket = TcpStream::connect(self.server.address()).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        // A server that refuses may close before it has read everything.
        let _ = socket.write_all(&[request.as_bytes(), body].concat()).await;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        HttpAnswer::read(&answer)
    }

    pub async fn history(&self) -> HistoryClient<Channel> {
        HistoryClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }
}

pub struct HttpAnswer {
    pub code: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    pub fn read(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&answer[..end]).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        HttpAnswer { code, head: head.to_lowercase(), body: answer[end + 4..].to_vec() }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub struct WatchStream {
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
    pub answers: Streaming<WatchResponse>,
}

impl WatchStream {
    pub fn ask(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.as_ref().unwrap().send(request).unwrap();
    }

    pub async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(create));
        let answer = self.next().await;
        assert!(answer.created, "{answer:?}");
        answer
    }

    pub async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        answer.expect("no answer").unwrap().expect("the stream ended")
    }

    pub async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.answers.message()).await.is_err()
    }

    pub fn half_close(&mut self) {
        self.requests = None;
    }
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

pub fn prefix(key: &str) -> WatchCreateRequest {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        ..WatchCreateRequest::default()
    }
}
