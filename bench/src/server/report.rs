//! What the run says: a table for people on standard output, or one JSON object.

use std::time::Duration;

use anyhow::ensure;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::crowd::Work;

/// All scenarios of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    server_version: String,
    endpoint: String,
    pub(crate) rows: Vec<Row>,
}

/// One scenario, or one kind of operation of the micro set.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Operations that the server answered, every answer checked.
    acknowledged: u64,
    /// Records found again by reading after the load; absent where the scenario keeps none.
    pub(crate) readable: Option<u64>,
    /// Records found after the node was killed and restarted; absent where this was not tried.
    pub(crate) durable: Option<u64>,
    seconds: f64,
    per_second: f64,
    /// Absent when the process of the server is not known, or used less than the clock's tick.
    per_server_cpu_second: Option<f64>,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    pub(crate) failure: Option<String>,
}

impl Row {
    pub(crate) fn new(name: &str, work: &Work) -> Row {
        let quantile = |q| work.tally.latency_us.value_at_quantile(q) as f64 / 1000.0;
        let operations = work.tally.operations as f64;
        let cpu = work.server_cpu_seconds.filter(|seconds| *seconds > 0.0);
        Row {
            per_second: operations / work.elapsed.as_secs_f64(),
            per_server_cpu_second: cpu.map(|seconds| operations / seconds),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            max_ms: quantile(1.0),
            acknowledged: work.tally.operations,
            ..Row::empty(name, work.elapsed)
        }
    }

    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Row {
        let failure = Some(format!("{error:#}"));
        Row { failure, ..Row::empty(name, Duration::ZERO) }
    }

    pub(crate) fn readable(self, records: u64) -> Row {
        Row { readable: Some(records), ..self }
    }

    fn empty(name: &str, elapsed: Duration) -> Row {
        Row {
            name: name.to_owned(),
            acknowledged: 0,
            readable: None,
            durable: None,
            seconds: elapsed.as_secs_f64(),
            per_second: 0.0,
            per_server_cpu_second: None,
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            failure: None,
        }
    }

    fn cells(&self) -> [String; 10] {
        let count = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            self.name.clone(),
            self.acknowledged.to_string(),
            count(self.readable),
            count(self.durable),
            format!("{:.2}", self.seconds),
            format!("{:.0}", self.per_second),
            self.per_server_cpu_second.map_or_else(|| "-".to_owned(), |n| format!("{n:.0}")),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.max_ms),
        ]
    }
}

const HEADINGS: [&str; 10] = [
    "workload",
    "acknowledged",
    "readable",
    "durable",
    "s",
    "op/s",
    "op/server-CPU-s",
    "p50 ms",
    "p99 ms",
    "max ms",
];

impl Report {
    pub(crate) fn new(server_version: String, endpoint: String) -> Report {
        Report { server_version, endpoint, rows: Vec::new() }
    }

    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!("{} (version {})\n{}", self.endpoint, self.server_version, self.table());
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                println!("FAILED {}: {failure}", row.name);
            }
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(HEADINGS);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// # Errors
    /// Names the scenarios that failed.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let failed: Vec<_> = self.rows.iter().filter(|row| row.failure.is_some()).collect();
        let names: Vec<_> = failed.iter().map(|row| row.name.as_str()).collect();
        ensure!(failed.is_empty(), "failed: {}", names.join(", "));
        Ok(())
    }
}
