//! Which ranges hold a key.
//!
//! ```text
//! sorted by start, as an implicit balanced tree; each middle also knows the greatest end below it
//!             [m..q) ≤z
//!     [d..n) ≤n        [x..y) ≤z         a key before the start of a middle never looks right of it,
//!  [a..b)  [f..g)   [n..z)  [y..z)       a key after the greatest end never looks below it
//! ```
//! A lookup costs O(log n + found). New ranges wait in a short list that is searched whole, until it
//! is worth sorting all again; removed ones are marked, until it is worth sweeping. So a burst of
//! registrations or cancellations costs no rebuild each.

use bytes::Bytes;

/// So many new ranges may wait, at least: scanning them costs about as much as a tree lookup.
const MIN_WAITING: usize = 32;

/// An end; none is greater than all.
type End = Option<Bytes>;

struct Node<T> {
    start: Bytes,
    end: End,
    greatest: End,
    /// None once removed.
    value: Option<T>,
}

/// Ranges with a value each, found by a key inside. See the module.
pub(crate) struct Intervals<T> {
    sorted: Vec<Node<T>>,
    waiting: Vec<Node<T>>,
    removed: usize,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { sorted: Vec::new(), waiting: Vec::new(), removed: 0 }
    }
}

impl<T: Copy + Eq> Intervals<T> {
    pub(crate) fn insert(&mut self, start: Bytes, end: End, value: T) {
        self.waiting.push(Node { start, end, greatest: None, value: Some(value) });
        if self.waiting.len() > MIN_WAITING.max(self.sorted.len() / 8) {
            self.rebuild();
        }
    }

    /// Removes the range that was inserted with this start and value.
    pub(crate) fn remove(&mut self, start: &[u8], value: T) {
        if let Some(at) = self.waiting.iter().position(|node| node.value == Some(value)) {
            self.waiting.swap_remove(at);
            return;
        }
        let from = self.sorted.partition_point(|node| node.start < start);
        let mut equal = self.sorted[from..].iter_mut().take_while(|node| node.start == start);
        if let Some(node) = equal.find(|node| node.value == Some(value)) {
            node.value = None;
            self.removed += 1;
        }
        if self.removed > MIN_WAITING.max(self.sorted.len() / 2) {
            self.rebuild();
        }
    }

    /// Calls `found` with the value of every range that holds `key`.
    pub(crate) fn containing(&self, key: &[u8], found: &mut impl FnMut(T)) {
        search(&self.sorted, key, found);
        self.waiting.iter().for_each(|node| node.report(key, found));
    }

    fn rebuild(&mut self) {
        self.sorted.append(&mut self.waiting);
        self.sorted.retain(|node| node.value.is_some());
        self.removed = 0;
        self.sorted.sort_by(|a, b| a.start.cmp(&b.start));
        set_greatest(&mut self.sorted);
    }
}

impl<T: Copy> Node<T> {
    fn report(&self, key: &[u8], found: &mut impl FnMut(T)) {
        match self.value {
            Some(value) if self.start <= key && is_before(key, &self.end) => found(value),
            _ => {}
        }
    }
}

fn is_before(key: &[u8], end: &End) -> bool {
    end.as_ref().is_none_or(|end| key < &end[..])
}

fn greater(a: End, b: End) -> End {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    }
}

/// Sets every node's greatest end, and answers that of all; an empty end is smaller than all keys.
fn set_greatest<T>(nodes: &mut [Node<T>]) -> End {
    let (left, rest) = nodes.split_at_mut(nodes.len() / 2);
    let Some((node, right)) = rest.split_first_mut() else { return Some(Bytes::new()) };
    let below = greater(set_greatest(left), set_greatest(right));
    node.greatest = greater(node.end.clone(), below);
    node.greatest.clone()
}

fn search<T: Copy>(nodes: &[Node<T>], key: &[u8], found: &mut impl FnMut(T)) {
    let (left, rest) = nodes.split_at(nodes.len() / 2);
    let Some((node, right)) = rest.split_first() else { return };
    if !is_before(key, &node.greatest) {
        return;
    }
    search(left, key, found);
    if node.start <= key {
        node.report(key, found);
        search(right, key, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn finds_exactly_the_ranges_that_hold_the_key(
            ranges in vec((0u8..40, option::of(0u8..40)), 0..200),
            removed in vec(0usize..200, 0..150),
        ) {
            let bytes = |byte: u8| Bytes::from(vec![byte]);
            let mut intervals = Intervals::default();
            let mut model = BTreeMap::new();
            for (index, (start, end)) in ranges.iter().enumerate() {
                intervals.insert(bytes(*start), end.map(bytes), index);
                model.insert(index, (*start, *end));
            }
            for index in removed {
                if let Some((start, _)) = model.remove(&index) {
                    intervals.remove(&[start], index);
                }
            }
            for key in 0u8..42 {
                let mut found = Vec::new();
                intervals.containing(&[key], &mut |index| found.push(index));
                found.sort_unstable();
                let holds = |(start, end): &(u8, Option<u8>)| {
                    *start <= key && end.is_none_or(|end| key < end)
                };
                let expected = model.iter().filter(|(_, range)| holds(range)).map(|(i, _)| *i);
                prop_assert_eq!(found, expected.collect::<Vec<_>>());
            }
        }
    }
}
