//! Watchers, their states, and what moves them; see the module above for why this is sound.

use super::{
    EventBatch, Published,
    groups::{GroupId, Groups, Member, Wish},
    replay::{CatchUpLimits, replay},
};
use crate::{Error, Result, core::Core, span::Span};
use bytes::Bytes;
use chronolith_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A watcher of this hub; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherId(pub u64);

/// Where a watcher's events go.
pub trait WatchSink: Send + Sync {
    /// Takes a batch, or refuses it because there is no room: then the watcher lags, and the batch
    /// comes again through [`WatchHub::catch_up`], which is to be called once there is room.
    ///
    /// Called by the writer with the hub locked: enqueue, and return. Must not call the hub.
    fn offer(&self, watcher: WatcherId, batch: &Arc<EventBatch>) -> bool;

    /// All offers of a run have been made, and the hub is not locked any more: wake who takes them. A
    /// reader woken by each offer would take them one by one.
    fn wake(&self) {}
}

/// What a watcher wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSpec {
    /// The key, or the first key.
    pub key: Bytes,
    /// As in a range request: empty for one key, `\0` for all from `key` on.
    pub range_end: Bytes,
    /// The first revision it wants; 0 is the next one.
    pub start_revision: i64,
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
    /// The value before, too.
    pub prev_kv: bool,
}

impl WatchSpec {
    /// What a client's request asks for. An empty key is the smallest one, `\0`.
    #[must_use]
    pub fn from_request(request: &WatchCreateRequest) -> Self {
        let key = match request.key.is_empty() {
            true => Bytes::from_static(b"\0"),
            false => request.key.clone(),
        };
        let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            key,
            range_end: request.range_end.clone(),
            start_revision: request.start_revision,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        }
    }
}

/// What a watcher that was behind gets.
#[derive(Clone, Debug, Default)]
pub struct CatchUp {
    /// Its next events; to be enqueued before the next call.
    pub events: Arc<EventBatch>,
    /// Whether there are no more, so that new events are offered to the sink from now on. Until
    /// then, call again.
    pub synced: bool,
}

enum State {
    /// At this position among its group's members.
    Synced { position: usize },
    /// Behind, from revision `next` on; `reading` while a thread catches up.
    Lagging { next: i64, reading: bool, sink: Arc<dyn WatchSink> },
}

struct Watcher {
    group: GroupId,
    state: State,
}

#[derive(Default)]
struct Hub {
    watchers: FxHashMap<WatcherId, Watcher>,
    groups: Groups,
    published: i64,
    last_id: u64,
}

/// All watchers of a store; see the [module](crate::watch).
pub struct WatchHub {
    core: Arc<Core>,
    hub: Mutex<Hub>,
}

impl WatchHub {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let hub = Hub { published: core.current(), ..Hub::default() };
        Self { core, hub: Mutex::new(hub) }
    }

    /// Registers a watcher. It is lagging at first: nothing is offered to `sink` before
    /// [`WatchHub::catch_up`] has answered that it is synced.
    ///
    /// A start revision that was compacted already is found out by `catch_up`, as etcd creates such a
    /// watch and then cancels it.
    pub fn watch(&self, spec: WatchSpec, sink: Arc<dyn WatchSink>) -> Result<WatcherId> {
        let WatchSpec { key, range_end, start_revision, no_put, no_delete, prev_kv } = spec;
        let span = Span::new(&key, &range_end);
        if span.is_empty() {
            return Err(Error::EmptyWatchRange);
        }
        if start_revision < 0 {
            return Err(Error::Compacted);
        }
        let mut hub = self.hub.lock();
        let next = if start_revision > 0 { start_revision } else { self.core.current() + 1 };
        hub.last_id += 1;
        let id = WatcherId(hub.last_id);
        let group = hub.groups.join(Wish { span, no_put, no_delete, prev_kv });
        let state = State::Lagging { next, reading: false, sink };
        hub.watchers.insert(id, Watcher { group, state });
        Ok(id)
    }

    /// Removes a watcher: nothing is offered to its sink afterwards. False if there was none.
    pub fn cancel(&self, id: WatcherId) -> bool {
        self.hub.lock().remove(id)
    }

    /// Whether the watcher's sink has been offered everything up to the published revision.
    #[must_use]
    pub fn is_synced(&self, id: WatcherId) -> bool {
        self.hub.lock().is_synced(id)
    }

    /// The revision up to which all these watchers have been offered their events; none if one of
    /// them lags. A progress notification with it is true if it is enqueued behind those events.
    #[must_use]
    pub fn progress(&self, ids: &[WatcherId]) -> Option<i64> {
        let hub = self.hub.lock();
        ids.iter().all(|id| hub.is_synced(*id)).then_some(hub.published)
    }

    /// Number of watchers.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.hub.lock().watchers.len()
    }

    /// The next events of a lagging watcher, or the news that it is synced.
    ///
    /// Enqueue what it returns, then call again, until it answers `synced`; one thread at a time for
    /// each watcher. A watcher whose revisions were compacted is removed, with
    /// [`Error::WatchCompacted`].
    pub fn catch_up(&self, id: WatcherId, limits: &CatchUpLimits) -> Result<CatchUp> {
        let Some((wish, from, to)) = self.hub.lock().begin_reading(id)? else {
            return Ok(CatchUp { synced: true, ..CatchUp::default() });
        };
        let read = replay(&self.core, &wish, (from, to), limits);
        let mut hub = self.hub.lock();
        match read {
            Ok((events, next)) => {
                hub.end_reading(id, next)?;
                Ok(CatchUp { events: Arc::new(events), synced: false })
            }
            Err(error) => {
                match &error {
                    Error::WatchCompacted { .. } => drop(hub.remove(id)),
                    _ => hub.end_reading(id, from)?,
                }
                Err(error)
            }
        }
    }

    /// Offers a run's changes to the synced watchers that want them. Only the writer calls this, with
    /// revisions in order.
    pub(crate) fn publish(&self, changes: &[Published], revision: i64) {
        let mut offered = Vec::new();
        let mut hub = self.hub.lock();
        if !hub.watchers.is_empty() {
            for group in hub.gather(changes) {
                hub.offer(group, &mut offered);
            }
        }
        hub.published = revision;
        drop(hub);
        offered.iter().for_each(|sink| sink.wake());
    }
}

impl Hub {
    fn is_synced(&self, id: WatcherId) -> bool {
        matches!(self.watchers.get(&id), Some(Watcher { state: State::Synced { .. }, .. }))
    }

    /// Sorts a run's changes by group, and says which groups have any.
    fn gather(&mut self, changes: &[Published]) -> Vec<GroupId> {
        let (mut touched, mut wanting) = (Vec::new(), Vec::new());
        for change in changes {
            self.groups.wanting(&change.key, change.kind, &mut wanting);
            if wanting.is_empty() {
                continue;
            }
            let event = Arc::new(change.to_event());
            for group in wanting.drain(..) {
                if self.groups.gather(group, Arc::clone(&event)) {
                    touched.push(group);
                }
            }
        }
        touched
    }

    /// Offers what a group gathered to its members; who refuses, lags. Notes whose sinks to wake.
    fn offer(&mut self, id: GroupId, offered: &mut Vec<Arc<dyn WatchSink>>) {
        let events = self.groups.take_gathered(id);
        let group = self.groups.group(id);
        let batch = Arc::new(EventBatch::new(events, group.wish.prev_kv));
        let mut position = 0;
        while let Some(member) = group.members.get(position) {
            if !offered.last().is_some_and(|last| Arc::ptr_eq(last, &member.sink)) {
                offered.push(Arc::clone(&member.sink));
            }
            if member.accepts(&batch) {
                position += 1;
                continue;
            }
            let member = group.members.swap_remove(position);
            let next = member.next.max(batch.first_revision());
            if let Some(watcher) = self.watchers.get_mut(&member.id) {
                watcher.state = State::Lagging { next, reading: false, sink: member.sink };
            }
            if let Some(moved) = group.members.get(position)
                && let Some(watcher) = self.watchers.get_mut(&moved.id)
            {
                watcher.state = State::Synced { position };
            }
        }
    }

    /// Takes what a lagging watcher has to read; none if it is, or now becomes, synced.
    fn begin_reading(&mut self, id: WatcherId) -> Result<Option<(Wish, i64, i64)>> {
        let watcher = self.watchers.get_mut(&id).ok_or(Error::WatcherNotFound)?;
        let group = self.groups.group(watcher.group);
        let State::Lagging { next, reading, sink } = &mut watcher.state else { return Ok(None) };
        if *reading {
            return Err(Error::CatchUpInProgress);
        }
        if *next <= self.published {
            *reading = true;
            return Ok(Some((group.wish.clone(), *next, self.published)));
        }
        let position = group.members.len();
        group.members.push(Member { id, sink: Arc::clone(sink), next: *next });
        watcher.state = State::Synced { position };
        Ok(None)
    }

    fn end_reading(&mut self, id: WatcherId, read_to: i64) -> Result<()> {
        let watcher = self.watchers.get_mut(&id).ok_or(Error::WatcherNotFound)?;
        if let State::Lagging { next, reading, .. } = &mut watcher.state {
            (*next, *reading) = (read_to, false);
        }
        Ok(())
    }

    fn remove(&mut self, id: WatcherId) -> bool {
        let Some(Watcher { group, state }) = self.watchers.remove(&id) else { return false };
        if let State::Synced { position } = state {
            let members = &mut self.groups.group(group).members;
            members.swap_remove(position);
            if let Some(moved) = members.get(position)
                && let Some(watcher) = self.watchers.get_mut(&moved.id)
            {
                watcher.state = State::Synced { position };
            }
        }
        self.groups.leave(group);
        true
    }
}

impl Member {
    /// Offers it the events of a batch that it wants. A watcher that starts later than the batch
    /// does gets the end of it.
    fn accepts(&self, batch: &Arc<EventBatch>) -> bool {
        if self.next > batch.last_revision() {
            return true;
        }
        if self.next <= batch.first_revision() {
            return self.sink.offer(self.id, batch);
        }
        self.sink.offer(self.id, &Arc::new(batch.starting_at(self.next)))
    }
}
