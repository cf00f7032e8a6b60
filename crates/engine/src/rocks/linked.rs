//! A database that is only looked at: a copy which shares the table files.
//!
//! ```text
//! DIR/000012.sst ◀─ symbolic link ─ SCRATCH/000012.sst
//! DIR/CURRENT, MANIFEST-…, OPTIONS-…, batches/log-3 ─ copied ─▶ SCRATCH/
//! ```
//! Table files never change; whatever the copy writes, replays or removes stays in its own directory. So a
//! database on a medium that cannot be written to can be opened, and one that must stay as it is.

use super::{RocksEngine, journal};
use crate::{ColumnId, Engine, KeyRange, Profile, Result, disk};
use std::{fs, path::Path};

/// What RocksDB's table files end in.
const TABLE: &str = "sst";
/// RocksDB's lock, and what it writes down of its own doings: of no use in a copy.
const LEFT_OUT: [&str; 2] = ["LOCK", "LOG"];

impl RocksEngine {
    /// Opens a copy in the empty directory `scratch`, which shares the table files of the database in
    /// `dir`. Nobody may have that one open, and nothing in `dir` is written. Errors name files of the
    /// copy: [`crate::Error::about`] turns them into those of `dir`.
    pub fn open_linked(dir: &Path, scratch: &Path, profile: &Profile) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|source| disk::io(dir, source))?;
        let logs = scratch.join(journal::DIR);
        fs::create_dir_all(&logs).map_err(|source| disk::io(&logs, source))?;
        for path in disk::entries(&dir)? {
            link(&path, scratch)?;
        }
        for path in disk::entries(&dir.join(journal::DIR))? {
            link(&path, &logs)?;
        }
        Self::open(scratch, profile)
    }

    /// Reads every record of every column, so that each of the files' blocks is checked against its
    /// checksum; the number of records.
    pub fn read_everything(&self) -> Result<u64> {
        let snapshot = self.snapshot()?;
        let columns = self.families()?.names().len();
        let mut records = 0;
        for column in 0..columns {
            let column = ColumnId(u32::try_from(column).expect("fewer columns"));
            let mut cursor = snapshot.cursor(column, KeyRange::all())?;
            cursor.seek_to_first()?;
            while cursor.valid() {
                records += 1;
                cursor.next()?;
            }
        }
        Ok(records)
    }
}

fn link(path: &Path, scratch: &Path) -> Result<()> {
    let Some(name) = path.file_name().filter(|_| path.is_file()) else { return Ok(()) };
    let target = scratch.join(name);
    let left_out =
        name.to_str().is_some_and(|name| LEFT_OUT.iter().any(|left| name.starts_with(left)));
    let done = match path.extension().is_some_and(|extension| extension == TABLE) {
        true => std::os::unix::fs::symlink(path, &target),
        false if left_out => Ok(()),
        false => fs::copy(path, &target).map(drop),
    };
    done.map_err(|source| disk::io(path, source))
}
