//! The figures for a scraper: OpenMetrics text.

use super::{Latency, Stats};
use std::fmt::Write;

/// Units that end names; OpenMetrics wants them said apart.
const UNITS: [&str; 2] = ["bytes", "seconds"];
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

impl Stats {
    /// The figures in the OpenMetrics text format, with its end mark; absent figures are left out.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        let mut text = Text { out: String::new(), backend: self.backend };
        self.counters(&mut text);
        self.gauges(&mut text);
        text.summary("get_seconds", "Latency of gets, sampled.", &self.get_latency);
        text.summary("write_seconds", "Latency of batches.", &self.write_latency);
        text.out.push_str("# EOF\n");
        text.out
    }

    fn counters(&self, text: &mut Text) {
        text.counter("gets", "Keys looked up.", Some(self.gets));
        text.counter("gets_found", "Keys looked up and found.", Some(self.gets_found));
        text.counter("read_bytes", "Bytes of values found.", Some(self.bytes_read));
        text.counter("seeks", "Cursors positioned.", Some(self.seeks));
        text.counter("steps", "Cursors moved by one.", Some(self.steps));
        text.counter("batches", "Batches written.", Some(self.batches));
        text.counter("records_written", "Changes written.", Some(self.records_written));
        text.counter(
            "written_bytes",
            "Bytes of keys and values written.",
            Some(self.bytes_written),
        );
        text.counter(
            "cache_hits",
            "Blocks found in the cache.",
            self.cache.map(|cache| cache.hits),
        );
        text.counter("cache_misses", "Blocks read.", self.cache.map(|cache| cache.misses));
        let compactions = self.compactions;
        text.counter("compactions", "Compactions.", compactions.and_then(|done| done.count));
        let written = compactions.map(|done| done.written_bytes);
        text.counter("compaction_written_bytes", "Bytes written by compactions.", written);
        let read = compactions.map(|done| done.read_bytes);
        text.counter("compaction_read_bytes", "Bytes read by compactions.", read);
        text.counter("log_bytes", "Bytes written to the log.", self.log_bytes);
        text.counter("flushed_bytes", "Bytes written by flushes.", self.flushed_bytes);
        let time = compactions.and_then(|done| done.time).map(|time| time.as_secs_f64());
        text.line("compaction_seconds", "counter", "Time of compactions.", time);
        let stalled = self.stalled.map(|time| time.as_secs_f64());
        text.line("stalled_seconds", "counter", "Time that writers waited.", stalled);
    }

    fn gauges(&self, text: &mut Text) {
        let memory = self.memory;
        text.gauge("record_memory_bytes", "Keys and values in RAM.", memory.records);
        text.gauge("memtable_bytes", "Tables of recent writes.", memory.memtables);
        text.gauge("cache_bytes", "Cached blocks.", memory.cache);
        text.gauge("table_reader_bytes", "Readers of open files.", memory.table_readers);
        text.gauge("files", "Files that hold data.", self.files);
        text.gauge("disk_bytes", "Bytes of those files.", self.disk_bytes);
        text.gauge("live_bytes", "Estimated newest versions.", self.live_bytes);
        text.gauge("estimated_keys", "Estimated number of keys.", self.estimated_keys);
        text.line(
            "write_amplification",
            "gauge",
            "Bytes written to disk for each byte that callers wrote.",
            self.write_amplification(),
        );
        text.line(
            "compression_ratio",
            "gauge",
            "Data for each byte on disk.",
            self.compression_ratio,
        );
    }
}

struct Text {
    out: String,
    backend: &'static str,
}

impl Text {
    fn counter(&mut self, name: &str, help: &str, count: Option<u64>) {
        self.line(name, "counter", help, count.map(|count| count as f64));
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<u64>) {
        self.line(name, "gauge", help, value.map(|value| value as f64));
    }

    fn line(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.head(name, kind, help);
        let backend = self.backend;
        self.push(format_args!(
            "chronolith_engine_{name}{suffix}{{backend=\"{backend}\"}} {value}\n"
        ));
    }

    fn summary(&mut self, name: &str, help: &str, latency: &Latency) {
        let Some(mean) = latency.mean() else { return };
        self.head(name, "summary", help);
        let backend = self.backend;
        for quantile in QUANTILES {
            let value = latency.quantile(quantile).unwrap_or_default().as_secs_f64();
            self.push(format_args!(
                "chronolith_engine_{name}{{backend=\"{backend}\",quantile=\"{quantile}\"}} {value}\n"
            ));
        }
        let (count, sum) = (latency.count(), mean.as_secs_f64() * latency.count() as f64);
        self.push(format_args!(
            "chronolith_engine_{name}_count{{backend=\"{backend}\"}} {count}\n"
        ));
        self.push(format_args!("chronolith_engine_{name}_sum{{backend=\"{backend}\"}} {sum}\n"));
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# TYPE chronolith_engine_{name} {kind}\n"));
        if let Some(unit) = UNITS.iter().find(|unit| name.ends_with(*unit)) {
            self.push(format_args!("# UNIT chronolith_engine_{name} {unit}\n"));
        }
        self.push(format_args!("# HELP chronolith_engine_{name} {help}\n"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use crate::{Durability, Engine, MemoryEngine, WriteBatch};

    /// The order that a strict parser wants: type, unit where the name ends with one, help, samples.
    #[test]
    fn a_family_says_its_type_and_its_unit_before_its_samples() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let mut batch = WriteBatch::new();
        batch.put(column, "key", "value");
        engine.write(batch, Durability::NoWal).unwrap();
        let text = engine.stats().unwrap().open_metrics();
        let family = "# TYPE chronolith_engine_written_bytes counter\n\
                      # UNIT chronolith_engine_written_bytes bytes\n\
                      # HELP chronolith_engine_written_bytes Bytes of keys and values written.\n\
                      chronolith_engine_written_bytes_total{backend=\"memory\"} 8\n";
        assert!(text.contains(family), "{text}");
        assert!(
            text.contains("# TYPE chronolith_engine_batches counter\n# HELP "),
            "no unit: {text}"
        );
        assert!(text.contains("# UNIT chronolith_engine_write_seconds seconds\n"), "{text}");
        assert!(!text.contains("write_amplification"), "absent, not 0: {text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
