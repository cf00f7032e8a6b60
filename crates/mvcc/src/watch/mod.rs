//! Watching: every watcher hears every event of its keys, once, in order, whole revisions at a time.
//!
//! ```text
//!  commit ─▶ publish ─┬─▶ group of equal watchers ─▶ one batch, shared ─▶ sink.offer ─▶ synced
//!   (writer)          │    found by key or by interval                    │ full
//!                     └─▶ nobody                                          ▼
//!  catch_up (server) ◀── reads the log from the watcher's next revision ── lagging ◀── watch
//! ```
//! # Why nothing is lost, doubled or turned round
//! Each watcher has `next`, the first revision it has not been given, and a state. All of it lives
//! under one lock, and so does `published`, the last revision that was offered around.
//! * *Synced*: its sink was given everything up to `published`. `publish` holds the lock while it
//!   offers the events of revisions from `next` on and then moves `published`; so offers come in
//!   revision order, and whoever becomes synced does so wholly before or wholly after.
//! * A sink that refuses a batch took nothing of it. The watcher turns *lagging* with `next` at the
//!   refused batch's first revision, and is offered nothing until it has caught up.
//! * *Lagging*: only [`WatchHub::catch_up`] moves it. It takes `next` and `published` under the lock,
//!   reads the log between them without it (committed revisions never change), and moves `next`
//!   behind what it returns. The caller puts that into its queue *before* it calls again.
//! * A watcher becomes synced only in a call that finds `next > published`, decided under the lock.
//!   Such a call returns no events, so everything before `next` is in the caller's queue already, and
//!   everything from `next` on will be offered: no gap, nothing twice, and nothing offered can
//!   overtake something caught up.
//! * A new watcher is lagging, too: nothing is offered before its owner knows its id and has called
//!   `catch_up`. From which revision on it hears is settled when it registers.
//! * Compaction may take the log that a lagging watcher needs: then it is cancelled and told so. The
//!   compact revision is looked at after reading, so a removed record is never taken for no event.
//!
//! Readers see a revision before watchers hear of it: who reads at the revision of an event finds it.
//! Sinks are called with the lock held: they must only enqueue, and must not call the hub.

mod event;
mod groups;
mod hub;
mod intervals;
mod replay;

pub(crate) use event::Published;
pub use event::{EventBatch, WatchEvent};
pub use hub::{CatchUp, WatchHub, WatchSink, WatchSpec, WatcherId};
pub use replay::CatchUpLimits;
