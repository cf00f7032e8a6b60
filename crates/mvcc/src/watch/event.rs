//! Events, built once and shared by all their watchers.

use crate::{Kind, core::Head, record::Record};
use bytes::Bytes;
use chronolith_proto::mvccpb::{Event, KeyValue, event::EventType};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use std::sync::{Arc, OnceLock};

/// Field number of the events in etcd's `WatchResponse`.
const EVENTS_FIELD: u32 = 11;
/// What a key and value are surrounded by on the wire, about.
const ENVELOPE_BYTES: usize = 24;

/// A committed change on its way to the watchers.
pub(crate) struct Published {
    pub(crate) revision: i64,
    pub(crate) kind: Kind,
    pub(crate) key: Bytes,
    pub(crate) after: Option<Record>,
    /// The key's state before the revision.
    pub(crate) before: Head,
}

impl Published {
    pub(crate) fn to_event(&self) -> WatchEvent {
        let Self { revision, key, after, before, .. } = self;
        let before_of = |record: Record| record.into_key_value(key.clone(), before.revision);
        let prev_kv = before.record.clone().map(before_of);
        WatchEvent::new(*revision, key.clone(), after.clone(), prev_kv)
    }
}

/// One change of one key.
#[derive(Debug)]
pub struct WatchEvent {
    kind: Kind,
    kv: KeyValue,
    prev_kv: Option<KeyValue>,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl WatchEvent {
    /// A put of `after`, or a delete. A put that gives birth to its key has no previous value, even
    /// where the same revision removed one.
    pub(crate) fn new(
        revision: i64,
        key: Bytes,
        after: Option<Record>,
        prev_kv: Option<KeyValue>,
    ) -> Self {
        let (kind, kv) = match after {
            Some(record) => (Kind::Put, record.into_key_value(key, revision)),
            None => (Kind::Delete, KeyValue { key, mod_revision: revision, ..KeyValue::default() }),
        };
        let is_birth = kind == Kind::Put && kv.create_revision == revision;
        let prev_kv = prev_kv.filter(|_| !is_birth);
        Self { kind, kv, prev_kv, plain: OnceLock::new(), with_prev: OnceLock::new() }
    }

    /// Whether the key was set or removed; why it was removed is not told.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// The key after the change; of a removed key, only its name and the revision.
    #[must_use]
    pub fn kv(&self) -> &KeyValue {
        &self.kv
    }

    /// The key before the revision.
    #[must_use]
    pub fn prev_kv(&self) -> Option<&KeyValue> {
        self.prev_kv.as_ref()
    }

    /// The message for the wire.
    #[must_use]
    pub fn to_message(&self, prev_kv: bool) -> Event {
        let kind = match self.kind {
            Kind::Put => EventType::Put,
            Kind::Delete | Kind::Expire => EventType::Delete,
        };
        let prev_kv = self.prev_kv.as_ref().filter(|_| prev_kv).cloned();
        Event { r#type: kind as i32, kv: Some(self.kv.clone()), prev_kv }
    }

    /// The message as bytes, made at the first call and shared from then on.
    #[must_use]
    pub fn encoded(&self, prev_kv: bool) -> &Bytes {
        let prev_kv = prev_kv && self.prev_kv.is_some();
        let cell = if prev_kv { &self.with_prev } else { &self.plain };
        cell.get_or_init(|| self.to_message(prev_kv).encode_to_vec().into())
    }

    /// About what it occupies on the wire.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let size = |kv: &KeyValue| kv.key.len() + kv.value.len() + ENVELOPE_BYTES;
        size(&self.kv) + self.prev_kv.as_ref().map_or(0, size)
    }
}

/// Events for one watcher, in order; whole revisions. Watchers with equal wishes share it.
#[derive(Debug, Default)]
pub struct EventBatch {
    events: Vec<Arc<WatchEvent>>,
    prev_kv: bool,
    encoded: OnceLock<Bytes>,
}

impl EventBatch {
    pub(crate) fn new(events: Vec<Arc<WatchEvent>>, prev_kv: bool) -> Self {
        Self { events, prev_kv, encoded: OnceLock::new() }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[Arc<WatchEvent>] {
        &self.events
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether these watchers want previous values.
    #[must_use]
    pub fn prev_kv(&self) -> bool {
        self.prev_kv
    }

    /// Revision of the first event; 0 if there is none.
    #[must_use]
    pub fn first_revision(&self) -> i64 {
        self.events.first().map_or(0, |event| event.revision())
    }

    /// Revision of the last event; 0 if there is none.
    #[must_use]
    pub fn last_revision(&self) -> i64 {
        self.events.last().map_or(0, |event| event.revision())
    }

    /// About what the events occupy on the wire.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.events.iter().map(|event| event.size_bytes()).sum()
    }

    /// The messages for the wire.
    #[must_use]
    pub fn to_messages(&self) -> Vec<Event> {
        self.events.iter().map(|event| event.to_message(self.prev_kv)).collect()
    }

    /// All events as they stand in a `WatchResponse`, tags included: what a response needs beside
    /// its header and watch id. Made at the first call and shared from then on.
    #[must_use]
    pub fn encoded_events(&self) -> &Bytes {
        self.encoded.get_or_init(|| {
            let mut out = Vec::new();
            for event in &self.events {
                let bytes = event.encoded(self.prev_kv);
                encode_key(EVENTS_FIELD, WireType::LengthDelimited, &mut out);
                encode_varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(bytes);
            }
            out.into()
        })
    }

    /// The events from `revision` on.
    pub(crate) fn starting_at(&self, revision: i64) -> Self {
        let events = self.events.iter().filter(|event| event.revision() >= revision);
        Self::new(events.cloned().collect(), self.prev_kv)
    }
}
