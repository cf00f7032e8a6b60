//! Ranges whose keys are gone: disjoint, sorted, joined where they touch.

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound};

/// See the module. From start (in) to end (out).
#[derive(Default)]
pub(crate) struct Erased {
    ends: BTreeMap<Bytes, Bytes>,
}

impl Erased {
    /// Where nothing is gone.
    pub(crate) const NONE: &'static Self = &Self { ends: BTreeMap::new() };

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn into_ranges(self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.ends.into_iter()
    }

    /// Adds a range; `start < end`.
    pub(crate) fn insert(&mut self, mut start: Bytes, mut end: Bytes) {
        while let Some((other_start, other_end)) = self.touching(&start, &end) {
            self.ends.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ends.insert(start, end);
    }

    fn touching(&self, start: &Bytes, end: &Bytes) -> Option<(Bytes, Bytes)> {
        let (other, other_end) = self.ends.range::<Bytes, _>(..=end).next_back()?;
        (other_end >= start).then(|| (other.clone(), other_end.clone()))
    }

    /// The end of the range that holds `key`.
    pub(crate) fn end_of_range_with(&self, key: &[u8]) -> Option<&Bytes> {
        self.range_with(key).map(|(_, end)| end)
    }

    /// The start of the range that holds `key`.
    pub(crate) fn start_of_range_with(&self, key: &[u8]) -> Option<&Bytes> {
        self.range_with(key).map(|(start, _)| start)
    }

    fn range_with(&self, key: &[u8]) -> Option<(&Bytes, &Bytes)> {
        let bounds = (Bound::Unbounded, Bound::Included(key));
        self.ends.range::<[u8], _>(bounds).next_back().filter(|(_, end)| key < &end[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        let mut erased = Erased::default();
        for (start, end) in of {
            erased.insert((*start).into(), (*end).into());
        }
        erased.into_ranges().collect()
    }

    #[test]
    fn touching_ranges_are_joined() {
        assert_eq!(ranges(&[("a", "c"), ("c", "e")]), [("a".into(), "e".into())]);
        assert_eq!(ranges(&[("c", "e"), ("a", "c")]), [("a".into(), "e".into())]);
        assert_eq!(ranges(&[("a", "b"), ("d", "e"), ("a", "z")]), [("a".into(), "z".into())]);
        assert_eq!(ranges(&[("a", "z"), ("d", "e")]), [("a".into(), "z".into())]);
        assert_eq!(ranges(&[("a", "b"), ("d", "e")]).len(), 2);
    }

    #[test]
    fn the_end_is_out() {
        let mut erased = Erased::default();
        erased.insert("b".into(), "d".into());
        assert!(erased.end_of_range_with(b"a").is_none());
        assert!(erased.end_of_range_with(b"b").is_some());
        assert!(erased.start_of_range_with(b"cz").is_some());
        assert!(erased.end_of_range_with(b"d").is_none());
    }
}
