//! Proof files (C2SP tlog-proof): a leaf's path and the checkpoint, in one text that outlives the log.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the entry>
//! index <leaf>
//! <base64 hash>          one line each, lowest first
//! (empty line)
//! <checkpoint>
//! ```

use crate::{
    Checkpoint, Entry, Error, Hash, Policy, Result, SignedNote,
    checkpoint::decimal,
    hash::{base64_decode, base64_encode},
    leaf_index, verify_inclusion,
};
use std::fmt;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Proof that a revision's entry is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    /// The entry, which the format calls extra data: nothing believes it before its hash fits.
    pub entry: Entry,
    /// Siblings on the way to the root.
    pub path: Vec<Hash>,
    /// The checkpoint, signed.
    pub checkpoint: SignedNote,
}

fn malformed(why: &'static str) -> Error {
    Error::Malformed { what: "proof file", why }
}

impl ProofFile {
    /// Reads a proof file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or_else(|| malformed("no checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("unknown first line"));
        }
        let extra = field(lines.next(), "extra ")?;
        let entry = Entry::decode(&base64_decode(extra, "proof file")?)?;
        let index = decimal(field(lines.next(), "index ")?, "proof file")?;
        if Some(index) != leaf_index(entry.revision) {
            return Err(Error::mismatch("leaf index and revision"));
        }
        let path = lines.map(Hash::from_base64).collect::<Result<_>>()?;
        Ok(Self { entry, path, checkpoint: SignedNote::parse(note.as_bytes())? })
    }

    /// Checks signatures, path and entry. The checkpoint that proves it, if they hold.
    pub fn verify(&self, policy: &Policy) -> Result<Checkpoint> {
        let checkpoint = policy.open(&self.checkpoint)?;
        verify_entry(&self.entry, &self.path, &checkpoint)?;
        Ok(checkpoint)
    }
}

/// Checks that an entry is in the tree of a checkpoint.
pub(crate) fn verify_entry(entry: &Entry, path: &[Hash], checkpoint: &Checkpoint) -> Result<()> {
    let index = leaf_index(entry.revision).ok_or_else(|| malformed("a revision without a leaf"))?;
    let leaf = Hash::of_leaf(&entry.encode());
    verify_inclusion(&leaf, index, checkpoint.size, path, &checkpoint.root)
        .map_err(|error| error.at_revision(entry.revision))
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Result<&'a str> {
    line.and_then(|line| line.strip_prefix(name)).ok_or_else(|| malformed("a field is missing"))
}

impl fmt::Display for ProofFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = leaf_index(self.entry.revision).ok_or(fmt::Error)?;
        writeln!(f, "{FIRST_LINE}\nextra {}\nindex {index}", base64_encode(&self.entry.encode()))?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", hash.to_base64()))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
