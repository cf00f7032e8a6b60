//! A log's own key, in two files of the log's directory.
//!
//! ```text
//! DIR/  log.key   the secret half, its owner's alone     log.vkey  the public half, to be given away
//! ```
//! Invariants: `log.key` is written last, so a secret half is never there without its public one. Whoever
//! can read `log.key` can sign checkpoints: cosigners, and checkpoints that others keep, protect against that.

use crate::{KeyKind, Readers, Result, SigningKey, replace_file, tiles::io_at};
use rand::Rng;
use std::{fs, path::Path};

/// Name of the file with the secret half of a log's key.
pub const SIGNING_KEY_FILE: &str = "log.key";
/// Name of the file with the public half.
pub const VERIFIER_KEY_FILE: &str = "log.vkey";

impl SigningKey {
    /// Makes the key of a new log of this origin from the system's randomness, and keeps it in `dir`.
    /// One that is there already is replaced: what it signed cannot be continued any more.
    ///
    /// # Errors
    /// An origin that no key can have, or what the disk said.
    pub fn make_in(dir: &Path, origin: &str) -> Result<Self> {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let key = Self::from_seed(origin, KeyKind::Log, &seed)?;
        let keep = |name, text: String, readers| {
            let path = dir.join(name);
            replace_file(&path, &text, readers).map_err(io_at(&path))
        };
        keep(VERIFIER_KEY_FILE, format!("{}\n", key.verifier()), Readers::All)?;
        keep(SIGNING_KEY_FILE, format!("{}\n", key.to_secret_text()), Readers::Owner)?;
        Ok(key)
    }

    /// Reads the key that is kept in `dir`.
    ///
    /// # Errors
    /// No such file, or one that holds no key.
    pub fn read_from(dir: &Path) -> Result<Self> {
        let path = dir.join(SIGNING_KEY_FILE);
        let text = fs::read_to_string(&path).map_err(io_at(&path))?;
        Self::parse(text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VerifierKey;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_was_made_is_read_back_and_its_secret_half_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let made = SigningKey::make_in(dir.path(), "example.org/log").unwrap();
        let read = SigningKey::read_from(dir.path()).unwrap();
        assert_eq!(read.to_secret_text(), made.to_secret_text());
        let public = fs::read_to_string(dir.path().join(VERIFIER_KEY_FILE)).unwrap();
        assert_eq!(VerifierKey::parse(public.trim_end()).unwrap(), *made.verifier());
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(SIGNING_KEY_FILE), 0o600);
    }

    #[test]
    fn two_logs_of_one_origin_have_two_keys() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKey::make_in(dir.path(), "example.org/log").unwrap();
        let second = SigningKey::make_in(dir.path(), "example.org/log").unwrap();
        assert_ne!(first.to_secret_text(), second.to_secret_text());
    }
}
