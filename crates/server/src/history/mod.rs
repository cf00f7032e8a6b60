//! The history that proves itself, for clients: by gRPC, as JSON over HTTP, and as a log of static tiles.
//!
//! ```text
//! gRPC  /chronolith.history.v1.History/*  ──┐
//! HTTP  /api/v1/history/*  (json) ──────────┴─▶ answers: one function a call ─▶ desk ─▶ store.history()
//! HTTP  /tlog/main/*       (tiles) ──────────────────────────────────────────▶ desk ─▶    tile, entries
//! ```
//! Invariants: a call to the history, which may wait for the disk, runs off the I/O threads, and at most
//! [`HISTORY_CALLS_MAX`](crate::config::HISTORY_CALLS_MAX) of them at once; proofs that are asked for
//! together share one signature; a page ends at so many entries or bytes, whichever comes first.

mod answers;
mod desk;
mod http;
mod json;
mod tiles;

pub(crate) use answers::{
    checkpoint, consistency, diff, erase, key_history, prove, restore_prefix, verified_get,
    verified_put,
};
pub(crate) use desk::Desk;
pub(crate) use http::{ROOT as HTTP_ROOT, answer as http};
pub(crate) use tiles::{ROOT as TILES_ROOT, answer as tiles};
