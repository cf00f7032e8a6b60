//! Workloads that anyone can run: each module is one `chronolith bench` subcommand.
//!
//! Rules for every workload here: the clock stops when the last record is readable; every answer is
//! checked; acknowledged, durable and readable operations are reported apart; a lost record fails the run.

pub mod engine;
mod interrupt;
mod output;
pub mod series;
pub mod server;
pub mod versions;
