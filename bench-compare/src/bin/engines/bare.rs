//! The `rocksdb` crate as it is, with the options of our default profile; with its log, or without any.

use super::{Contestant, Record};
use anyhow::{Context, Result};
use chronolith_engine::{Profile, RocksEngine};
use rocksdb::{ColumnFamilyDescriptor, DB, WriteBatch, WriteOptions};
use std::path::Path;

const COLUMN: &str = "records";

struct Bare {
    database: DB,
    without_log: bool,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Contestant>> {
    bare(dir, false)
}

/// What its own work costs, so that the cost of a log can be told from it.
pub(super) fn open_without_log(dir: &Path) -> Result<Box<dyn Contestant>> {
    bare(dir, true)
}

fn bare(dir: &Path, without_log: bool) -> Result<Box<dyn Contestant>> {
    let mut options = RocksEngine::options(&Profile::default());
    options.create_missing_column_families(true);
    let columns =
        ["default", COLUMN].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    let database = DB::open_cf_descriptors(&options, dir, columns)?;
    Ok(Box::new(Bare { database, without_log }))
}

impl Bare {
    fn options(&self, sync: bool) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.disable_wal(self.without_log);
        options
    }
}

impl Contestant for Bare {
    fn write(&self, records: &[Record], sync: bool) -> Result<()> {
        let column = self.database.cf_handle(COLUMN).context("the column is there")?;
        let mut batch = WriteBatch::default();
        records.iter().for_each(|(key, value)| batch.put_cf(column, key, value));
        Ok(self.database.write_opt(batch, &self.options(sync))?)
    }

    fn delete(&self, records: &[Record]) -> Result<()> {
        let column = self.database.cf_handle(COLUMN).context("the column is there")?;
        let mut batch = WriteBatch::default();
        records.iter().for_each(|(key, _)| batch.delete_cf(column, key));
        Ok(self.database.write_opt(batch, &self.options(false))?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let column = self.database.cf_handle(COLUMN).context("the column is there")?;
        Ok(self.database.get_cf(column, key)?)
    }
}
