//! The log's own key and salt, made at its birth.
//!
//! Whoever can read `log.key` can sign checkpoints: a checkpoint that somebody else keeps (a pin) is what
//! protects against that. Whoever can read `salt` can try values against their digests.

use crate::{Error, Result, event::hex};
use chronolith_ledger::{KeyKind, SALT_BYTES, SigningKey};
use rand::Rng;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

pub(crate) const KEY: &str = "log.key";
pub(crate) const VERIFIER_KEY: &str = "log.vkey";
pub(crate) const SALT: &str = "salt";

/// What no other log has.
pub(crate) struct Secrets {
    pub(crate) key: SigningKey,
    pub(crate) salt: [u8; SALT_BYTES],
}

impl Secrets {
    /// Reads them, or makes them where there is no log yet.
    pub(crate) fn open(dir: &Path, origin: &str, is_new: bool) -> Result<Self> {
        if is_new && !dir.join(KEY).exists() {
            Self::make(dir, origin)?;
        }
        let read = |name| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(Error::io(&path))
        };
        let key = SigningKey::parse(read(KEY)?.trim_end())?;
        if key.verifier().name() != origin {
            let why = format!("its key is of {}, not of {origin}", key.verifier().name());
            return Err(Error::Changed { dir: dir.to_owned(), why });
        }
        let salt = parse_salt(&read(SALT)?).ok_or_else(|| {
            let why = format!("{SALT} is not {SALT_BYTES} bytes in hex");
            Error::Changed { dir: dir.to_owned(), why }
        })?;
        Ok(Self { key, salt })
    }

    fn make(dir: &Path, origin: &str) -> Result<()> {
        let (mut seed, mut salt) = ([0; 32], [0; SALT_BYTES]);
        rand::rng().fill_bytes(&mut seed);
        rand::rng().fill_bytes(&mut salt);
        let key = SigningKey::from_seed(origin, KeyKind::Log, &seed)?;
        replace(&dir.join(SALT), 0o600, &salt_text(&salt))?;
        replace(&dir.join(VERIFIER_KEY), 0o644, &format!("{}\n", key.verifier()))?;
        // Last: a key without its companions is never found.
        replace(&dir.join(KEY), 0o600, &format!("{}\n", key.to_secret_text()))
    }
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

/// Replaces a file as a whole, synced: the old one stays until the new one is on the disk.
pub(crate) fn replace(path: &Path, mode: u32, text: &str) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let write = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(Error::io(path))
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
