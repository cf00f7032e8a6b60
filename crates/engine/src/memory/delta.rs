//! A large batch that everybody sees already, while the writer still puts it into the trees.
//!
//! ```text
//! get(key) ─▶ the batch's last change of key, if it has one ─▶ tree: before, in the midst of or after it
//! ```
//! What a reader finds does not depend on how much of the batch the trees already hold. So the batch
//! becomes visible as a whole when the delta is laid over a view, and goes into the trees in slices,
//! between which readers come in; no tree node is copied for it.

use crate::{
    ColumnId, Operation, WriteBatch,
    overlay::{Change, Changes},
};
use bytes::Bytes;
use std::ops::Bound;

/// See the module.
pub(super) struct Delta {
    /// By column and key, each key once.
    changes: Vec<Changed>,
}

/// What becomes of a key. Its bytes are a part of the batch's.
pub(super) struct Changed {
    column: ColumnId,
    key: Bytes,
    /// None where it is deleted.
    value: Option<Bytes>,
}

impl Changed {
    fn change(&self) -> Change<'_> {
        (&self.key, self.value.as_ref())
    }

    pub(super) fn operation(&self) -> Operation<'_> {
        match &self.value {
            Some(value) => Operation::Put(self.column, &self.key, value),
            None => Operation::Delete(self.column, &self.key),
        }
    }
}

impl Delta {
    /// The last change of each key. Ranges must not be among them.
    pub(super) fn new(batch: WriteBatch) -> Self {
        let (places, len) = (batch.sorted(), batch.len());
        let buffer = Bytes::from(batch.into_encoded());
        let mut changes: Vec<Changed> = Vec::with_capacity(len);
        for place in places {
            let changed = changed(&buffer, place);
            let same =
                |last: &&mut Changed| last.column == changed.column && last.key == changed.key;
            match changes.last_mut().filter(same) {
                Some(earlier) => *earlier = changed,
                None => changes.push(changed),
            }
        }
        Self { changes }
    }

    /// All changes.
    pub(super) fn changes(&self) -> &[Changed] {
        &self.changes
    }

    /// The changes of one column.
    pub(super) fn column(&self, column: ColumnId) -> Keys<'_> {
        let end = self.changes.partition_point(|changed| changed.column <= column);
        let start = self.changes[..end].partition_point(|changed| changed.column < column);
        Keys(&self.changes[start..end])
    }
}

/// The change at `place` in a batch's buffer.
fn changed(buffer: &Bytes, place: u32) -> Changed {
    let operation = Operation::take(&mut &buffer[place as usize..]);
    match operation.expect("what a batch wrote, it can read") {
        Operation::Put(column, key, value) => {
            Changed { column, key: buffer.slice_ref(key), value: Some(buffer.slice_ref(value)) }
        }
        Operation::Delete(column, key) | Operation::DeleteRange(column, key, _) => {
            Changed { column, key: buffer.slice_ref(key), value: None }
        }
    }
}

/// Changes of one column in the order of their keys, each key once.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(&'a [Changed]);

impl<'a> Keys<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What becomes of `key`: `Some(None)` if it is deleted, nothing if it is not touched.
    pub(super) fn get(self, key: &[u8]) -> Option<Option<&'a Bytes>> {
        let (found, value) = self.first(Bound::Included(key), Bound::Unbounded)?;
        (found == key).then_some(value)
    }

    /// How many keys lie before the bound.
    fn before(self, start: Bound<&[u8]>) -> usize {
        match start {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.0.partition_point(|one| &one.key[..] < key),
            Bound::Excluded(key) => self.0.partition_point(|one| &one.key[..] <= key),
        }
    }

    /// How many keys lie before the end of a range.
    fn up_to(self, end: Bound<&[u8]>) -> usize {
        match end {
            Bound::Unbounded => self.0.len(),
            Bound::Included(key) => self.before(Bound::Excluded(key)),
            Bound::Excluded(key) => self.before(Bound::Included(key)),
        }
    }
}

impl<'a> Changes<'a> for Keys<'a> {
    fn first(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>> {
        let first = self.0.get(self.before(start))?.change();
        let inside = match end {
            Bound::Unbounded => true,
            Bound::Included(end) => &first.0[..] <= end,
            Bound::Excluded(end) => &first.0[..] < end,
        };
        inside.then_some(first)
    }

    fn last(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>> {
        let last = self.0[..self.up_to(end)].last()?.change();
        let inside = match start {
            Bound::Unbounded => true,
            Bound::Included(start) => &last.0[..] >= start,
            Bound::Excluded(start) => &last.0[..] > start,
        };
        inside.then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::view::View, *};
    use crate::{KeyRange, Snapshot};
    use proptest::{collection::vec, prelude::*};
    use std::{collections::BTreeMap, sync::Arc};

    const COLUMNS: u32 = 2;

    type Model = [BTreeMap<Bytes, Bytes>; COLUMNS as usize];

    /// Few short keys, so that they meet.
    fn key() -> impl Strategy<Value = Bytes> {
        vec(0u8..3, 0..4).prop_map(Bytes::from)
    }

    fn batch(changes: usize) -> impl Strategy<Value = WriteBatch> {
        let value = prop_oneof![
            2 => vec(any::<u8>(), 0..3).prop_map(Some),
            1 => Just(None),
        ];
        vec((0..COLUMNS, key(), value), 0..changes).prop_map(|changes| {
            let mut batch = WriteBatch::new();
            for (column, key, value) in changes {
                match value {
                    Some(value) => batch.put(ColumnId(column), key, value),
                    None => batch.delete(ColumnId(column), key),
                }
            }
            batch
        })
    }

    fn apply(model: &mut Model, batch: &WriteBatch) {
        for operation in batch.operations() {
            let column = &mut model[operation.column().0 as usize];
            let key = Bytes::copy_from_slice(operation.key());
            match operation {
                Operation::Put(.., value) => column.insert(key, Bytes::copy_from_slice(value)),
                _ => column.remove(&key),
            };
        }
    }

    fn walked(view: &View, column: ColumnId, range: KeyRange) -> [Vec<(Bytes, Bytes)>; 2] {
        let mut cursor = view.cursor(column, range).unwrap();
        let (mut forward, mut back) = (Vec::new(), Vec::new());
        cursor.seek_to_first().unwrap();
        while cursor.valid() {
            forward.push((cursor.key_bytes(), cursor.value_bytes()));
            cursor.next().unwrap();
        }
        cursor.seek_to_last().unwrap();
        while cursor.valid() {
            back.push((cursor.key_bytes(), cursor.value_bytes()));
            cursor.prev().unwrap();
        }
        back.reverse();
        [forward, back]
    }

    /// Every way to read gives what the model has, of everything and from `start` to `end`.
    fn same(
        view: &View,
        model: &Model,
        [start, end]: [&Bytes; 2],
        keys: &[&[u8]],
    ) -> Result<(), TestCaseError> {
        for (column, model) in (0..).map(ColumnId).zip(model) {
            let all = model.iter().map(|(key, value)| (key.clone(), value.clone()));
            let all: Vec<_> = all.collect();
            let inside = all.iter().filter(|(key, _)| (start..end).contains(&key)).cloned();
            let inside: Vec<_> = inside.collect();
            let range = KeyRange::half_open(start.clone(), end.clone());
            prop_assert_eq!(view.first(column, start, end).unwrap(), inside.first().cloned());
            prop_assert_eq!(walked(view, column, range), [inside.clone(), inside]);
            prop_assert_eq!(walked(view, column, KeyRange::all()), [all.clone(), all]);
            let values: Vec<_> = keys.iter().map(|key| model.get(*key).cloned()).collect();
            prop_assert_eq!(&view.values(column, keys).unwrap(), &values);
            let one_by_one = keys.iter().map(|key| view.value(column, key).unwrap());
            prop_assert_eq!(one_by_one.collect::<Vec<_>>(), values);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn how_much_of_a_batch_the_trees_hold_changes_nothing_that_is_read(
            before in batch(20),
            batch in batch(20),
            keys in vec(key(), 0..20),
            start in key(),
            end in key(),
        ) {
            let (mut view, mut model) = (View::default(), Model::default());
            for column in 0..COLUMNS {
                prop_assert_eq!(view.add_column(&column.to_string()), ColumnId(column));
            }
            view.apply(before.operations());
            apply(&mut model, &before);
            let (old_view, old_model) = (view.clone(), model.clone());
            apply(&mut model, &batch);
            let delta = Arc::new(Delta::new(batch));
            view.set_delta(Some(Arc::clone(&delta)));
            let mut views = vec![view.clone()];
            for slice in delta.changes().chunks(2) {
                view.apply(slice.iter().map(Changed::operation));
                views.push(view.clone());
            }
            view.set_delta(None);
            let settled = views.iter().map(|view| Arc::new(view.clone()).settled());
            let settled: Vec<_> = settled.map(|view| (*view).clone()).collect();
            prop_assert!(settled.iter().all(|settled| settled.size_bytes() == view.size_bytes()));

            let (bounds, keys) = ([&start, &end], keys.iter().map(|key| &key[..]));
            let keys: Vec<_> = keys.collect();
            for view in views.iter().chain(&settled).chain([&view]) {
                same(view, &model, bounds, &keys)?;
            }
            same(&old_view, &old_model, bounds, &keys)?;
        }

        #[test]
        fn a_key_has_its_last_change(batch in batch(40)) {
            let mut last = BTreeMap::new();
            for operation in batch.operations() {
                last.insert((operation.column(), operation.key()), operation);
            }
            let delta = Delta::new(batch.clone());
            let all: Vec<_> = delta.changes().iter().map(Changed::operation).collect();
            prop_assert_eq!(all, last.into_values().collect::<Vec<_>>());
        }
    }
}
