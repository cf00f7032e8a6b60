//! The one binary: `serve` runs a node; `bench` measures this machine. Each subcommand has its own file.

use clap::{Parser, Subcommand};

mod bench;
mod serve;

/// Requests allocate on one thread and are freed on another, which is what mimalloc is good at.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated, versioned, verifiable key-value store that speaks the etcd v3 API.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node that etcd clients can use.
    Serve(Box<chronolith_server::ServeArgs>),
    /// Measure: workloads with progress, tables and checked answers.
    Bench {
        #[command(subcommand)]
        workload: Box<bench::Workload>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Bench { workload } => bench::run(*workload),
    }
}
