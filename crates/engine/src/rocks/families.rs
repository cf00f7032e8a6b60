//! An open database with the handles of its columns, which borrow from it.
//!
//! Column names are RocksDB's family names, except that RocksDB keeps `default` for itself and refuses
//! an empty name: both are escaped, and so is what begins with the escape. Columns are numbered in the order of their
//! creation, which RocksDB's manifest keeps.

use super::encoding;
use crate::{ColumnId, Error, Result};
use rocksdb::{
    BoundColumnFamily, DBWithThreadMode, MultiThreaded, SnapshotWithThreadMode, WriteBatch,
};
use self_cell::self_cell;
use std::{borrow::Cow, sync::Arc};

pub(super) type Database = DBWithThreadMode<MultiThreaded>;
pub(super) type Family<'a> = Arc<BoundColumnFamily<'a>>;

/// RocksDB's own family, which no column uses.
pub(super) const RESERVED: &str = "default";
const ESCAPE: &str = "~";

/// Handles in the order of the columns' numbers.
pub(super) struct Handles<'a> {
    names: Vec<String>,
    families: Vec<Family<'a>>,
    /// RocksDB's numbers of the families.
    numbers: Vec<u32>,
}

self_cell!(
    /// The database and its columns.
    pub(super) struct Families {
        owner: Arc<Database>,

        #[covariant]
        dependent: Handles,
    }
);

pub(super) type Pinned<'a> = SnapshotWithThreadMode<'a, Database>;

self_cell!(
    /// A consistent view, which keeps its database open.
    pub(super) struct View {
        owner: Arc<Families>,

        #[covariant]
        dependent: Pinned,
    }
);

impl Families {
    /// The columns of these names; every one exists.
    pub(super) fn of(database: Arc<Database>, names: Vec<String>) -> Result<Self> {
        Self::try_new(database, |database| {
            let handle = |name: &String| {
                let missing = || Error::Backend(format!("column {name} has no handle"));
                database.cf_handle(&family_name(name)).ok_or_else(missing)
            };
            let families = names.iter().map(handle).collect::<Result<Vec<_>>>()?;
            let numbers = families.iter().map(number_of).collect::<Result<_>>()?;
            Ok(Handles { names, families, numbers })
        })
    }

    pub(super) fn database(&self) -> &Arc<Database> {
        self.borrow_owner()
    }

    pub(super) fn names(&self) -> &[String] {
        &self.borrow_dependent().names
    }

    pub(super) fn all(&self) -> &[Family<'_>] {
        &self.borrow_dependent().families
    }

    pub(super) fn get(&self, column: ColumnId) -> Result<&Family<'_>> {
        self.all().get(column.0 as usize).ok_or(Error::UnknownColumn(column.0))
    }

    /// RocksDB's number of a column's family.
    pub(super) fn number(&self, column: ColumnId) -> Result<u32> {
        let numbers = &self.borrow_dependent().numbers;
        numbers.get(column.0 as usize).copied().ok_or(Error::UnknownColumn(column.0))
    }

    pub(super) fn named(&self, name: &str) -> Option<ColumnId> {
        let position = self.names().iter().position(|other| other == name)?;
        Some(ColumnId(u32::try_from(position).expect("fewer than 2^32 columns")))
    }
}

/// The crate does not tell a family's number; a batch does.
fn number_of(family: &Family<'_>) -> Result<u32> {
    let mut batch = WriteBatch::default();
    batch.put_cf(family, "", "");
    let unknown = || Error::Backend("a column family's number is not known".into());
    encoding::family_number(&batch).ok_or_else(unknown)
}

impl View {
    pub(super) fn of(families: Arc<Families>) -> Self {
        Self::new(families, |families| families.database().snapshot())
    }

    pub(super) fn families(&self) -> &Families {
        self.borrow_owner()
    }

    pub(super) fn pinned(&self) -> &Pinned<'_> {
        self.borrow_dependent()
    }
}

/// RocksDB's name for a column.
pub(super) fn family_name(column: &str) -> Cow<'_, str> {
    match column.is_empty() || column == RESERVED || column.starts_with(ESCAPE) {
        true => format!("{ESCAPE}{column}").into(),
        false => column.into(),
    }
}

/// The column with RocksDB's name `family`.
pub(super) fn column_name(family: &str) -> &str {
    family.strip_prefix(ESCAPE).unwrap_or(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for name in ["keys", "default", "~", "~default", ""] {
            let family = family_name(name);
            assert_ne!(family, RESERVED);
            assert_eq!(column_name(&family), name);
        }
    }
}
