//! Keys of the `versions` and `log` columns.
//!
//! ```text
//! versions: escape(user key) · 00 00 · !main (8, big endian) · !sub (4, big endian)
//!           ╰─────── prefix ──────╯     newest version first
//! log:      main (8, big endian)
//! ```
//! * `escape` writes 00 as 00 ff, so that no prefix is the beginning of another one and the
//!   order of prefixes is the order of user keys.
//! * All versions of a key stand together, newest first: the current value is one seek away.

use crate::span::Span;
use bytes::{BufMut, Bytes};
use chronolith_engine::KeyRange;
use std::ops::Bound;

/// A change's place: the revision, and its position among the revision's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    pub(crate) main: i64,
    pub(crate) sub: u32,
}

/// Bytes of the revision at the end of a version key.
pub(crate) const REVISION_BYTES: usize = 12;
/// Ends a user key. Smaller than the escape of 00, so that shorter keys sort first.
const TERMINATOR: [u8; 2] = [0, 0];

/// Appends `key` escaped, without its end.
fn push_escaped(out: &mut impl BufMut, key: &[u8]) {
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.put_slice(&rest[..zero]);
        out.put_slice(&[0, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.put_slice(rest);
}

/// What all versions of `key` begin with, in a buffer that also has room for a revision.
pub(crate) fn prefix(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + TERMINATOR.len() + REVISION_BYTES);
    push_escaped(&mut out, key);
    out.extend_from_slice(&TERMINATOR);
    out
}

/// The first byte string after all versions of the key with this prefix, written over `prefix`.
pub(crate) fn turn_into_end(prefix: &mut [u8]) {
    // A prefix ends in the terminator's 00, so this never carries.
    *prefix.last_mut().expect("a prefix holds its terminator") += 1;
}

/// Appends a revision to a prefix.
pub(crate) fn push_revision(out: &mut impl BufMut, revision: Revision) {
    out.put_u64(!revision.main.cast_unsigned());
    out.put_u32(!revision.sub);
}

/// Appends the key of one version.
pub(crate) fn push_version(out: &mut impl BufMut, key: &[u8], revision: Revision) {
    push_escaped(out, key);
    out.put_slice(&TERMINATOR);
    push_revision(out, revision);
}

/// The most bytes that the key of a version takes.
pub(crate) fn max_version_bytes(key: &[u8]) -> usize {
    let escapes = key.iter().filter(|byte| **byte == 0).count();
    key.len() + escapes + TERMINATOR.len() + REVISION_BYTES
}

/// The key of one version.
pub(crate) fn version(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = prefix(key);
    push_revision(&mut out, revision);
    out
}

/// From where to where the versions of `key` lie that are not newer than `newest`.
pub(crate) fn versions_from(key: &[u8], newest: Revision) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix(key);
    let mut start = Vec::with_capacity(end.capacity());
    start.extend_from_slice(&end);
    push_revision(&mut start, newest);
    turn_into_end(&mut end);
    (start, end)
}

/// The newest place a version may have to be seen at revision `main`.
pub(crate) fn newest_at(main: i64) -> Revision {
    Revision { main, sub: u32::MAX }
}

/// Splits a version key into its prefix and its revision.
pub(crate) fn split(version: &[u8]) -> Option<(&[u8], Revision)> {
    let (prefix, revision) =
        version.split_at_checked(version.len().checked_sub(REVISION_BYTES)?)?;
    let (main, sub) = revision.split_first_chunk::<8>()?;
    let main = (!u64::from_be_bytes(*main)).cast_signed();
    let sub = !u32::from_be_bytes(*sub.first_chunk()?);
    prefix.ends_with(&TERMINATOR).then_some((prefix, Revision { main, sub }))
}

/// The user key of a version key, shared with it unless escaped.
pub(crate) fn user_key(version: &Bytes) -> Bytes {
    let end = version.len().saturating_sub(REVISION_BYTES + TERMINATOR.len());
    let escaped = version.slice(..end);
    if escaped.contains(&0) { unescape(&escaped).into() } else { escaped }
}

fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte == 0 {
            bytes.next();
        }
    }
    out
}

/// Where the versions of a span's keys lie. A prefix is a fit bound between keys: it is greater
/// than every version of a smaller key, and not greater than any version of its own.
pub(crate) fn range(span: &Span) -> KeyRange {
    let (start, end) = match span {
        Span::Point(key) => {
            let mut end = prefix(key);
            turn_into_end(&mut end);
            (prefix(key), Some(end))
        }
        Span::Range { start, end } => (prefix(start), end.as_ref().map(|end| prefix(end))),
    };
    KeyRange {
        start: Bound::Included(start.into()),
        end: end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.into())),
    }
}

/// The log's key of a revision.
pub(crate) fn log(main: i64) -> [u8; 8] {
    main.cast_unsigned().to_be_bytes()
}

/// The revision of a log key.
pub(crate) fn log_revision(key: &[u8]) -> Option<i64> {
    key.try_into().ok().map(|bytes| u64::from_be_bytes(bytes).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn short_key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), Just(0xfe)], 0..6)
    }

    proptest! {
        #[test]
        fn order_is_kept_and_newest_comes_first(a in short_key(), b in short_key(), ra in 0i64..4, rb in 0i64..4) {
            let (x, y) = (Revision { main: ra, sub: 1 }, Revision { main: rb, sub: 1 });
            let expected = a.cmp(&b).then(y.cmp(&x));
            prop_assert_eq!(version(&a, x).cmp(&version(&b, y)), expected);
        }

        #[test]
        fn a_version_key_reads_back(key in short_key(), main in 0i64..i64::MAX, sub: u32) {
            let whole = Bytes::from(version(&key, Revision { main, sub }));
            let (found, revision) = split(&whole).unwrap();
            prop_assert_eq!(found, &prefix(&key)[..]);
            prop_assert_eq!(revision, Revision { main, sub });
            prop_assert_eq!(&user_key(&whole)[..], &key[..]);
        }

        #[test]
        fn a_range_holds_the_versions_of_its_keys_and_no_others(
            key in short_key(), start in short_key(), end in short_key(), main in 0i64..i64::MAX,
        ) {
            let whole = version(&key, Revision { main, sub: 7 });
            let inside = |span: &Span| {
                let range = range(span);
                let after = matches!(&range.start, Bound::Included(start) if whole[..] >= start[..]);
                let before = match &range.end {
                    Bound::Excluded(end) => whole[..] < end[..],
                    _ => true,
                };
                after && before
            };
            let half_open = Span::Range { start: start.clone().into(), end: Some(end.clone().into()) };
            prop_assert_eq!(inside(&half_open), key >= start && key < end);
            prop_assert_eq!(inside(&Span::Point(start.clone().into())), key == start);
        }
    }
}
