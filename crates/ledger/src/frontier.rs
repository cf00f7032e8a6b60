//! The right edge of the tree: all that is needed to append and to know the root.
//!
//! `peaks` holds the root of each complete subtree, largest first: one for each bit set in `size`.
//! Appending is adding one with carry: equal neighbours join.

use crate::Hash;

/// An append-only RFC 6962 tree of which only the right edge is kept.
///
/// ```
/// use chronolith_ledger::{Frontier, Hash};
/// let mut frontier = Frontier::default();
/// assert_eq!(frontier.root(), Hash::of_empty_tree());
/// frontier.append(Hash::of_leaf(b"first"));
/// assert_eq!((frontier.size(), frontier.root()), (1, Hash::of_leaf(b"first")));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A frontier from the roots of its complete subtrees, largest first. `None` when their number
    /// does not fit the size.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        self.append_with(leaf, |_, _| {});
    }

    /// Adds a leaf and hands out each subtree that it completes, with its height (the leaf's is 0).
    pub fn append_with(&mut self, leaf: Hash, mut completed: impl FnMut(u32, Hash)) {
        completed(0, leaf);
        let mut node = leaf;
        for height in 1..=self.size.trailing_ones() {
            let left = self.peaks.pop().expect("one peak for each bit set in the size");
            node = Hash::of_node(&left, &node);
            completed(height, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return Hash::of_empty_tree() };
        peaks.fold(last, |right, left| Hash::of_node(&left, &right))
    }
}

impl Extend<Hash> for Frontier {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.append(leaf));
    }
}
