//! Moments in a row, as lines that a terminal redraws: rates, trends, warnings.
//!
//! ```
//! use chronolith_engine::{Engine, MemoryEngine, Monitor};
//! let engine = MemoryEngine::new();
//! let mut monitor = Monitor::default();
//! assert_eq!(monitor.lines(engine.stats()?).len(), 0, "rates need two moments");
//! assert!(monitor.lines(engine.stats()?).iter().all(|line| !line.warns));
//! # Ok::<(), chronolith_engine::Error>(())
//! ```

use super::{Rates, Stats};
use std::time::Duration;

/// When a line becomes a warning.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// p99 of gets and of batches.
    pub p99: Duration,
    /// Share of blocks found in the cache, once there are enough look-ups to tell.
    pub cache_hit_rate: f64,
    /// Share of time that writers had to wait for flushes or compactions.
    pub stalled_share: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        // What the engine promises at half reads and half writes; a cache that misses more than one
        // block in five, or a disk that stops writers for a twentieth of the time, is too small.
        Self { p99: Duration::from_millis(1), cache_hit_rate: 0.8, stalled_share: 0.05 }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub name: &'static str,
    /// The figure, with its unit and its trend.
    pub text: String,
    /// Whether it is beyond its threshold.
    pub warns: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Monitor {
    /// When a line becomes a warning.
    pub thresholds: Thresholds,
    previous: Option<Stats>,
    rates: Option<Rates>,
}

/// Beyond this change a rate has a trend.
const TREND: f64 = 0.1;

impl Monitor {
    /// The lines for what happened since the last call; none at the first.
    pub fn lines(&mut self, stats: Stats) -> Vec<Line> {
        let Some(previous) = self.previous.replace(stats.clone()) else { return Vec::new() };
        let rates = stats.since(&previous);
        let mut lines = self.rate_lines(&rates);
        lines.extend(self.state_lines(&stats, &rates));
        self.rates = Some(rates);
        lines
    }

    fn rate_lines(&self, rates: &Rates) -> Vec<Line> {
        let before = self.rates.as_ref();
        let line = |name, of: fn(&Rates) -> f64, unit| {
            let (now, before) = (of(rates), before.map(of));
            Line { name, text: format!("{now:>12.0} {unit} {}", trend(before, now)), warns: false }
        };
        vec![
            line("gets", |rates| rates.gets_per_s, "/s"),
            line("cursor moves", |rates| rates.moves_per_s, "/s"),
            line("batches", |rates| rates.batches_per_s, "/s"),
            line("records written", |rates| rates.records_per_s, "/s"),
            line("bytes written", |rates| rates.bytes_written_per_s, "B/s"),
            line("bytes read", |rates| rates.bytes_read_per_s, "B/s"),
        ]
    }

    fn state_lines(&self, stats: &Stats, rates: &Rates) -> Vec<Line> {
        let limits = &self.thresholds;
        let latency = |name, latency: &super::Latency| Line {
            name,
            text: latency.to_string(),
            warns: latency.quantile(0.99).is_some_and(|p99| p99 > limits.p99),
        };
        let share = |name, share: Option<f64>, warns: &dyn Fn(f64) -> bool| {
            let text = format!("{:>12.1} %", share? * 100.0);
            Some(Line { name, text, warns: warns(share?) })
        };
        let mut lines = vec![
            latency("get latency", &rates.get_latency),
            latency("batch latency", &rates.write_latency),
        ];
        lines.extend(share("cache hits", rates.cache_hit_rate, &|rate| {
            rate < limits.cache_hit_rate
        }));
        lines.extend(share("writers stalled", rates.stalled_share, &|share| {
            share > limits.stalled_share
        }));
        let keys = stats.estimated_keys.map(|keys| format!("{keys:>12}"));
        lines.extend(keys.map(|text| Line { name: "estimated keys", text, warns: false }));
        lines
    }
}

fn trend(before: Option<f64>, now: f64) -> &'static str {
    match before {
        Some(before) if now > before * (1.0 + TREND) => "↑",
        Some(before) if now < before * (1.0 - TREND) => "↓",
        Some(_) => "→",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Engine, MemoryEngine, WriteBatch};

    #[test]
    fn a_line_beyond_its_threshold_warns() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let thresholds = Thresholds { p99: Duration::ZERO, ..Thresholds::default() };
        let mut monitor = Monitor { thresholds, ..Monitor::default() };
        monitor.lines(engine.stats().unwrap());
        let mut batch = WriteBatch::new();
        batch.put(column, "k", "v");
        engine.write(batch, Durability::NoWal).unwrap();
        let lines = monitor.lines(engine.stats().unwrap());
        let warning: Vec<_> =
            lines.iter().filter(|line| line.warns).map(|line| line.name).collect();
        assert_eq!(warning, ["batch latency"]);
    }

    #[test]
    fn a_trend_needs_a_tenth() {
        assert_eq!(trend(None, 1.0), "");
        assert_eq!(trend(Some(100.0), 109.0), "→");
        assert_eq!(trend(Some(100.0), 111.0), "↑");
        assert_eq!(trend(Some(100.0), 89.0), "↓");
    }
}
