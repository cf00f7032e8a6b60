//! The keys of a span as they were at one revision.
//!
//! ```text
//! a!9 a!7 a!2 │ b!8† │ c!12 c!6 c!5 ...      at revision 8: a!7, c!6 (b is deleted)
//!      ▲               seek ──▲
//! ```
//! The cursor takes a few steps and then seeks: keys with one or two versions cost a step each, and
//! a key with thousands of versions costs one seek, not thousands of steps.

use crate::{
    Error, Result,
    core::{Head, head},
    key,
    record::Record,
    span::Span,
};
use bytes::Bytes;
use chronolith_engine::{ColumnId, Cursor, KeyRange, Overlay, Snapshot};
use chronolith_proto::mvccpb::KeyValue;
use std::{cell::Cell, ops::ControlFlow};

/// A seek in a tree of a million keys costs about as much as this many steps.
const STEPS_BEFORE_SEEK: u32 = 4;

/// Something that has ordered columns: a snapshot, or a transaction over one.
pub(crate) trait Source {
    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>>;
}

impl Source for dyn Snapshot + '_ {
    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        Ok(Snapshot::cursor(self, column, range)?)
    }
}

impl Source for Overlay {
    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        Ok(self.cursor(column, range)?)
    }
}

/// A live key under the cursor. Nothing is copied or decoded until asked for.
pub(crate) struct Entry<'a> {
    cursor: &'a dyn Cursor,
}

impl Entry<'_> {
    pub(crate) fn key(&self) -> Bytes {
        key::user_key(&self.cursor.key_bytes())
    }

    pub(crate) fn head(&self) -> Result<Head> {
        head(self.cursor.key(), &self.cursor.value_bytes())
    }

    /// All but the value, of which nothing is copied.
    pub(crate) fn key_without_value(&self) -> Result<KeyValue> {
        let (_, revision) = split(self.cursor.key())?;
        let record = Record::decode_without_value(self.cursor.value())?;
        Ok(record.into_key_value(self.key(), revision.main))
    }

    pub(crate) fn key_value(&self) -> Result<KeyValue> {
        let Head { revision, record } = self.head()?;
        let record = record.ok_or(Error::Corrupt { what: "version of a key" })?;
        Ok(record.into_key_value(self.key(), revision))
    }
}

/// Shows `visit` every key of `span` that lives at revision `at`, in key order, until it breaks.
pub(crate) fn scan(
    source: &(impl Source + ?Sized),
    versions: ColumnId,
    span: &Span,
    at: i64,
    visit: impl FnMut(Entry<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let whole = Stretch { from: None, keys: &Cell::new(usize::MAX) };
    scan_stretch(source, versions, span, at, &whole, visit).map(drop)
}

/// A part of a scan.
pub(crate) struct Stretch<'a> {
    /// Where it begins: where the one before ended, or at the beginning.
    pub(crate) from: Option<&'a Bytes>,
    /// So many more keys are looked at, living ones and others; whoever visits may lower it.
    pub(crate) keys: &'a Cell<usize>,
}

/// The same for a stretch of the span; where the next one begins, unless this was the last or `visit`
/// broke.
pub(crate) fn scan_stretch(
    source: &(impl Source + ?Sized),
    versions: ColumnId,
    span: &Span,
    at: i64,
    stretch: &Stretch<'_>,
    mut visit: impl FnMut(Entry<'_>) -> Result<ControlFlow<()>>,
) -> Result<Option<Bytes>> {
    if span.is_empty() {
        return Ok(None);
    }
    let mut cursor = source.cursor(versions, key::range(span))?;
    let mut prefix = Vec::new();
    match stretch.from {
        None => cursor.seek_to_first()?,
        Some(from) => cursor.seek(from)?,
    }
    while cursor.valid() {
        match stretch.keys.get() {
            0 => return Ok(Some(cursor.key_bytes())),
            keys => stretch.keys.set(keys - 1),
        }
        let (found, revision) = split(cursor.key())?;
        prefix.clear();
        prefix.extend_from_slice(found);
        if revision.main > at {
            skip_newer(&mut *cursor, &mut prefix, at)?;
            if !cursor.valid() || !cursor.key().starts_with(&prefix) {
                continue;
            }
        }
        if !Record::is_tombstone(cursor.value()) && visit(Entry { cursor: &*cursor })?.is_break() {
            return Ok(None);
        }
        skip_older(&mut *cursor, &mut prefix)?;
    }
    Ok(None)
}

/// To the first version of this key that is not newer than `at`, or past the key.
fn skip_newer(cursor: &mut dyn Cursor, prefix: &mut Vec<u8>, at: i64) -> Result<()> {
    for _ in 0..STEPS_BEFORE_SEEK {
        cursor.next()?;
        if !cursor.valid() || !cursor.key().starts_with(prefix) || split(cursor.key())?.1.main <= at
        {
            return Ok(());
        }
    }
    let length = prefix.len();
    key::push_revision(prefix, key::newest_at(at));
    cursor.seek(prefix)?;
    prefix.truncate(length);
    Ok(())
}

/// To the next key.
fn skip_older(cursor: &mut dyn Cursor, prefix: &mut [u8]) -> Result<()> {
    for _ in 0..STEPS_BEFORE_SEEK {
        cursor.next()?;
        if !cursor.valid() || !cursor.key().starts_with(prefix) {
            return Ok(());
        }
    }
    key::turn_into_end(prefix);
    Ok(cursor.seek(prefix)?)
}

fn split(version: &[u8]) -> Result<(&[u8], key::Revision)> {
    key::split(version).ok_or(Error::Corrupt { what: "key of a version" })
}
