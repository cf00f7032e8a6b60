//! A client that refuses wrong answers: each call returns what was checked, or an error that says what
//! was wrong with the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::lease_client::LeaseClient;
use chronolith_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use chronolith_proto::etcdserverpb::watch_client::WatchClient;
use chronolith_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader,
    StatusRequest, TxnRequest, TxnResponse,
};
use chronolith_proto::mvccpb::KeyValue;
use tonic::transport::{Channel, Endpoint};

/// A server that does not answer a connect for this long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control windows large enough that lists and watch bursts wait for the server, not for the client.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A few connections, handed out in turn.
#[derive(Clone)]
pub(crate) struct Client {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
    kv: KvClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str, connections: u16) -> anyhow::Result<Client> {
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(dial(endpoint).await?);
        }
        let kv = kv(channels[0].clone());
        Ok(Client { channels: channels.into(), next: Arc::default(), kv })
    }

    /// The same server over the next connection.
    pub(crate) fn another(&self) -> Client {
        Client { kv: kv(self.channel()), ..self.clone() }
    }

    fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let answer = MaintenanceClient::new(self.channel()).status(StatusRequest {}).await?;
        Ok(answer.into_inner().version)
    }

    pub(crate) async fn revision(&self) -> anyhow::Result<i64> {
        let request = RangeRequest { key: "\0".into(), ..Default::default() };
        Ok(header(self.kv.clone().range(request).await?.into_inner().header)?.revision)
    }

    /// Puts and returns the revision.
    pub(crate) async fn put(&mut self, key: &str, value: &str) -> anyhow::Result<i64> {
        self.put_leased(key, value, 0).await
    }

    pub(crate) async fn put_leased(
        &mut self,
        key: &str,
        value: &str,
        lease: i64,
    ) -> anyhow::Result<i64> {
        let request = put_request(key, value, lease);
        let answer = self.kv.put(request).await.with_context(|| format!("put {key}"))?;
        Ok(header(answer.into_inner().header)?.revision)
    }

    /// The record of one key, and the revision that the answer was read at.
    pub(crate) async fn get(&mut self, key: &str) -> anyhow::Result<(Option<KeyValue>, i64)> {
        let mut answer = self.range(range_request(key, "")).await?;
        ensure!(answer.kvs.len() <= 1, "get {key}: {} records", answer.kvs.len());
        let revision = header(answer.header)?.revision;
        Ok((answer.kvs.pop(), revision))
    }

    /// Every record with the prefix, in key order, checked against the count.
    pub(crate) async fn list(&mut self, prefix: &str) -> anyhow::Result<RangeResponse> {
        let answer = self.range(range_request(prefix, &prefix_end(prefix))).await?;
        ensure!(
            answer.count == answer.kvs.len() as i64,
            "list {prefix}: count differs from records"
        );
        ensure!(answer.kvs.is_sorted_by(|a, b| a.key < b.key), "list {prefix}: out of order");
        let revision = header(answer.header)?.revision;
        ensure!(
            answer.kvs.iter().all(|kv| kv.mod_revision <= revision),
            "list {prefix}: a record is newer than the answer"
        );
        Ok(answer)
    }

    pub(crate) async fn range(&mut self, request: RangeRequest) -> anyhow::Result<RangeResponse> {
        Ok(self.kv.range(request).await.context("range")?.into_inner())
    }

    /// Deletes one key; returns its last record if there was one, and the revision of the answer.
    pub(crate) async fn delete(&mut self, key: &str) -> anyhow::Result<(Option<KeyValue>, i64)> {
        let request = DeleteRangeRequest { prev_kv: true, ..delete_request(key) };
        let mut answer = self.kv.delete_range(request).await.context("delete")?.into_inner();
        ensure!(
            answer.deleted == answer.prev_kvs.len() as i64 && answer.deleted <= 1,
            "delete {key}: deleted {}, {} previous records",
            answer.deleted,
            answer.prev_kvs.len()
        );
        let revision = header(answer.header)?.revision;
        Ok((answer.prev_kvs.pop(), revision))
    }

    pub(crate) async fn txn(&mut self, request: TxnRequest) -> anyhow::Result<TxnResponse> {
        Ok(self.kv.txn(request).await.context("txn")?.into_inner())
    }

    pub(crate) async fn compact(&mut self, revision: i64) -> anyhow::Result<()> {
        self.kv
            .compact(CompactionRequest { revision, physical: false })
            .await
            .context("compact")?;
        Ok(())
    }
}

async fn dial(endpoint: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(endpoint.to_owned())
        .with_context(|| format!("endpoint {endpoint}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect()
        .await
        .with_context(|| format!("connect to {endpoint}"))
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) fn header(header: Option<ResponseHeader>) -> anyhow::Result<ResponseHeader> {
    header.context("an answer without a header")
}

pub(crate) fn put_request(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..Default::default()
    }
}

pub(crate) fn range_request(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn delete_request(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// The first key after every key with this prefix; our prefixes end in an ASCII character below 0x7f.
pub(crate) fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().unwrap_or('\0');
    end.push(char::from(last as u8 + 1));
    end
}
