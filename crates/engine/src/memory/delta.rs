//! A large batch that everybody sees already, while the writer still puts it into the trees.
//!
//! ```text
//! get(key) ─▶ the batch's last change of key, if it has one ─▶ tree: before, in the midst of or after it
//! ```
//! What a reader finds does not depend on how much of the batch the trees already hold. So the batch
//! becomes visible as a whole when the delta is laid over a view, and goes into the trees in slices,
//! between which readers come in; no tree node is copied for it.

use crate::{
    ColumnId, Operation,
    overlay::{Change, Changes},
};
use bytes::Bytes;
use std::ops::Bound;

/// See the module.
pub(super) struct Delta {
    /// Puts and deletes by column and key, each key once.
    operations: Vec<Operation>,
}

impl Delta {
    /// The last change of each key. Ranges must not be among the operations.
    pub(super) fn new(mut operations: Vec<Operation>) -> Self {
        debug_assert!(!operations.iter().any(Operation::is_wide), "a range is not one key");
        // Stable, and in linear time where the batch is sorted already.
        operations.sort_by(|a, b| place(a).cmp(&place(b)));
        operations.dedup_by(|later, earlier| {
            let same = place(later) == place(earlier);
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self { operations }
    }

    /// All changes, by column and key.
    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The changes of one column.
    pub(super) fn column(&self, column: ColumnId) -> Keys<'_> {
        let end = self.operations.partition_point(|operation| operation.column() <= column);
        let start = self.operations[..end].partition_point(|one| one.column() < column);
        Keys(&self.operations[start..end])
    }
}

fn place(operation: &Operation) -> (ColumnId, &[u8]) {
    (operation.column(), change(operation).0)
}

fn change(operation: &Operation) -> Change<'_> {
    match operation {
        Operation::Put(_, key, value) => (key, Some(value)),
        Operation::Delete(_, key) | Operation::DeleteRange(_, key, _) => (key, None),
    }
}

/// Changes of one column in the order of their keys, each key once.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(&'a [Operation]);

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
            Bound::Included(key) => self.0.partition_point(|one| &change(one).0[..] < key),
            Bound::Excluded(key) => self.0.partition_point(|one| &change(one).0[..] <= key),
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
        let first = change(self.0.get(self.before(start))?);
        let inside = match end {
            Bound::Unbounded => true,
            Bound::Included(end) => &first.0[..] <= end,
            Bound::Excluded(end) => &first.0[..] < end,
        };
        inside.then_some(first)
    }

    fn last(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>> {
        let last = change(self.0[..self.up_to(end)].last()?);
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

    fn operation() -> impl Strategy<Value = Operation> {
        let value = vec(any::<u8>(), 0..3).prop_map(Bytes::from);
        prop_oneof![
            2 => (0..COLUMNS, key(), value)
                .prop_map(|(column, key, value)| Operation::Put(ColumnId(column), key, value)),
            1 => (0..COLUMNS, key()).prop_map(|(column, key)| Operation::Delete(ColumnId(column), key)),
        ]
    }

    fn apply(model: &mut Model, operations: &[Operation]) {
        for operation in operations {
            let (key, value) = change(operation);
            let column = &mut model[operation.column().0 as usize];
            match value {
                Some(value) => drop(column.insert(key.clone(), value.clone())),
                None => drop(column.remove(key)),
            }
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
            before in vec(operation(), 0..20),
            batch in vec(operation(), 0..20),
            keys in vec(key(), 0..20),
            start in key(),
            end in key(),
        ) {
            let (mut view, mut model) = (View::default(), Model::default());
            for column in 0..COLUMNS {
                prop_assert_eq!(view.add_column(&column.to_string()), ColumnId(column));
            }
            view.apply(&before);
            apply(&mut model, &before);
            let (old_view, old_model) = (view.clone(), model.clone());
            apply(&mut model, &batch);
            let delta = Arc::new(Delta::new(batch));
            view.set_delta(Some(Arc::clone(&delta)));
            let mut views = vec![view.clone()];
            for slice in delta.operations().chunks(2) {
                view.apply(slice);
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
        fn a_key_has_its_last_change(batch in vec(operation(), 0..40)) {
            let mut last = BTreeMap::new();
            for operation in &batch {
                last.insert((operation.column(), change(operation).0.clone()), operation.clone());
            }
            let delta = Delta::new(batch);
            prop_assert_eq!(delta.operations(), last.into_values().collect::<Vec<_>>());
        }
    }
}
