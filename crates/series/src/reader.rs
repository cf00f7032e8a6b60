//! A reader of one thread: it keeps the block lists it has seen and locks only when one has changed.
//!
//! A lock, even for reading, writes to memory that all readers share, and is a barrier to the processor:
//! no load behind it starts early. Here a lookup is loads only, so that many of them overlap. What keeps
//! a copy honest is `Signals`: one shared line per series that is written when a block is linked,
//! replaced or removed, and read on every use of the copy. While a series has late points, its reader
//! takes the locked way.
//!
//! The price: blocks that were removed stay in memory until every reader that saw them asks for the
//! series again, or is dropped.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::block::Closed;
use crate::blocks::BlockList;
use crate::index::{Index, clamp};
use crate::point::{Key, Point, SeriesId};
use crate::series::Series;

/// Lookups in flight: about as many misses as a core can have outstanding.
const LANES: usize = 16;
/// Ranges in flight: each of them is several misses by itself.
const RANGE_LANES: usize = 4;

/// Answers lookups and ranges for one thread.
///
/// ```
/// use chronolith_series::{Index, Key, SeriesId};
/// let index = Index::new();
/// let id = index.register_id(SeriesId(3))?;
/// index.append(id, 1000, 1.5)?;
/// let mut reader = index.reader();
/// assert_eq!(reader.get(id, 1000), Some(1.5));
/// index.append(id, 2000, 2.5)?;
/// let mut values = Vec::new();
/// reader.get_many(&[Key::new(id, 2000), Key::new(id, 3000)], &mut values);
/// assert_eq!(values, [Some(2.5), None]);
/// # Ok::<(), chronolith_series::Error>(())
/// ```
pub struct Reader {
    index: Index,
    /// By id; grown when a higher one is asked for.
    copies: Vec<Option<Copy>>,
}

struct Copy {
    series: Arc<Series>,
    version: u64,
    blocks: BlockList,
}

impl Copy {
    #[inline]
    fn holds(&self) -> bool {
        self.series.signals.version() == Some(self.version)
    }
}

impl Reader {
    pub(crate) fn new(index: Index) -> Reader {
        Reader { index, copies: Vec::new() }
    }

    /// A block list that holds at this moment; `None` if the locked way must be taken.
    #[inline]
    fn list(&mut self, id: SeriesId) -> Option<&BlockList> {
        let at = id.0 as usize;
        let holds = matches!(self.copies.get(at), Some(Some(copy)) if copy.holds());
        if !holds {
            self.renew(id);
        }
        let copy = self.copies.get(at)?.as_ref()?;
        // Renewed or not: with late points in the side the list alone does not answer.
        (holds || copy.holds()).then_some(&copy.blocks)
    }

    #[cold]
    fn renew(&mut self, id: SeriesId) {
        let Some(series) = self.index.inner.table.get(id) else { return };
        let at = id.0 as usize;
        if self.copies.len() <= at {
            self.copies.resize_with(at + 1, || None);
        }
        if series.signals.version().is_some() {
            let (version, blocks) = series.list();
            self.copies[at] = Some(Copy { series: Arc::clone(series), version, blocks });
        }
    }

    /// The value of a series at a time.
    #[inline]
    pub fn get(&mut self, series: SeriesId, time: i64) -> Option<f64> {
        match self.list(series) {
            Some(list) => list.get(time, usize::MAX),
            None => self.index.get(series, time),
        }
    }

    /// Appends all points of a series in `times`, in order, to `out`.
    #[inline]
    pub fn range_into(
        &mut self,
        series: SeriesId,
        times: RangeInclusive<i64>,
        out: &mut Vec<Point>,
    ) {
        match self.list(series) {
            Some(list) => {
                let (low, high) = clamp(&times);
                if low <= high {
                    list.copy(low, high, usize::MAX, out);
                }
            }
            None => self.index.range_into(series, times, out),
        }
    }

    /// Many ranges at once: the points of all of them, in the order asked, appended to `out`; `ends` gets
    /// for each range where in `out` its points end. Faster than one by one for the reason of
    /// [`Reader::get_many`].
    pub fn ranges_into(
        &mut self,
        ranges: &[(SeriesId, RangeInclusive<i64>)],
        out: &mut Vec<Point>,
        ends: &mut Vec<usize>,
    ) {
        for lanes in ranges.chunks(RANGE_LANES) {
            for (series, times) in lanes {
                let (low, high) = clamp(times);
                if let Some(list) = self.list(*series)
                    && let Some((closed, near, far)) = list.guess_range(low, high)
                {
                    closed.touch(near, far.max(near));
                }
            }
            for (series, times) in lanes {
                self.range_into(*series, times.clone(), out);
                ends.push(out.len());
            }
        }
    }

    /// Many lookups at once, answered in the order asked and appended to `out`: several times as fast
    /// as one by one when the points are not in the processor's caches, because their misses overlap.
    pub fn get_many(&mut self, keys: &[Key], out: &mut Vec<Option<f64>>) {
        keys.chunks(LANES).for_each(|keys| self.get_lanes(keys, out));
    }

    /// In stages, each for all lanes: lists, guessed places, what lies there, and only then judgement.
    fn get_lanes(&mut self, keys: &[Key], out: &mut Vec<Option<f64>>) {
        let mut usable = [false; LANES];
        for (lane, key) in keys.iter().enumerate() {
            usable[lane] = self.list(key.series).is_some();
        }
        let mut guessed: [Option<(&Closed, usize)>; LANES] = [None; LANES];
        for (lane, key) in keys.iter().enumerate().filter(|(lane, _)| usable[*lane]) {
            let copy = self.copies[key.series.0 as usize].as_ref();
            guessed[lane] = copy.and_then(|copy| copy.blocks.guess_closed(key.time));
        }
        // No point has this time: a lane without a guess is never right.
        let mut found = [(i64::MIN, 0.0); LANES];
        for (found, guess) in found.iter_mut().zip(&guessed) {
            if let Some((closed, at)) = guess {
                *found = (closed.time(*at), closed.value(*at));
            }
        }
        for ((time, value), key) in found.iter().zip(keys) {
            let right = *time == key.time && *time != i64::MIN;
            out.push(if right { Some(*value) } else { self.get(key.series, key.time) });
        }
    }
}
