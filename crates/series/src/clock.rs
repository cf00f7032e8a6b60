//! What time it is, in the unit of the points: only retention by age asks.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in the unit of the points.
///
/// ```
/// use chronolith_series::Clock;
/// let seconds = Clock::new(|| Clock::unix_millis().now() / 1000);
/// assert!(seconds.now() > 1_700_000_000);
/// ```
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// Milliseconds since 1970, the unit of times everywhere in this project.
    #[must_use]
    pub fn unix_millis() -> Clock {
        Clock::new(|| {
            // Before 1970 the system's clock is not set: then nothing is old.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// For points in another unit, or a time that a test sets.
    #[must_use]
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
