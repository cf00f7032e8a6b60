//! Aggregates over windows of time: count, sum, least, greatest, first, last, increase and rate.

use std::ops::{ControlFlow, RangeInclusive};

use crate::index::Index;
use crate::point::{Key, Point, SeriesId};

/// What one window of one series holds. Windows without points are not reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Where the window starts; it ends before `start + width`.
    pub start: i64,
    /// All points, NaN included.
    pub count: u64,
    /// Points whose value is NaN: left out of everything below except `first` and `last`.
    pub nan_count: u64,
    /// Sum of the values.
    pub sum: f64,
    /// The least value; infinity if there is none.
    pub min: f64,
    /// The greatest value; minus infinity if there is none.
    pub max: f64,
    /// The earliest point.
    pub first: Point,
    /// The latest point.
    pub last: Point,
    /// How much a counter grew inside the window: a fall counts as a restart from zero.
    pub increase: f64,
}

impl Window {
    fn new(start: i64, first: Point) -> Window {
        Window {
            start,
            count: 0,
            nan_count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            first,
            last: first,
            increase: 0.0,
        }
    }

    fn add(&mut self, point: Point, before: Option<f64>) {
        self.count += 1;
        self.last = point;
        if point.value.is_nan() {
            self.nan_count += 1;
            return;
        }
        self.sum += point.value;
        self.min = self.min.min(point.value);
        self.max = self.max.max(point.value);
        self.increase += match before {
            Some(before) if point.value < before => point.value,
            Some(before) => point.value - before,
            None => 0.0,
        };
    }

    /// The mean of the values that are not NaN.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let counted = self.count - self.nan_count;
        (counted > 0).then(|| self.sum / counted as f64)
    }

    /// The increase in `unit` of time, between the first point and the last; `None` if they are one.
    #[must_use]
    pub fn rate(&self, unit: i64) -> Option<f64> {
        let elapsed = self.last.time - self.first.time;
        (elapsed > 0).then(|| self.increase / elapsed as f64 * unit as f64)
    }
}

impl Index {
    /// Aggregates the points of `times` in windows of `width`, the first one starting with `times`.
    ///
    /// ```
    /// use chronolith_series::Index;
    /// let index = Index::new();
    /// let id = index.register_id(chronolith_series::SeriesId(7))?;
    /// for second in 0..120 {
    ///     index.append(id, second * 1000, (second * 5) as f64)?;
    /// }
    /// let minutes = index.aggregate(id, 0..=119_999, 60_000);
    /// assert_eq!(minutes.len(), 2);
    /// assert_eq!((minutes[0].count, minutes[0].max), (60, 295.0));
    /// assert_eq!(minutes[1].rate(1000), Some(5.0));
    /// # Ok::<(), chronolith_series::Error>(())
    /// ```
    ///
    /// A `width` below one is taken as one.
    #[must_use]
    pub fn aggregate(
        &self,
        series: SeriesId,
        times: RangeInclusive<i64>,
        width: i64,
    ) -> Vec<Window> {
        let (start, width) = (*times.start(), width.max(1));
        let mut windows: Vec<Window> = Vec::new();
        let mut before = None;
        self.visit(Key::new(series, start)..=Key::new(series, *times.end()), |_, point| {
            // Through i128: a range may start anywhere.
            let ahead = i128::from(point.time) - i128::from(start);
            let at = (i128::from(start) + ahead / i128::from(width) * i128::from(width)) as i64;
            if windows.last().is_none_or(|window| window.start != at) {
                windows.push(Window::new(at, point));
                before = None;
            }
            if let Some(window) = windows.last_mut() {
                window.add(point, before);
            }
            if !point.value.is_nan() {
                before = Some(point.value);
            }
            ControlFlow::Continue(())
        });
        windows
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn windows_count_nan_apart_and_see_counter_restarts() {
        let index = Index::new();
        let id = index.register_id(SeriesId(0)).unwrap();
        let values = [1.0, 3.0, f64::NAN, 2.0, 4.0, f64::INFINITY];
        for (at, value) in values.iter().enumerate() {
            index.append(id, at as i64 * 10, *value).unwrap();
        }
        let windows = index.aggregate(id, 0..=100, 50);
        assert_eq!(windows.len(), 2);
        let first = windows[0];
        assert_eq!((first.count, first.nan_count, first.sum), (5, 1, 10.0));
        assert_eq!((first.min, first.max), (1.0, 4.0));
        // 1→3, restart to 2, 2→4.
        assert_eq!(first.increase, 2.0 + 2.0 + 2.0);
        assert_eq!(first.rate(40), Some(6.0));
        assert_eq!(first.mean(), Some(2.5));
        assert_eq!(windows[1].max, f64::INFINITY);
        assert_eq!(windows[1].rate(1), None);
        assert!(index.aggregate(id, 200..=300, 10).is_empty());
        assert_eq!(index.aggregate(id, i64::MIN..=i64::MAX, i64::MAX).len(), 1);
    }
}
