//! What the memory engine writes into its log: batches, as they are, and new columns.
//!
//! ```text
//! record: changes of a batch (see `batch`) | kind u8 = 3 · name
//! ```

use super::view::View;
use crate::{
    Operation, Result, WriteBatch,
    log::{Log, Place},
};

/// A new column. Kinds below it are those of changes.
const COLUMN: u8 = 3;

/// Appends one batch, handed to the operating system; gives its bytes in the log.
pub(super) fn append(log: &mut Log, batch: &WriteBatch) -> Result<u64> {
    log.append(&[batch.encoded()])
}

/// Appends the creation of a column.
pub(super) fn append_column(log: &mut Log, name: &str) -> Result<u64> {
    log.append(&[&[COLUMN], name.as_bytes()])
}

/// Applies a record of the log to `view`.
pub(super) fn apply(view: &mut View, place: &Place<'_>, payload: &[u8]) -> Result<()> {
    if let Some((&COLUMN, name)) = payload.split_first() {
        let name =
            std::str::from_utf8(name).map_err(|_| place.corrupt("a column's name is not text"))?;
        view.add_column(name);
        return Ok(());
    }
    let mut rest = payload;
    while !rest.is_empty() {
        let operation = Operation::take(&mut rest).map_err(|what| place.corrupt(what))?;
        let known = view.records(operation.column()).map(drop);
        known.map_err(|error| place.corrupt(&error.to_string()))?;
        view.apply([operation]);
    }
    Ok(())
}
