//! Random batches, transactions, snapshots, checkpoints and cursor walks, compared with a `BTreeMap`.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::Backend;
use bytes::Bytes;
use chronolith_engine::{
    ColumnId, Cursor, Durability, Engine, KeyRange, Overlay, Snapshot, WriteBatch,
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

for_every_backend!(random_histories_agree_with_the_model);

const COLUMNS: u32 = 2;

type Columns = Vec<BTreeMap<Bytes, Bytes>>;

#[derive(Clone, Debug)]
enum Change {
    Put(u32, Bytes, Bytes),
    Delete(u32, Bytes),
    DeleteRange(u32, Bytes, Bytes),
}

#[derive(Clone, Debug)]
enum Step {
    /// Written as a batch, or through a transaction whose reads are compared before its commit.
    Write {
        changes: Vec<Change>,
        transaction: bool,
    },
    Snapshot,
    Checkpoint,
    Walk {
        column: u32,
        range: (Bound<Bytes>, Bound<Bytes>),
        moves: Vec<Move>,
    },
}

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Seek(Bytes),
    SeekForPrev(Bytes),
    Next,
    Prev,
}

/// Few short keys, so that they meet; now and then a long one.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        9 => vec(0u8..3, 0..4).prop_map(Bytes::from),
        1 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let value = vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    prop_oneof![
        6 => (0..COLUMNS, key(), value).prop_map(|(column, key, value)| Change::Put(column, key, value)),
        3 => (0..COLUMNS, key()).prop_map(|(column, key)| Change::Delete(column, key)),
        1 => (0..COLUMNS, key(), key()).prop_map(|(column, a, b)| Change::DeleteRange(column, a, b)),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![
        Just(Bound::Unbounded),
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => key().prop_map(Move::Seek),
        2 => key().prop_map(Move::SeekForPrev),
        6 => Just(Move::Next),
        6 => Just(Move::Prev),
    ];
    vec(one, 0..24)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (vec(change(), 0..24), any::<bool>())
            .prop_map(|(changes, transaction)| Step::Write { changes, transaction }),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Checkpoint),
        4 => (0..COLUMNS, bound(), bound(), moves()).prop_map(|(column, start, end, moves)| {
            Step::Walk { column, range: (start, end), moves }
        }),
    ]
}

fn random_histories_agree_with_the_model(backend: &Backend) {
    let config = ProptestConfig {
        cases: backend.model_cases,
        failure_persistence: None,
        ..Default::default()
    };
    let mut runner = TestRunner::new(config);
    runner.run(&vec(step(), 0..24), |steps| Run::new(backend).all(&steps)).unwrap();
}

struct Run<'a> {
    backend: &'a Backend,
    dir: tempfile::TempDir,
    engine: Arc<dyn Engine>,
    model: Columns,
    snapshots: Vec<(Arc<dyn Snapshot>, Columns)>,
    checkpoints: u32,
}

impl<'a> Run<'a> {
    fn new(backend: &'a Backend) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = (backend.create)(&dir.path().join("engine"));
        for column in 0..COLUMNS {
            assert_eq!(engine.column(&format!("column{column}")).unwrap(), ColumnId(column));
        }
        let model = vec![BTreeMap::new(); COLUMNS as usize];
        Self { backend, dir, engine, model, snapshots: Vec::new(), checkpoints: 0 }
    }

    fn all(mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        for step in steps {
            self.step(step)?;
        }
        same(&*self.engine.snapshot().unwrap(), &self.model)?;
        self.snapshots.iter().try_for_each(|(snapshot, model)| same(&**snapshot, model))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write { changes, transaction: false } => self.batch(changes),
            Step::Write { changes, transaction: true } => return self.transaction(changes),
            Step::Snapshot => {
                self.snapshots.push((self.engine.snapshot().unwrap(), self.model.clone()));
            }
            Step::Checkpoint => return self.checkpoint(),
            Step::Walk { column, range, moves } => return self.walk(*column, range, moves),
        }
        Ok(())
    }

    fn batch(&mut self, changes: &[Change]) {
        let mut batch = WriteBatch::new();
        for change in changes {
            match change.clone() {
                Change::Put(column, key, value) => batch.put(ColumnId(column), key, value),
                Change::Delete(column, key) => batch.delete(ColumnId(column), key),
                Change::DeleteRange(column, start, end) => {
                    batch.delete_range(ColumnId(column), start, end);
                }
            }
        }
        self.engine.write(batch, Durability::Buffered).unwrap();
        changes.iter().for_each(|change| apply(&mut self.model, change));
    }

    fn transaction(&mut self, changes: &[Change]) -> Result<(), TestCaseError> {
        let mut overlay = Overlay::new(Arc::clone(&self.engine)).unwrap();
        for change in changes {
            match change.clone() {
                Change::Put(column, key, value) => overlay.put(ColumnId(column), key, value),
                Change::Delete(column, key) => overlay.delete(ColumnId(column), key),
                Change::DeleteRange(column, start, end) => {
                    overlay.delete_range(ColumnId(column), start, end);
                }
            }
            apply(&mut self.model, change);
        }
        same_overlay(&overlay, &self.model)?;
        overlay.commit(Durability::Buffered).unwrap();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), TestCaseError> {
        self.checkpoints += 1;
        let dir = self.dir.path().join(format!("checkpoint{}", self.checkpoints));
        self.engine.checkpoint(&dir).unwrap();
        let restored = (self.backend.restore)(&dir).unwrap();
        same(&*restored.snapshot().unwrap(), &self.model)
    }

    /// The same moves through the engine, through an overlay that holds half the state, and through
    /// the model.
    fn walk(
        &self,
        column: u32,
        (start, end): &(Bound<Bytes>, Bound<Bytes>),
        moves: &[Move],
    ) -> Result<(), TestCaseError> {
        let range = KeyRange { start: start.clone(), end: end.clone() };
        let model = &self.model[column as usize];
        let snapshot = self.engine.snapshot().unwrap();
        let mut cursor = snapshot.cursor(ColumnId(column), range.clone()).unwrap();
        follow(&mut *cursor, &range, model, moves)?;

        let mut changed = model.clone();
        let mut overlay = Overlay::new(Arc::clone(&self.engine)).unwrap();
        for (number, key) in model.keys().enumerate().filter(|(number, _)| number % 3 != 0) {
            if number % 3 == 1 {
                overlay.delete(ColumnId(column), key.clone());
                changed.remove(key);
            } else {
                overlay.put(ColumnId(column), key.clone(), "changed");
                changed.insert(key.clone(), "changed".into());
            }
        }
        let mut cursor = overlay.cursor(ColumnId(column), range.clone()).unwrap();
        follow(&mut *cursor, &range, &changed, moves)
    }
}

fn apply(model: &mut Columns, change: &Change) {
    match change.clone() {
        Change::Put(column, key, value) => drop(model[column as usize].insert(key, value)),
        Change::Delete(column, key) => drop(model[column as usize].remove(&key)),
        Change::DeleteRange(column, start, end) => {
            model[column as usize].retain(|key, _| *key < start || *key >= end);
        }
    }
}

fn follow(
    cursor: &mut dyn Cursor,
    range: &KeyRange,
    model: &BTreeMap<Bytes, Bytes>,
    moves: &[Move],
) -> Result<(), TestCaseError> {
    let inside = |key: &Bytes| {
        std::ops::RangeBounds::contains(&(range.start.clone(), range.end.clone()), key)
    };
    let model: Vec<(&Bytes, &Bytes)> = model.iter().filter(|(key, _)| inside(key)).collect();
    let at_or_after = |key: &Bytes| model.iter().position(|(other, _)| *other >= key);
    let at_or_before = |key: &Bytes| model.iter().rposition(|(other, _)| *other <= key);
    let mut expected: Option<usize> = None;
    for step in moves {
        match step {
            Move::First => cursor.seek_to_first().unwrap(),
            Move::Last => cursor.seek_to_last().unwrap(),
            Move::Seek(key) => cursor.seek(key).unwrap(),
            Move::SeekForPrev(key) => cursor.seek_for_prev(key).unwrap(),
            Move::Next => cursor.next().unwrap(),
            Move::Prev => cursor.prev().unwrap(),
        }
        expected = match step {
            Move::First => (!model.is_empty()).then_some(0),
            Move::Last => model.len().checked_sub(1),
            Move::Seek(key) => at_or_after(key),
            Move::SeekForPrev(key) => at_or_before(key),
            Move::Next => expected.map(|at| at + 1).filter(|at| *at < model.len()),
            Move::Prev => expected.and_then(|at| at.checked_sub(1)),
        };
        let found = cursor.valid().then(|| (cursor.key(), cursor.value()));
        let expected = expected.map(|at| (&model[at].0[..], &model[at].1[..]));
        prop_assert_eq!(found, expected, "after {:?} of {:?} in {:?}", step, moves, range);
    }
    Ok(())
}

fn same(snapshot: &dyn Snapshot, model: &Columns) -> Result<(), TestCaseError> {
    for (column, model) in (0..).map(ColumnId).zip(model) {
        let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
        same_records(&mut *cursor, model)?;
        for (key, value) in model {
            prop_assert_eq!(snapshot.get(column, key).unwrap(), Some(value.clone()));
        }
        prop_assert_eq!(snapshot.get(column, b"no such key").unwrap(), None);
    }
    Ok(())
}

fn same_overlay(overlay: &Overlay, model: &Columns) -> Result<(), TestCaseError> {
    for (column, model) in (0..).map(ColumnId).zip(model) {
        let mut cursor = overlay.cursor(column, KeyRange::all()).unwrap();
        same_records(&mut *cursor, model)?;
        for (key, value) in model {
            prop_assert_eq!(overlay.get(column, key).unwrap(), Some(value.clone()));
        }
    }
    Ok(())
}

/// Forward and back.
fn same_records(
    cursor: &mut dyn Cursor,
    model: &BTreeMap<Bytes, Bytes>,
) -> Result<(), TestCaseError> {
    cursor.seek_to_first().unwrap();
    for (key, value) in model {
        prop_assert!(cursor.valid());
        prop_assert_eq!((cursor.key(), cursor.value()), (&key[..], &value[..]));
        cursor.next().unwrap();
    }
    prop_assert!(!cursor.valid());
    cursor.seek_to_last().unwrap();
    for (key, _) in model.iter().rev() {
        prop_assert!(cursor.valid());
        prop_assert_eq!(cursor.key(), &key[..]);
        cursor.prev().unwrap();
    }
    prop_assert!(!cursor.valid());
    Ok(())
}
