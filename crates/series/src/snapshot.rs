//! Snapshots: views of many series that never change.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crate::point::{MAX_TIME, Point, SeriesId};
use crate::series::{Series, View};

/// An unchanging view of series. Blocks are shared with the index, not copied.
#[derive(Clone)]
pub struct Snapshot {
    /// Sorted by id.
    views: Vec<(SeriesId, View)>,
}

impl Snapshot {
    pub(crate) fn of<'a>(series: impl Iterator<Item = &'a Arc<Series>>) -> Snapshot {
        let views = series.map(|series| (series.id, series.view(-MAX_TIME, MAX_TIME)));
        Snapshot { views: views.collect() }
    }

    fn view(&self, series: SeriesId) -> Option<&View> {
        let at = self.views.binary_search_by_key(&series, |(id, _)| *id).ok()?;
        Some(&self.views[at].1)
    }

    /// The series in it.
    pub fn series(&self) -> impl Iterator<Item = SeriesId> {
        self.views.iter().map(|(id, _)| *id)
    }

    /// The value of a series at a time.
    #[must_use]
    pub fn get(&self, series: SeriesId, time: i64) -> Option<f64> {
        self.view(series)?.get(time)
    }

    /// All points of a series in `times`, in order.
    #[must_use]
    pub fn range(&self, series: SeriesId, times: RangeInclusive<i64>) -> Vec<Point> {
        let mut out = Vec::new();
        if let Some(view) = self.view(series) {
            view.copy((*times.start()).max(-MAX_TIME), (*times.end()).min(MAX_TIME), &mut out);
        }
        out
    }

    /// Every point of a series, in order, block by block.
    #[must_use]
    pub fn iter(&self, series: SeriesId) -> Points<'_> {
        Points::new(self.view(series), -MAX_TIME, MAX_TIME)
    }

    /// Shows the points of several series in `times` in one order by time, then by series.
    pub fn visit_by_time(
        &self,
        series: &[SeriesId],
        times: RangeInclusive<i64>,
        mut see: impl FnMut(SeriesId, Point) -> ControlFlow<()>,
    ) {
        let (low, high) = ((*times.start()).max(-MAX_TIME), (*times.end()).min(MAX_TIME));
        let mut sources: Vec<Points<'_>> =
            series.iter().map(|id| Points::new(self.view(*id), low, high)).collect();
        let mut heads: Vec<Option<Point>> = sources.iter_mut().map(Iterator::next).collect();
        let key = |at: usize, point: &Point| Reverse((point.time, series[at], at));
        let mut next: BinaryHeap<_> =
            heads.iter().enumerate().filter_map(|(at, p)| Some(key(at, p.as_ref()?))).collect();
        while let Some(Reverse((_, id, at))) = next.pop() {
            let Some(point) = heads[at] else { continue };
            if see(id, point).is_break() {
                return;
            }
            heads[at] = sources[at].next();
            next.extend(heads[at].as_ref().map(|point| key(at, point)));
        }
    }
}

/// The points of one series of a snapshot.
pub struct Points<'a> {
    view: Option<&'a View>,
    low: i64,
    high: i64,
    piece: usize,
    points: Vec<Point>,
    at: usize,
}

impl<'a> Points<'a> {
    fn new(view: Option<&'a View>, low: i64, high: i64) -> Points<'a> {
        Points { view, low, high, piece: 0, points: Vec::new(), at: 0 }
    }
}

impl Iterator for Points<'_> {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        while self.at >= self.points.len() {
            let view = self.view.filter(|view| self.piece < view.pieces())?;
            self.points.clear();
            view.piece(self.piece, self.low, self.high, &mut self.points);
            (self.piece, self.at) = (self.piece + 1, 0);
        }
        self.at += 1;
        Some(self.points[self.at - 1])
    }
}
