//! Loads a Debian package index through the etcd API, then shows what a versioned store can do with it.
//!
//! ```text
//! apt-cache dumpavail | cargo run --release --example load_debian_packages
//! ```
//!
//! Each record of the index becomes the key `/debian/NAME/VERSION/ARCHITECTURE`, its text the value.
//! Everything that was loaded is read back and compared. `examples/debian-packages.sh` starts a node,
//! finds the index and runs this.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use chronolith_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::request_op::Request;
use chronolith_proto::etcdserverpb::watch_client::WatchClient;
use chronolith_proto::etcdserverpb::watch_request::RequestUnion;
use chronolith_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, WatchCreateRequest,
    WatchRequest,
};
use chronolith_proto::mvccpb::KeyValue;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

const PREFIX: &str = "/debian/";
/// Puts under way at once, each waiting for its own answer: enough to fill the server's groups.
const WRITERS: usize = 128;
/// Records a page when everything is read back.
const PAGE: i64 = 2_000;

type Records = BTreeMap<String, String>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:2379".to_owned());
    let mut index = Vec::new();
    std::io::stdin().read_to_end(&mut index).context("read the index from standard input")?;
    let records = parse(&String::from_utf8_lossy(&index));
    ensure!(!records.is_empty(), "no package records on standard input");
    let channel = Endpoint::from_shared(endpoint.clone())?.tcp_nodelay(true).connect().await;
    let channel = channel.with_context(|| format!("connect to {endpoint}; is a node running?"))?;
    let client = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);

    let loaded_at = load(&client, &records).await?;
    read_back(client.clone(), &records, loaded_at).await?;
    query(client.clone()).await?;
    watch_and_swap(client, WatchClient::new(channel), loaded_at).await
}

/// Records by key. Those of the same name, version and architecture are the same record.
fn parse(index: &str) -> Records {
    index.split("\n\n").filter_map(|text| Some((key(text)?, text.trim_end().to_owned()))).collect()
}

fn key(record: &str) -> Option<String> {
    let field = |name: &str| {
        record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    };
    let architecture = field("Architecture").unwrap_or("unknown");
    Some(format!("{PREFIX}{}/{}/{architecture}", field("Package")?, field("Version")?))
}

/// Returns the revision of the last put.
async fn load(client: &KvClient<Channel>, records: &Records) -> anyhow::Result<i64> {
    let size_bytes: usize = records.values().map(String::len).sum();
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mine: Vec<PutRequest> =
            records.iter().skip(writer).step_by(WRITERS).map(put_request).collect();
        writers.spawn(put_all(client.clone(), mine));
    }
    let mut last = 0;
    while let Some(revision) = writers.join_next().await {
        last = last.max(revision??);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "loaded {} records, {:.1} MB, in {seconds:.1} s: {:.0} durable puts a second, revision {last}",
        records.len(),
        size_bytes as f64 / 1e6,
        records.len() as f64 / seconds,
    );
    Ok(last)
}

fn put_request((key, value): (&String, &String)) -> PutRequest {
    PutRequest { key: key.clone().into(), value: value.clone().into(), ..Default::default() }
}

async fn put_all(mut client: KvClient<Channel>, requests: Vec<PutRequest>) -> anyhow::Result<i64> {
    let mut last = 0;
    for request in requests {
        let answer = client.put(request).await?.into_inner();
        last = answer.header.context("an answer without a header")?.revision;
    }
    Ok(last)
}

/// Pages through everything at one revision and compares. A server that was there before may hold more
/// under the prefix, from an earlier index.
async fn read_back(
    mut client: KvClient<Channel>,
    records: &Records,
    revision: i64,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let (mut found, mut others) = (0, 0);
    let mut from = PREFIX.to_owned();
    loop {
        let page = RangeRequest { limit: PAGE, revision, ..range(&from, &end(PREFIX)) };
        let answer = client.range(page).await?.into_inner();
        for kv in &answer.kvs {
            let key = text(&kv.key);
            match records.get(&key) {
                Some(value) => {
                    ensure!(kv.value == *value, "{key}: not what was loaded");
                    found += 1;
                }
                None => others += 1,
            }
        }
        let Some(last) = answer.kvs.last().filter(|_| answer.more) else { break };
        from = format!("{}\0", text(&last.key));
    }
    ensure!(found == records.len(), "{found} of {} records were read back", records.len());
    println!("read all of them back and compared, in {:.1} s", start.elapsed().as_secs_f64());
    if others > 0 {
        println!("{others} other keys under {PREFIX} were there before");
    }
    Ok(())
}

/// etcdctl get --prefix --keys-only --limit 5 /debian/rust
async fn query(mut client: KvClient<Channel>) -> anyhow::Result<()> {
    let prefix = format!("{PREFIX}rust");
    let request = RangeRequest { keys_only: true, limit: 5, ..range(&prefix, &end(&prefix)) };
    let answer = client.range(request).await?.into_inner();
    println!("\n{} keys begin with {prefix}; the first:", answer.count);
    for kv in &answer.kvs {
        println!("  {}", text(&kv.key));
    }
    Ok(())
}

/// A watch hears of a compare-and-swap; the swap cannot be repeated; the past stays readable.
async fn watch_and_swap(
    mut client: KvClient<Channel>,
    mut watches: WatchClient<Channel>,
    loaded_at: i64,
) -> anyhow::Result<()> {
    let kv = some_package(&mut client).await?;
    let key = text(&kv.key);
    let create = WatchCreateRequest {
        key: kv.key.clone(),
        start_revision: kv.mod_revision + 1,
        prev_kv: true,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut events = watches.watch(tokio_stream::once(request)).await?.into_inner();

    let swapped = client.txn(swap(&kv, "held back")).await?.into_inner();
    ensure!(swapped.succeeded, "{key} changed between reading and swapping");
    let again = client.txn(swap(&kv, "never")).await?.into_inner();
    ensure!(!again.succeeded, "the same swap succeeded twice");
    println!("\nswapped {key} at mod_revision {}; a second try is refused", kv.mod_revision);

    let event = loop {
        let answer = events.message().await?.context("the watch ended")?;
        if let Some(event) = answer.events.into_iter().next() {
            break event;
        }
    };
    let (now, before) = (event.kv.context("no record")?, event.prev_kv.context("no previous")?);
    ensure!(before.value == kv.value, "the watch told another previous value");
    println!("its watch heard: revision {}, now {:?}", now.mod_revision, text(&now.value));

    let request = RangeRequest { revision: loaded_at, ..range(&key, "") };
    let old = only(client.range(request).await?.into_inner())?;
    ensure!(old.value == kv.value, "the past has changed");
    println!("at revision {loaded_at} it still reads: {}…", first_line(&old));
    Ok(())
}

async fn some_package(client: &mut KvClient<Channel>) -> anyhow::Result<KeyValue> {
    let prefix = format!("{PREFIX}bash/");
    let answer = client.range(range(&prefix, &end(&prefix))).await?.into_inner();
    match answer.kvs.into_iter().next() {
        Some(kv) => Ok(kv),
        None => only(
            client
                .range(RangeRequest { limit: 1, ..range(PREFIX, &end(PREFIX)) })
                .await?
                .into_inner(),
        ),
    }
}

/// If the key is still as it was read, put the value.
fn swap(kv: &KeyValue, value: &str) -> TxnRequest {
    let unchanged = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: kv.key.clone(),
        target_union: Some(TargetUnion::ModRevision(kv.mod_revision)),
        ..Default::default()
    };
    let put =
        PutRequest { key: kv.key.clone(), value: value.to_owned().into(), ..Default::default() };
    TxnRequest {
        compare: vec![unchanged],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: Vec::new(),
    }
}

fn only(answer: RangeResponse) -> anyhow::Result<KeyValue> {
    let Some(kv) = answer.kvs.into_iter().next() else { bail!("a record is missing") };
    Ok(kv)
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

/// The first key after every key with this prefix; ours end in ASCII.
fn end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().unwrap_or('\0');
    end.push(char::from(last as u8 + 1));
    end
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn first_line(kv: &KeyValue) -> String {
    text(&kv.value).lines().next().unwrap_or_default().to_owned()
}
