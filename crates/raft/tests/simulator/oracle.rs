//! Knows everything that was decided and acknowledged, and objects.

use chronolith_raft::{Committed, LogEntry, PeerMessage};
use std::collections::{BTreeMap, HashSet, btree_map::Entry};

pub(crate) type Verdict = Result<(), String>;

/// The state of a member's state machine: as much of the sequence as it has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) index: u64,
    pub(crate) count: usize,
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// Every command that was applied anywhere, in order.
    sequence: Vec<u64>,
    seen: HashSet<u64>,
    terms: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, u64>,
    /// What was ever written at an index in a term.
    written: BTreeMap<(u64, u64), Vec<u8>>,
    /// How much of the sequence was acknowledged to clients.
    pub(crate) acknowledged: usize,
}

impl Oracle {
    pub(crate) fn len(&self) -> usize {
        self.sequence.len()
    }

    /// A member applies a command.
    pub(crate) fn apply(&mut self, at: &mut Progress, committed: &Committed) -> Verdict {
        let id = u64::from_be_bytes(committed.command[..8].try_into().map_err(|_| "bad command")?);
        let Committed { index, term, .. } = *committed;
        if *self.terms.entry(index).or_insert(term) != term {
            return Err(format!("entry {index} was applied with two terms"));
        }
        match self.sequence.get(at.count) {
            Some(decided) if *decided != id => {
                return Err(format!("place {}: {decided} was decided, now {id}", at.count));
            }
            Some(_) => {}
            None if !self.seen.insert(id) => return Err(format!("{id} was applied twice")),
            None => self.sequence.push(id),
        }
        at.count += 1;
        Ok(())
    }

    /// A client heard that a command is done.
    pub(crate) fn acknowledge(&mut self, id: u64, place: usize) -> Verdict {
        if self.sequence.get(place) != Some(&id) {
            return Err(format!("{id} was acknowledged, and is not in place {place}"));
        }
        self.acknowledged = self.acknowledged.max(place + 1);
        Ok(())
    }

    pub(crate) fn leads(&mut self, member: u64, term: u64) -> Verdict {
        match *self.leaders.entry(term).or_insert(member) == member {
            true => Ok(()),
            false => Err(format!("two leaders in term {term}")),
        }
    }

    pub(crate) fn writes(&mut self, entries: &[LogEntry]) -> Verdict {
        for entry in entries {
            match self.written.entry((entry.index, entry.term)) {
                Entry::Vacant(place) => drop(place.insert(entry.payload.to_vec())),
                Entry::Occupied(old) if *old.get() == entry.payload => {}
                Entry::Occupied(_) => {
                    let (index, term) = (entry.index, entry.term);
                    return Err(format!("two different entries {index} in term {term}"));
                }
            }
        }
        Ok(())
    }
}

/// A message under way.
pub(crate) struct Travelling {
    pub(crate) at: u64,
    pub(crate) message: PeerMessage,
}
