//! Series by id: a table that grows and never moves, so that finding a series takes no lock.
//!
//! Segments double: segment `k` holds `1024 << k` slots. A slot is set once and stays.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::point::SeriesId;
use crate::series::Series;

const FIRST_SEGMENT_BITS: u32 = 10;
const SEGMENTS: usize = 33 - FIRST_SEGMENT_BITS as usize;

type Segment = Box<[OnceLock<Arc<Series>>]>;

pub(crate) struct Table {
    segments: [OnceLock<Segment>; SEGMENTS],
    /// One above the highest id that was ever set.
    end: AtomicU32,
}

/// Segment, place in it, and slots of that segment.
fn locate(id: SeriesId) -> (usize, usize, usize) {
    let place = u64::from(id.0) + (1 << FIRST_SEGMENT_BITS);
    let bits = place.ilog2();
    ((bits - FIRST_SEGMENT_BITS) as usize, (place - (1 << bits)) as usize, 1 << bits)
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { segments: [const { OnceLock::new() }; SEGMENTS], end: AtomicU32::new(0) }
    }

    /// The series of `id`, removed ones included.
    #[inline]
    pub(crate) fn get(&self, id: SeriesId) -> Option<&Arc<Series>> {
        let (segment, place, _) = locate(id);
        self.segments[segment].get()?[place].get()
    }

    /// Fills the slot of `id`, or gives back what is there already.
    pub(crate) fn insert(
        &self,
        id: SeriesId,
        series: Series,
    ) -> Result<&Arc<Series>, &Arc<Series>> {
        let (segment, place, slots) = locate(id);
        let slots = self.segments[segment]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(slots).collect());
        let mut inserted = false;
        let found = slots[place].get_or_init(|| {
            inserted = true;
            Arc::new(series)
        });
        // A `fetch_max` that ThreadSanitizer follows, too.
        let end = id.0.saturating_add(1);
        let raised = |before: u32| Some(before.max(end));
        let _always_some = self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised);
        if inserted { Ok(found) } else { Err(found) }
    }

    /// One above the highest id.
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// All live series with ids of `from..=to`, in order.
    pub(crate) fn range(&self, from: SeriesId, to: SeriesId) -> impl Iterator<Item = &Arc<Series>> {
        let end = self.end().min(to.0.saturating_add(1));
        (from.0..end).filter_map(|id| self.get(SeriesId(id))).filter(|series| !series.is_removed())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.range(SeriesId(0), SeriesId(u32::MAX))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ids_at_segment_edges_have_their_own_slots() {
        let table = Table::new();
        let ids = [0, 1, 1023, 1024, 3071, 3072, 100_000];
        for id in ids {
            assert!(table.insert(SeriesId(id), Series::new(SeriesId(id), None)).is_ok());
        }
        for id in ids {
            assert_eq!(table.get(SeriesId(id)).unwrap().id, SeriesId(id));
            assert!(table.insert(SeriesId(id), Series::new(SeriesId(id), None)).is_err());
        }
        assert!(table.get(SeriesId(2)).is_none());
        assert!(table.get(SeriesId(u32::MAX)).is_none());
        assert_eq!(table.iter().map(|s| s.id.0).collect::<Vec<_>>(), ids);
        assert_eq!(locate(SeriesId(u32::MAX)).0, SEGMENTS - 1);
    }
}
