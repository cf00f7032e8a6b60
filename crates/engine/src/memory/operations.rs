//! A batch of the memory engine in its log.
//!
//! ```text
//! batch: (kind u8 · column u32 · length u32 · bytes · [length u32 · bytes])*     numbers little-endian
//! ```

use super::view::View;
use crate::{
    ColumnId, Operation, Result,
    log::{Log, Place},
};
use bytes::{Buf, Bytes};

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;
/// A new column: only its name follows.
const COLUMN: u8 = 3;

/// Appends one batch, handed to the operating system; gives its bytes in the log.
pub(super) fn append(log: &mut Log, operations: &[Operation]) -> Result<u64> {
    log.append(|payload| {
        // At once: growing by doubling would copy a large batch several times.
        payload.reserve(operations.iter().map(encoded_bytes).sum());
        operations.iter().for_each(|operation| encode(payload, operation));
    })
}

/// Appends the creation of a column.
pub(super) fn append_column(log: &mut Log, name: &str) -> Result<u64> {
    log.append(|payload| {
        payload.push(COLUMN);
        push_bytes(payload, name.as_bytes());
    })
}

/// What [`encode`] appends: kind, column, lengths and bytes.
fn encoded_bytes(operation: &Operation) -> usize {
    5 + match operation {
        Operation::Put(_, a, b) | Operation::DeleteRange(_, a, b) => 8 + a.len() + b.len(),
        Operation::Delete(_, key) => 4 + key.len(),
    }
}

fn encode(out: &mut Vec<u8>, operation: &Operation) {
    let (kind, column, parts): (u8, ColumnId, [Option<&[u8]>; 2]) = match operation {
        Operation::Put(column, key, value) => (PUT, *column, [Some(key), Some(value)]),
        Operation::Delete(column, key) => (DELETE, *column, [Some(key), None]),
        Operation::DeleteRange(column, from, to) => (DELETE_RANGE, *column, [Some(from), Some(to)]),
    };
    out.push(kind);
    out.extend_from_slice(&column.0.to_le_bytes());
    parts.into_iter().flatten().for_each(|part| push_bytes(out, part));
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and values are limited");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Applies a record of the log to `view`.
pub(super) fn apply(view: &mut View, place: &Place<'_>, mut payload: Bytes) -> Result<()> {
    let mut operations = Vec::new();
    while payload.has_remaining() {
        if payload[0] == COLUMN {
            payload.advance(1);
            let name = part(place, &mut payload)?;
            view.add_column(&String::from_utf8_lossy(&name));
        } else {
            operations.push(operation(place, &mut payload)?);
        }
    }
    view.check(&operations).map_err(|error| place.corrupt(&error.to_string()))?;
    view.apply(&operations);
    Ok(())
}

fn operation(place: &Place<'_>, payload: &mut Bytes) -> Result<Operation> {
    let kind = payload.get_u8();
    let column = payload.try_get_u32_le().map_err(|_| place.corrupt("a change is cut short"))?;
    let (column, first) = (ColumnId(column), part(place, payload)?);
    match kind {
        PUT => Ok(Operation::Put(column, first, part(place, payload)?)),
        DELETE => Ok(Operation::Delete(column, first)),
        DELETE_RANGE => Ok(Operation::DeleteRange(column, first, part(place, payload)?)),
        _ => Err(place.corrupt("a change of an unknown kind")),
    }
}

fn part(place: &Place<'_>, payload: &mut Bytes) -> Result<Bytes> {
    let length = payload.try_get_u32_le().ok().map(|length| length as usize);
    match length.filter(|length| *length <= payload.len()) {
        Some(length) => Ok(payload.split_to(length)),
        None => Err(place.corrupt("a change is cut short")),
    }
}
