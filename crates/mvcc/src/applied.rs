//! What a committed run did, shared with the watchers: nothing is copied for whoever follows.

use crate::{Change, Kind, Put, Revised, Stamp, watch::Published};
use bytes::Bytes;

/// A revision of a run, and where its changes end.
pub(crate) struct Stamped {
    pub(crate) revision: i64,
    pub(crate) stamp: Stamp,
    pub(crate) end: usize,
}

/// The revisions of a committed run, in their order.
pub struct Applied {
    changes: Vec<Published>,
    revisions: Vec<Stamped>,
    size_bytes: usize,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct AppliedRevision<'a> {
    /// Its number.
    pub revision: i64,
    /// Who and when; the time is never less than that of the revision before.
    pub stamp: Stamp,
    changes: &'a [Published],
}

/// One change, by reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRef<'a> {
    /// Whether the key was set or removed.
    pub kind: Kind,
    /// The key.
    pub key: &'a Bytes,
    /// As in [`Change::previous`].
    pub previous: i64,
    /// The value; none for a removal, and where a compaction removed it.
    pub value: Option<&'a Bytes>,
    /// Revision that created the key; 0 for a removal.
    pub create_revision: i64,
    /// Versions since then, this one included; 0 for a removal.
    pub version: i64,
    /// The lease; 0 is none.
    pub lease: i64,
}

impl Applied {
    pub(crate) fn new(changes: Vec<Published>, revisions: Vec<Stamped>, size_bytes: usize) -> Self {
        Self { changes, revisions, size_bytes }
    }

    /// The revisions.
    pub fn revisions(&self) -> impl Iterator<Item = AppliedRevision<'_>> {
        let begins = std::iter::once(0).chain(self.revisions.iter().map(|stamped| stamped.end));
        self.revisions.iter().zip(begins).map(|(stamped, begin)| AppliedRevision {
            revision: stamped.revision,
            stamp: stamped.stamp,
            changes: &self.changes[begin..stamped.end],
        })
    }

    /// Whether the run changed no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Changes of all revisions together.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Keys and values of all revisions together.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl<'a> AppliedRevision<'a> {
    /// What it did, by position.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = ChangeRef<'a>> + use<'a> {
        self.changes.iter().map(|published| {
            let put = published.after.as_ref();
            ChangeRef {
                kind: published.kind,
                key: &published.key,
                previous: published.before.revision,
                value: put.map(|put| &put.value),
                create_revision: put.map_or(0, |put| put.create_revision),
                version: put.map_or(0, |put| put.version),
                lease: put.map_or(0, |put| put.lease),
            }
        })
    }

    /// The same as [`Reader::changes`](crate::Reader::changes) reads it later.
    #[must_use]
    pub fn to_revised(&self) -> Revised {
        let Self { revision, stamp, changes } = *self;
        let change = |published: &Published| Change {
            revision,
            kind: published.kind,
            key: published.key.clone(),
            previous: published.before.revision,
            put: published.after.clone().map(Put::of),
        };
        Revised { revision, stamp, changes: changes.iter().map(change).collect() }
    }
}

impl Change {
    /// The change by reference.
    #[must_use]
    pub fn as_ref(&self) -> ChangeRef<'_> {
        let put = self.put.as_ref();
        ChangeRef {
            kind: self.kind,
            key: &self.key,
            previous: self.previous,
            value: put.map(|put| &put.value),
            create_revision: put.map_or(0, |put| put.create_revision),
            version: put.map_or(0, |put| put.version),
            lease: put.map_or(0, |put| put.lease),
        }
    }
}
