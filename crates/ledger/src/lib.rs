//! The history that proves itself: one RFC 6962 log whose leaf index is the revision.
//!
//! ```text
//! revision r:  op records ──hash──► operations tree ──root──┐
//!              time, actor, revision ───────────────────────┴─► entry (70 bytes) ──hash──► leaf r − 2
//!
//! leaf 0 · leaf 1 · leaf 2 · …   ──► frontier (log₂ n hashes)  ──► root ──► signed checkpoint
//!     └─► tile files L0, L1, …   ──► inclusion and consistency proofs ──► proof file, bundle
//! ```
//! An op record commits to the key, the revision of the key's version before this one, the version
//! count and a salted digest of the value. So a key's history is a chain of its own, and the results
//! of applying are committed to, not only the requests.
//!
//! Invariants:
//! 1. A leaf is a pure function of one applied revision ([`Revision::leaf`]). No clock, no randomness,
//!    no size and no setting changes or skips it.
//! 2. Leaf `i` is revision `i + 2`; the tree of size `n` says everything up to revision `n + 1`.
//! 3. Tile files are derived data. What a crash tears off is computed again from the revisions.
//! 4. Verification ([`Policy`], [`ProofFile`], [`Bundle`], [`Audit`]) takes bytes and returns a verdict:
//!    it never asks the store that is being verified. Every digest is computed from the data it stands
//!    for; none is taken from the prover's word.
//! 5. Each format has exactly one encoding, and the decoders refuse all others.
//!
//! This crate knows nothing of engines, and nothing of what keys mean. Its formats are those of
//! C2SP (signed-note, tlog-checkpoint, tlog-tiles, tlog-cosignature, tlog-proof), so an auditor needs
//! no code from here; `docs/verification.md` shows how.

mod audit;
mod bundle;
mod bytes;
mod checkpoint;
mod error;
mod follower;
mod frontier;
mod hash;
mod key_file;
mod note;
mod proof;
mod proof_file;
mod prune;
mod recent_tiles;
mod revision;
mod tiles;
mod whole_file;

pub use audit::{Audit, Finding};
pub use bundle::{Bundle, Level, MAX_BUNDLE_BYTES, ProvenOp, ProvenRevision};
pub use checkpoint::{Checkpoint, Policy};
pub use error::{Error, Result, Verdict};
pub use follower::{Follower, SYNC_EVERY_LEAVES};
pub use frontier::Frontier;
pub use hash::{HASH_BYTES, Hash};
pub use key_file::{SIGNING_KEY_FILE, VERIFIER_KEY_FILE};
pub use note::{KeyKind, NoteSignature, SignedNote, SigningKey, VerifierKey};
pub use proof::{
    Entries, consistency_proof, inclusion_proof, root_at, verify_consistency, verify_inclusion,
};
pub use proof_file::ProofFile;
pub use recent_tiles::RecentTiles;
pub use revision::{
    ENTRY_BYTES, Entry, Leaf, Op, OpKind, OpRecord, Revision, SALT_BYTES, actor_reference,
    leaf_index, op_salt, operations_root, revision_of_leaf, value_digest,
};
pub use tiles::{TILE_WIDTH, TileFiles, TileWriter, tile_path};
pub use whole_file::{Readers, replace_file, sync_directory};
