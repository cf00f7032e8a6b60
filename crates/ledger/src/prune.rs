//! Holes at the front of the tile files.
//!
//! `pruned` holds one number, the first leaf that is kept. It is on the disk before the first byte
//! goes, so zeros below it were ordered and zeros behind it are damage. Making a hole twice changes
//! nothing: a crash in between is made up for at the next opening.

use crate::{Readers, Result, checkpoint::decimal, replace_file, tiles::io_at};
use rustix::fs::FallocateFlags;
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

const PRUNED: &str = "pruned";
/// Zeros written at once where the file system makes no holes.
const ZEROS_BYTES: u64 = 1 << 20;

/// The first leaf that is kept.
pub(crate) fn min_index(dir: &Path) -> Result<u64> {
    let path = dir.join(PRUNED);
    match fs::read_to_string(&path) {
        Ok(text) => decimal(text.trim_end(), "first leaf that is kept"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_at(&path)(error)),
    }
}

pub(crate) fn write_min_index(dir: &Path, min_index: u64) -> Result<()> {
    let path = dir.join(PRUNED);
    replace_file(&path, &format!("{min_index}\n"), Readers::All).map_err(io_at(&path))
}

/// Turns the first bytes of a file into a hole; its length stays.
pub(crate) fn make_hole(path: &Path, size_bytes: u64) -> Result<()> {
    if size_bytes == 0 {
        return Ok(());
    }
    let punch = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&file, flags, 0, size_bytes) {
            Ok(()) => Ok(()),
            // Gone is gone, even where the space does not come back.
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, size_bytes),
            Err(error) => Err(error.into()),
        }?;
        file.sync_data()
    };
    punch().map_err(io_at(path))
}

fn write_zeros(file: &fs::File, size_bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size_bytes {
        let count = ZEROS_BYTES.min(size_bytes - at);
        let zeros = vec![0; usize::try_from(count).expect("a megabyte at most")];
        file.write_all_at(&zeros, at)?;
        at += count;
    }
    Ok(())
}
