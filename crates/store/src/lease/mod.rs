//! Leases: what is replicated of them, and the clock that only the leader runs.
//!
//! ```text
//! replicated (records)   id → granted time to live, remaining time at the last checkpoint
//!                        id ‖ key, for each key attached          written by apply alone
//! leader's own (clock)   id → deadline on the monotonic clock     renewed by keep-alives, not replicated
//! ```
//! * Apply knows no time. A lease ends when the leader *proposes* that it is revoked, so every replica
//!   deletes its keys at the same revision.
//! * A keep-alive costs no log entry. What a restart or a new leader knows is the remaining time last
//!   checkpointed: a restart makes a lease last longer by at most half its time to live, and by at
//!   most [`CHECKPOINT_STEP_MAX_S`] (see [`clock`]); it never ends it early.

pub(crate) mod clock;
pub(crate) mod records;

/// Shortest time to live; shorter ones are raised to it. etcd's, from its default election timeout:
/// a lease must outlive a change of leader.
pub(crate) const TTL_MIN_S: i64 = 2;

/// Longest time to live, etcd's.
pub(crate) const TTL_MAX_S: i64 = 9_000_000_000;

/// Remaining time is recorded at least this often, as in etcd.
pub(crate) const CHECKPOINT_STEP_MAX_S: i64 = 300;
