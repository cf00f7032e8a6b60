//! Files that appear whole or not at all.

use crate::{Error, Result};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// An I/O error with the file it happened to.
pub(crate) fn io(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Makes renames and new names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| io(dir, source))
}

/// Creates `dir` with what `fill` puts into it. Until `fill` is done and synced, the files lie in
/// `DIR.partial`; what an interrupted call left there is removed first.
pub(crate) fn create_dir_whole(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return Err(io(dir, io::ErrorKind::AlreadyExists.into()));
    }
    let partial = partial_name(dir);
    remove_dir(&partial)?;
    fs::create_dir_all(&partial).map_err(|source| io(&partial, source))?;
    let filled = fill(&partial).and_then(|()| sync_dir(&partial));
    if let Err(error) = filled {
        // The error says more than a failed clean-up would; the next call cleans up as well.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    fs::rename(&partial, dir).map_err(|source| io(dir, source))?;
    sync_dir(parent(dir))
}

/// Makes the bytes of `file` durable.
pub(crate) fn sync_file(file: &Path) -> Result<()> {
    File::open(file).and_then(|open| open.sync_all()).map_err(|source| io(file, source))
}

/// What lies in `dir`; nothing where it does not exist.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let entries: io::Result<Vec<PathBuf>> = list();
    match entries {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(|source| io(dir, source)),
    }
}

/// Number and bytes of the files in `dir` and below. A file that vanishes meanwhile is not counted.
pub(crate) fn usage(dir: &Path) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for path in entries(dir)? {
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                let (files, size) = usage(&path)?;
                sum = (sum.0 + files, sum.1 + size);
            }
            Ok(found) => sum = (sum.0 + 1, sum.1 + found.len()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io(&path, source)),
        }
    }
    Ok(sum)
}

/// Bytes of the files in `dir` and below.
pub(crate) fn size(dir: &Path) -> Result<u64> {
    usage(dir).map(|(_, size)| size)
}

/// Removes `dir` and what is in it; nothing happens where there is none.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io(dir, source)),
        _ => Ok(()),
    }
}

/// The numbers behind `prefix` in the names in `dir`, sorted; other names are passed over.
pub(crate) fn numbers(dir: &Path, prefix: &str) -> Result<Vec<u64>> {
    let number = |path: PathBuf| path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok();
    let mut numbers: Vec<u64> = entries(dir)?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn partial_name(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The directory that holds `dir`.
pub(crate) fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
