//! `chronolith ctl`: a running server's history, from the command line.
//!
//! ```text
//! arguments ─▶ connection (first endpoint that answers) ─▶ verb (one file each) ─▶ output
//!                                                            └ trust: key and pin, checked here
//! ```
//! Data goes to standard output, all else to standard error. What a server says is believed only after
//! the ledger crate has checked it against a key or a checkpoint that the caller named. Exit codes of
//! verbs that verify are those of `chronolith verify`: 0 proven, 1 tampered, 2 cannot be verified.

use crate::ctl::{connection::Connection, failure::Failure, output::Output};
use clap::{Args, Subcommand};
use std::process::ExitCode;

mod audit;
mod checkpoint;
pub(crate) mod connection;
mod consistency;
mod diff;
mod erase;
pub(crate) mod failure;
mod get;
mod history;
mod moment;
mod output;
mod prove;
mod put;
mod restore_prefix;
pub(crate) mod trust;

/// A verb, and where and how.
#[derive(Args, Debug)]
#[command(after_help = "\
Moments (--at, --from, --to) are revisions (42), times (2026-11-21T15:34:28Z), milliseconds since 1970,
or how long ago (\"10m ago\", -1h30m).

Examples:
  chronolith ctl history app/config
  chronolith ctl get app/config --at '10m ago'
  chronolith ctl checkpoint --pin ~/.chronolith.pin")]
pub(crate) struct CtlArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Ask for the audit trail: who did what, when, and what came of it.
    Audit(audit::AuditArgs),
    /// Show the newest signed checkpoint; with --pin, check that the log continues the kept one.
    Checkpoint(checkpoint::CheckpointArgs),
    /// Check that a checkpoint continues an older one.
    Consistency(consistency::ConsistencyArgs),
    /// Show what changed under a prefix between two moments.
    Diff(diff::DiffArgs),
    /// Remove values of a key for good; their hashes stay in the log. Only says what, without --yes.
    Erase(erase::EraseArgs),
    /// Read a key, as it is or was; with --prove, check that the log has it.
    Get(get::GetArgs),
    /// Show the versions of a key, newest first: when, who, what.
    History(history::HistoryArgs),
    /// Write a proof of a key's versions or of revisions into a file that can be checked anywhere.
    Prove(prove::ProveArgs),
    /// Set a key; with --prove, check that the log has it.
    Put(put::PutArgs),
    /// Make the keys under a prefix what they were, in a new revision. Only says what, without --yes.
    RestorePrefix(restore_prefix::RestorePrefixArgs),
}

impl Verb {
    /// Whether the exit code is a verdict.
    fn verifies(&self) -> bool {
        match self {
            Verb::Audit(args) => args.verifies(),
            Verb::Checkpoint(_) | Verb::Consistency(_) | Verb::Prove(_) => true,
            Verb::Get(args) => args.prove,
            Verb::Put(args) => args.prove,
            Verb::Diff(_) | Verb::Erase(_) | Verb::History(_) | Verb::RestorePrefix(_) => false,
        }
    }
}

/// Carries the verb out, and turns what came of it into the exit code.
pub(crate) fn run(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let verifies = args.verb.verifies();
    match runtime.block_on(carry_out(args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                eprintln!("Error: {failure}");
            }
            Ok(ExitCode::from(failure.exit_code(verifies)))
        }
    }
}

async fn carry_out(args: CtlArgs) -> Result<(), Failure> {
    let CtlArgs { verb, connection, output } = args;
    let output = &output;
    match verb {
        // It opens the connection itself: a part of it asks no server.
        Verb::Audit(args) => audit::run(&args, &connection, output).await,
        Verb::Checkpoint(args) => checkpoint::run(&args, &connection.open().await?, output).await,
        Verb::Consistency(args) => consistency::run(&args, &connection.open().await?, output).await,
        Verb::Diff(args) => diff::run(&args, &connection.open().await?, output).await,
        Verb::Erase(args) => erase::run(&args, &connection.open().await?, output).await,
        Verb::Get(args) => get::run(&args, &connection.open().await?, output).await,
        Verb::History(args) => history::run(&args, &connection.open().await?, output).await,
        Verb::Prove(args) => prove::run(&args, &connection.open().await?, output).await,
        Verb::Put(args) => put::run(&args, &connection.open().await?, output).await,
        Verb::RestorePrefix(args) => {
            restore_prefix::run(&args, &connection.open().await?, output).await
        }
    }
}
