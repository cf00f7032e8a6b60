//! The figures for people.

use super::{Latency, Stats};
use std::{fmt, time::Duration};

impl fmt::Display for Stats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in self.lines() {
            writeln!(out, "{name:<22}{figure}")?;
        }
        Ok(())
    }
}

impl Stats {
    /// Name and figure of everything that is there.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let seconds = self.open_for.as_secs_f64().max(f64::EPSILON);
        let rate = |count: u64| format!("{count} ({:.0}/s)", count as f64 / seconds);
        let mut lines = vec![
            ("backend", format!("{}, open for {:.1?}", self.backend, self.open_for)),
            ("gets", format!("{}, {} found", rate(self.gets), self.gets_found)),
            ("get latency", self.get_latency.to_string()),
            ("seeks, steps", format!("{}, {}", rate(self.seeks), rate(self.steps))),
            ("batches", rate(self.batches)),
            ("batch latency", self.write_latency.to_string()),
            ("records written", rate(self.records_written)),
            (
                "bytes written, read",
                format!("{}, {}", size(self.bytes_written), size(self.bytes_read)),
            ),
        ];
        lines.extend(
            self.backend_lines().into_iter().filter_map(|(name, text)| Some((name, text?))),
        );
        lines
    }

    fn backend_lines(&self) -> Vec<(&'static str, Option<String>)> {
        let cache = self.cache.map(|cache| {
            let rate = cache
                .hit_rate()
                .map_or_else(String::new, |rate| format!(", {:.1} %", rate * 100.0));
            format!("{} hits, {} misses{rate}", cache.hits, cache.misses)
        });
        let compactions = self.compactions.map(|done| {
            let count = done.count.map_or_else(String::new, |count| format!("{count}, "));
            let time = done.time.map_or_else(String::new, |time| format!("{time:.1?}, "));
            let (read, written) = (size(done.read_bytes), size(done.written_bytes));
            format!("{count}{time}{read} read, {written} written")
        });
        vec![
            ("cache", cache),
            ("compactions", compactions),
            ("stalled", self.stalled.map(|time| format!("{time:.1?}"))),
            ("log", self.log_bytes.map(size)),
            ("flushed", self.flushed_bytes.map(size)),
            ("write amplification", self.write_amplification().map(|times| format!("{times:.2}"))),
            ("memory: records", self.memory.records.map(size)),
            ("memory: memtables", self.memory.memtables.map(size)),
            ("memory: cache", self.memory.cache.map(size)),
            ("memory: table readers", self.memory.table_readers.map(size)),
            ("files", self.files.map(|files| files.to_string())),
            ("disk", self.disk_bytes.map(size)),
            ("live data", self.live_bytes.map(size)),
            ("compression ratio", self.compression_ratio.map(|ratio| format!("{ratio:.2}"))),
            ("estimated keys", self.estimated_keys.map(|keys| keys.to_string())),
        ]
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mean) = self.mean() else { return out.write_str("nothing timed") };
        let quantile = |share| self.quantile(share).unwrap_or(Duration::ZERO);
        let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
        write!(out, "mean {mean:.1?}, p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}")
    }
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
