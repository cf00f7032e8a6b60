//! A batch in RocksDB's own encoding, which is also what our log keeps of it.
//!
//! ```text
//! sequence u64 · records u32 · (tag u8 · family varint · length varint · bytes · [length varint · bytes])*
//! ```
//! Numbers are little-endian. RocksDB sets the sequence when it writes the batch. Source of the format:
//! RocksDB's `db/write_batch.cc` and `db/dbformat.h`; it is that of its log, so it does not change.
//!
//! Written here, and not by a call of RocksDB for each record, since the records of a large batch are
//! put in the order of their keys at the same time: RocksDB then finds each record's place next to the
//! last one's, still in the processor's cache. Sorting moves 16 bytes a record.

use super::Families;
use crate::{ColumnId, Operation, Result, batch};
use std::cmp::Ordering;

const HEADER_BYTES: usize = 12;
/// What a record has beside its bytes, at most: tag, family and two lengths.
const RECORD_BYTES: usize = 16;
const DELETE: u8 = 0x4;
const PUT: u8 = 0x5;
const DELETE_RANGE: u8 = 0xe;
/// From this size on a batch is sorted: measured, smaller ones gain nothing.
const SORTED_OPERATIONS: usize = 256;

/// Encodes checked operations of `size_bytes` together, in order or in an order of the same effect.
pub(super) fn encode(
    families: &Families,
    operations: &[Operation],
    size_bytes: usize,
) -> Result<Vec<u8>> {
    let mut encoder = Encoder {
        families,
        out: Vec::with_capacity(HEADER_BYTES + size_bytes + operations.len() * RECORD_BYTES),
        records: 0,
    };
    encoder.out.resize(HEADER_BYTES, 0);
    match order(operations) {
        None => operations.iter().try_for_each(|operation| encoder.operation(operation))?,
        Some(order) => order
            .iter()
            .try_for_each(|place| encoder.operation(&operations[place.number as usize]))?,
    }
    encoder.out[8..HEADER_BYTES].copy_from_slice(&encoder.records.to_le_bytes());
    Ok(encoder.out)
}

struct Encoder<'a> {
    families: &'a Families,
    out: Vec<u8>,
    records: u32,
}

impl Encoder<'_> {
    fn operation(&mut self, operation: &Operation) -> Result<()> {
        batch::check_size(operation)?;
        match operation {
            Operation::Put(column, key, value) => self.record(PUT, *column, &[key, value]),
            Operation::Delete(column, key) => self.record(DELETE, *column, &[key]),
            // RocksDB refuses a range that ends before it begins; to us it is empty.
            Operation::DeleteRange(column, start, end) if start >= end => {
                self.families.get(*column).map(drop)
            }
            Operation::DeleteRange(column, start, end) => {
                self.record(DELETE_RANGE, *column, &[start, end])
            }
        }
    }

    fn record(&mut self, tag: u8, column: ColumnId, parts: &[&[u8]]) -> Result<()> {
        self.out.push(tag);
        push_varint(&mut self.out, self.families.number(column)?);
        for part in parts {
            push_varint(&mut self.out, u32::try_from(part.len()).expect("sizes are checked"));
            self.out.extend_from_slice(part);
        }
        self.records += 1;
        Ok(())
    }
}

fn push_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// An operation's place in the order of columns and keys.
struct Place {
    /// Of the key, the first bytes that are not the same in all.
    beginning: u64,
    column: u32,
    number: u32,
}

/// The order of the keys, where it is worth its time. Changes of one key keep theirs; where ranges are
/// deleted, everything does.
fn order(operations: &[Operation]) -> Option<Vec<Place>> {
    if operations.len() < SORTED_OPERATIONS || operations.iter().any(Operation::is_wide) {
        return None;
    }
    let common = common_bytes(operations);
    let place = |(number, operation): (u32, &Operation)| Place {
        beginning: beginning(&operation.key()[common..]),
        column: operation.column().0,
        number,
    };
    let mut order: Vec<Place> = (0..).zip(operations).map(place).collect();
    let key = |place: &Place| operations[place.number as usize].key();
    order.sort_unstable_by(|a, b| {
        (a.column, a.beginning).cmp(&(b.column, b.beginning)).then_with(|| {
            match key(a).cmp(key(b)) {
                Ordering::Equal => a.number.cmp(&b.number),
                different => different,
            }
        })
    });
    Some(order)
}

/// How many bytes all keys begin with alike.
fn common_bytes(operations: &[Operation]) -> usize {
    let first = operations.first().map_or(&[][..], Operation::key);
    operations.iter().fold(first.len(), |common, operation| {
        first[..common].iter().zip(operation.key()).take_while(|(a, b)| a == b).count()
    })
}

/// The first eight bytes as a number of the same order; zeros stand for what is missing.
fn beginning(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let length = bytes.len().min(8);
    number[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(number)
}

/// The number of a column family, as RocksDB writes it into a batch.
pub(super) fn family_number(batch: &rocksdb::WriteBatch) -> Option<u32> {
    let varint = batch.data().get(HEADER_BYTES + 1..)?;
    let length = varint.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let value = |number: u32, byte: &u8| number << 7 | u32::from(byte & 0x7f);
    Some(varint[..length].iter().rev().fold(0, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Profile, RocksEngine};
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let key = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let value = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let operation = prop_oneof![
            (0u32..2, key(), value()).prop_map(|(c, k, v)| Operation::Put(ColumnId(c), k, v)),
            (0u32..2, key()).prop_map(|(c, k)| Operation::Delete(ColumnId(c), k)),
            (0u32..2, key(), key()).prop_map(|(c, a, b)| Operation::DeleteRange(ColumnId(c), a, b)),
        ];
        vec(operation, 0..40)
    }

    fn by_rocksdb(families: &Families, operations: &[Operation]) -> Vec<u8> {
        let mut batch = rocksdb::WriteBatch::default();
        for operation in operations {
            let family = families.get(operation.column()).unwrap();
            match operation {
                Operation::Put(_, key, value) => batch.put_cf(family, key, value),
                Operation::Delete(_, key) => batch.delete_cf(family, key),
                Operation::DeleteRange(_, start, end) if start >= end => {}
                Operation::DeleteRange(_, start, end) => batch.delete_range_cf(family, start, end),
            }
        }
        batch.data().to_vec()
    }

    fn with_families(columns: usize, test: impl FnOnce(&Families)) {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
        for number in 0..columns {
            engine.column(&number.to_string()).unwrap();
        }
        test(&engine.families().unwrap());
    }

    #[test]
    fn a_batch_is_encoded_as_rocksdb_does() {
        with_families(2, |families| {
            proptest!(|(operations in operations())| {
                let encoded = encode(families, &operations, 0).unwrap();
                prop_assert_eq!(encoded, by_rocksdb(families, &operations));
            });
        });
    }

    #[test]
    fn a_family_has_the_number_that_rocksdb_gave_it_whatever_its_length() {
        with_families(200, |families| {
            for column in (0..200).map(ColumnId) {
                let operations = [Operation::Put(column, "key".into(), "value".into())];
                let encoded = encode(families, &operations, 0).unwrap();
                assert_eq!(encoded, by_rocksdb(families, &operations));
            }
        });
    }

    #[test]
    fn a_large_batch_is_in_the_order_of_its_keys_and_each_key_keeps_its_changes() {
        let mut operations = Vec::new();
        for number in (0..SORTED_OPERATIONS as u32).rev() {
            // Keys of several lengths, with a common beginning and with equal ones behind it.
            let key =
                Bytes::from(format!("common{:0width$}", number / 2, width = number as usize % 12));
            operations.push(Operation::Put(ColumnId(number % 2), key.clone(), "first".into()));
            operations.push(Operation::Delete(ColumnId(number % 2), key));
        }
        let order = order(&operations).unwrap();
        let mut expected: Vec<usize> = (0..operations.len()).collect();
        expected.sort_by_key(|number| (operations[*number].column(), operations[*number].key()));
        let order: Vec<usize> = order.iter().map(|place| place.number as usize).collect();
        assert_eq!(order, expected);
        operations.push(Operation::DeleteRange(ColumnId(0), "a".into(), "b".into()));
        assert!(super::order(&operations).is_none(), "a range keeps everything in order");
    }
}
