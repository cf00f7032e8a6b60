//! Concurrent histories and the question whether they are linearizable (after Wing and Gong).
//!
//! ```text
//! threads ─▶ events: call, answer, begun, ended ─▶ is there ONE order of all events, in which each
//!            answer is right, and no event stands before one that had ended when it began?
//! ```
//! The object is the whole keyspace: batches over several keys and reads of all keys at once are single
//! events, so a batch seen in part has no place in any order.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its part")]

use std::collections::HashSet;

/// Keys of a history: few, so that threads meet on them.
pub const KEYS: usize = 3;

/// What every key holds.
pub type State = [Option<u32>; KEYS];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A batch: each key is set or removed.
    Write(Vec<(usize, Option<u32>)>),
    /// One key, with its answer.
    Read(usize, Option<u32>),
    /// All keys from one view, with their answers.
    ReadAll(State),
}

/// A call with the ticks of one clock at which it began and ended.
#[derive(Clone, Debug)]
pub struct Event {
    pub begun: u64,
    pub ended: u64,
    pub call: Call,
}

/// Whether some order explains the events. At most 64 of them.
pub fn is_linearizable(events: &[Event]) -> bool {
    assert!(events.len() <= 64, "a set of events is a number of 64 bits");
    let mut tried = HashSet::new();
    explains(events, 0, [None; KEYS], &mut tried)
}

/// Whether the events outside of `done` have an order from `state` on.
fn explains(events: &[Event], done: u64, state: State, tried: &mut HashSet<(u64, State)>) -> bool {
    let rest = || (0..events.len()).filter(move |event| done >> event & 1 == 0);
    let Some(first_end) = rest().map(|event| events[event].ended).min() else { return true };
    if !tried.insert((done, state)) {
        return false;
    }
    let mut candidates = rest().filter(|event| events[*event].begun <= first_end);
    candidates.any(|event| {
        after(&events[event].call, state)
            .is_some_and(|next| explains(events, done | 1 << event, next, tried))
    })
}

/// The state after the call; none where its answer is wrong.
fn after(call: &Call, mut state: State) -> Option<State> {
    match call {
        Call::Write(changes) => {
            changes.iter().for_each(|(key, value)| state[*key] = *value);
            Some(state)
        }
        Call::Read(key, found) => (state[*key] == *found).then_some(state),
        Call::ReadAll(found) => (state == *found).then_some(state),
    }
}
