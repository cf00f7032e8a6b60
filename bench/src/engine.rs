//! `chronolith bench engine`: what the storage engines do on this machine.
//!
//! Every case starts on a fresh engine in a directory of its own, writes realistic values, checks
//! what it reads, and stops its clock when the last record is readable. One row a case; the same rows
//! go to the table, JSON, CSV and HTML.

mod bulk;
mod compression;
mod data;
mod html;
mod knobs;
mod report;
mod subject;
mod suites;
mod watch;

use crate::{interrupt, output::Output};
use anyhow::{Context, Result, bail, ensure};
use chronolith_engine::Profile;
use clap::ValueEnum;
use compression::DataSet;
use indicatif::{ProgressBar, ProgressStyle};
use report::Row;
use std::path::{Path, PathBuf};
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
    /// YCSB A to F, with their standard distributions of keys, then with all keys alike.
    Ycsb,
    /// Codecs and levels of Zstd on JSON, Kubernetes objects and Debian's package index (rocksdb only).
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
    /// Records that are loaded before reading [default: 200000, knobs 600000].
    #[arg(long)]
    records: Option<u64>,
    /// Operations of a case.
    #[arg(long, default_value_t = 200_000)]
    operations: u64,
    /// Bytes of a value [default: 100, knobs 1000].
    #[arg(long)]
    value_bytes: Option<usize>,
    /// What the suite compression compresses [default: all].
    #[arg(long, value_delimiter = ',')]
    data: Vec<DataSet>,
    /// Rounds where ways are compared with each other (at least nine); the median counts.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// RocksDB's profile: dev, default, `write_heavy`, `read_heavy` or production.
    #[arg(long, default_value = "default")]
    profile: String,
    /// Where the engines' files go, in a directory of each run's own that is removed afterwards.
    #[arg(long, default_value = "chronolith-bench")]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: watch::WatchArgs,
}

impl Args {
    /// The sizes that were asked for, otherwise these.
    fn scale(&self, dir: &Path, records: u64, value_bytes: usize) -> Scale {
        let all = || DataSet::value_variants().to_vec();
        Scale {
            records: self.records.unwrap_or(records).max(1_000),
            operations: self.operations.max(1_000),
            value_bytes: self.value_bytes.unwrap_or(value_bytes).max(16),
            repeats: self.repeats.max(1),
            data_sets: if self.data.is_empty() { all() } else { self.data.clone() },
            dir: dir.to_owned(),
        }
    }
}

/// Sizes where the caller names none.
const RECORDS: u64 = 200_000;
const VALUE_BYTES: usize = 100;

/// Sizes of a run.
#[derive(Clone, Debug)]
struct Scale {
    records: u64,
    operations: u64,
    value_bytes: usize,
    repeats: u32,
    data_sets: Vec<DataSet>,
    dir: PathBuf,
}

/// Measures, and fails if a record was lost or a target missed.
pub fn run(args: &Args) -> Result<()> {
    let profile = Profile::named(&args.profile).with_context(|| {
        format!("no profile {}: one of {}", args.profile, Profile::NAMES.join(", "))
    })?;
    let engines = if args.engines.is_empty() { Kind::built() } else { args.engines.clone() };
    let watches_one = !args.watch.asked() || args.engines.len() < 2;
    ensure!(watches_one, "--watch shows one engine: name one with --engine");
    interrupt::listen()?;
    // A run that was killed leaves its files: they must not be another run's data.
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&args.dir)?;
    let scale = args.scale(dir.path(), RECORDS, VALUE_BYTES);
    let outcome = match args.watch.asked() {
        true => watch::run(engines[0], &scale, &profile, &args.watch),
        false => report_of(args, &engines, &scale, &profile),
    };
    dir.close()?;
    // Empty by now; if something else lies in it, it stays.
    let _ = std::fs::remove_dir(&args.dir);
    outcome
}

/// Measures and reports; what was measured before a failure is reported too.
fn report_of(args: &Args, engines: &[Kind], scale: &Scale, profile: &Profile) -> Result<()> {
    let mut rows = Vec::new();
    let measured = measure(args, engines, scale, profile, &mut rows);
    println!("{}", report::table(&rows));
    let about =
        about(scale, &args.scale(&scale.dir, knobs::RECORDS, knobs::VALUE_BYTES), &args.profile);
    args.output.write(
        |path| report::write_json(&rows, path),
        |path| report::write_csv(&rows, path),
        |path| html::write(&rows, &about, path),
    )?;
    measured?;
    let missed = rows.iter().filter(|row| row.passed == Some(false)).count();
    if missed > 0 {
        bail!("{missed} targets were missed");
    }
    Ok(())
}

/// What a page of figures must say of itself.
fn about(scale: &Scale, knobs: &Scale, profile: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let sizes = |scale: &Scale| format!("{} records of {} bytes", scale.records, scale.value_bytes);
    format!(
        "{} (knobs: {}), {} operations a case, profile {profile}; {cores} cores; version {}. \
         Every answer was checked.",
        sizes(scale),
        sizes(knobs),
        scale.operations,
        env!("CARGO_PKG_VERSION")
    )
}

fn measure(
    args: &Args,
    engines: &[Kind],
    scale: &Scale,
    profile: &Profile,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let suites = if args.suite.is_empty() { all_suites() } else { args.suite.clone() };
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")?;
    let progress = ProgressBar::new_spinner().with_style(style);
    let each = |row: &Row| {
        let line =
            format!("{:<12}{:<9}{:<46}{:>12.0}/s", row.suite, row.engine, row.case, row.per_s);
        // Without a terminal there is no bar, and a long run would say nothing until its end.
        match progress.is_hidden() {
            true => eprintln!("{line}"),
            false => progress.println(line),
        }
        progress.tick();
    };
    for kind in engines {
        for suite in &suites {
            if suite.needs_files() && *kind == Kind::Memory {
                continue;
            }
            progress.set_message(format!("{}: {suite:?}", kind.name()));
            progress.tick();
            let scale = match suite {
                Suite::Knobs => args.scale(&scale.dir, knobs::RECORDS, knobs::VALUE_BYTES),
                _ => scale.clone(),
            };
            let mut bench = Bench {
                scale: &scale,
                kind: *kind,
                profile: profile.clone(),
                rows: Vec::new(),
                each: &each,
            };
            let outcome = run_suite(&mut bench, *suite);
            rows.append(&mut bench.rows);
            if outcome.is_err() {
                progress.finish_and_clear();
                return outcome;
            }
        }
    }
    progress.finish_and_clear();
    Ok(())
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
    Suite::value_variants().to_vec()
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
            data_sets: Vec::new(),
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
