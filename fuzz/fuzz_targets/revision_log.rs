//! Bytes as what the versioned store finds in its engine: records in its three columns. Opening and every way
//! of reading must answer, with an error or without, and never panic.
#![no_main]

use bytes::Bytes;
use chronolith_engine::{Durability, Engine, MemoryEngine, WriteBatch};
use chronolith_mvcc::Mvcc;
use chronolith_proto::etcdserverpb::RangeRequest;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// Takes records off the front: column, length of the key, length of the value, both.
fn record<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
    let ([column, key, value], rest) = bytes.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(*key))?;
    let (value, rest) = rest.split_at_checked(usize::from(*value))?;
    *bytes = rest;
    Some((*column, key, value))
}

fuzz_target!(|bytes: &[u8]| {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let columns =
        ["versions", "log", "meta"].map(|name| engine.column(name).expect("a new engine"));
    let (mut batch, mut rest) = (WriteBatch::new(), bytes);
    while let Some((column, key, value)) = record(&mut rest) {
        batch.put(columns[usize::from(column) % 3], key.to_vec(), value.to_vec());
    }
    engine.write(batch, Durability::Buffered).expect("a new engine");
    let Ok(mvcc) = Mvcc::open(Arc::clone(&engine)) else { return };
    let reader = mvcc.reader();
    let _ = reader.changes(2, 100);
    let _ = reader.each_version(|_, _, _| Ok(()));
    let _ = reader.revision_at_time(1);
    let _ = reader.hash_kv(0);
    for revision in [0, 2, reader.current_revision()] {
        let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
        let _ = reader.range(&RangeRequest { key, range_end, revision, ..RangeRequest::default() });
    }
});
