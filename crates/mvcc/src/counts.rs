//! How many keys live between two keys now, without looking at each of them.
//!
//! ```text
//! keys    ......|............|.........|...............|.......
//! blocks  ""  12     "f"  ?     "k" 9     "m"   15         "t" 7
//!                       [h ─────────────────────── p)
//!                        look   + 9    + look
//! ```
//! The keyspace is cut into blocks, each with the number of keys that live in it. A count adds up the
//! blocks that lie inside, and looks only at the keys of the two at its ends.
//! * Blocks are learnt, not built: a block is unknown until somebody counts in it, and what he looked
//!   at is then cut into blocks of even size. Opening costs nothing, and keys that nobody counts cost
//!   nothing.
//! * The writer only adds a birth or takes a death off, under the same lock under which it moves the
//!   current revision: whoever holds the lock sees blocks that are true at that revision.
//! * While somebody looks at a block, without the lock, its births and deaths are noted, and added
//!   when he is back with what was true at his revision.
//! * A bounded memory: some hundred keys a block, and blocks that ran empty are joined again.

use crate::span::Span;
use bytes::Bytes;
use std::{collections::BTreeMap, mem, ops::Bound};

/// Keys in a block when it is made. Looking at so many costs about as much as a request does
/// elsewhere.
const BLOCK_KEYS: usize = 256;

/// A key that came to life (+1) or died (-1).
type Turn = (Bytes, i64);

enum Block {
    Unknown,
    /// Somebody is looking at it: the number of his look, and births and deaths since he began.
    Looking(u64, Vec<Turn>),
    Known(i64),
}

/// See the module.
pub(crate) struct Counts {
    /// By the first key that a block may hold; the first block begins at the empty key.
    blocks: BTreeMap<Bytes, Block>,
    pub(crate) block_keys: usize,
    last_look: u64,
}

/// How to count a span at the revision at which the plan was made.
#[derive(Default)]
pub(crate) struct Plan {
    /// Keys in known blocks.
    pub(crate) known: i64,
    /// What is to be looked at.
    pub(crate) looks: Vec<Look>,
}

/// Keys to be looked at.
pub(crate) struct Look {
    /// Where they lie.
    pub(crate) span: Span,
    /// The look's number, if it is at all of a block, which will be known by it.
    number: Option<u64>,
}

impl Look {
    /// Whether a block will be known by it, so that all its keys are of interest.
    pub(crate) fn learns(&self) -> bool {
        self.number.is_some()
    }
}

impl Counts {
    pub(crate) fn unknown() -> Self {
        let blocks = BTreeMap::from([(Bytes::new(), Block::Unknown)]);
        Self { blocks, block_keys: BLOCK_KEYS, last_look: 0 }
    }

    /// Whether births and deaths change anything: nobody has counted, or all was forgotten.
    pub(crate) fn knows_nothing(&self) -> bool {
        self.blocks.len() == 1 && matches!(self.blocks.values().next(), Some(Block::Unknown))
    }

    /// So many keys are looked at rather than planned for: short ranges must not leave a block each.
    pub(crate) fn worth_a_plan(&self) -> usize {
        self.block_keys / 4
    }

    /// Takes births and deaths into account.
    pub(crate) fn turn<'a>(&mut self, turns: impl IntoIterator<Item = (&'a Bytes, i64)>) {
        for (key, change) in turns {
            let (first, block) = self.block_of(key);
            match block {
                Block::Unknown => {}
                Block::Looking(_, turns) => turns.push((key.clone(), change)),
                Block::Known(keys) => {
                    *keys += change;
                    if *keys == 0 {
                        let first = first.clone();
                        self.join_with_the_one_before(&first);
                    }
                }
            }
        }
    }

    /// Whether all blocks from `start` (in) to `end` (out) are known and none is too large: then a plan
    /// looks at parts of two at most.
    pub(crate) fn knows(&self, start: &Bytes, end: Option<&Bytes>) -> bool {
        let too_large = i64::try_from(2 * self.block_keys).unwrap_or(i64::MAX);
        let is_known = |block: &Block| matches!(block, Block::Known(keys) if *keys <= too_large);
        let before = self.blocks.range(..=start.clone()).next_back();
        let inside = self.blocks.range::<Bytes, _>((Bound::Excluded(start), Bound::Unbounded));
        let inside = inside.take_while(|(first, _)| end.is_none_or(|end| *first < end));
        before.into_iter().chain(inside).all(|(_, block)| is_known(block))
    }

    /// Plans the count of the keys from `start` (in) to `end` (out). Looks that learn are to be given
    /// back to [`Counts::learn`].
    pub(crate) fn plan(&mut self, start: &Bytes, end: Option<&Bytes>) -> Plan {
        let mut plan = Plan::default();
        if end.is_some_and(|end| end <= start) {
            return plan;
        }
        self.cut_unknown(start);
        end.into_iter().for_each(|end| self.cut_unknown(end));
        let from = self.block_of(start).0.clone();
        let mut rest = Vec::new();
        let mut blocks = self.blocks.range(from..).peekable();
        while let Some((first, block)) = blocks.next() {
            if end.is_some_and(|end| first >= end) {
                break;
            }
            let next = blocks.peek().map(|(next, _)| *next);
            let ends_inside = end.is_none_or(|end| next.is_some_and(|next| next <= end));
            match block {
                Block::Known(keys) if first >= start && ends_inside => plan.known += keys,
                _ => rest.push((first.clone(), next.cloned())),
            }
        }
        for (first, next) in rest {
            let look = self.look(first, next, (start, end));
            plan.looks.push(look);
        }
        plan
    }

    /// How to look at a block that is not known, or not wholly inside.
    fn look(
        &mut self,
        first: Bytes,
        next: Option<Bytes>,
        counted: (&Bytes, Option<&Bytes>),
    ) -> Look {
        let too_large = i64::try_from(2 * self.block_keys).unwrap_or(i64::MAX);
        let block = self.blocks.get_mut(&first).expect("the caller has just seen it");
        match block {
            Block::Known(keys) if *keys <= too_large => {
                Look { span: overlap(first, next, counted), number: None }
            }
            Block::Looking(..) => Look { span: overlap(first, next, counted), number: None },
            Block::Unknown | Block::Known(_) => {
                self.last_look += 1;
                *block = Block::Looking(self.last_look, Vec::new());
                let number = Some(self.last_look);
                Look { span: Span::Range { start: first, end: next }, number }
            }
        }
    }

    /// Takes in what a look found.
    pub(crate) fn learn(&mut self, look: &Look, found: Found) {
        let Some(turns) = self.take_looking(look) else { return };
        let Span::Range { start, .. } = &look.span else { return };
        let size = i64::try_from(self.block_keys).unwrap_or(i64::MAX);
        let mut left = found.keys;
        for first in std::iter::once(start.clone()).chain(found.cuts) {
            let keys = left.min(size);
            left -= keys;
            self.blocks.insert(first, Block::Known(keys));
        }
        self.turn(turns.iter().map(|(key, change)| (key, *change)));
    }

    /// Makes a block unknown again that a look did not come back from; otherwise does nothing.
    pub(crate) fn forget(&mut self, look: &Look) {
        self.take_looking(look);
    }

    /// Ends a look that learns: what was noted meanwhile; its block is unknown for now. None if the
    /// block is not this look's.
    fn take_looking(&mut self, look: &Look) -> Option<Vec<Turn>> {
        let (Span::Range { start, .. }, Some(number)) = (&look.span, look.number) else {
            return None;
        };
        let block = self.blocks.get_mut(start)?;
        if !matches!(block, Block::Looking(other, _) if *other == number) {
            return None;
        }
        match mem::replace(block, Block::Unknown) {
            Block::Looking(_, turns) => Some(turns),
            Block::Unknown | Block::Known(_) => None,
        }
    }

    /// The block that holds `key`, with its first key.
    fn block_of(&mut self, key: &[u8]) -> (&Bytes, &mut Block) {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.blocks.range_mut::<[u8], _>(upto).next_back().expect("the first block holds any key")
    }

    /// Lets a block begin at `key` if that lies in an unknown one: only what is counted is looked at.
    fn cut_unknown(&mut self, key: &Bytes) {
        if matches!(self.block_of(key), (first, Block::Unknown) if first != key) {
            self.blocks.insert(key.clone(), Block::Unknown);
        }
    }

    fn join_with_the_one_before(&mut self, first: &Bytes) {
        let before = self.blocks.range::<Bytes, _>(..first).next_back();
        if matches!(before, Some((_, Block::Known(_)))) {
            self.blocks.remove(first);
        }
    }
}

/// The part of the block from `first` to `next` that lies between `start` and `end`.
fn overlap(first: Bytes, next: Option<Bytes>, (start, end): (&Bytes, Option<&Bytes>)) -> Span {
    let end = match (next, end) {
        (Some(next), Some(end)) => Some(next.min(end.clone())),
        (next, end) => next.or_else(|| end.cloned()),
    };
    Span::Range { start: first.max(start.clone()), end }
}

/// What a look at a span found.
#[derive(Default)]
pub(crate) struct Found {
    /// Keys in it.
    pub(crate) keys: i64,
    /// Those of them that the counted span holds.
    pub(crate) counted: i64,
    /// Every so many-th key, where a block may begin.
    pub(crate) cuts: Vec<Bytes>,
}

impl Found {
    /// One key more. `key` is asked for only where it begins a block.
    pub(crate) fn push(&mut self, counted: bool, block_keys: usize, key: impl FnOnce() -> Bytes) {
        let size = i64::try_from(block_keys).unwrap_or(i64::MAX);
        if self.keys > 0 && self.keys % size == 0 {
            self.cuts.push(key());
        }
        self.keys += 1;
        self.counted += i64::from(counted);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Leases, Mvcc, Reader, Stamp};
    use bytes::Bytes;
    use chronolith_engine::{Durability, MemoryEngine};
    use chronolith_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
    use proptest::prelude::*;
    use std::{
        collections::BTreeSet,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    struct NoLeases;

    impl Leases for NoLeases {
        fn contains(&self, _: i64) -> bool {
            false
        }

        fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
    }

    fn open(block_keys: usize) -> Mvcc {
        let mvcc = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
        mvcc.core.counts.lock().block_keys = block_keys;
        mvcc
    }

    fn key(number: u8) -> Bytes {
        Bytes::from(vec![number])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>),
        Delete(u8, u8),
        Count(u8, Option<u8>, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let puts = proptest::collection::vec(1u8.., 1..20);
        prop_oneof![
            3 => puts.prop_map(Step::Put),
            1 => (1u8.., 0u8..40).prop_map(|(from, length)| Step::Delete(from, length)),
            3 => (1u8.., proptest::option::of(1u8..), 0i64..9)
                .prop_map(|(from, to, limit)| Step::Count(from, to, limit)),
        ]
    }

    fn count(reader: &Reader, from: u8, to: Option<u8>, limit: i64) -> crate::RangeResult {
        let range_end = to.map_or(Bytes::from_static(&[0]), key);
        let request = RangeRequest {
            key: key(from),
            range_end,
            limit,
            count_only: limit == 0,
            ..Default::default()
        };
        reader.range(&request).unwrap()
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_set(steps in proptest::collection::vec(step(), 0..60)) {
            let mut mvcc = open(3);
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Put(keys) => {
                        let mut run = mvcc.begin_run().unwrap();
                        for number in keys {
                            let put = PutRequest { key: key(number), ..Default::default() };
                            run.put(&put, &mut NoLeases, &Stamp::default()).unwrap();
                            model.insert(number);
                        }
                        run.commit(Durability::NoWal).unwrap();
                    }
                    Step::Delete(from, length) => {
                        let to = from.saturating_add(length);
                        let range_end = key(to);
                        let delete = DeleteRangeRequest { key: key(from), range_end, prev_kv: false };
                        let mut run = mvcc.begin_run().unwrap();
                        run.delete_range(&delete, &mut NoLeases, &Stamp::default()).unwrap();
                        run.commit(Durability::NoWal).unwrap();
                        model.retain(|number| *number < from || *number >= to);
                    }
                    Step::Count(from, to, limit) => {
                        let inside: Vec<u8> = model
                            .iter()
                            .copied()
                            .filter(|number| *number >= from && to.is_none_or(|to| *number < to))
                            .collect();
                        let found = count(&mvcc.reader(), from, to, limit);
                        prop_assert_eq!(found.count, inside.len() as i64);
                        let keys: Vec<u8> = found.kvs.iter().map(|kv| kv.key[0]).collect();
                        prop_assert_eq!(&keys[..], &inside[..inside.len().min(limit as usize)]);
                        prop_assert_eq!(found.more, limit > 0 && inside.len() as i64 > limit);
                    }
                }
            }
            let blocks = mvcc.core.counts.lock().blocks.len();
            prop_assert!(blocks <= 256, "empty blocks are joined");
        }
    }

    #[test]
    fn empty_blocks_do_not_pile_up() {
        let mut mvcc = open(4);
        for number in 0..2_000u16 {
            let mut run = mvcc.begin_run().unwrap();
            let name = |number: u16| Bytes::from(number.to_be_bytes().to_vec());
            let put = PutRequest { key: name(number), ..Default::default() };
            run.put(&put, &mut NoLeases, &Stamp::default()).unwrap();
            if number >= 100 {
                let gone = DeleteRangeRequest { key: name(number - 100), ..Default::default() };
                run.delete_range(&gone, &mut NoLeases, &Stamp::default()).unwrap();
            }
            run.commit(Durability::NoWal).unwrap();
            let expected = i64::from(number.min(99)) + 1;
            let all = RangeRequest {
                key: Bytes::from_static(&[0]),
                range_end: Bytes::from_static(&[0]),
                count_only: true,
                ..Default::default()
            };
            assert_eq!(mvcc.reader().range(&all).unwrap().count, expected);
        }
        assert!(mvcc.core.counts.lock().blocks.len() < 100);
    }

    /// The writer keeps the number of keys a function of the revision; readers count meanwhile.
    #[test]
    fn counts_fit_their_revision_while_keys_come_and_go() {
        const REVISIONS: i64 = 6_000;
        let mut mvcc = open(4);
        let done = AtomicBool::new(false);
        let reader = mvcc.reader();
        thread::scope(|scope| {
            for thread in 0..3u8 {
                let (reader, done) = (&reader, &done);
                scope.spawn(move || {
                    let mut before = 0;
                    while !done.load(Ordering::Acquire) {
                        let found = count(reader, 1, None, i64::from(thread));
                        assert!(found.revision >= before);
                        before = found.revision;
                        assert_eq!(found.count, living_at(found.revision), "at {before}");
                    }
                });
            }
            let mut revision = 1;
            while revision < REVISIONS {
                let mut run = mvcc.begin_run().unwrap();
                for _ in 0..=revision % 5 {
                    revision += 1;
                    turn(&mut run, revision);
                }
                run.commit(Durability::NoWal).unwrap();
            }
            done.store(true, Ordering::Release);
        });
    }

    const KEYS: i64 = 200;

    /// Revisions 2 to 201 put a key each, the next 200 delete them in the same order, and so on.
    fn turn(run: &mut crate::Run<'_>, revision: i64) {
        let number = (revision - 2) % KEYS;
        let key = key(u8::try_from(1 + (number * 7) % KEYS).unwrap());
        if (revision - 2) / KEYS % 2 == 0 {
            let put = PutRequest { key, ..Default::default() };
            run.put(&put, &mut NoLeases, &Stamp::default()).unwrap();
        } else {
            let delete = DeleteRangeRequest { key, ..Default::default() };
            run.delete_range(&delete, &mut NoLeases, &Stamp::default()).unwrap();
        }
        assert_eq!(run.revision(), revision);
    }

    fn living_at(revision: i64) -> i64 {
        let (rounds, rest) = ((revision - 1) / KEYS, (revision - 1) % KEYS);
        if rounds % 2 == 0 { rest } else { KEYS - rest }
    }
}
