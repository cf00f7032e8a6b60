//! `chronolith bench engine`: what the storage engines do on this machine.
//!
//! Every case starts on a fresh engine in a directory of its own, writes realistic values, checks
//! what it reads, and stops its clock when the last record is readable. One row a case; the same rows
//! go to the table, JSON, CSV and HTML.

mod bulk;
mod data;
mod knobs;
mod report;
mod subject;
mod suites;
mod watch;

use crate::output::Output;
use anyhow::{Context, Result, bail};
use chronolith_engine::Profile;
use indicatif::{ProgressBar, ProgressStyle};
use report::Row;
use std::path::PathBuf;
use subject::Kind;
use suites::Bench;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// Batch sizes 100 to 100 K, with the log off, on and synced.
    Batches,
    /// One batch, fixed chunks, adaptive chunks.
    Bulk,
    /// Random, sequential, range; hit and miss.
    Reads,
    /// Sequential, random, concurrent; log on and synced.
    Writes,
    /// 80/20 and 50/50 by two threads.
    Mixed,
    /// YCSB A to F.
    Ycsb,
    /// Codecs on JSON, Kubernetes objects and Debian's package index (rocksdb only).
    Compression,
    /// Blocks, block cache, pinning, write buffer, background jobs (rocksdb only).
    Knobs,
    /// What must be reached, with pass or fail.
    Targets,
}

impl Suite {
    /// Whether there is nothing to measure without files.
    fn needs_files(self) -> bool {
        matches!(self, Self::Compression | Self::Knobs)
    }
}

/// Arguments of `chronolith bench engine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Engines to measure [default: all of this build].
    #[arg(long = "engine", value_delimiter = ',')]
    engines: Vec<Kind>,
    /// What to measure [default: all].
    #[arg(long, value_delimiter = ',')]
    suite: Vec<Suite>,
    /// Records that are loaded before reading.
    #[arg(long, default_value_t = 200_000)]
    records: u64,
    /// Operations of a case.
    #[arg(long, default_value_t = 200_000)]
    operations: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Rounds where ways are compared with each other (at least nine); the median counts.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// RocksDB's profile: dev, default, `write_heavy`, `read_heavy` or production.
    #[arg(long, default_value = "default")]
    profile: String,
    /// Where the engines' files go, removed afterwards [default: ./chronolith-bench].
    #[arg(long, default_value = "chronolith-bench")]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Instead of measuring, run a mixed load and show the engine's figures every second.
    #[arg(long)]
    watch: bool,
    /// Stop watching after so many seconds [default: at Ctrl-C].
    #[arg(long, requires = "watch")]
    seconds: Option<u64>,
}

/// Sizes of a run.
struct Scale {
    records: u64,
    operations: u64,
    value_bytes: usize,
    repeats: u32,
    dir: PathBuf,
}

/// Measures, and fails if a record was lost or a target missed.
pub fn run(args: &Args) -> Result<()> {
    let profile = Profile::named(&args.profile).with_context(|| {
        format!("no profile {}: one of {}", args.profile, Profile::NAMES.join(", "))
    })?;
    let scale = Scale {
        records: args.records.max(1_000),
        operations: args.operations.max(1_000),
        value_bytes: args.value_bytes.max(16),
        repeats: args.repeats.max(1),
        dir: args.dir.clone(),
    };
    let engines = if args.engines.is_empty() { Kind::built() } else { args.engines.clone() };
    if args.watch {
        return watch::run(engines[0], &scale, &profile, args.seconds);
    }
    let rows = measure(args, &engines, &scale, &profile)?;
    println!("{}", report::table(&rows));
    args.output.write(
        |path| report::write_json(&rows, path),
        |path| report::write_csv(&rows, path),
        |path| report::write_html(&rows, path),
    )?;
    // Empty by now; if something else lies in it, it stays.
    let _ = std::fs::remove_dir(&scale.dir);
    let missed = rows.iter().filter(|row| row.passed == Some(false)).count();
    if missed > 0 {
        bail!("{missed} targets were missed");
    }
    Ok(())
}

fn measure(args: &Args, engines: &[Kind], scale: &Scale, profile: &Profile) -> Result<Vec<Row>> {
    let suites = if args.suite.is_empty() { all_suites() } else { args.suite.clone() };
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")?;
    let progress = ProgressBar::new_spinner().with_style(style);
    let each = |row: &Row| {
        progress.println(format!(
            "{:<12}{:<9}{:<46}{:>12.0}/s",
            row.suite, row.engine, row.case, row.per_s
        ));
        progress.tick();
    };
    let mut rows = Vec::new();
    for kind in engines {
        for suite in &suites {
            if suite.needs_files() && *kind == Kind::Memory {
                continue;
            }
            progress.set_message(format!("{}: {suite:?}", kind.name()));
            progress.tick();
            let mut bench = Bench {
                scale,
                kind: *kind,
                profile: profile.clone(),
                rows: Vec::new(),
                each: &each,
            };
            run_suite(&mut bench, *suite)?;
            rows.append(&mut bench.rows);
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn run_suite(bench: &mut Bench<'_>, suite: Suite) -> Result<()> {
    match suite {
        Suite::Batches => bench.batches(),
        Suite::Bulk => bench.bulk(),
        Suite::Reads => bench.reads(),
        Suite::Writes => bench.writes(),
        Suite::Mixed => bench.mixed(),
        Suite::Ycsb => bench.ycsb(),
        Suite::Compression => bench.compression(),
        Suite::Knobs => bench.knobs(),
        Suite::Targets => bench.targets(),
    }
}

fn all_suites() -> Vec<Suite> {
    <Suite as clap::ValueEnum>::value_variants().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every suite of the memory engine, small: it must run, check its answers and give rows.
    #[test]
    fn every_suite_runs() {
        let dir = std::env::temp_dir().join(format!("chronolith-bench-{}", std::process::id()));
        let scale = Scale {
            records: 1000,
            operations: 1000,
            value_bytes: 100,
            repeats: 1,
            dir: dir.clone(),
        };
        let each = |_: &Row| {};
        for suite in all_suites().into_iter().filter(|suite| !suite.needs_files()) {
            let profile = Profile::dev();
            let mut bench =
                Bench { scale: &scale, kind: Kind::Memory, profile, rows: Vec::new(), each: &each };
            run_suite(&mut bench, suite).unwrap();
            assert!(!bench.rows.is_empty(), "{suite:?}");
            assert!(bench.rows.iter().all(|row| row.per_s > 0.0), "{suite:?}");
        }
        std::fs::remove_dir(&dir).unwrap();
    }
}
