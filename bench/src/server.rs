//! `chronolith bench server`: workloads over the wire against any server with the etcd v3 API.
//!
//! ```text
//!   scenario ──► crowd of clients ──► gRPC ──► server (an endpoint, or a child node of ours)
//!      │               │ every answer checked: revision, value, version, order
//!      ▼               ▼
//!   final read-back  latencies ──► one row: acknowledged, readable, operations per server CPU-second
//! ```
//!
//! Invariants: one wrong or missing answer fails its scenario, and a failed scenario makes the run
//! exit non-zero; "acknowledged" counts answers, "readable" counts records found again afterwards, and
//! "durable" (only with `--spawn`, which owns the process) counts records found after a SIGKILL.

use std::time::Duration;

use anyhow::Context;

mod check;
mod client;
mod compaction;
mod crowd;
mod large_scale;
mod micro;
mod mixed;
mod node;
mod report;
mod transactions;
mod watch;

use client::Client;
use node::Node;
use report::{Report, Row};

/// What to run, and against which server.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Server to drive.
    #[arg(long, default_value = "http://127.0.0.1:2379", conflicts_with = "spawn")]
    endpoint: String,
    /// Start a node of this binary in a temporary directory, drive it, kill it, and check what is left.
    #[arg(long)]
    spawn: bool,
    /// Engine of the node that --spawn starts: memory or rocksdb.
    #[arg(long, default_value = "memory", requires = "spawn")]
    engine: String,
    /// Process id of the server behind --endpoint, to count its CPU time.
    #[arg(long, conflicts_with = "spawn")]
    pid: Option<u32>,
    /// Run only these; all of them otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Length of the scenarios that run by the clock: sustained, and two thirds of it for mixed.
    #[arg(long, default_value_t = 30)]
    secs: u64,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// A tenth of every count, for a first look.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// The workloads, in the order in which they run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// 50 clients, 1,000 put+get pairs each.
    LargeScale,
    /// 20 clients put and get for --secs.
    Sustained,
    /// 12 clients put, 12 get, 3 list a prefix, 3 delete, without pauses.
    Mixed,
    /// 100 watchers hear all of 1,000 events, in order; then the same with a key for each watcher.
    Watch,
    /// 10,000 transactions by 10 clients, each key fought over by two of them.
    Transactions,
    /// 10,000 keys written, overwritten, compacted and read back.
    Compaction,
    /// One operation at a time: the latency of each kind.
    Micro,
}

impl Scenario {
    const ALL: [Scenario; 7] = [
        Scenario::LargeScale,
        Scenario::Sustained,
        Scenario::Mixed,
        Scenario::Watch,
        Scenario::Transactions,
        Scenario::Compaction,
        Scenario::Micro,
    ];
}

/// What a scenario needs to know about this run.
pub(crate) struct Plan {
    client: Client,
    pid: Option<u32>,
    duration: Duration,
    quick: bool,
    /// Keys of this run, so that a second run against the same server meets none of the first.
    prefix: String,
}

impl Plan {
    /// A count of a scenario, or a tenth of it in a quick run.
    fn count(&self, full: u64) -> u64 {
        if self.quick { full.div_ceil(10) } else { full }
    }

    fn key(&self, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}{rest}", self.prefix)
    }
}

/// Runs the chosen scenarios and prints what they measured.
///
/// # Errors
/// When the server cannot be reached, or when any scenario lost a record or got a wrong answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the client's runtime")?
        .block_on(drive(args))
}

async fn drive(args: &Args) -> anyhow::Result<()> {
    let node = if args.spawn { Some(Node::spawn(&args.engine)?) } else { None };
    let endpoint = node.as_ref().map_or(args.endpoint.as_str(), Node::endpoint);
    let client = Client::connect(endpoint, args.connections).await?;
    let plan = Plan {
        pid: args.pid.or(node.as_ref().map(Node::pid)),
        duration: Duration::from_secs(args.secs),
        quick: args.quick,
        prefix: format!("/bench/{:x}/", client.revision().await?),
        client,
    };
    let mut report = Report::new(plan.client.version().await?, endpoint.to_owned());
    for scenario in chosen(&args.scenario) {
        report.rows.extend(run_one(scenario, &plan).await);
    }
    if let Some(node) = node {
        durability(node, &plan, &mut report).await?;
    }
    report.print(args.json)?;
    report.verdict()
}

fn chosen(asked: &[Scenario]) -> Vec<Scenario> {
    Scenario::ALL.into_iter().filter(|s| asked.is_empty() || asked.contains(s)).collect()
}

/// A scenario that fails is a row that says why; the others still run.
async fn run_one(scenario: Scenario, plan: &Plan) -> Vec<Row> {
    let rows = match scenario {
        Scenario::LargeScale => large_scale::pairs(plan).await.map(|row| vec![row]),
        Scenario::Sustained => large_scale::sustained(plan).await.map(|row| vec![row]),
        Scenario::Mixed => mixed::run(plan).await.map(|row| vec![row]),
        Scenario::Watch => watch::run(plan).await,
        Scenario::Transactions => transactions::run(plan).await.map(|row| vec![row]),
        Scenario::Compaction => compaction::run(plan).await.map(|row| vec![row]),
        Scenario::Micro => micro::run(plan).await,
    };
    rows.unwrap_or_else(|error| vec![Row::failed(&format!("{scenario:?}"), &error)])
}

/// Kills the node and reads the records of the large-scale scenario from its successor.
async fn durability(node: Node, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let Some(row) = report.rows.iter_mut().find(|row| row.name == large_scale::NAME) else {
        return Ok(());
    };
    let node = node.kill_and_restart()?;
    let client = Client::connect(node.endpoint(), 1).await?;
    match large_scale::read_back(&Plan { client, prefix: plan.prefix.clone(), ..*plan }).await {
        Ok(found) => row.durable = Some(found),
        Err(error) => row.failure = Some(format!("after SIGKILL: {error:#}")),
    }
    Ok(())
}
