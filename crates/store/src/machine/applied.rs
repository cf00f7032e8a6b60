//! The record of how far the log is applied.
//!
//! ```text
//! store: "applied" → index (8, big endian) · term (8) · conf state (the rest)
//! ```

use bytes::Bytes;
use chronolith_engine::{ColumnId, Engine, Error, Overlay};
use chronolith_raft::Applied;

const KEY: &[u8] = b"applied";

pub(crate) fn write(batch: &mut Overlay, column: ColumnId, applied: &Applied) {
    let mut record = Vec::with_capacity(2 * size_of::<u64>() + applied.conf_state.len());
    record.extend_from_slice(&applied.index.to_be_bytes());
    record.extend_from_slice(&applied.term.to_be_bytes());
    record.extend_from_slice(&applied.conf_state);
    batch.put(column, Bytes::from_static(KEY), record);
}

pub(crate) fn read(engine: &dyn Engine, column: ColumnId) -> Result<Option<Applied>, Error> {
    let Some(record) = engine.get(column, KEY)? else { return Ok(None) };
    decode(&record)
        .map(Some)
        .ok_or_else(|| Error::Backend("the applied index does not read".into()))
}

fn decode(record: &Bytes) -> Option<Applied> {
    let (index, rest) = record.split_first_chunk::<8>()?;
    let (term, conf_state) = rest.split_first_chunk::<8>()?;
    Some(Applied {
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(*term),
        conf_state: record.slice_ref(conf_state),
    })
}
