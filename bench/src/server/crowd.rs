//! Clients at work: each runs in its own task with its own connection turn and its own histogram;
//! the first wrong answer of any of them ends the crowd.

use std::future::Future;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use super::Plan;
use super::client::Client;
use super::node::cpu_seconds;

/// Latencies are kept with three significant digits, in microseconds.
const SIGNIFICANT_DIGITS: u8 = 3;

/// What one client did.
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) latency_us: Histogram<u64>,
    bar: ProgressBar,
}

impl Tally {
    fn new(bar: ProgressBar) -> Tally {
        let latency_us = Histogram::new(SIGNIFICANT_DIGITS).expect("the digits are in range");
        Tally { operations: 0, latency_us, bar }
    }

    /// Times one operation, whatever it answers.
    pub(crate) async fn timed<T>(
        &mut self,
        operation: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let answer = operation.await?;
        self.record(start.elapsed());
        Ok(answer)
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.count();
        self.latency(latency);
    }

    /// Counts an operation whose latency is known later.
    pub(crate) fn count(&mut self) {
        self.operations += 1;
        self.bar.inc(1);
    }

    /// The latency of an operation that is counted already.
    pub(crate) fn latency(&mut self, latency: Duration) {
        self.latency_us.record(latency.as_micros() as u64).expect("the histogram grows");
    }

    fn add(&mut self, other: &Tally) {
        self.operations += other.operations;
        self.latency_us.add(&other.latency_us).expect("histograms of a crowd are alike");
    }
}

/// What a crowd did together.
pub(crate) struct Work {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    pub(crate) server_cpu_seconds: Option<f64>,
}

/// Runs `clients` tasks to their end and adds up what they did; `expected` operations fill the bar.
pub(crate) async fn crowd<F, Fut, T>(
    plan: &Plan,
    name: &str,
    expected: u64,
    clients: u64,
    task: F,
) -> anyhow::Result<(Work, Vec<T>)>
where
    F: Fn(u64, Client, Tally) -> Fut,
    Fut: Future<Output = anyhow::Result<(Tally, T)>> + Send + 'static,
    T: Send + 'static,
{
    let bar = progress(name, expected);
    let mut total = Tally::new(bar.clone());
    let (start, cpu) = (Instant::now(), plan.pid.and_then(cpu_seconds));
    let mut tasks = JoinSet::new();
    for index in 0..clients {
        tasks.spawn(task(index, plan.client.another(), Tally::new(bar.clone())));
    }
    let mut found = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let (tally, result) = joined??;
        total.add(&tally);
        found.push(result);
    }
    let elapsed = start.elapsed();
    let spent = plan.pid.and_then(cpu_seconds).zip(cpu).map(|(after, before)| after - before);
    bar.finish_and_clear();
    Ok((Work { tally: total, elapsed, server_cpu_seconds: spent }, found))
}

fn progress(name: &str, expected: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{name} …");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(expected), ProgressDrawTarget::stderr());
    let shape = "{msg:24} [{bar:30}] {human_pos}/{human_len} {per_sec}";
    bar.set_style(ProgressStyle::with_template(shape).expect("the template is fixed"));
    bar.set_message(name.to_owned());
    bar
}
