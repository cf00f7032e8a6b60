//! Admission: how many requests may wait at the same time.

use crate::error::StoreError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The requests that wait; see the module.
#[derive(Debug)]
pub(crate) struct Admission {
    waiting: AtomicUsize,
    limit: usize,
    closed: AtomicBool,
}

/// A request that was let in; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted<'a>(&'a Admission);

impl Admission {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), limit, closed: AtomicBool::new(false) }
    }

    pub(crate) fn enter(&self) -> Result<Admitted<'_>, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Stopped);
        }
        let admitted = Admitted(self);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.limit {
            return Err(StoreError::TooManyRequests);
        }
        Ok(admitted)
    }

    /// Lets nobody in any more. True the first time.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_places_come_back() {
        let admission = Admission::new(2);
        let first = admission.enter().unwrap();
        let _second = admission.enter().unwrap();
        assert!(matches!(admission.enter(), Err(StoreError::TooManyRequests)));
        drop(first);
        let _third = admission.enter().unwrap();
    }

    #[test]
    fn after_closing_nobody_enters() {
        let admission = Admission::new(2);
        assert!(admission.close());
        assert!(!admission.close());
        assert!(matches!(admission.enter(), Err(StoreError::Stopped)));
    }
}
