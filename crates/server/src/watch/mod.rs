//! One watch stream: several watches of one client, one writer.
//!
//! ```text
//! client ─ create, cancel, progress ─▶ stream ─▶ hub.watch / cancel
//! writer of the store ─▶ hub ─ offer ─▶ queue (bounded) ─┐
//! log of past revisions ─▶ hub.catch_up ─────────────────┴─▶ chunk of messages ─▶ client
//! ```
//! Invariants
//! 1. Everything that a client hears leaves through this one task, in the order in which it got here.
//! 2. What a watcher was offered goes out before anything is caught up for it: the queue is emptied
//!    first, and a watcher that catches up is offered nothing.
//! 3. A progress notification of revision r leaves after every event up to r: the hub names r only
//!    when those events are in the queue, and the queue is emptied before it is sent.
//! 4. A client that reads slowly fills its queue and nothing else: its watchers then lag, and are
//!    served from the log. None is dropped, and no other stream waits.

mod frame;
mod queue;

use std::{
    collections::{BTreeMap, VecDeque},
    future::ready,
    pin::pin,
    sync::Arc,
};

use bytes::BytesMut;
use chronolith_proto::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use chronolith_store::{
    VersionError,
    watch::{CatchUpLimits, EventBatch, WatchHub, WatchSpec, WatcherId},
};
use rustc_hash::FxHashMap;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    audit::Trail,
    call::{Messages, Reply},
    node::Node,
    status::Status,
    watch::queue::Queue,
};

/// Messages are collected up to this size, then sent as one: fewer frames, fewer wake-ups.
const CHUNK_BYTES: usize = 64 * 1024;
/// The id of a watch that was never created, and of answers that concern all watches of a stream.
const NO_WATCH: i64 = -1;

/// Serves a watch stream until the client or the server ends it.
pub(crate) async fn serve(
    node: &Node,
    messages: Messages<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Status> {
    let _counted = node.metrics.watch_streams.enter();
    reply.open()?;
    Stream::new(node, messages.trail()).run(messages, reply).await
}

/// A watch of this stream.
struct Watch {
    id: i64,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the last progress tick.
    quiet: bool,
}

struct Stream<'a> {
    node: &'a Node,
    trail: Option<&'a Trail<'a>>,
    queue: Arc<Queue>,
    watches: FxHashMap<WatcherId, Watch>,
    watchers: BTreeMap<i64, WatcherId>,
    /// Watchers to be caught up; ones that were cancelled meanwhile are passed over.
    lagging: VecDeque<WatcherId>,
    next_id: i64,
    /// The client asked for progress, and not all of its watches are synced yet.
    owes_progress: bool,
    chunk: BytesMut,
}

/// What happened next.
enum Step {
    Request(Option<WatchRequest>),
    Offers,
    CatchUp,
    Tick,
}

impl<'a> Stream<'a> {
    fn new(node: &'a Node, trail: Option<&'a Trail<'a>>) -> Self {
        Stream {
            node,
            trail,
            queue: Arc::new(Queue::new(node.limits.watch_queue_bytes_max)),
            watches: FxHashMap::default(),
            watchers: BTreeMap::new(),
            lagging: VecDeque::new(),
            next_id: 0,
            owes_progress: false,
            chunk: BytesMut::new(),
        }
    }

    async fn run(
        mut self,
        mut messages: Messages<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Status> {
        let node = self.node;
        let mut stopping = pin!(node.stopping());
        let interval = node.watch_progress_interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut listening = true;
        loop {
            let step = tokio::select! {
                biased;
                () = &mut stopping => return Err(Status::stopped()),
                request = messages.next(), if listening => Step::Request(request?),
                () = self.queue.filled() => Step::Offers,
                () = ready(()), if !self.lagging.is_empty() => Step::CatchUp,
                _ = ticks.tick() => Step::Tick,
                () = reply.abandoned() => return Err(Status::cancelled()),
            };
            match step {
                Step::Request(Some(request)) => self.request(request, reply).await?,
                // A client that will ask for nothing more still hears of its watches.
                Step::Request(None) => listening = false,
                Step::Offers => self.send_offers(reply).await?,
                Step::CatchUp => self.catch_up(reply).await?,
                Step::Tick => self.notify_progress(reply).await?,
            }
            self.flush(reply).await?;
        }
    }

    async fn request(
        &mut self,
        request: WatchRequest,
        reply: &mut Reply<'_>,
    ) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.owes_progress = !self.watches.is_empty();
                self.answer_progress(reply).await?;
            }
            None => {}
        }
        Ok(())
    }

    fn create(&mut self, create: &WatchCreateRequest) {
        let registered = match self.trail {
            None => self.register(create),
            Some(trail) => trail.watch(create, || self.register(create)),
        };
        let response = match registered {
            Ok(watch_id) => WatchResponse { watch_id, created: true, ..self.response() },
            Err(reason) => WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..self.response()
            },
        };
        frame::push(&mut self.chunk, &response);
    }

    /// Registers a watch and chooses its id, or says why not.
    fn register(&mut self, create: &WatchCreateRequest) -> Result<i64, String> {
        let limit = self.node.limits.watches_per_stream_max;
        if self.watches.len() >= limit {
            return Err(format!(
                "chronolith: too many watches on this stream (limit {limit}, --max-watches-per-stream)"
            ));
        }
        if create.watch_id != 0 && self.watchers.contains_key(&create.watch_id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
        }
        let sink = Arc::clone(&self.queue);
        let watcher = self.hub().watch(WatchSpec::from_request(create), sink);
        let watcher = watcher.map_err(|error| error.to_string())?;
        let id = self.choose_id(create.watch_id);
        let watch = Watch {
            id,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            quiet: true,
        };
        self.watches.insert(watcher, watch);
        self.watchers.insert(id, watcher);
        self.lagging.push_back(watcher);
        Ok(id)
    }

    fn choose_id(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn cancel(&mut self, id: i64) {
        if let Some(watcher) = self.watchers.remove(&id) {
            self.watches.remove(&watcher);
            self.hub().cancel(watcher);
            self.tell_end(id, "the client cancelled it");
            let response = WatchResponse { watch_id: id, canceled: true, ..self.response() };
            frame::push(&mut self.chunk, &response);
        }
    }

    /// Sends all that was offered, and notes who has to catch up since the queue was full.
    async fn send_offers(&mut self, reply: &mut Reply<'_>) -> Result<(), Status> {
        let taken = self.queue.take();
        self.lagging.extend(taken.refused);
        let mut header = self.header();
        for (watcher, batch) in &taken.offers {
            header.revision = batch.last_revision();
            self.push_events(*watcher, &header, batch);
            if self.chunk.len() >= CHUNK_BYTES {
                self.flush(reply).await?;
            }
        }
        Ok(())
    }

    /// Brings one lagging watcher a step forward.
    async fn catch_up(&mut self, reply: &mut Reply<'_>) -> Result<(), Status> {
        let Some(watcher) = self.lagging.pop_front() else { return Ok(()) };
        match self.hub().catch_up(watcher, &CatchUpLimits::default()) {
            Ok(caught) => {
                if !caught.events.is_empty() {
                    let header = self.header();
                    self.push_events(watcher, &header, &caught.events);
                }
                if !caught.synced {
                    self.lagging.push_back(watcher);
                }
            }
            Err(VersionError::WatcherNotFound) => {}
            Err(error) => self.give_up(watcher, &error),
        }
        self.answer_progress(reply).await
    }

    /// Cancels a watcher that cannot be served any longer.
    fn give_up(&mut self, watcher: WatcherId, error: &VersionError) {
        let Some(watch) = self.watches.remove(&watcher) else { return };
        self.watchers.remove(&watch.id);
        self.hub().cancel(watcher);
        self.tell_end(watch.id, &error.to_string());
        let mut response = WatchResponse { watch_id: watch.id, canceled: true, ..self.response() };
        match error {
            // As etcd tells it: no reason, no revision, only where one may start again.
            VersionError::WatchCompacted { compact_revision } => {
                response.compact_revision = *compact_revision;
                response.header = Some(ResponseHeader { revision: 0, ..self.header() });
            }
            other => response.cancel_reason = other.to_string(),
        }
        frame::push(&mut self.chunk, &response);
    }

    fn tell_end(&self, id: i64, why: &str) {
        if let Some(trail) = self.trail {
            trail.watch_cancelled(id, why);
        }
    }

    fn push_events(&mut self, watcher: WatcherId, header: &ResponseHeader, batch: &EventBatch) {
        // Cancelled after it was offered the batch: the client does not expect it any more.
        let Some(watch) = self.watches.get_mut(&watcher) else { return };
        watch.quiet = false;
        self.node.metrics.watch_events.add(batch.events().len() as u64);
        let limit = self.node.limits.message_bytes_max();
        match watch.fragment && batch.encoded_events().len() >= limit {
            false => frame::push_events(&mut self.chunk, header, watch.id, batch),
            true => frame::push_fragments(&mut self.chunk, header, watch.id, batch, limit),
        }
    }

    /// Answers a progress request once every watch of the stream is synced.
    async fn answer_progress(&mut self, reply: &mut Reply<'_>) -> Result<(), Status> {
        if !self.owes_progress || !self.lagging.is_empty() {
            return Ok(());
        }
        let watchers: Vec<WatcherId> = self.watchers.values().copied().collect();
        let Some(revision) = self.hub().progress(&watchers) else { return Ok(()) };
        self.owes_progress = false;
        self.send_offers(reply).await?;
        self.push_progress(NO_WATCH, revision);
        Ok(())
    }

    /// Tells each quiet watch that wants to know how far it is.
    async fn notify_progress(&mut self, reply: &mut Reply<'_>) -> Result<(), Status> {
        let mut due = Vec::new();
        for (id, watcher) in &self.watchers {
            let Some(watch) = self.watches.get_mut(watcher) else { continue };
            if std::mem::replace(&mut watch.quiet, true)
                && watch.progress_notify
                && let Some(revision) = self.node.store.watch_hub().progress(&[*watcher])
            {
                due.push((*id, revision));
            }
        }
        self.send_offers(reply).await?;
        for (id, revision) in due {
            self.push_progress(id, revision);
        }
        Ok(())
    }

    fn push_progress(&mut self, watch_id: i64, revision: i64) {
        let header = Some(ResponseHeader { revision, ..self.header() });
        frame::push(&mut self.chunk, &WatchResponse { header, watch_id, ..Default::default() });
    }

    async fn flush(&mut self, reply: &mut Reply<'_>) -> Result<(), Status> {
        match self.chunk.is_empty() {
            true => Ok(()),
            false => reply.send(self.chunk.split().freeze()).await,
        }
    }

    fn hub(&self) -> &'a WatchHub {
        self.node.store.watch_hub()
    }

    fn header(&self) -> ResponseHeader {
        self.node.store.header()
    }

    fn response(&self) -> WatchResponse {
        WatchResponse { header: Some(self.header()), ..WatchResponse::default() }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        for (id, watcher) in &self.watchers {
            self.hub().cancel(*watcher);
            self.tell_end(*id, "its stream ended");
        }
    }
}
