//! The server: one port for gRPC and HTTP, in front of one store.
//!
//! ```text
//! serve ─▶ server ─▶ connection ─▶ dispatch ─▶ store          unary: one decode, one await, one encode
//! args     start,    one task      path →    ─▶ watch ─▶ store.watch_hub    one writer per stream
//! config   stop      for it and    method    ─▶ lease          keep-alive stream
//!                    its calls        └──────▶ probe           /health /livez /readyz /version /metrics
//! ```
//! Invariants
//! 1. Codes and texts are etcd's: what the store answers passes through untouched.
//! 2. Every queue, buffer, count and message has a limit that is a setting; at the limit a client
//!    waits or gets an error that names it.
//! 3. A panic inside a request ends that request. A connection that ends takes its calls, watchers
//!    and counts with it.
//! 4. Every call leaves one event in the audit trail, if one is kept; only failing closed does a call wait
//!    for it.
//! 5. Counting is relaxed atomics; telemetry takes no lock on a request's path.
//!
//! It must never know: how anything is stored, ordered or replicated.

mod args;
mod audit;
mod call;
pub mod config;
mod connection;
mod contain;
mod dispatch;
mod health;
mod history;
mod lease;
mod maintenance;
mod methods;
mod metrics;
mod node;
mod plain;
mod probe;
mod query;
mod serve;
mod server;
mod socket;
mod status;
mod watch;

pub use args::ServeArgs;
pub use chronolith_audit::FailMode;
pub use chronolith_store::EngineKind;
pub use config::{AuditConfig, Config, Limits};
pub use serve::serve;
pub use server::{Error, RunningServer, Server};
