//! A range that is answered bit by bit: what is soon answered is answered where it was asked, and what is
//! not can be finished elsewhere, with nothing of the work lost.
//!
//! ```text
//! begin ─▶ keys, keys, keys ─ pause ─▶ Paused(listing) ──▶ finish: the rest, or the rest of the count
//!                   └ end ─▶ Answered
//! ```
//! Invariant: all of it is read in one snapshot, however long it takes; only where the keys that follow
//! the wanted ones are counted by blocks is the newest revision read instead, at which the answer says it was.

use crate::{
    Reader, Result,
    range::{Advanced, Pause, RangeResult, Ranging, View},
};
use chronolith_engine::Snapshot;
use chronolith_proto::etcdserverpb::RangeRequest;
use std::sync::Arc;

/// What came of a range that was begun.
pub enum Begun {
    /// The answer.
    Answered(RangeResult),
    /// There is more to do.
    Paused(Box<Listing>),
}

/// A range that is being answered; see the module.
pub struct Listing {
    pub(crate) reader: Reader,
    pub(crate) request: RangeRequest,
    pub(crate) snapshot: Arc<dyn Snapshot>,
    pub(crate) current: i64,
    pub(crate) compact: i64,
    pub(crate) ranging: Ranging,
    /// So many keys beyond the wanted ones are looked at; of more, the count is planned.
    pub(crate) most: usize,
    pub(crate) max_bytes: usize,
}

impl Listing {
    /// Goes on to the end or to the next pause. A listing that was paused because many keys are to be
    /// counted does not pause again.
    ///
    /// # Errors
    /// As [`Reader::begin_range`].
    pub fn advance(mut self, pause: &Pause) -> Result<Begun> {
        let was_many = self.ranging.found_more_than(self.most);
        Ok(match self.step(pause)? {
            Advanced::ToTheEnd => Begun::Answered(self.ranging.finish(self.current)),
            Advanced::Many if was_many || self.reader.has_counted(&self.request) => {
                Begun::Answered(self.reader.list_by_plan(&self.request, self.max_bytes)?)
            }
            Advanced::Many | Advanced::Paused => Begun::Paused(Box::new(self)),
        })
    }

    fn step(&mut self, pause: &Pause) -> Result<Advanced> {
        let view = View {
            source: &*self.snapshot,
            versions: self.reader.core.columns.versions,
            current: self.current,
            compact: self.compact,
        };
        self.ranging.advance(&view, pause, self.most)
    }
}
