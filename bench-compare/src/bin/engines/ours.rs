//! Chronolith's engines.

use super::{Contestant, Record};
use anyhow::Result;
use chronolith_engine::{ColumnId, Durability, Engine, MemoryEngine, WriteBatch};
use std::path::Path;

struct Ours {
    engine: Box<dyn Engine>,
    column: ColumnId,
}

pub(super) fn memory(dir: &Path) -> Result<Box<dyn Contestant>> {
    ours(Box::new(MemoryEngine::open(dir)?))
}

#[cfg(feature = "rocksdb")]
pub(super) fn rocksdb(dir: &Path) -> Result<Box<dyn Contestant>> {
    use chronolith_engine::{Profile, RocksEngine};
    ours(Box::new(RocksEngine::open(dir, &Profile::default())?))
}

fn ours(engine: Box<dyn Engine>) -> Result<Box<dyn Contestant>> {
    let column = engine.column("records")?;
    Ok(Box::new(Ours { engine, column }))
}

impl Ours {
    fn apply(&self, batch: WriteBatch, sync: bool) -> Result<()> {
        let durability = if sync { Durability::Sync } else { Durability::Buffered };
        Ok(self.engine.write(batch, durability)?)
    }
}

impl Contestant for Ours {
    fn write(&self, records: &[Record], sync: bool) -> Result<()> {
        let mut batch = WriteBatch::new();
        records.iter().for_each(|(key, value)| batch.put(self.column, key, value));
        self.apply(batch, sync)
    }

    fn delete(&self, records: &[Record]) -> Result<()> {
        let mut batch = WriteBatch::new();
        records.iter().for_each(|(key, _)| batch.delete(self.column, key));
        self.apply(batch, false)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.engine.get(self.column, key)?.map(Vec::from))
    }
}
