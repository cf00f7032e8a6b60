//! Everything that was ever seen of a store, by revision, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use chronolith_proto::etcdserverpb::RangeRequest;
use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::mvccpb::{Event, KeyValue};

use super::load;
use super::support::{Node, PATIENCE};

/// A fresh store is at this revision; the first write makes the next.
const FIRST: i64 = 1;

/// A key with its new value, or none for a delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// What a client tried: acknowledged at a revision (0: nothing was there to delete), or not answered.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) revision: Option<i64>,
}

/// The changes of each revision, as the first watcher that heard of it was told.
#[derive(Default)]
pub(crate) struct History {
    revisions: BTreeMap<i64, Vec<Change>>,
}

impl History {
    pub(crate) fn len(&self) -> usize {
        self.revisions.len()
    }

    pub(crate) fn last_revision(&self) -> i64 {
        self.revisions.last_key_value().map_or(FIRST, |(revision, _)| *revision)
    }

    /// Compares a round's writes and events with the restarted node.
    pub(crate) async fn check(&mut self, node: &Node, writes: Vec<Write>, heard: Vec<Event>) {
        let state = current(node).await;
        let resumed_at = self.last_revision() + 1;
        let heard = by_revision(&heard);
        in_order_without_gap(resumed_at, heard.keys());
        // A watcher that resumes after the crash, where the last one stopped.
        let resume_at = heard.last_key_value().map_or(resumed_at, |(revision, _)| revision + 1);
        let rest = by_revision(&replay(node, resume_at, state.revision).await);
        in_order_without_gap(resume_at, rest.keys());
        self.revisions.extend(heard.into_iter().chain(rest));
        assert_eq!(self.last_revision(), state.revision, "the watch ends before the store does");
        let told = by_revision(&replay(node, FIRST + 1, state.revision).await);
        assert_eq!(told, self.revisions, "a revision has changed its content");
        self.check_writes(resumed_at, &writes);
        self.check_state(&state.kvs);
        self.check_past(node).await;
    }

    /// Of the revisions of a round: what was acknowledged is there, at its revision; everything else
    /// that is there was tried once, and not answered.
    fn check_writes(&self, first: i64, writes: &[Write]) {
        let mut acknowledged = BTreeMap::new();
        let mut unanswered = Vec::new();
        for write in writes {
            match write.revision {
                // A delete of nothing.
                Some(0) => {}
                Some(revision) => {
                    let other = acknowledged.insert(revision, &write.changes);
                    assert!(other.is_none(), "{revision} was acknowledged twice");
                }
                None => unanswered.push(&write.changes),
            }
        }
        for (revision, &changes) in &acknowledged {
            let found = self.revisions.get(revision);
            assert_eq!(found, Some(changes), "acknowledged at {revision}, but not there");
        }
        for (revision, changes) in self.revisions.range(first..) {
            if !acknowledged.contains_key(revision) {
                let position = unanswered.iter().position(|tried| *tried == changes);
                let nobody = || panic!("revision {revision} was written by nobody: {changes:?}");
                unanswered.swap_remove(position.unwrap_or_else(nobody));
            }
        }
    }

    /// The records are what the history makes when it is replayed.
    fn check_state(&self, kvs: &[KeyValue]) {
        assert_eq!(kvs, self.state_at(self.last_revision()));
    }

    fn state_at(&self, last: i64) -> Vec<KeyValue> {
        let mut state: BTreeMap<&str, KeyValue> = BTreeMap::new();
        for (&revision, changes) in self.revisions.range(..=last) {
            for Change { key, value } in changes {
                match value {
                    None => assert!(state.remove(key.as_str()).is_some(), "deleted twice"),
                    Some(value) => {
                        let kv = state.entry(key).or_insert_with(|| KeyValue {
                            key: key.clone().into(),
                            create_revision: revision,
                            ..Default::default()
                        });
                        kv.value = value.clone().into();
                        kv.mod_revision = revision;
                        kv.version += 1;
                    }
                }
            }
        }
        state.into_values().collect()
    }

    /// Old revisions can still be read, and read as they were.
    async fn check_past(&self, node: &Node) {
        let last = self.last_revision();
        let past = BTreeSet::from([FIRST + 1, last / 3, last / 2, last - 1]);
        for revision in past.into_iter().filter(|revision| (FIRST + 1..=last).contains(revision)) {
            let found = state(node, revision).await.kvs;
            assert_eq!(found, self.state_at(revision), "at revision {revision}");
        }
    }
}

struct State {
    revision: i64,
    kvs: Vec<KeyValue>,
}

async fn current(node: &Node) -> State {
    state(node, 0).await
}

async fn state(node: &Node, revision: i64) -> State {
    let everything =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..Default::default() };
    let mut client = KvClient::new(node.channel()).max_decoding_message_size(usize::MAX);
    let answer = client.range(everything).await.unwrap().into_inner();
    State { revision: answer.header.unwrap().revision, kvs: answer.kvs }
}

/// What a new watch is told, from one revision to another.
async fn replay(node: &Node, from: i64, to: i64) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    if from > to {
        return events;
    }
    let mut answers = load::open(node.channel(), from).await.unwrap();
    while events.last().is_none_or(|event| event.kv.as_ref().unwrap().mod_revision < to) {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        let answer = answer.expect("a replay stopped short").unwrap().unwrap();
        assert!(!answer.canceled, "the server cancelled a watch: {answer:?}");
        events.extend(answer.events);
    }
    events
}

fn by_revision(events: &[Event]) -> BTreeMap<i64, Vec<Change>> {
    let mut revisions: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    let mut last = 0;
    for event in events {
        let kv = event.kv.as_ref().unwrap();
        assert!(kv.mod_revision >= last, "event of {} after {last}", kv.mod_revision);
        last = kv.mod_revision;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let value = (event.r#type == 0).then(|| text(&kv.value));
        revisions.entry(last).or_default().push(Change { key: text(&kv.key), value });
    }
    revisions
}

/// Every write of the test makes exactly one revision, so those heard must be consecutive.
fn in_order_without_gap<'a>(first: i64, revisions: impl Iterator<Item = &'a i64>) {
    for (expected, revision) in (first..).zip(revisions) {
        assert_eq!(*revision, expected, "the watch has a gap or goes back");
    }
}
