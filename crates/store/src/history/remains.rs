//! What compaction and erasure leave of a revision, as the ledger sees it.
//!
//! The versions know no hash function: [`LedgerCommitment`] tells them the ledger's. From what is left
//! (changes with and without value, hashes) the entry of the revision is computed again, so what was
//! kept is proven, and verified, as it was before.

use super::follow::kind;
use bytes::Bytes;
use chronolith_ledger::{Entry, Hash, Level, OpRecord, op_salt, operations_root, value_digest};
use chronolith_mvcc::{Change, Commitment, OpMeta, PutMeta, Remains, Remnant};

/// The ledger's hashes, for compaction and erasure.
pub(crate) struct LedgerCommitment;

impl Commitment for LedgerCommitment {
    fn salt(&self, revision: &[u8; 16], count: usize, position: usize) -> [u8; 16] {
        op_salt(revision, count, position)
    }

    fn digest(&self, salt: &[u8; 16], value: &[u8]) -> [u8; 32] {
        value_digest(salt, value)
    }

    fn hash(&self, op: &OpMeta<'_>) -> [u8; 32] {
        record(op).hash().0
    }
}

fn record<'a>(op: &OpMeta<'a>) -> OpRecord<'a> {
    let removal = OpRecord {
        kind: kind(op.kind),
        key: op.key,
        previous: op.previous.cast_unsigned(),
        create: 0,
        version: 0,
        lease: 0,
        salt: [0; 16],
        value_digest: [0; 32],
    };
    op.put.map_or(removal, |put| OpRecord {
        create: put.create_revision.cast_unsigned(),
        version: put.version.cast_unsigned(),
        lease: put.lease.cast_unsigned(),
        salt: put.salt,
        value_digest: put.digest,
        ..removal
    })
}

/// The record of a whole change, and its value.
fn whole<'a>(
    remains: &Remains,
    position: usize,
    change: &'a Change,
    own: Option<[u8; 16]>,
) -> (OpRecord<'a>, Option<&'a Bytes>) {
    let salt = || op_salt(&remains.stamp.salt, remains.changes.len(), position);
    let put = change.put.as_ref().map(|put| {
        let salt = own.unwrap_or_else(salt);
        PutMeta {
            create_revision: put.create_revision,
            version: put.version,
            lease: put.lease,
            salt,
            digest: value_digest(&salt, &put.value),
        }
    });
    let op = OpMeta { kind: change.kind, key: &change.key, previous: change.previous, put };
    (record(&op), change.put.as_ref().map(|put| &put.value))
}

/// What can be shown of an operation; none where a value is missing that should be there.
pub(super) fn level(remains: &Remains, position: usize) -> Option<Level> {
    Some(match &remains.changes[position] {
        Remnant::Whole { change, salt } => {
            let (record, value) = whole(remains, position, change, *salt);
            Level::of(&record, value.map(|value| &value[..]))
        }
        Remnant::Meta { key, previous, put } => {
            Level::of(&record(&meta(key, *previous, *put)), None)
        }
        Remnant::Erased { hash, .. } | Remnant::Hash(hash) => Level::Hash(Hash(*hash)),
        Remnant::Missing { .. } => return None,
    })
}

fn meta(key: &[u8], previous: i64, put: PutMeta) -> OpMeta<'_> {
    OpMeta { kind: chronolith_mvcc::Kind::Put, key, previous, put: Some(put) }
}

/// The hashes of a revision's operations; none where a value is missing that should be there.
pub(super) fn op_hashes(remains: &Remains) -> Option<Vec<Hash>> {
    let hash = |(position, remnant): (usize, &Remnant)| match remnant {
        Remnant::Whole { change, salt } => Some(whole(remains, position, change, *salt).0.hash()),
        Remnant::Meta { key, previous, put } => Some(record(&meta(key, *previous, *put)).hash()),
        Remnant::Erased { hash, .. } | Remnant::Hash(hash) => Some(Hash(*hash)),
        Remnant::Missing { .. } => None,
    };
    remains.changes.iter().enumerate().map(hash).collect()
}

/// The entry of a revision, computed of what is left of it.
pub(super) fn entry(remains: &Remains, op_hashes: &[Hash]) -> Entry {
    Entry {
        revision: remains.revision.cast_unsigned(),
        time_ms: remains.stamp.time_ms,
        ops: u32::try_from(op_hashes.len()).expect("operations are limited"),
        actor: remains.stamp.actor,
        ops_root: operations_root(op_hashes),
    }
}

/// The same; none where a value is missing that should be there.
pub(super) fn entry_left(remains: &Remains) -> Option<Entry> {
    op_hashes(remains).map(|hashes| entry(remains, &hashes))
}

/// Changes of which the value, or more, is gone: by erasure, and by compaction.
pub(super) fn gone(remains: &Remains) -> (u64, u64) {
    let count = |gone: fn(&Remnant) -> bool| {
        remains.changes.iter().filter(|remnant| gone(remnant)).count() as u64
    };
    let erased = count(|remnant| matches!(remnant, Remnant::Erased { .. }));
    (erased, count(|remnant| matches!(remnant, Remnant::Meta { .. } | Remnant::Hash(_))))
}

/// Removals have no value to lose; puts have.
pub(super) fn has_stored_version(remnant: &Remnant) -> bool {
    matches!(remnant, Remnant::Whole { .. } | Remnant::Erased { .. } | Remnant::Missing { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_ledger::{Op, OpKind, Revision};
    use chronolith_mvcc::{Kind, Put, Stamp};

    /// What is left of a revision has the entry that the whole revision had.
    #[test]
    fn an_entry_is_the_same_whatever_is_left() {
        let op = |kind, key, value, version| Op {
            kind,
            key,
            value,
            previous: 3,
            create: version,
            version,
            lease: 0,
        };
        let ops = [
            op(OpKind::Put, b"a", b"1", 1),
            op(OpKind::Expire, b"b", b"", 0),
            op(OpKind::Put, b"c", b"2", 2),
        ];
        let stamp = Stamp { time_ms: 5, actor: [6; 16], salt: [7; 16] };
        let made =
            Revision { revision: 9, time_ms: 5, actor: [6; 16], salt: stamp.salt, ops: &ops };
        let whole = |op: &Op<'_>| {
            let put = (op.kind == OpKind::Put).then(|| Put {
                value: Bytes::copy_from_slice(op.value),
                create_revision: op.create.cast_signed(),
                version: op.version.cast_signed(),
                lease: 0,
            });
            let kind = if put.is_some() { Kind::Put } else { Kind::Expire };
            let key = Bytes::copy_from_slice(op.key);
            let change = Change { revision: 9, kind, key, previous: 3, put };
            Remnant::Whole { change, salt: None }
        };
        let mut left = Remains { revision: 9, stamp, changes: ops.iter().map(whole).collect() };
        let entry = made.leaf().entry;
        assert_eq!(entry_left(&left), Some(entry));
        let salt = op_salt(&stamp.salt, 3, 2);
        let put = PutMeta {
            create_revision: 2,
            version: 2,
            lease: 0,
            salt,
            digest: value_digest(&salt, b"2"),
        };
        left.changes[2] = Remnant::Meta { key: "c".into(), previous: 3, put };
        let Remnant::Whole { salt: own, .. } = &mut left.changes[0] else { panic!("it is whole") };
        *own = Some(op_salt(&stamp.salt, 3, 0));
        left.stamp.salt = [0; 16];
        assert_eq!(entry_left(&left), Some(entry));
        left.changes[1] = Remnant::Hash(made.leaf().op_hashes[1].0);
        assert_eq!(entry_left(&left), Some(entry));
        left.changes[0] = Remnant::Missing { key: "a".into() };
        assert_eq!(entry_left(&left), None);
    }
}
