//! `chronolith bench series`: the time-series index under the original's workloads, and larger ones.
//!
//! ```text
//!   workload ──▶ threads behind a barrier ──▶ clocks: visible · settled · writer-only
//!                                         └─▶ every row read back and compared, or the run fails
//! ```
//!
//! Definitions: *visible* ends when the last point is readable by every query; *settled* ends when no
//! late point is left to merge either. *Writer-only* is the busiest writer's own clock: it stands in the
//! files beside the others and never replaces them. Memory is *recycled* (units that an earlier round
//! used and gave back, as in a server that runs for a while) or *cold* (mapped inside the clock).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_series::{Durability, Index, Pool};
use indicatif::{ProgressBar, ProgressStyle};

pub mod load;
pub mod query;
pub mod report;

use crate::output::Output;
use load::{Arrival, Data, Inserted, Shape};
use query::{Answered, Beside, Lookup, Scans};
use report::{Report, Row, best_and_median};

/// Rounds of writers beside readers for each round of anything else: one lasts some hundredths of a second.
const BESIDE_ROUNDS: usize = 5;
/// Steps of an index that grows by `--growth`.
const GROWTH_STEPS: i64 = 14;

/// What to run.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Series.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    series: u32,
    /// Points of each series.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=100_000_000))]
    points: i64,
    /// Threads, one run for each count.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Percentages of late points.
    #[arg(long, value_delimiter = ',', default_value = "0,1,10,30,100")]
    late: Vec<u64>,
    /// Rounds of each workload.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Run only these; all of them otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// How often the growing index doubles: 3 makes it eight times as large as the others.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=12))]
    doublings: u32,
    /// Let the growing index take as many GiB as this in equal steps, 16 bytes a point, instead of
    /// doubling; runs only that workload unless others are named.
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    growth: Option<u64>,
    /// Pack what each step of the growing index appended, inside the clock: the GiB are then those that
    /// the points would take unpacked.
    #[arg(long)]
    growth_packed: bool,
    /// Where the durable workload writes; a temporary directory otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A tenth of the points and one round, for a first look.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// The workloads, in the order in which they run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    /// Points in order: by point, batch and row, series by series and tick by tick, recycled and cold.
    Insert,
    /// Points of which some are late.
    Late,
    /// A tenth of all points, looked up.
    Lookup,
    /// Five ranges of each series, 10 to 100 points long.
    Scan,
    /// Half new points, the rest ranges and lookups.
    Mixed,
    /// Writers with a reader beside them.
    Beside,
    /// Blocks packed and scanned: bytes a point.
    Pack,
    /// Points on stable storage, and read back by a new opening.
    Durable,
    /// One index that doubles again and again: the cost of a point must stay flat.
    Grow,
}

impl Workload {
    const ALL: [Workload; 9] = [
        Workload::Insert,
        Workload::Late,
        Workload::Lookup,
        Workload::Scan,
        Workload::Mixed,
        Workload::Beside,
        Workload::Pack,
        Workload::Durable,
        Workload::Grow,
    ];
}

/// One run of the command.
struct Run<'a> {
    args: &'a Args,
    shape: Shape,
    rounds: usize,
    /// Units that rounds give back and take again.
    recycled: Arc<Pool>,
    bar: ProgressBar,
    rows: Vec<Row>,
}

/// Runs the chosen workloads and reports what they measured.
///
/// # Errors
/// If rows read back differ from rows written, an answer is wrong, or a report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let points = if args.quick { (args.points / 10).max(1) } else { args.points };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?;
    let mut run = Run {
        args,
        shape: Shape { series: args.series, points },
        rounds: if args.quick { 1 } else { args.rounds.into() },
        recycled: Arc::new(Pool::new()),
        bar: ProgressBar::new(0).with_style(style),
        rows: Vec::new(),
    };
    run.recycled.prefault(run.shape.size_bytes())?;
    let chosen = match &args.workload[..] {
        [] if args.growth.is_some() => &[Workload::Grow][..],
        [] => &Workload::ALL[..],
        chosen => chosen,
    };
    let steps: usize = chosen.iter().map(|workload| run.steps(*workload)).sum();
    run.bar.set_length(steps as u64);
    for workload in chosen {
        run.workload(*workload)?;
    }
    run.bar.finish_and_clear();
    let report = run.report();
    println!("{}", report.table());
    args.output.write(
        |path| report.write_json(path),
        |path| report.write_csv(path),
        |path| report.write_html(path),
    )
}

impl Run<'_> {
    fn workload(&mut self, workload: Workload) -> anyhow::Result<()> {
        match workload {
            Workload::Insert => self.inserts(),
            Workload::Late => self.late(),
            Workload::Lookup => self.lookups(),
            Workload::Scan => self.scans(),
            Workload::Mixed => self.mixed(),
            Workload::Beside => self.beside(),
            Workload::Pack => self.pack(),
            Workload::Durable => self.durable(),
            Workload::Grow => self.grow(),
        }
    }

    fn recycled(&self) -> Option<Arc<Pool>> {
        Some(Arc::clone(&self.recycled))
    }

    /// An index that holds everything already.
    fn full(&self) -> anyhow::Result<Index> {
        let index = load::index(self.shape, self.recycled())?;
        load::insert(&index, self.shape, Arrival::SeriesByPoint, 1)?;
        load::verify(&index, self.shape)?;
        Ok(index)
    }

    fn inserts(&mut self) -> anyhow::Result<()> {
        let arrivals = [
            ("series, by point", Arrival::SeriesByPoint),
            ("series, batches of 64", Arrival::SeriesByBatch(64)),
            ("series, batches of 512", Arrival::SeriesByBatch(512)),
            ("ticks, by point", Arrival::TicksByPoint),
            ("ticks, by row", Arrival::TicksByRow),
        ];
        for threads in self.args.threads.clone() {
            for (name, arrival) in arrivals {
                self.insert(
                    "insert",
                    format!("{name}, recycled"),
                    arrival,
                    threads,
                    self.recycled(),
                )?;
            }
            for (name, arrival) in arrivals {
                self.insert("insert", format!("{name}, cold"), arrival, threads, None)?;
            }
        }
        Ok(())
    }

    fn late(&mut self) -> anyhow::Result<()> {
        for threads in self.args.threads.clone() {
            for percent in self.args.late.clone() {
                let arrival = Arrival::Late(percent);
                self.insert(
                    "late",
                    format!("{percent} % late"),
                    arrival,
                    threads,
                    self.recycled(),
                )?;
            }
        }
        Ok(())
    }

    /// Every round fills an index of its own, reads it back and throws it away.
    fn insert(
        &mut self,
        workload: &'static str,
        variant: String,
        arrival: Arrival,
        threads: usize,
        pool: Option<Arc<Pool>>,
    ) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            self.step(format!("{workload}: {variant}, {threads} threads, round {}", round + 1));
            let index = load::index(self.shape, pool.clone())?;
            let inserted = load::insert(&index, self.shape, arrival, threads)?;
            load::verify(&index, self.shape)?;
            rounds.push(inserted);
        }
        self.push_inserted(workload, variant, threads, &rounds, String::new());
        Ok(())
    }

    fn push_inserted(
        &mut self,
        workload: &'static str,
        variant: String,
        threads: usize,
        rounds: &[Inserted],
        note: String,
    ) {
        let total = self.shape.total();
        let rates = |clock: fn(&Inserted) -> Duration| {
            best_and_median(rounds.iter().map(|round| millions(total, clock(round))).collect())
        };
        let (visible, settled) = (rates(|round| round.visible), rates(|round| round.settled));
        self.rows.push(Row {
            workload,
            variant,
            threads,
            operations: total,
            unit: "points",
            visible_best: visible.0,
            visible_median: visible.1,
            settled_best: Some(settled.0),
            settled_median: Some(settled.1),
            durable_best: None,
            writer_only_best: Some(rates(|round| round.writer_only).0),
            note,
        });
    }

    fn lookups(&mut self) -> anyhow::Result<()> {
        let index = self.full()?;
        let kinds = [
            ("every tenth", Lookup::EveryTenth),
            ("random", Lookup::Random),
            ("random, batched", Lookup::RandomBatched),
        ];
        for threads in self.args.threads.clone() {
            for (name, kind) in kinds {
                // The original's sample lasts a few milliseconds; ten times over is measurable.
                let ask = |run: &Self| query::lookups(&index, run.shape, kind, threads, 10);
                self.query("lookup", name.into(), "lookups", threads, ask)?;
            }
        }
        Ok(())
    }

    fn scans(&mut self) -> anyhow::Result<()> {
        let index = self.full()?;
        for threads in self.args.threads.clone() {
            let kinds = [
                ("the original's", Scans::OneByOne, 1),
                ("200 times over", Scans::OneByOne, 200),
                ("200 times over, batched", Scans::Batched, 200),
            ];
            for (name, kind, times) in kinds {
                let ask = |run: &Self| query::scans(&index, run.shape, kind, threads, times);
                self.query("scan", name.into(), "scans", threads, ask)?;
            }
        }
        Ok(())
    }

    fn query(
        &mut self,
        workload: &'static str,
        variant: String,
        unit: &'static str,
        threads: usize,
        ask: impl Fn(&Self) -> anyhow::Result<Answered>,
    ) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            self.step(format!("{workload}: {variant}, {threads} threads, round {}", round + 1));
            rounds.push(ask(self)?);
        }
        self.push_answered(workload, variant, unit, threads, &rounds);
        Ok(())
    }

    fn push_answered(
        &mut self,
        workload: &'static str,
        variant: String,
        unit: &'static str,
        threads: usize,
        rounds: &[Answered],
    ) {
        let rates = rounds.iter().map(|round| millions(round.count, round.elapsed)).collect();
        let points = rounds.iter().map(|round| millions(round.points, round.elapsed)).collect();
        let (best, median) = best_and_median(rates);
        let note = match unit {
            "scans" => format!("{:.0} M points/s", best_and_median(points).0),
            _ => String::new(),
        };
        self.rows.push(Row {
            workload,
            variant,
            threads,
            operations: rounds.first().map_or(0, |round| round.count),
            unit,
            visible_best: best,
            visible_median: median,
            settled_best: None,
            settled_median: None,
            durable_best: None,
            writer_only_best: None,
            note,
        });
    }

    fn mixed(&mut self) -> anyhow::Result<()> {
        for threads in self.args.threads.clone() {
            let mut rounds = Vec::new();
            for round in 0..self.rounds {
                self.step(format!("mixed: {threads} threads, round {}", round + 1));
                let index = self.full()?;
                let (answered, added) = query::mixed(&index, self.shape, threads)?;
                for (series, added) in added.iter().enumerate() {
                    let shape = Shape { series: 1, points: self.shape.points + added };
                    load::verify_series(&index, series as u32, shape)?;
                }
                rounds.push(answered);
            }
            let variant = "50 % insert, 40 % range, 10 % lookup".into();
            self.push_answered("mixed", variant, "operations", threads, &rounds);
        }
        Ok(())
    }

    /// Rounds take turns, so that whatever else the machine does meets all three alike.
    fn beside(&mut self) -> anyhow::Result<()> {
        let readers = [
            ("writers alone", Beside::Nobody),
            ("a reader beside, 100,000 scans/s", Beside::Paced),
            ("a reader beside, flat out", Beside::FlatOut),
        ];
        for threads in self.args.threads.clone() {
            let mut made = readers.map(|_| (Vec::new(), 0));
            for round in 0..self.rounds * BESIDE_ROUNDS {
                for ((_, reader), (rounds, scans)) in readers.iter().zip(&mut made) {
                    self.step(format!("beside: {threads} writers, round {}", round + 1));
                    let index = load::index(self.shape, self.recycled())?;
                    let (inserted, served) = query::beside(&index, self.shape, threads, *reader)?;
                    load::verify(&index, self.shape)?;
                    rounds.push(inserted);
                    *scans += served;
                }
            }
            let total = self.shape.total() as f64;
            let cost = |rounds: &[Inserted]| {
                let nanos = |round: &Inserted| round.processor.as_secs_f64() * 1e9;
                best_and_median(rounds.iter().map(nanos).collect()).1 / total
            };
            let alone = cost(&made[0].0);
            for ((name, _), (rounds, scans)) in readers.iter().zip(&made) {
                let seconds: f64 = rounds.iter().map(|round| round.visible.as_secs_f64()).sum();
                let own = cost(rounds);
                let note = format!(
                    "{own:.2} ns of a writer's processor a point ({:+.0} %), {:.2} M scans/s",
                    (own / alone - 1.0) * 100.0,
                    *scans as f64 / seconds / 1e6
                );
                self.push_inserted("beside", (*name).into(), threads, rounds, note);
            }
        }
        Ok(())
    }

    fn pack(&mut self) -> anyhow::Result<()> {
        for threads in self.args.threads.clone() {
            for data in Data::ALL {
                self.step(format!("pack: {}, {threads} threads", data.name()));
                let packed = load::pack(data, self.shape, self.recycled(), threads)?;
                let count = self.shape.total();
                let rate = |elapsed| Answered { count, elapsed, points: count };
                let name = format!("{}, packing", data.name());
                self.push_answered("pack", name, "points", threads, &[rate(packed.packing)]);
                if let Some(row) = self.rows.last_mut() {
                    row.note = format!("{:.2} bytes a point", packed.bytes_per_point);
                }
                let name = format!("{}, unpacking", data.name());
                self.push_answered("pack", name, "points", threads, &[rate(packed.reading)]);
            }
            let index = self.full()?;
            index.pack(1);
            load::verify(&index, self.shape)?;
            let ask = |run: &Self| query::scans(&index, run.shape, Scans::OneByOne, threads, 20);
            self.query("pack", "scans of packed blocks".into(), "scans", threads, ask)?;
            let ask = |run: &Self| query::lookups(&index, run.shape, Lookup::Random, threads, 1);
            self.query("pack", "lookups in packed blocks".into(), "lookups", threads, ask)?;
        }
        Ok(())
    }

    fn durable(&mut self) -> anyhow::Result<()> {
        for threads in self.args.threads.clone() {
            let (mut rounds, mut rates, mut note) = (Vec::new(), Vec::new(), String::new());
            for round in 0..self.rounds {
                self.step(format!("durable: {threads} threads, round {}", round + 1));
                let temporary = match &self.args.dir {
                    Some(dir) => tempfile::tempdir_in(dir)?,
                    None => tempfile::tempdir()?,
                };
                let durability =
                    Durability { sync_every: None, ..Durability::new(temporary.path()) };
                let made = load::durable(self.shape, self.recycled(), durability, threads)?;
                rates.push(millions(self.shape.total(), made.durable));
                let reopening = millions(self.shape.total(), made.reopening);
                note = format!(
                    "{:.2} bytes a point, reopened at {reopening:.0} M/s",
                    made.bytes_per_point
                );
                rounds.push(made.inserted);
            }
            self.push_inserted("durable", "one sync at the end".into(), threads, &rounds, note);
            if let Some(row) = self.rows.last_mut() {
                row.durable_best = Some(best_and_median(rates).0);
            }
        }
        Ok(())
    }

    /// One index that grows step by step, and lookups over all of it after each.
    fn grow(&mut self) -> anyhow::Result<()> {
        let threads = self.args.threads.iter().copied().max().unwrap_or(1);
        let steps = self.growth();
        let last = steps.last().copied().unwrap_or(self.shape.points);
        let full = Shape { points: last, ..self.shape };
        let widest = steps.iter().zip([0].iter().chain(&steps)).map(|(to, from)| to - from).max();
        let packed = self.args.growth_packed;
        let raw = if packed { widest.unwrap_or(last) } else { last };
        // Touched before the clock: a virtual machine gets memory that it never used before from its
        // host, at a speed that has nothing to do with an index.
        self.recycled.prefault(Shape { points: raw, ..self.shape }.size_bytes())?;
        let index = load::index(full, self.recycled())?;
        let mut from = 0;
        for until in steps {
            let held = Shape { points: until, ..self.shape };
            self.step(format!("grow: to {} M points", held.total() / 1_000_000));
            let mut elapsed = load::append_points(&index, self.shape.series, from..until, threads)?;
            if packed {
                let start = Instant::now();
                index.pack(1);
                elapsed += start.elapsed();
            }
            let part = Shape { points: until - from, ..self.shape };
            let grown = Answered { count: part.total(), elapsed, points: part.total() };
            let how = if packed { "appending and packing" } else { "appending" };
            let variant = format!("{how} up to {} M points", held.total() / 1_000_000);
            self.push_answered("grow", variant, "points", threads, &[grown]);
            if let Some(row) = self.rows.last_mut() {
                let used = index.stats().used_bytes;
                row.note = format!(
                    "{:.2} ns a point, {:.2} GiB, {:.2} bytes a point",
                    1000.0 / row.visible_best,
                    used as f64 / f64::from(1 << 30),
                    used as f64 / held.total() as f64
                );
            }
            let answered = query::sampled(&index, held, threads, self.shape.total() / 5)?;
            let variant = format!("random lookups in {} M points", held.total() / 1_000_000);
            self.push_answered("grow lookups", variant, "lookups", threads, &[answered]);
            from = until;
        }
        self.step("grow: reading everything back".into());
        load::verify(&index, full)
    }

    /// How many points each series holds after each step.
    fn growth(&self) -> Vec<i64> {
        let Some(gib) = self.args.growth else {
            return (0..=self.args.doublings).map(|n| self.shape.points << n).collect();
        };
        let bytes = gib << 30;
        let each = (bytes / 16 / u64::from(self.shape.series)).cast_signed();
        (1..=GROWTH_STEPS).map(|n| (each * n / GROWTH_STEPS).max(n)).collect()
    }

    /// How many steps a workload takes, for the bar.
    fn steps(&self, workload: Workload) -> usize {
        let each = self.args.threads.len() * self.rounds;
        match workload {
            Workload::Insert => 10 * each,
            Workload::Late => self.args.late.len() * each,
            Workload::Lookup | Workload::Scan => 3 * each,
            Workload::Mixed | Workload::Durable => each,
            Workload::Beside => 3 * BESIDE_ROUNDS * each,
            Workload::Pack => Data::ALL.len() * self.args.threads.len() + 2 * each,
            Workload::Grow => self.growth().len() + 1,
        }
    }

    fn step(&self, what: String) {
        self.bar.inc(1);
        self.bar.set_message(what);
        self.bar.tick();
    }

    fn report(self) -> Report {
        Report {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            series: self.shape.series,
            points: self.shape.points,
            rounds: self.rounds,
            rows: self.rows,
        }
    }
}

fn millions(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64() / 1e6
}

/// The processor's name where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("an unnamed processor".into(), |name| {
        name.trim_start_matches(['\t', ' ', ':']).into()
    })
}
