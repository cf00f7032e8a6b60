//! The one binary: `serve` runs a node; `bench` measures this machine. Each subcommand has its own file.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod ctl;
mod serve;
mod verify;

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
    /// Ask a running server for its history, with proofs.
    Ctl(Box<ctl::CtlArgs>),
    /// Check a history against its signatures: exit 0 proven, 1 tampered, 2 cannot be verified.
    Verify(Box<verify::VerifyArgs>),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(*args)?,
        Command::Bench { workload } => bench::run(*workload)?,
        Command::Ctl(args) => return ctl::run(*args),
        Command::Verify(args) => return Ok(verify::run(&args)),
    }
    Ok(ExitCode::SUCCESS)
}

/// An error with its causes, each told once: many texts quote their cause already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_contradict_nothing() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_told_twice() {
        let error = anyhow::anyhow!("disk full").context("cannot write").context("bench");
        assert_eq!(told(&error), "bench: cannot write: disk full");
        let error = anyhow::anyhow!("in use").context("cannot listen: in use");
        assert_eq!(told(&error), "cannot listen: in use");
    }
}
