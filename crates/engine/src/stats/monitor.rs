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

use super::{Latency, Rates, Stats, table::size};
use std::{fmt, time::Duration};

/// When a line becomes a warning.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// p99 of gets and of batches.
    pub p99: Duration,
    /// Share of blocks found in the cache, where there are enough look-ups in an interval to tell (100).
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

/// One figure. `Display` makes a line of it: warning mark, name, trend, figure.
///
/// ```
/// use chronolith_engine::{Line, Trend};
/// let line = Line { name: "gets", text: "12 /s".into(), trend: Some(Trend::Up), warns: true };
/// assert_eq!(line.to_string(), "! gets                ↑ 12 /s");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub name: &'static str,
    /// The figure, with its unit, and the limit where it is beyond it.
    pub text: String,
    /// Where it goes, for rates and latencies; absent before there are two intervals.
    pub trend: Option<Trend>,
    /// Whether it is beyond its threshold.
    pub warns: bool,
}

/// A figure against that of the interval before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// More than a tenth higher.
    Up,
    /// More than a tenth lower.
    Down,
    /// Within a tenth.
    Level,
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.warns { '!' } else { ' ' };
        let trend = match self.trend {
            Some(Trend::Up) => '↑',
            Some(Trend::Down) => '↓',
            Some(Trend::Level) => '→',
            None => ' ',
        };
        write!(out, "{mark} {:<NAME$}{trend} {}", self.name, self.text)
    }
}

impl Line {
    /// A line without trend or threshold.
    fn plain(name: &'static str, text: String) -> Self {
        Self { name, text, trend: None, warns: false }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Monitor {
    /// When a line becomes a warning.
    pub thresholds: Thresholds,
    previous: Option<Stats>,
    rates: Option<Rates>,
}

/// Fewer look-ups in the cache say nothing of it: a compaction that opens a file makes a few, which miss.
const TELLING_LOOKUPS: u64 = 100;
/// Beyond this change a figure has a trend.
const TREND: f64 = 0.1;
/// Columns of a name and of a figure: the longest names fit, and units stand below each other.
const NAME: usize = 20;
const FIGURE: usize = 10;

impl Monitor {
    /// Warns by these thresholds; [`Monitor::default`] by the usual ones.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// The lines for what happened since the last call; none at the first.
    pub fn lines(&mut self, stats: Stats) -> Vec<Line> {
        let Some(previous) = self.previous.replace(stats.clone()) else { return Vec::new() };
        let rates = stats.since(&previous);
        let mut lines = self.rate_lines(&rates).to_vec();
        lines.extend(self.latency_lines(&rates));
        lines.extend(self.work_lines(&stats, &rates));
        lines.extend(holding_lines(&stats));
        self.rates = Some(rates);
        lines
    }

    fn rate_lines(&self, rates: &Rates) -> [Line; 6] {
        let line = |name, of: fn(&Rates) -> f64, text: fn(f64) -> String| {
            let trend = self.trend(of(rates), |before| Some(of(before)));
            Line { name, text: text(of(rates)), trend, warns: false }
        };
        [
            line("gets", |rates| rates.gets_per_s, count_per_s),
            line("cursor moves", |rates| rates.moves_per_s, count_per_s),
            line("batches", |rates| rates.batches_per_s, count_per_s),
            line("records written", |rates| rates.records_per_s, count_per_s),
            line("bytes written", |rates| rates.bytes_written_per_s, bytes_per_s),
            line("bytes read", |rates| rates.bytes_read_per_s, bytes_per_s),
        ]
    }

    /// What half of the calls took does not tell whether something is wrong: the trend and the
    /// warning are those of the slowest hundredth.
    fn latency_lines(&self, rates: &Rates) -> [Line; 2] {
        let limit = self.thresholds.p99;
        let line = |name, of: fn(&Rates) -> &Latency| {
            let p99 = of(rates).quantile(0.99);
            let before = |before: &Rates| Some(of(before).quantile(0.99)?.as_secs_f64());
            let trend = p99.and_then(|p99| self.trend(p99.as_secs_f64(), before));
            let warns = p99.is_some_and(|p99| p99 > limit);
            let limit = if warns { format!(" (p99 above {limit:?})") } else { String::new() };
            Line { name, text: format!("{}{limit}", of(rates)), trend, warns }
        };
        [
            line("get latency", |rates| &rates.get_latency),
            line("batch latency", |rates| &rates.write_latency),
        ]
    }

    /// What the backend does to serve the calls; absent figures are left out.
    fn work_lines(&self, stats: &Stats, rates: &Rates) -> Vec<Line> {
        let limits = &self.thresholds;
        let hits = rates.cache_hit_rate.map(|rate| {
            let telling = rates.cache_lookups.is_some_and(|count| count >= TELLING_LOOKUPS);
            let warns = telling && rate < limits.cache_hit_rate;
            let trend = self.trend(rate, |before| before.cache_hit_rate);
            let limit = percent_limit(warns, "below", limits.cache_hit_rate);
            Line { name: "cache hits", text: percent(rate) + &limit, trend, warns }
        });
        let stalled = rates.stalled_share.map(|share| {
            let warns = share > limits.stalled_share;
            let limit = percent_limit(warns, "above", limits.stalled_share);
            Line { name: "writers stalled", text: percent(share) + &limit, trend: None, warns }
        });
        let compactions = rates.compaction_bytes_per_s.map(|written| {
            let trend = self.trend(written, |before| before.compaction_bytes_per_s);
            let text = format!("{} written", bytes_per_s(written));
            Line { name: "compactions", text, trend, warns: false }
        });
        let amplification = stats
            .write_amplification()
            .map(|times| Line::plain("write amplification", format!("{times:>FIGURE$.2}")));
        [hits, stalled, compactions, amplification].into_iter().flatten().collect()
    }

    /// `now` against the figure of the interval before.
    fn trend(&self, now: f64, before: impl FnOnce(&Rates) -> Option<f64>) -> Option<Trend> {
        self.rates.as_ref().and_then(before).map(|before| trend(before, now))
    }
}

/// What the engine holds; absent figures are left out.
fn holding_lines(stats: &Stats) -> Vec<Line> {
    let memory = stats.memory;
    let parts = [
        ("memory: records", memory.records),
        ("memory: memtables", memory.memtables),
        ("memory: cache", memory.cache),
        ("memory: readers", memory.table_readers),
        ("disk", stats.disk_bytes),
        ("live data", stats.live_bytes),
    ];
    let sizes = parts
        .into_iter()
        .filter_map(|(name, bytes)| Some(Line::plain(name, format!("{:>FIGURE$}", size(bytes?)))));
    let ratio = stats.compression_ratio.map(|ratio| format!("{ratio:>FIGURE$.2}"));
    let rest = [
        ("files", stats.files.map(|files| format!("{files:>FIGURE$}"))),
        ("compression ratio", ratio),
        ("estimated keys", stats.estimated_keys.map(|keys| format!("{keys:>FIGURE$}"))),
    ];
    sizes
        .chain(rest.into_iter().filter_map(|(name, text)| Some(Line::plain(name, text?))))
        .collect()
}

fn count_per_s(rate: f64) -> String {
    format!("{rate:>FIGURE$.0} /s")
}

fn bytes_per_s(rate: f64) -> String {
    // Rates are finite and not negative, so nothing is lost but the fraction of a byte.
    format!("{:>FIGURE$}/s", size(rate as u64))
}

fn percent(share: f64) -> String {
    format!("{:>FIGURE$.1} %", share * 100.0)
}

fn percent_limit(warns: bool, side: &str, limit: f64) -> String {
    if warns { format!(" ({side} {:.1} %)", limit * 100.0) } else { String::new() }
}

fn trend(before: f64, now: f64) -> Trend {
    if now > before * (1.0 + TREND) {
        Trend::Up
    } else if now < before * (1.0 - TREND) {
        Trend::Down
    } else {
        Trend::Level
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheStats, Durability, Engine, MemoryEngine, WriteBatch};

    #[test]
    fn a_line_beyond_its_threshold_warns() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let thresholds = Thresholds { p99: Duration::ZERO, ..Thresholds::default() };
        let mut monitor = Monitor::new(thresholds);
        monitor.lines(engine.stats().unwrap());
        let mut batch = WriteBatch::new();
        batch.put(column, "k", "v");
        engine.write(batch, Durability::NoWal).unwrap();
        let lines = monitor.lines(engine.stats().unwrap());
        let warning: Vec<_> =
            lines.iter().filter(|line| line.warns).map(|line| line.name).collect();
        assert_eq!(warning, ["batch latency"]);
        let warned = lines.iter().find(|line| line.warns).unwrap().to_string();
        assert!(warned.starts_with("! batch latency") && warned.contains("above 0ns"), "{warned}");
    }

    #[test]
    fn a_trend_needs_a_tenth() {
        assert_eq!(trend(100.0, 109.0), Trend::Level);
        assert_eq!(trend(100.0, 111.0), Trend::Up);
        assert_eq!(trend(100.0, 89.0), Trend::Down);
        assert_eq!(trend(0.0, 0.0), Trend::Level);
    }

    /// A watcher sees what the engine holds too, in units that people read, one below the other.
    #[test]
    fn sizes_are_shown_with_units_and_absent_figures_not_at_all() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let mut monitor = Monitor::default();
        monitor.lines(engine.stats().unwrap());
        let mut batch = WriteBatch::new();
        batch.put(column, "k", vec![0; 2048]);
        engine.write(batch, Durability::NoWal).unwrap();
        let mut stats = engine.stats().unwrap();
        stats.memory.records = Some(5 << 20);
        stats.compression_ratio = Some(2.5);
        let lines = monitor.lines(stats);
        let text = |name| lines.iter().find(|line| line.name == name).map(Line::to_string);
        assert_eq!(text("memory: records").unwrap(), "  memory: records          5.0 MiB");
        assert_eq!(text("compression ratio").unwrap(), "  compression ratio           2.50");
        assert!(text("bytes written").unwrap().ends_with("iB/s"), "{:?}", text("bytes written"));
        assert_eq!(text("cache hits"), None);
        assert_eq!(text("memory: cache"), None);
    }

    #[test]
    fn a_handful_of_misses_is_no_warning() {
        let stats = MemoryEngine::new().stats().unwrap();
        let warns = |misses| {
            let with =
                |hits, misses| Stats { cache: Some(CacheStats { hits, misses }), ..stats.clone() };
            let mut monitor = Monitor::default();
            monitor.lines(with(1_000, 0));
            monitor.lines(with(1_000, misses)).iter().any(|line| line.warns)
        };
        assert!(!warns(TELLING_LOOKUPS - 1));
        assert!(warns(TELLING_LOOKUPS));
    }

    #[test]
    fn a_trend_needs_two_intervals() {
        let engine = MemoryEngine::new();
        let mut monitor = Monitor::default();
        monitor.lines(engine.stats().unwrap());
        let first = monitor.lines(engine.stats().unwrap());
        assert!(first.iter().all(|line| line.trend.is_none()));
        let second = monitor.lines(engine.stats().unwrap());
        assert_eq!(second[0].trend, Some(Trend::Level), "no gets, and none before");
    }
}
