//! Clients that write until the server goes away, and remember what they were told; a watcher that
//! listens from where the last one stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::request_op::Request;
use chronolith_proto::etcdserverpb::watch_client::WatchClient;
use chronolith_proto::etcdserverpb::watch_request::RequestUnion;
use chronolith_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use chronolith_proto::mvccpb::Event;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::history::{Change, Write};
use super::support::Node;

const CLIENTS: u64 = 8;
/// Few keys, so that they are overwritten, deleted and born again.
const KEYS_PER_CLIENT: u64 = 5;

/// A fixed sequence of numbers for a seed (SplitMix64).
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from)
    }
}

/// The clients of one round at work.
pub(crate) struct Load {
    ending: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Write>>>,
    watcher: JoinHandle<Vec<Event>>,
}

impl Load {
    pub(crate) fn start(runtime: &Runtime, node: &Node, last: i64, mut dice: Dice) -> Load {
        let _inside = runtime.enter();
        let ending = Arc::new(AtomicBool::new(false));
        let client = |number| {
            let client = Client {
                kv: KvClient::new(node.channel()),
                number,
                // Values are unique over all rounds: the dice of each round and client differ.
                dice: Dice::new(dice.roll()),
                ending: Arc::clone(&ending),
            };
            runtime.spawn(client.write_until_the_end())
        };
        let clients = (0..CLIENTS).map(client).collect();
        let watcher = runtime.spawn(watch(node.channel(), last + 1));
        Load { ending, clients, watcher }
    }

    /// From now on the server may go away.
    pub(crate) fn expect_errors(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn finish(self, runtime: &Runtime) -> (Vec<Write>, Vec<Event>) {
        let clients = self.clients.into_iter();
        let writes = clients.flat_map(|client| runtime.block_on(client).unwrap()).collect();
        (writes, runtime.block_on(self.watcher).unwrap())
    }
}

struct Client {
    kv: KvClient<Channel>,
    number: u64,
    dice: Dice,
    ending: Arc<AtomicBool>,
}

impl Client {
    /// Every write that was tried; the last one may have no answer.
    async fn write_until_the_end(mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        loop {
            let changes = self.next_changes();
            match self.send(&changes).await {
                Ok(revision) => writes.push(Write { changes, revision: Some(revision) }),
                Err(status) => {
                    assert!(self.ending.load(Ordering::SeqCst), "before the end: {status:?}");
                    writes.push(Write { changes, revision: None });
                    return writes;
                }
            }
        }
    }

    /// Mostly a put, sometimes a delete, sometimes a transaction that writes two keys.
    fn next_changes(&mut self) -> Vec<Change> {
        let key = self.dice.between(0, KEYS_PER_CLIENT);
        let key = format!("client-{}/key-{key}", self.number);
        let value = format!("{:016x}", self.dice.roll());
        match self.dice.between(0, 10) {
            0 => vec![Change { key, value: None }],
            1 | 2 => {
                let second = Change { key: format!("{key}/second"), value: Some(value.clone()) };
                vec![Change { key, value: Some(value) }, second]
            }
            _ => vec![Change { key, value: Some(value) }],
        }
    }

    /// The revision that the server acknowledged; 0 for a delete of nothing, which has none.
    async fn send(&mut self, changes: &[Change]) -> Result<i64, Status> {
        if let [Change { key, value: None }] = changes {
            let request = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            let answer = self.kv.delete_range(request).await?.into_inner();
            return Ok(if answer.deleted == 0 { 0 } else { answer.header.unwrap().revision });
        }
        if let [change] = changes {
            let answer = self.kv.put(put(change)).await?.into_inner();
            return Ok(answer.header.unwrap().revision);
        }
        let operation = |change| RequestOp { request: Some(Request::RequestPut(put(change))) };
        let success = changes.iter().map(operation).collect();
        let answer = self.kv.txn(TxnRequest { success, ..Default::default() }).await?.into_inner();
        Ok(answer.header.unwrap().revision)
    }
}

fn put(change: &Change) -> PutRequest {
    PutRequest {
        key: change.key.clone().into(),
        value: change.value.clone().unwrap().into(),
        ..Default::default()
    }
}

/// Every event from a revision on, until the server goes away.
async fn watch(channel: Channel, start_revision: i64) -> Vec<Event> {
    let mut events = Vec::new();
    let Ok(mut answers) = open(channel, start_revision).await else { return events };
    while let Ok(Some(answer)) = answers.message().await {
        assert!(!answer.canceled, "the server cancelled the watch: {answer:?}");
        events.extend(answer.events);
    }
    events
}

/// A watch of every key; its requests stay open as long as the server answers.
pub(crate) async fn open(
    channel: Channel,
    start_revision: i64,
) -> Result<tonic::Streaming<chronolith_proto::etcdserverpb::WatchResponse>, Status> {
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(
        tokio_stream::once(request),
        tokio_stream::pending::<WatchRequest>(),
    );
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    Ok(client.watch(requests).await?.into_inner())
}
