//! What goes through the log: one change, with everything that apply may not ask for itself.
//!
//! ```text
//! Command = stamp (time, actor, salt) · request id (member, start, sequence) · one change
//! ```
//! * Encoded once, when proposed; decoded once, when applied. Keys and values are then slices of the
//!   log entry, not copies.
//! * Time and randomness (a lease id that the server chose) are in here, so that apply needs neither.
//! * Tags are never used again for something else: old logs are replayed by new builds.

use bytes::Bytes;
use chronolith_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, TxnRequest,
};
use prost::Message;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Who asked for a change. All zero: the system itself, or nobody known.
pub type Actor = [u8; 16];

/// Bytes that etcd's own envelope has around a request (tags, lengths and its request id): its
/// limit on a request counts them, and so does ours.
const ETCD_ENVELOPE_BYTES: usize = 14;

/// One entry of the log.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    /// The proposer's wall clock.
    #[prost(uint64, tag = "1")]
    pub(crate) time_ms: u64,
    /// See [`Actor`]; empty is all zero.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) actor: Bytes,
    /// The three parts of the request id, which no other member and no other start gives out.
    #[prost(fixed64, tag = "3")]
    pub(crate) member: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) start: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) sequence: u64,
    /// Both halves of the salt of what the ledger commits to; drawn whether or not this member keeps
    /// one, since others may.
    #[prost(fixed64, tag = "6")]
    pub(crate) salt_high: u64,
    #[prost(fixed64, tag = "7")]
    pub(crate) salt_low: u64,
    #[prost(oneof = "Change", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub(crate) change: Option<Change>,
}

/// What is to be changed.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Change {
    #[prost(message, tag = "10")]
    Put(PutRequest),
    #[prost(message, tag = "11")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "12")]
    Txn(TxnRequest),
    #[prost(message, tag = "13")]
    Compact(CompactionRequest),
    #[prost(message, tag = "14")]
    LeaseGrant(LeaseGrantRequest),
    #[prost(message, tag = "15")]
    LeaseRevoke(LeaseRevokeRequest),
    #[prost(message, tag = "16")]
    Alarm(AlarmRequest),
    #[prost(message, tag = "17")]
    LeaseCheckpoint(LeaseCheckpoint),
    /// A lease that ran out; [`LeaseRevoke`](Self::LeaseRevoke) is somebody's wish.
    #[prost(message, tag = "18")]
    LeaseExpire(LeaseRevokeRequest),
    #[prost(message, tag = "19")]
    Restore(Restore),
    #[prost(message, tag = "20")]
    Erase(Erase),
}

impl Change {
    /// The size that etcd would hold against its limit on requests.
    pub(crate) fn request_bytes(&self) -> usize {
        self.encoded_len() + ETCD_ENVELOPE_BYTES
    }
}

/// Writes that hold only if nothing under a prefix changed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Restore {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) prefix: Bytes,
    /// The newest revision that may have changed anything under it.
    #[prost(int64, tag = "2")]
    pub(crate) since: i64,
    #[prost(message, optional, tag = "3")]
    pub(crate) writes: Option<TxnRequest>,
}

/// Takes values away that something else followed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Erase {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(int64, tag = "2")]
    pub(crate) from: i64,
    #[prost(int64, tag = "3")]
    pub(crate) to: i64,
    /// For people who read the log.
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
}

/// Remaining times of leases, so that a restart does not begin them anew.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseCheckpoint {
    #[prost(message, repeated, tag = "1")]
    pub(crate) leases: Vec<LeaseRemaining>,
}

/// One lease's remaining time.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LeaseRemaining {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
    #[prost(int64, tag = "2")]
    pub(crate) remaining_s: i64,
}

impl Command {
    pub(crate) fn actor(&self) -> Actor {
        Actor::try_from(&self.actor[..]).unwrap_or_default()
    }

    pub(crate) fn salt(&self) -> [u8; 16] {
        (u128::from(self.salt_high) << 64 | u128::from(self.salt_low)).to_be_bytes()
    }
}

/// Makes commands of changes: adds the stamp and the request id.
#[derive(Debug)]
pub(crate) struct Envelopes {
    member: u64,
    start: u64,
    sequence: AtomicU64,
}

impl Envelopes {
    /// `start` counts the starts of this member and was never used before.
    pub(crate) fn new(member: u64, start: u64) -> Self {
        Self { member, start, sequence: AtomicU64::new(0) }
    }

    pub(crate) fn seal(&self, change: Change, actor: Actor) -> Bytes {
        let actor =
            if actor == Actor::default() { Bytes::new() } else { Bytes::copy_from_slice(&actor) };
        let command = Command {
            time_ms: wall_clock_ms(),
            actor,
            member: self.member,
            start: self.start,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            salt_high: rand::random(),
            salt_low: rand::random(),
            change: Some(change),
        };
        command.encode_to_vec().into()
    }
}

/// Milliseconds since 1970; 0 for a clock before that.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: usize) -> Change {
        Change::Put(PutRequest {
            key: "k".into(),
            value: vec![b'v'; value].into(),
            ..PutRequest::default()
        })
    }

    #[test]
    fn a_command_reads_back_and_shares_the_entry() {
        let envelopes = Envelopes::new(7, 3);
        let bytes = envelopes.seal(put(1000), [9; 16]);
        let command = Command::decode(bytes.clone()).unwrap();
        assert_eq!((command.member, command.start, command.sequence), (7, 3, 0));
        assert_eq!(command.actor(), [9; 16]);
        let Some(Change::Put(request)) = command.change else { panic!("a put went in") };
        let entry = bytes.as_ptr_range();
        assert!(entry.contains(&request.value.as_ptr()), "the value was copied");
    }

    #[test]
    fn request_ids_differ() {
        let envelopes = Envelopes::new(7, 3);
        let first = Command::decode(envelopes.seal(put(1), [0; 16])).unwrap();
        let second = Command::decode(envelopes.seal(put(1), [0; 16])).unwrap();
        assert_ne!(first.sequence, second.sequence);
        assert_ne!(first.salt(), second.salt());
        assert_eq!(second.actor(), [0; 16]);
    }

    #[test]
    fn the_size_of_a_request_is_etcds() {
        assert!(put(1_572_664).request_bytes() <= crate::config::MAX_REQUEST_BYTES);
        assert!(put(1_572_864).request_bytes() > crate::config::MAX_REQUEST_BYTES);
    }
}
