//! Between the threads that serve and the one that writes: a queue with two limits.
//!
//! ```text
//! open     push ─▶ room? ─▶ queue        no room: counted; the next one that fits is behind a gap marker
//! closed   reserve ─▶ … the request is carried out … ─▶ push: the room is there
//! ```
//! * What waits is at most `limit_events` and about `limit_bytes`.
//! * Events are written in the order in which they were pushed; a gap stands where its events would.
//! * A push wakes the writer only when it sleeps; awake, it lets events collect for a moment before it takes
//!   them. So a busy server makes one system call for many events.

use crate::{Event, NotDurable};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Told when an event is on the disk, or cannot be.
pub(crate) type Waiter = oneshot::Sender<Result<(), NotDurable>>;

/// What the writer is to do.
pub(crate) enum Item {
    Event(Box<Event>, Option<Waiter>),
    /// So many events had no room here.
    Gap(u64),
    /// Put everything on the disk and sign it, then tell.
    Sync(oneshot::Sender<Result<String, String>>),
    /// Only write everything out, then tell.
    Flush(oneshot::Sender<()>),
}

/// Why something found no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Room that was promised to requests under way.
    reserved: usize,
    /// Dropped since the last one that was taken in.
    gap: u64,
    /// The writer waits until it is called.
    asleep: bool,
    /// Somebody waits for what is here.
    hurried: bool,
    closed: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    limit_events: usize,
    limit_bytes: usize,
}

/// What the writer took out.
pub(crate) struct Batch {
    pub(crate) items: VecDeque<Item>,
    /// Nothing will come any more.
    pub(crate) closed: bool,
}

impl Queue {
    pub(crate) fn new(limit_events: usize, limit_bytes: usize) -> Self {
        let (state, wake) = (Mutex::new(State::default()), Condvar::new());
        Self { state, wake, limit_events, limit_bytes }
    }

    /// Takes an event in, or counts it as dropped.
    pub(crate) fn push(&self, event: Event) -> Result<(), NoRoom> {
        let mut state = self.state.lock();
        let bytes = weight(&event);
        let is_full = state.items.len() + state.reserved >= self.limit_events
            || state.bytes + bytes > self.limit_bytes;
        if is_full || state.closed {
            state.gap += 1;
            return Err(NoRoom);
        }
        self.add(state, Item::Event(Box::new(event), None), bytes);
        Ok(())
    }

    /// Keeps room for one event.
    pub(crate) fn reserve(&self) -> Result<(), NoRoom> {
        let mut state = self.state.lock();
        let is_full = state.items.len() + state.reserved >= self.limit_events
            || state.bytes > self.limit_bytes;
        if is_full || state.closed {
            return Err(NoRoom);
        }
        state.reserved += 1;
        Ok(())
    }

    /// Gives reserved room back.
    pub(crate) fn release(&self) {
        self.state.lock().reserved -= 1;
    }

    /// Takes in an event that room was reserved for. Only a closed queue has none.
    pub(crate) fn push_reserved(&self, event: Event, waiter: Waiter) -> Result<(), NoRoom> {
        let mut state = self.state.lock();
        state.reserved -= 1;
        if state.closed {
            return Err(NoRoom);
        }
        let bytes = weight(&event);
        self.add(state, Item::Event(Box::new(event), Some(waiter)), bytes);
        Ok(())
    }

    /// Takes in what has no limit because there is only a handful of it. Whoever waits for something of a
    /// closed queue hears at once that nobody will answer.
    pub(crate) fn push_always(&self, item: Item) {
        let state = self.state.lock();
        if !state.closed {
            self.add(state, item, 0);
        }
    }

    fn add(&self, mut state: parking_lot::MutexGuard<'_, State>, item: Item, bytes: usize) {
        if state.gap > 0 {
            let gap = std::mem::take(&mut state.gap);
            state.items.push_back(Item::Gap(gap));
        }
        let hurries = matches!(&item, Item::Event(_, Some(_)) | Item::Sync(_) | Item::Flush(_));
        state.items.push_back(item);
        state.bytes += bytes;
        state.hurried |= hurries;
        let wake = state.asleep || hurries;
        state.asleep = false;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Events that wait.
    pub(crate) fn depth(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Nothing is taken in any more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits until there is something, or until `deadline`; without one, until it is called.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.closed {
            state.asleep = true;
            match deadline {
                None => self.wake.wait(&mut state),
                Some(deadline) => {
                    if self.wake.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        state.asleep = false;
    }

    /// Lets more collect, unless somebody waits for what is here. Nobody calls the writer meanwhile.
    pub(crate) fn linger(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.closed && !state.hurried && !state.items.is_empty() {
            self.wake.wait_for(&mut state, time);
        }
    }

    /// Puts back in front what was taken and could not be worked on.
    pub(crate) fn put_back(&self, mut items: VecDeque<Item>) {
        let mut state = self.state.lock();
        for item in items.drain(..).rev() {
            if let Item::Event(event, _) = &item {
                state.bytes += weight(event);
            }
            state.items.push_front(item);
        }
    }

    /// Everything that waits.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let mut items = std::mem::take(&mut state.items);
        (state.bytes, state.hurried) = (0, false);
        if state.gap > 0 {
            items.push_back(Item::Gap(std::mem::take(&mut state.gap)));
        }
        Batch { items, closed: state.closed }
    }
}

/// What an event weighs in memory, roughly.
fn weight(event: &Event) -> usize {
    let texts = [
        &event.request_id,
        &event.user,
        &event.address,
        &event.user_agent,
        &event.key,
        &event.key_base64,
        &event.range_end,
        &event.range_end_base64,
        &event.error,
        &event.reason,
    ];
    let targets = event.targets.iter().map(|target| {
        let texts = [
            &target.key,
            &target.key_base64,
            &target.range_end,
            &target.range_end_base64,
            &target.value,
            &target.value_base64,
        ];
        size_of_val(target) + texts.iter().map(|text| text.len()).sum::<usize>()
    });
    size_of::<Event>() + texts.iter().map(|text| text.len()).sum::<usize>() + targets.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    fn event() -> Event {
        Event::new("Put", Class::Write)
    }

    fn kinds(batch: &Batch) -> Vec<u64> {
        let kind = |item: &Item| match item {
            Item::Event(..) => 0,
            Item::Gap(dropped) => *dropped,
            Item::Sync(_) | Item::Flush(_) => panic!("nobody asked"),
        };
        batch.items.iter().map(kind).collect()
    }

    #[test]
    fn a_gap_stands_where_its_events_would_and_counts_them() {
        let queue = Queue::new(2, usize::MAX);
        for _ in 0..2 {
            queue.push(event()).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(queue.push(event()), Err(NoRoom));
        }
        assert_eq!(kinds(&queue.take()), [0, 0, 3]);
        queue.push(event()).unwrap();
        assert_eq!(kinds(&queue.take()), [0]);
    }

    #[test]
    fn bytes_are_a_limit_too() {
        let queue = Queue::new(100, 3 * size_of::<Event>());
        let long = Event { key: "k".repeat(2 * size_of::<Event>()), ..event() };
        queue.push(long.clone()).unwrap();
        assert_eq!(queue.push(event()), Err(NoRoom));
        queue.take();
        queue.push(event()).unwrap();
    }

    #[test]
    fn reserved_room_is_kept_from_others_until_it_is_given_back() {
        let queue = Queue::new(2, usize::MAX);
        queue.reserve().unwrap();
        queue.reserve().unwrap();
        assert_eq!(queue.reserve(), Err(NoRoom));
        assert_eq!(queue.push(event()), Err(NoRoom));
        queue.release();
        queue.reserve().unwrap();
        queue.push_reserved(event(), oneshot::channel().0).unwrap();
        assert_eq!(queue.depth(), 2, "the dropped one's gap and the event");
    }
}
