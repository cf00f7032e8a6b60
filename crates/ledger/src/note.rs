//! Signed notes (C2SP signed-note) and cosignatures (C2SP tlog-cosignature, Ed25519).
//!
//! ```text
//! text, ending in a newline
//! (empty line)
//! — <key name> base64(key id 4 · signature)        one line a signature
//! ```
//! A key is known by its name *and* its id. Lines of unknown keys are ignored, as the format demands;
//! a line of a known key that does not verify condemns the note.

use crate::{
    Error, Result,
    hash::{base64_decode, base64_encode},
};
use ed25519_dalek::{Signature, Signer, SigningKey as Secret, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;

/// A note longer than this is refused: a checkpoint with sixteen signatures is under 4 KiB.
const MAX_NOTE_BYTES: usize = 64 << 10;
/// The format asks for at least 16.
const MAX_SIGNATURES: usize = 64;
const LINE_START: &str = "\u{2014} ";
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The log's own key: signs the note's text.
    Log,
    /// A member's or a witness's key: signs the text together with the time.
    Cosigner,
}

impl KeyKind {
    fn code(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Cosigner => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Log, Self::Cosigner].into_iter().find(|kind| kind.code() == code)
    }
}

/// A public key with its name, printed and read in the `name+id+key` form that tlog tools share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    kind: KeyKind,
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, kind: KeyKind, key: VerifyingKey) -> Result<Self> {
        check_name(name)?;
        let id = key_id(name, kind, key.as_bytes());
        Ok(Self { name: name.to_owned(), id, kind, key })
    }

    /// Reads the `name+id+key` form.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed_key("not name+id+key"));
        };
        let (kind, bytes) = key_material(key)?;
        let key =
            VerifyingKey::from_bytes(&bytes).map_err(|_| malformed_key("not an Ed25519 key"))?;
        let key = Self::new(name, kind, key)?;
        if hex(key.id) == id {
            Ok(key)
        } else {
            Err(malformed_key("the id is not that of the key"))
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    fn signed(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.key_id == self.id
    }

    fn verify(&self, text: &str, signature: &NoteSignature) -> Result<()> {
        let invalid = || Error::Signature { name: self.name.clone() };
        let (message, bytes) = match self.kind {
            KeyKind::Log => (text.to_owned(), &signature.bytes[..]),
            KeyKind::Cosigner => {
                let (time, rest) = signature.bytes.split_first_chunk().ok_or_else(invalid)?;
                (cosigned_message(u64::from_be_bytes(*time), text), rest)
            }
        };
        let signature = Signature::from_slice(bytes).map_err(|_| invalid())?;
        self.key.verify_strict(message.as_bytes(), &signature).map_err(|_| invalid())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = encode_key(self.kind, self.key.as_bytes());
        write!(f, "{}+{}+{key}", self.name, hex(self.id))
    }
}

/// A private key with its name. Printing it is a decision: [`to_secret_text`](Self::to_secret_text).
pub struct SigningKey {
    secret: Secret,
    public: VerifierKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// A key from 32 random bytes.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self> {
        let secret = Secret::from_bytes(seed);
        let public = VerifierKey::new(name, kind, secret.verifying_key())?;
        Ok(Self { secret, public })
    }

    /// Reads [`to_secret_text`](Self::to_secret_text)'s form.
    pub fn parse(text: &str) -> Result<Self> {
        let text =
            text.strip_prefix(PRIVATE_PREFIX).ok_or_else(|| malformed_key("not a private key"))?;
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed_key("not name+id+key"));
        };
        let (kind, seed) = key_material(seed)?;
        let key = Self::from_seed(name, kind, &seed)?;
        if hex(key.public.id) == id {
            Ok(key)
        } else {
            Err(malformed_key("the id is not that of the key"))
        }
    }

    /// The `PRIVATE+KEY+name+id+seed` form, to be kept in a file nobody else can read.
    pub fn to_secret_text(&self) -> String {
        let seed = encode_key(self.public.kind, self.secret.as_bytes());
        format!("{PRIVATE_PREFIX}{}+{}+{seed}", self.public.name, hex(self.public.id))
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.public
    }

    /// Signs a note's text. `time_s` (Unix seconds) is part of what a cosigner signs.
    pub fn sign(&self, text: &str, time_s: u64) -> NoteSignature {
        let bytes = match self.public.kind {
            KeyKind::Log => self.secret.sign(text.as_bytes()).to_bytes().to_vec(),
            KeyKind::Cosigner => {
                let signature = self.secret.sign(cosigned_message(time_s, text).as_bytes());
                [&time_s.to_be_bytes()[..], &signature.to_bytes()].concat()
            }
        };
        NoteSignature { name: self.public.name.clone(), key_id: self.public.id, bytes }
    }
}

fn cosigned_message(time_s: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

fn malformed_key(why: &'static str) -> Error {
    Error::Malformed { what: "key", why }
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

fn key_id(name: &str, kind: KeyKind, public: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind.code()])
        .chain_update(public)
        .finalize();
    *digest.first_chunk().expect("a digest is longer than an id")
}

fn encode_key(kind: KeyKind, bytes: &[u8; 32]) -> String {
    base64_encode(&[&[kind.code()], &bytes[..]].concat())
}

fn key_material(text: &str) -> Result<(KeyKind, [u8; 32])> {
    let bytes = base64_decode(text, "key")?;
    let (code, key) = bytes.split_first().ok_or_else(|| malformed_key("empty"))?;
    let kind = KeyKind::from_code(*code).ok_or_else(|| malformed_key("neither Ed25519 kind"))?;
    Ok((kind, key.try_into().map_err(|_| malformed_key("not 32 bytes"))?))
}

fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(bad) {
        return Err(malformed_key("a name is not empty and has no spaces and no plus"));
    }
    Ok(())
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub key_id: [u8; 4],
    /// The signature, behind its time for a cosigner.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    fn parse(line: &str) -> Result<Self> {
        let line =
            line.strip_prefix(LINE_START).ok_or_else(|| malformed("not a signature line"))?;
        let (name, signature) =
            line.split_once(' ').ok_or_else(|| malformed("no signature in its line"))?;
        check_name(name)?;
        let bytes = base64_decode(signature, "note")?;
        let (key_id, bytes) = bytes.split_first_chunk().ok_or_else(|| malformed("no key id"))?;
        Ok(Self { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
    }

    /// When a cosigner signed, in Unix seconds.
    pub fn cosigned_at_s(&self) -> Option<u64> {
        self.bytes.first_chunk().map(|time| u64::from_be_bytes(*time))
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = base64_encode(&[&self.key_id[..], &self.bytes].concat());
        writeln!(f, "{LINE_START}{} {signature}", self.name)
    }
}

/// A text with signatures, not yet trusted.
///
/// ```
/// use chronolith_ledger::{KeyKind, SignedNote, SigningKey};
/// let key = SigningKey::from_seed("example.org/log", KeyKind::Log, &[7; 32])?;
/// let note = SignedNote::new("a text\n".into(), vec![key.sign("a text\n", 0)])?;
/// let read = SignedNote::parse(note.to_string().as_bytes())?;
/// assert_eq!(read.signers(&[key.verifier()])?.len(), 1);
/// # Ok::<(), chronolith_ledger::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

fn malformed(why: &'static str) -> Error {
    Error::Malformed { what: "note", why }
}

impl SignedNote {
    /// A note from its parts; an error where it could not be read back.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Result<Self> {
        Self::parse(Self { text, signatures }.to_string().as_bytes())
    }

    /// Reads a note.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(malformed("too long"));
        }
        let note = str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(malformed("control characters"));
        }
        let end = note.rfind("\n\n").ok_or_else(|| malformed("no signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines =
            lines.strip_suffix('\n').ok_or_else(|| malformed("does not end in a newline"))?;
        let signatures: Vec<_> =
            lines.split('\n').map(NoteSignature::parse).collect::<Result<_>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(malformed("too many signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The same note with one more signature.
    pub fn with_signature(mut self, signature: NoteSignature) -> Result<Self> {
        self.signatures.push(signature);
        Self::new(self.text, self.signatures)
    }

    /// Those of `keys` that signed. Unknown signatures are ignored; a bad or a second one of a known key
    /// is an error.
    pub fn signers<'k>(&self, keys: &[&'k VerifierKey]) -> Result<Vec<&'k VerifierKey>> {
        let mut signers: Vec<&VerifierKey> = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|key| key.signed(signature)) else { continue };
            key.verify(&self.text, signature)?;
            if signers.contains(key) {
                return Err(malformed("signed twice by one key"));
            }
            signers.push(key);
        }
        Ok(signers)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(f, "{signature}"))
    }
}
