//! The same keys written again and again: what the engine itself counts must stay where it was. The soak
//! test watches the whole process for hours.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::Backend;
use chronolith_engine::{Durability, KeyRange, WriteBatch};

const KEYS: u32 = 1_000;
const ROUNDS: u32 = 60;
/// Rounds after which everything that grows at first has reached its size.
const WARM: u32 = 5;
const VALUE_BYTES: usize = 2_000;
/// What `Profile::dev` allows: cache, two memtables and one being flushed; a tenth for what RocksDB
/// counts beside them.
const ROCKSDB_BYTES: u64 = (32 + 3 * 8) * 1024 * 1024 * 11 / 10;
/// Logs and checkpoints or tables of 2 MB of data that are replaced all the time.
const DISK_BYTES: u64 = 256 << 20;

for_every_backend!(overwriting_takes_no_more_memory);

fn overwriting_takes_no_more_memory(backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let engine = (backend.create)(&dir.path().join("engine"));
    let column = engine.column("c").unwrap();
    let mut records = None;
    for round in 0..ROUNDS {
        let mut batch = WriteBatch::new();
        for key in 0..KEYS {
            batch.put(column, key.to_be_bytes(), vec![round as u8; VALUE_BYTES]);
        }
        engine.write(batch, Durability::Buffered).unwrap();
        let snapshot = engine.snapshot().unwrap();
        let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
        cursor.seek_to_first().unwrap();
        assert_eq!(cursor.value()[0], round as u8);
        drop(cursor);
        let stats = engine.stats().unwrap();
        let memory = stats.memory;
        let disk = [memory.memtables, memory.cache, memory.table_readers];
        assert!(disk.iter().flatten().sum::<u64>() <= ROCKSDB_BYTES, "round {round}: {memory:?}");
        assert!(stats.disk_bytes.unwrap_or(0) <= DISK_BYTES, "{:?}", stats.disk_bytes);
        if round == WARM {
            records = memory.records;
        } else if round > WARM {
            assert_eq!(memory.records, records, "round {round}");
        }
    }
}
