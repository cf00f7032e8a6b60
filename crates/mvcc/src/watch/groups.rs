//! Watchers with equal wishes, found by the keys they want.
//!
//! A group's events are gathered once and its batch is built once, however many watchers it has:
//! ten thousand watchers of one key cost one batch and ten thousand offers.

use super::{WatchSink, WatcherId, event::WatchEvent, intervals::Intervals};
use crate::{Kind, span::Span};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::{mem, sync::Arc};

/// Which events a watcher wants, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wish {
    pub(crate) span: Span,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
    pub(crate) prev_kv: bool,
}

impl Wish {
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        match kind {
            Kind::Put => !self.no_put,
            Kind::Delete | Kind::Expire => !self.no_delete,
        }
    }
}

/// A group's number; numbers of groups that are gone are given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupId(usize);

/// A synced watcher.
pub(crate) struct Member {
    pub(crate) id: WatcherId,
    pub(crate) sink: Arc<dyn WatchSink>,
    /// It wants no earlier revision.
    pub(crate) next: i64,
}

pub(crate) struct Group {
    pub(crate) wish: Wish,
    /// Its synced watchers; a watcher knows its position.
    pub(crate) members: Vec<Member>,
    /// Its watchers, lagging ones included.
    watchers: usize,
    /// Events of the run being published.
    gathered: Vec<Arc<WatchEvent>>,
}

#[derive(Default)]
pub(crate) struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<GroupId>,
    by_wish: FxHashMap<Wish, GroupId>,
    points: FxHashMap<Bytes, Vec<GroupId>>,
    ranges: Intervals<GroupId>,
}

impl Groups {
    /// The group with this wish, with one watcher more.
    pub(crate) fn join(&mut self, wish: Wish) -> GroupId {
        let id = match self.by_wish.get(&wish) {
            Some(id) => *id,
            None => self.add(wish),
        };
        self.group(id).watchers += 1;
        id
    }

    /// One watcher less; a group without watchers goes.
    pub(crate) fn leave(&mut self, id: GroupId) {
        let group = self.group(id);
        group.watchers -= 1;
        if group.watchers == 0 {
            self.remove(id);
        }
    }

    pub(crate) fn group(&mut self, id: GroupId) -> &mut Group {
        self.slots[id.0].as_mut().expect("a group lives as long as it has watchers")
    }

    /// Calls `found` with every group that has a synced watcher which wants this change.
    pub(crate) fn wanting(&self, key: &Bytes, kind: Kind, found: &mut Vec<GroupId>) {
        let mut push = |id: GroupId| {
            let group = self.slots[id.0].as_ref();
            if group.is_some_and(|group| !group.members.is_empty() && group.wish.wants(kind)) {
                found.push(id);
            }
        };
        self.points.get(key).into_iter().flatten().copied().for_each(&mut push);
        self.ranges.containing(key, &mut push);
    }

    /// Keeps an event for a group, and says whether it is the first.
    pub(crate) fn gather(&mut self, id: GroupId, event: Arc<WatchEvent>) -> bool {
        let gathered = &mut self.group(id).gathered;
        gathered.push(event);
        gathered.len() == 1
    }

    pub(crate) fn take_gathered(&mut self, id: GroupId) -> Vec<Arc<WatchEvent>> {
        mem::take(&mut self.group(id).gathered)
    }

    fn add(&mut self, wish: Wish) -> GroupId {
        let group = Group { wish: wish.clone(), members: vec![], watchers: 0, gathered: vec![] };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            GroupId(self.slots.len() - 1)
        });
        self.slots[id.0] = Some(group);
        match &wish.span {
            Span::Point(key) => self.points.entry(key.clone()).or_default().push(id),
            Span::Range { start, end } => self.ranges.insert(start.clone(), end.clone(), id),
        }
        self.by_wish.insert(wish, id);
        id
    }

    fn remove(&mut self, id: GroupId) {
        let Some(group) = self.slots[id.0].take() else { return };
        self.by_wish.remove(&group.wish);
        match &group.wish.span {
            Span::Point(key) => {
                if let Some(ids) = self.points.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.points.remove(key);
                    }
                }
            }
            Span::Range { start, .. } => self.ranges.remove(start, id),
        }
        self.free.push(id);
    }
}
