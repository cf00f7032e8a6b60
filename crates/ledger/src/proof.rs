//! Inclusion and consistency proofs, RFC 6962 §2.1.
//!
//! Proving needs hashes of subtrees, which an [`Entries`] supplies: level `L` holds the roots of the
//! complete subtrees of 256^L leaves, in order, as tlog-tiles lays them out. Verifying needs nothing
//! but the proof and the roots.

use crate::{Error, Hash, Result};

/// Levels of 256-wide tiles: entry `i` of level `L` is the root over leaves `i·256^L ‥ (i+1)·256^L`.
pub trait Entries {
    /// `count` entries of `level` from entry `start` on; an error when they do not exist.
    fn entries(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>>;

    /// Root of the complete subtree of 2^height leaves number `index`.
    fn node(&self, height: u32, index: u64) -> Result<Hash> {
        let (level, within) = (height / 8, height % 8);
        fold(self.entries(level, index << within, 1 << within)?)
    }
}

/// A tree held in memory, for small trees such as one revision's operations.
impl Entries for [Hash] {
    fn entries(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>> {
        let shift = 8 * level;
        let out_of = Error::OutOfTree { index: start + count, size: self.len() as u64 };
        if (start + count) << shift > self.len() as u64 {
            return Err(out_of);
        }
        (start..start + count).map(|index| fold(self[span(index, shift)].to_vec())).collect()
    }
}

fn span(index: u64, shift: u32) -> std::ops::Range<usize> {
    let bound = |index: u64| usize::try_from(index << shift).expect("the span lies inside a slice");
    bound(index)..bound(index + 1)
}

/// Root of a complete tree given by its lowest row.
fn fold(mut row: Vec<Hash>) -> Result<Hash> {
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| Hash::of_node(&pair[0], &pair[1])).collect();
    }
    row.pop().ok_or(Error::OutOfTree { index: 0, size: 0 })
}

/// Root over the leaves `start‥end`, where `start` is a multiple of the power of two that covers them.
fn range<E: Entries + ?Sized>(tree: &E, start: u64, end: u64) -> Result<Hash> {
    let width = end - start;
    if width.is_power_of_two() {
        return tree.node(width.trailing_zeros(), start >> width.trailing_zeros());
    }
    let middle = start + split(width);
    Ok(Hash::of_node(&range(tree, start, middle)?, &range(tree, middle, end)?))
}

/// The largest power of two below `width`.
fn split(width: u64) -> u64 {
    1 << (u64::BITS - 1 - (width - 1).leading_zeros())
}

/// Root of the tree as it was when it had `size` leaves.
pub fn root_at<E: Entries + ?Sized>(tree: &E, size: u64) -> Result<Hash> {
    if size == 0 { Ok(Hash::of_empty_tree()) } else { range(tree, 0, size) }
}

/// Proof that leaf `index` is in the tree of `size` leaves: the siblings, lowest first.
pub fn inclusion_proof<E: Entries + ?Sized>(tree: &E, index: u64, size: u64) -> Result<Vec<Hash>> {
    if index >= size {
        return Err(Error::OutOfTree { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Proof that the tree of `old` leaves is the beginning of the tree of `new` leaves.
pub fn consistency_proof<E: Entries + ?Sized>(tree: &E, old: u64, new: u64) -> Result<Vec<Hash>> {
    if old > new {
        return Err(Error::OutOfTree { index: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut path = Vec::new();
    // Descends to the old tree's right edge; stops where a subtree ends exactly there.
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
        }
    }
    if start != 0 {
        path.push(range(tree, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks that `leaf` is number `index` in the tree of `size` leaves with this root.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<()> {
    if index >= size {
        return Err(Error::mismatch("leaf index and tree size"));
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return Err(Error::mismatch("length of the inclusion proof"));
        }
        if at % 2 == 1 || at == last {
            hash = Hash::of_node(sibling, &hash);
            let skip = if at % 2 == 1 { 0 } else { at.trailing_zeros() };
            (at, last) = (at >> skip, last >> skip);
        } else {
            hash = Hash::of_node(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 && hash == *root {
        Ok(())
    } else {
        Err(Error::mismatch("inclusion proof and root"))
    }
}

/// Checks that the tree of `old` leaves is the beginning of the tree of `new` leaves.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    path: &[Hash],
) -> Result<()> {
    let differs = || Error::mismatch("consistency proof and roots");
    let plain = |holds: bool| if path.is_empty() && holds { Ok(()) } else { Err(differs()) };
    match (old, new) {
        _ if old > new => return Err(differs()),
        (0, _) => return plain(*old_root == Hash::of_empty_tree()),
        _ if old == new => return plain(old_root == new_root),
        _ => {}
    }
    // An old tree that is complete is its own first node and is left out of the proof.
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, path)
    } else {
        path.split_first().map(|(first, rest)| (*first, rest)).ok_or_else(differs)?
    };
    let skip = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> skip, (new - 1) >> skip);
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(differs());
        }
        if at % 2 == 1 || at == last {
            old_hash = Hash::of_node(sibling, &old_hash);
            new_hash = Hash::of_node(sibling, &new_hash);
            let skip = if at % 2 == 1 { 0 } else { at.trailing_zeros() };
            (at, last) = (at >> skip, last >> skip);
        } else {
            new_hash = Hash::of_node(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 && old_hash == *old_root && new_hash == *new_root {
        Ok(())
    } else {
        Err(differs())
    }
}
