//! Comparing replicas: one number over everything that can be seen.
//!
//! What the removal of compacted records has or has not taken yet is left out, so that replicas whose
//! removals are at different places agree.

use crate::{Error, Reader, Result, key, record::Record};
use chronolith_engine::KeyRange;

/// A sum over the versions that can be seen from the compact revision to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The sum: equal on all replicas whose histories are.
    pub hash: u32,
    /// Where the sum begins.
    pub compact_revision: i64,
    /// Where it ends.
    pub hash_revision: i64,
}

impl Reader {
    /// The sum of everything visible up to `revision`; 0 is the newest. Reads all versions once.
    ///
    /// The sum is our own (CRC-32 of keys, revisions and records in key order), so it can be compared
    /// among replicas of this store, not with etcd's.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv> {
        self.with_view(|view| {
            if revision > view.current {
                return Err(Error::FutureRevision);
            }
            if revision > 0 && revision < view.compact {
                return Err(Error::Compacted);
            }
            let hash_revision = if revision > 0 { revision } else { view.current };
            let compact_revision = view.compact;
            let mut sum = crc32fast::Hasher::new();
            let mut cursor = view.source.cursor(view.versions, KeyRange::all())?;
            // The key whose versions up to the compact revision are done with.
            let mut done = Vec::new();
            cursor.seek_to_first()?;
            while cursor.valid() {
                let corrupt = Error::Corrupt { what: "key of a version" };
                let (prefix, version) = key::split(cursor.key()).ok_or(corrupt)?;
                let old = version.main <= compact_revision;
                let hidden = old && (prefix == done || Record::is_tombstone(cursor.value()));
                if version.main <= hash_revision && !hidden {
                    sum.update(cursor.key());
                    sum.update(cursor.value());
                }
                if old {
                    done.clear();
                    done.extend_from_slice(prefix);
                }
                cursor.next()?;
            }
            Ok(HashKv { hash: sum.finalize(), compact_revision, hash_revision })
        })
    }
}
