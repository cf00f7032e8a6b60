//! Reading and restoring the past.

use super::{Error, Result, Store, Write};
use bytes::Bytes;
use chronolith_mvcc::KeyVersion;
use chronolith_proto::{etcdserverpb::RangeRequest, mvccpb::KeyValue};
use std::collections::BTreeMap;

/// A moment of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A revision.
    Revision(i64),
    /// The newest revision not later than this, in milliseconds since 1970.
    Time(u64),
}

/// What a key was.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The revision that the moment means.
    pub revision: i64,
    /// The key as it was then; none where it was not there.
    pub kv: Option<KeyValue>,
}

/// What two moments disagree about.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// As it was first.
    pub before: Option<KeyValue>,
    /// As it was later.
    pub after: Option<KeyValue>,
}

/// What a restoration did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The revision that was restored.
    pub to: i64,
    /// The new revision; none for a dry run, and where nothing differed.
    pub revision: Option<i64>,
    /// The changes.
    pub writes: Vec<Write>,
}

/// The request for all keys with a prefix, as of a revision (0 is the newest).
pub(super) fn prefix_request(prefix: &[u8], revision: i64) -> RangeRequest {
    // etcd's spelling: an end of one zero byte has no end, and the empty key is the first of all.
    let end = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(vec![0], |last| {
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        end
    });
    let key =
        if prefix.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(prefix) };
    let range_end = if prefix.is_empty() { Bytes::from_static(&[0]) } else { end.into() };
    RangeRequest { key, range_end, revision, ..RangeRequest::default() }
}

impl Store {
    /// The revision that a moment means.
    pub fn resolve(&self, at: At) -> Result<i64> {
        let newest = self.revision();
        match at {
            At::Revision(revision) if revision > newest => {
                Err(chronolith_mvcc::Error::FutureRevision.into())
            }
            At::Revision(revision) => Ok(revision.max(1)),
            At::Time(time_ms) => match self.reader.revision_at_time(time_ms)? {
                Some(revision) => Ok(revision),
                None if self.reader.compact_revision() > 1 => {
                    Err(chronolith_mvcc::Error::Compacted.into())
                }
                None => Ok(1),
            },
        }
    }

    /// A key as it was.
    pub fn get_at(&self, key: impl Into<Bytes>, at: At) -> Result<Found> {
        let revision = self.resolve(at)?;
        let request = RangeRequest { key: key.into(), revision, ..RangeRequest::default() };
        Ok(Found { revision, kv: self.reader.range(&request)?.kvs.pop() })
    }

    /// The versions of a key, newest first.
    pub fn history(&self, key: impl AsRef<[u8]>, limit: usize) -> Result<Vec<KeyVersion>> {
        Ok(self.reader.key_history(key.as_ref(), 0, i64::MAX, limit)?)
    }

    fn state_at(&self, prefix: &[u8], revision: i64) -> Result<BTreeMap<Bytes, KeyValue>> {
        let kvs = self.reader.range(&prefix_request(prefix, revision))?.kvs;
        Ok(kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect())
    }

    /// What changed under a prefix from one moment to another, by key. A key that was set to what it
    /// was before differs too: its revision does.
    pub fn diff(&self, prefix: impl AsRef<[u8]>, from: At, to: At) -> Result<Vec<Difference>> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        let mut before = self.state_at(prefix.as_ref(), from)?;
        let after = self.state_at(prefix.as_ref(), to)?;
        let mut found = Vec::new();
        for (key, after) in after {
            let before = before.remove(&key);
            if before.as_ref().is_none_or(|before| before.mod_revision != after.mod_revision) {
                found.push(Difference { key, before, after: Some(after) });
            }
        }
        let gone = before.into_iter();
        found.extend(gone.map(|(key, before)| Difference {
            key,
            before: Some(before),
            after: None,
        }));
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Makes the keys under a prefix what they were. It writes one new revision; the past stays as it
    /// is. A dry run only says what would be written.
    pub fn restore_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        to: At,
        dry_run: bool,
    ) -> Result<Restored> {
        let (to, newest) = (self.resolve(to)?, self.revision());
        let differences = self.diff(prefix, At::Revision(to), At::Revision(newest))?;
        let value = |kv: &Option<KeyValue>| kv.as_ref().map(|kv| kv.value.clone());
        let writes: Vec<_> = differences
            .into_iter()
            .filter(|difference| value(&difference.before) != value(&difference.after))
            .map(|Difference { key, before, .. }| match before {
                Some(kv) => Write::Put(key, kv.value),
                None => Write::Delete(key),
            })
            .collect();
        let revision = match dry_run || writes.is_empty() {
            true => None,
            false => Some(self.write_if_unchanged(newest, writes.clone())?),
        };
        Ok(Restored { to, revision, writes })
    }

    fn write_if_unchanged(&self, since: i64, writes: Vec<Write>) -> Result<i64> {
        if self.revision() != since {
            return Err(Error::Invalid("something was written meanwhile: look again".to_owned()));
        }
        self.write(writes)
    }
}
