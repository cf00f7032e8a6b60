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

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io(dir, source)),
        _ => Ok(()),
    }
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
