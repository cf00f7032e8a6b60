//! Watchers that must hear of every event, in order, exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chronolith_proto::etcdserverpb::watch_request::RequestUnion;
use chronolith_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::{Barrier, mpsc};
use tonic::Streaming;

use super::Plan;
use super::check::{text, value};
use super::client::{Client, prefix_end};
use super::crowd::{Tally, crowd};
use super::report::Row;

const WATCHERS: u64 = 100;
const EVENTS: u64 = 1_000;
const PUTTERS: u64 = 10;
const VALUE_BYTES: usize = 64;
/// An event that has not come by then is lost.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a watcher heard or a putter wrote, by revision.
type Events = BTreeMap<i64, Change>;

/// `at` is when the put was sent or the event was heard.
struct Change {
    key: String,
    value: String,
    at: Instant,
}

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let fan_out = one_prefix(plan).await?;
    Ok(vec![fan_out, own_keys(plan).await?])
}

/// 100 watchers of the same prefix: every one hears of every event.
async fn one_prefix(plan: &Plan) -> anyhow::Result<Row> {
    let name = "watch: 100 watchers, one prefix";
    let watchers = plan.count(WATCHERS);
    let prefix = plan.key(format_args!("watch/all/"));
    deliver(plan, name, watchers, &|_| (prefix.clone(), prefix_end(&prefix)), plan.count(EVENTS))
        .await
}

/// 100 watchers of a key each; the puts go round.
async fn own_keys(plan: &Plan) -> anyhow::Result<Row> {
    let name = "watch: 100 watchers, own keys";
    let watchers = plan.count(WATCHERS);
    let key = |watcher| plan.key(format_args!("watch/own/{watcher:03}"));
    deliver(plan, name, watchers, &|watcher| (key(watcher), String::new()), watchers * 10).await
}

async fn deliver(
    plan: &Plan,
    name: &str,
    watchers: u64,
    range: &dyn Fn(u64) -> (String, String),
    events: u64,
) -> anyhow::Result<Row> {
    let shared = !range(0).1.is_empty();
    let heard_by_each = if shared { events } else { events / watchers };
    let ready = Arc::new(Barrier::new((watchers + PUTTERS) as usize));
    let expected = watchers * heard_by_each;
    let (mut work, found) =
        crowd(plan, name, expected, watchers + PUTTERS, |index, client, tally| {
            let ready = Arc::clone(&ready);
            let targets: Vec<String> = (0..watchers).map(|w| range(w).0).collect();
            let watched = range(index.min(watchers - 1));
            async move {
                if index < watchers {
                    listen(watched, heard_by_each, client, tally, &ready).await
                } else {
                    write(&targets, shared, index - watchers, events, client, tally, &ready).await
                }
            }
        })
        .await?;
    let (written, heard): (Vec<_>, Vec<_>) = found.into_iter().partition(|log| log.written);
    let written: Events = written.into_iter().flat_map(|log| log.events).collect();
    for watcher in &heard {
        check(watcher, &written, &mut work.tally)?;
    }
    Ok(Row::new(name, &work).readable(expected))
}

/// What one watcher heard, or one putter wrote.
struct Log {
    written: bool,
    range: (String, String),
    events: Events,
}

/// A watcher's events are exactly the puts in its range; their latency counts from sending the put.
fn check(watcher: &Log, written: &Events, tally: &mut Tally) -> anyhow::Result<()> {
    let (from, end) = &watcher.range;
    let inside = |key: &String| if end.is_empty() { key == from } else { key >= from && key < end };
    let due: Vec<_> = written.iter().filter(|(_, put)| inside(&put.key)).collect();
    ensure!(due.len() == watcher.events.len(), "{from}: {} of {}", watcher.events.len(), due.len());
    for ((written_at, put), (heard_at, event)) in due.into_iter().zip(&watcher.events) {
        let put_content = (written_at, &put.key, &put.value);
        ensure!(put_content == (heard_at, &event.key, &event.value), "{from}: wrong event");
        tally.latency(event.at.saturating_duration_since(put.at));
    }
    Ok(())
}

async fn listen(
    range: (String, String),
    expected: u64,
    client: Client,
    mut tally: Tally,
    ready: &Barrier,
) -> anyhow::Result<(Tally, Log)> {
    let (_requests, mut stream) = open(&client, &range.0, &range.1).await?;
    ready.wait().await;
    let mut events = Events::new();
    while (events.len() as u64) < expected {
        let answer = tokio::time::timeout(DELIVERY_TIMEOUT, next(&mut stream)).await;
        let answer =
            answer.with_context(|| format!("{} of {expected} events came", events.len()))??;
        take(answer, &mut events, &mut tally)?;
    }
    Ok((tally, Log { written: false, range, events }))
}

fn take(answer: WatchResponse, events: &mut Events, tally: &mut Tally) -> anyhow::Result<()> {
    for event in answer.events {
        let kv = event.kv.context("an event without its record")?;
        let last = events.last_key_value().map_or(0, |(revision, _)| *revision);
        ensure!(kv.mod_revision > last, "event {} after {last}", kv.mod_revision);
        let (key, value) = (text(&kv.key)?.to_owned(), text(&kv.value)?.to_owned());
        events.insert(kv.mod_revision, Change { key, value, at: Instant::now() });
        tally.count();
    }
    Ok(())
}

/// Creates a watch from the next revision on and waits until the server has confirmed it.
pub(crate) async fn open(
    client: &Client,
    key: &str,
    end: &str,
) -> anyhow::Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let create = WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    };
    let (requests, receiver) = mpsc::channel(1);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(request).await.context("the stream's own end is open")?;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut stream = client.watch().watch(outgoing).await.context("open a watch")?.into_inner();
    let answer = next(&mut stream).await?;
    ensure!(answer.created, "a watch began with another answer than created");
    Ok((requests, stream))
}

pub(crate) async fn next(stream: &mut Streaming<WatchResponse>) -> anyhow::Result<WatchResponse> {
    let answer = stream.message().await.context("watch")?.context("the server ended a watch")?;
    if answer.canceled {
        bail!("the server cancelled a watch: {}", answer.cancel_reason);
    }
    Ok(answer)
}

/// One of the putters: every tenth event, over all targets in turn.
async fn write(
    targets: &[String],
    shared: bool,
    putter: u64,
    events: u64,
    mut client: Client,
    tally: Tally,
    ready: &Barrier,
) -> anyhow::Result<(Tally, Log)> {
    ready.wait().await;
    let mut written = Events::new();
    for event in (putter..events).step_by(PUTTERS as usize) {
        let target = &targets[(event % targets.len() as u64) as usize];
        let key = if shared { format!("{target}{event:06}") } else { target.clone() };
        let value = value(&key, event, VALUE_BYTES);
        let at = Instant::now();
        let revision = client.put(&key, &value).await?;
        written.insert(revision, Change { key, value, at });
    }
    Ok((tally, Log { written: true, range: Default::default(), events: written }))
}
