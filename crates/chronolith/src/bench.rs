//! `chronolith bench`: which workload to run.

use clap::Subcommand;

/// The workloads, one module of `chronolith-bench` each.
#[derive(Subcommand)]
pub(crate) enum Workload {}

pub(crate) fn run(workload: Workload) -> anyhow::Result<()> {
    match workload {}
}
