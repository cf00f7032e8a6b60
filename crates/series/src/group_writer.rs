//! Appending rows: the owner of a whole group of series.

use std::sync::Arc;

use crate::block::BLOCK_POINTS;
use crate::blocks::BlockRef;
use crate::budget::{Wait, Waited};
use crate::error::Error;
use crate::group::{GROUP_ROWS, GroupBlock, Layout};
use crate::index::Inner;
use crate::point::{MAX_TIME, SeriesId, check_time};
use crate::writer::Writer;

/// The right to append rows to a group of series that are always measured together.
///
/// ```
/// use chronolith_series::{Index, SeriesId};
/// let index = Index::new();
/// let ids: Vec<SeriesId> = (0..3).map(|id| index.register_id(SeriesId(id))).collect::<Result<_, _>>()?;
/// let mut group = index.group(&ids)?;
/// group.append_row(1000, &[1.0, 2.0, 3.0])?;
/// assert_eq!(index.get(ids[2], 1000), Some(3.0));
/// # Ok::<(), chronolith_series::Error>(())
/// ```
pub struct GroupWriter<'i> {
    block: Option<Arc<GroupBlock>>,
    used: usize,
    last: i64,
    wait: Wait,
    layout: Layout,
    index: &'i Inner,
    members: Vec<Writer<'i>>,
}

impl<'i> GroupWriter<'i> {
    pub(crate) fn new(index: &'i Inner, mut members: Vec<Writer<'i>>) -> GroupWriter<'i> {
        let last = members.iter().map(Writer::newest).max().unwrap_or(i64::MIN);
        members.iter_mut().for_each(Writer::close_block);
        GroupWriter {
            block: None,
            used: GROUP_ROWS,
            last,
            wait: index.options.wait,
            layout: Layout::new(members.len()),
            index,
            members,
        }
    }

    /// The series of this group, in the order of a row's values.
    pub fn series(&self) -> impl Iterator<Item = SeriesId> {
        self.members.iter().map(Writer::series)
    }

    /// Sets what this writer does when the memory budget is full.
    pub fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
        self.members.iter_mut().for_each(|member| member.set_wait(wait));
    }

    /// Appends one value to each series of the group, all at `time`. Readable when it returns.
    ///
    /// # Errors
    /// A row of another width, a time out of range or older than retention keeps, or no memory within
    /// the time allowed. A row in order is then stored not at all; a late row may be stored in part.
    #[inline]
    pub fn append_row(&mut self, time: i64, values: &[f64]) -> Result<Waited, Error> {
        if values.len() == self.members.len()
            && time > self.last
            && time <= MAX_TIME
            && self.used < GROUP_ROWS
            && let Some(block) = &self.block
        {
            block.append(self.used, time, values);
            self.used += 1;
            self.last = time;
            return Ok(Waited::NOT);
        }
        self.append_slowly(time, values)
    }

    #[cold]
    #[inline(never)]
    fn append_slowly(&mut self, time: i64, values: &[f64]) -> Result<Waited, Error> {
        let expected = self.members.len();
        if values.len() != expected {
            let width = Error::RowWidth { expected, got: values.len() };
            return Err(self.index.counters.refused(width));
        }
        check_time(time).map_err(|error| self.index.counters.refused(error))?;
        self.index.check_files()?;
        if time > self.last {
            self.open_block(time, values)
        } else {
            self.append_late(time, values)
        }
    }

    fn open_block(&mut self, time: i64, values: &[f64]) -> Result<Waited, Error> {
        let first = self.members[0].owned_series();
        let (charge, waited) = self.index.take(first, self.layout.size_bytes(), self.wait)?;
        let units = (0..self.layout.units()).map(|_| self.index.pool.take());
        let block = GroupBlock::new(self.layout, units.collect::<Result<_, _>>()?, charge);
        let block = Arc::new(block);
        block.append(0, time, values);
        for (column, member) in self.members.iter_mut().enumerate() {
            member.link(time, BlockRef::Column(Arc::clone(&block), column as u32));
        }
        (self.block, self.used, self.last) = (Some(block), 1, time);
        Ok(waited)
    }

    /// A late row is a late point of each series. Late points may fall into the open rows, which only
    /// this writer can close.
    fn append_late(&mut self, time: i64, values: &[f64]) -> Result<Waited, Error> {
        let mut waited = Waited::NOT;
        for (member, value) in self.members.iter_mut().zip(values) {
            member.set_newest(self.last);
            waited = waited.and(member.append(time, *value)?);
        }
        if self.block.is_some() && self.members.iter().any(|member| !member.is_in_open_group()) {
            self.close_block();
        }
        Ok(waited)
    }
}

impl GroupWriter<'_> {
    /// A member had to close its column to absorb late points: the rows start a new block.
    fn close_block(&mut self) {
        (self.block, self.used) = (None, GROUP_ROWS);
        self.members.iter_mut().for_each(Writer::close_block);
    }
}

impl Drop for GroupWriter<'_> {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(|member| member.set_newest(self.last));
        if self.block.is_some() {
            self.close_block();
        }
    }
}

const _: () = assert!(GROUP_ROWS == BLOCK_POINTS);
