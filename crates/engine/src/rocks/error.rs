//! What RocksDB says, typed: its errors are texts.

use crate::Error;
use rocksdb::ErrorKind;
use std::{
    io,
    path::{Path, PathBuf},
};

/// RocksDB's error about something in the database at `dir`.
pub(super) fn translate(dir: &Path, error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let text = error.into_string();
    match kind {
        ErrorKind::Corruption => corrupt(dir, text),
        ErrorKind::IOError if text.contains("LOCK") => Error::InUse { path: dir.to_owned() },
        ErrorKind::IOError => {
            let path = path_in(&text).unwrap_or_else(|| dir.to_owned());
            Error::Io { path, source: io::Error::new(io_kind(&text), text) }
        }
        _ => Error::Backend(text),
    }
}

/// Whether nothing more may be written after this error.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::Io { .. })
}

fn corrupt(dir: &Path, text: String) -> Error {
    let path = path_in(&text).unwrap_or_else(|| dir.to_owned());
    Error::Corrupt { path, what: text }
}

/// The first absolute path that the text names.
fn path_in(text: &str) -> Option<PathBuf> {
    let word = text.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(word.trim_end_matches([':', ',', ';', '.']).into())
}

fn io_kind(text: &str) -> io::ErrorKind {
    if text.contains("No space left") {
        io::ErrorKind::StorageFull
    } else if text.contains("File too large") {
        io::ErrorKind::FileTooLarge
    } else if text.contains("No such file") {
        io::ErrorKind::NotFound
    } else if text.contains("Permission denied") {
        io::ErrorKind::PermissionDenied
    } else {
        io::ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_the_text() {
        let text = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in \
                    /data/000012.sst offset 0 size 4061";
        assert_eq!(path_in(text), Some("/data/000012.sst".into()));
        let text =
            "IO error: No space left on device: While appending to file: /data/000014.log: x";
        assert_eq!(path_in(text), Some("/data/000014.log".into()));
        assert_eq!(io_kind(text), io::ErrorKind::StorageFull);
    }
}
