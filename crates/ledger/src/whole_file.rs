//! A small file, replaced as a whole: whoever reads it, after a crash too, finds the old text or the new one.
//!
//! ```text
//! NAME.new  create · write · sync ──rename──▶ NAME ──▶ sync the directory
//! ```
//! Invariants: the name is moved only onto bytes that are on the disk, and the call returns only when
//! the move is there too. What a crash left under `NAME.new` is never read and does not stay in the way.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the process's umask lets (mode 0644 at most).
    All,
    /// Its owner (mode 0600): keys and salts.
    Owner,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::All => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// Replaces the file at `path`, or creates it, and waits for the disk. One writer a file: two that
/// replace the same one at once may fail each other.
///
/// # Errors
/// What the system said. Then the old file is still there, whole, unless only the last step (the sync of
/// the directory) failed: then it is the old one or the new one.
///
/// ```
/// use chronolith_ledger::{Readers, replace_file};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("pin");
/// replace_file(&path, "old\n", Readers::All)?;
/// replace_file(&path, "new\n", Readers::All)?;
/// assert_eq!(std::fs::read_to_string(&path)?, "new\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn replace_file(path: &Path, text: &str, readers: Readers) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // Created anew: what somebody left there may be open to others, or a link to elsewhere.
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(readers.mode()).open(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => sync_directory(dir),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes the names in a directory durable: files that were created, moved or removed.
///
/// # Errors
/// What the system said; whether the names are durable is then not known.
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_its_owners_is_nobody_elses_even_behind_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.new"), "half a k").unwrap();
        fs::set_permissions(dir.path().join("key.new"), fs::Permissions::from_mode(0o644)).unwrap();
        replace_file(&path, "secret", Readers::Owner).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("secret", 0o600));
        assert!(!dir.path().join("key.new").exists());
    }

    #[test]
    fn a_link_that_lies_in_wait_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("pin"), dir.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, dir.path().join("pin.new")).unwrap();
        replace_file(&path, "text", Readers::All).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn the_old_file_is_left_alone_and_outlives_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        replace_file(&path, "old", Readers::All).unwrap();
        let reading = File::open(&path).unwrap();
        replace_file(&path, "new", Readers::All).unwrap();
        assert_eq!(io::read_to_string(reading).unwrap(), "old");
        fs::create_dir(dir.path().join("pin.new")).unwrap();
        replace_file(&path, "newer", Readers::All).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn where_there_is_no_directory_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = replace_file(&dir.path().join("no/pin"), "text", Readers::All).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
