//! The log's own key and salt, made at its birth.
//!
//! Whoever can read `log.key` can sign checkpoints: a checkpoint that somebody else keeps (a pin) is what
//! protects against that. Whoever can read `salt` can try values against their digests.

use crate::{Error, Result, event::hex};
use chronolith_ledger::{Readers, SALT_BYTES, SIGNING_KEY_FILE, SigningKey, replace_file};
use rand::Rng;
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

pub(crate) const SALT: &str = "salt";

/// What no other log has.
pub(crate) struct Secrets {
    pub(crate) key: SigningKey,
    pub(crate) salt: [u8; SALT_BYTES],
}

impl Secrets {
    /// Reads them, or makes them where there is no log yet.
    pub(crate) fn open(dir: &Path, origin: &str, is_new: bool) -> Result<Self> {
        if is_new && !dir.join(SIGNING_KEY_FILE).exists() {
            make_salt(dir)?;
            // Last: a key without its companions is never found.
            SigningKey::make_in(dir, origin)?;
        }
        let key = SigningKey::read_from(dir)?;
        if key.verifier().name() != origin {
            let why = format!("its key is of {}, not of {origin}", key.verifier().name());
            return Err(Error::Changed { dir: dir.to_owned(), why });
        }
        let path = dir.join(SALT);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let salt = parse_salt(&text).ok_or_else(|| {
            let why = format!("{SALT} is not {SALT_BYTES} bytes in hex");
            Error::Changed { dir: dir.to_owned(), why }
        })?;
        Ok(Self { key, salt })
    }
}

fn make_salt(dir: &Path) -> Result<()> {
    let mut salt = [0; SALT_BYTES];
    rand::rng().fill_bytes(&mut salt);
    let path = dir.join(SALT);
    replace_file(&path, &salt_text(&salt), Readers::Owner).map_err(Error::io(&path))
}

fn salt_text(salt: &[u8; SALT_BYTES]) -> String {
    format!("{}\n", hex(salt))
}

/// Reads a salt in its one form.
pub(crate) fn parse_salt(text: &str) -> Option<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    for (index, byte) in salt.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    (salt_text(&salt) == text).then_some(salt)
}

/// What the log says of its salt.
pub(crate) fn salt_digest(salt: &[u8; SALT_BYTES]) -> String {
    hex(&Sha256::digest(salt))
}
