//! The `rocksdb` crate as it is, with the options of our default profile.

use super::{Contestant, Record};
use anyhow::{Context, Result};
use chronolith_engine::{Profile, RocksEngine};
use rocksdb::{ColumnFamilyDescriptor, DB, WriteBatch, WriteOptions};
use std::path::Path;

const COLUMN: &str = "records";

struct Bare(DB);

pub(super) fn open(dir: &Path) -> Result<Box<dyn Contestant>> {
    let mut options = RocksEngine::options(&Profile::default());
    options.create_missing_column_families(true);
    let columns =
        ["default", COLUMN].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    Ok(Box::new(Bare(DB::open_cf_descriptors(&options, dir, columns)?)))
}

impl Contestant for Bare {
    fn write(&self, records: &[Record], sync: bool) -> Result<()> {
        let column = self.0.cf_handle(COLUMN).context("the column is there")?;
        let mut batch = WriteBatch::default();
        records.iter().for_each(|(key, value)| batch.put_cf(column, key, value));
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.0.write_opt(batch, &options)?)
    }

    fn delete(&self, records: &[Record]) -> Result<()> {
        let column = self.0.cf_handle(COLUMN).context("the column is there")?;
        let mut batch = WriteBatch::default();
        records.iter().for_each(|(key, _)| batch.delete_cf(column, key));
        Ok(self.0.write(batch)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let column = self.0.cf_handle(COLUMN).context("the column is there")?;
        Ok(self.0.get_cf(column, key)?)
    }
}
