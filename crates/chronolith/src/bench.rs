//! `chronolith bench`: which workload to run.

use clap::Subcommand;

/// The workloads, one module of `chronolith-bench` each.
#[derive(Subcommand)]
pub(crate) enum Workload {
    /// Measure the storage engines: batches, reads, writes, YCSB, compression, targets.
    Engine(chronolith_bench::engine::Args),
    /// Fill, query and pack the time-series index of this process.
    Series(chronolith_bench::series::Args),
    /// Drive a server with the etcd v3 API: any, or a node of our own.
    Server(chronolith_bench::server::Args),
    /// Write versions into an embedded store, with their log.
    Versions(chronolith_bench::versions::Args),
}

pub(crate) fn run(workload: Workload) -> anyhow::Result<()> {
    match workload {
        Workload::Engine(args) => chronolith_bench::engine::run(&args),
        Workload::Series(args) => chronolith_bench::series::run(&args),
        Workload::Server(args) => chronolith_bench::server::run(&args),
        Workload::Versions(args) => chronolith_bench::versions::run(&args),
    }
}
