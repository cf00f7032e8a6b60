//! The nouns: a point, a series id, and the key order that both make together.
//!
//! Order is by series, then by time. Times are signed integers in the caller's unit (milliseconds
//! everywhere in this project); values are 64-bit floats kept bit for bit, NaN payloads included.

use std::fmt;

use crate::error::Error;

/// The largest distance of a time from zero. Differences of differences of such times fit in an `i64`.
pub const MAX_TIME: i64 = 1 << 60;

/// Names a series inside one index. Ids are never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When, in the caller's unit.
    pub time: i64,
    /// What was measured.
    pub value: f64,
}

impl Point {
    /// A point at `time`.
    #[must_use]
    pub fn new(time: i64, value: f64) -> Point {
        Point { time, value }
    }

    /// Equal in every bit: NaN equals the same NaN, 0.0 differs from -0.0.
    #[must_use]
    pub fn same_bits(&self, other: &Point) -> bool {
        self.time == other.time && self.value.to_bits() == other.value.to_bits()
    }
}

/// A place in the order of all points: series first, then time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The series.
    pub series: SeriesId,
    /// The time in it.
    pub time: i64,
}

impl Key {
    /// The place of `time` in `series`.
    #[must_use]
    pub fn new(series: SeriesId, time: i64) -> Key {
        Key { series, time }
    }
}

/// Refuses times that delta arithmetic could not hold.
pub(crate) fn check_time(time: i64) -> Result<(), Error> {
    if (-MAX_TIME..=MAX_TIME).contains(&time) { Ok(()) } else { Err(Error::TimeOutOfRange(time)) }
}
