//! Results as a table, JSON and CSV; `html` makes the page.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{path::Path, time::Duration};

/// One measured case.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) suite: &'static str,
    pub(super) engine: String,
    pub(super) case: String,
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) per_s: f64,
    pub(super) mean_us: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) disk_bytes: Option<u64>,
    pub(super) ratio: Option<f64>,
    pub(super) note: String,
    /// Whether a target was reached; absent where there is none.
    pub(super) passed: Option<bool>,
}

impl Row {
    pub(super) fn new(suite: &'static str, engine: &str, case: impl Into<String>) -> Self {
        Self { suite, engine: engine.into(), case: case.into(), ..Self::default() }
    }

    pub(super) fn took(mut self, operations: u64, took: Duration) -> Self {
        self.operations = operations;
        self.seconds = took.as_secs_f64();
        self.per_s = operations as f64 / self.seconds.max(1e-9);
        self
    }

    pub(super) fn latencies(mut self, nanoseconds: &Histogram<u64>) -> Self {
        let quantile = |share| Some(nanoseconds.value_at_quantile(share) as f64 / 1000.0);
        if !nanoseconds.is_empty() {
            self.mean_us = Some(nanoseconds.mean() / 1000.0);
            (self.p50_us, self.p99_us, self.p999_us) =
                (quantile(0.5), quantile(0.99), quantile(0.999));
        }
        self
    }

    pub(super) fn columns(&self) -> [String; 12] {
        let figure =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        [
            self.suite.into(),
            self.engine.clone(),
            self.case.clone(),
            self.operations.to_string(),
            format!("{:.3}", self.seconds),
            format!("{:.0}", self.per_s),
            figure(self.mean_us),
            figure(self.p50_us),
            figure(self.p99_us),
            figure(self.p999_us),
            self.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.verdict(),
        ]
    }

    /// The fields of a line of CSV; what is absent is empty.
    fn fields(&self) -> [String; 14] {
        let figure = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        [
            quoted(self.suite),
            quoted(&self.engine),
            quoted(&self.case),
            self.operations.to_string(),
            self.seconds.to_string(),
            self.per_s.to_string(),
            figure(self.mean_us),
            figure(self.p50_us),
            figure(self.p99_us),
            figure(self.p999_us),
            self.disk_bytes.map_or_else(String::new, |bytes| bytes.to_string()),
            figure(self.ratio),
            quoted(&self.note),
            self.passed.map_or_else(String::new, |passed| passed.to_string()),
        ]
    }

    fn verdict(&self) -> String {
        match self.passed {
            Some(true) => format!("pass {}", self.note),
            Some(false) => format!("FAIL {}", self.note),
            None => self.note.clone(),
        }
    }
}

pub(super) const HEAD: [&str; 12] = [
    "suite",
    "engine",
    "case",
    "operations",
    "seconds",
    "per second",
    "mean µs",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "ratio",
    "note",
];

pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(HEAD);
    table.add_rows(rows.iter().map(Row::columns));
    for column in table.column_iter_mut().skip(3).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Columns as the fields of the JSON are named, figures unrounded: for programs.
pub(super) fn write_csv(rows: &[Row], path: &Path) -> Result<()> {
    const FIELDS: &str = "suite,engine,case,operations,seconds,per_s,mean_us,p50_us,p99_us,p999_us,disk_bytes,ratio,note,passed";
    let mut text = FIELDS.to_owned() + "\n";
    for row in rows {
        text += &(row.fields().join(",") + "\n");
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_holds_every_row() {
        let row =
            Row::new("reads", "memory", "a \"quoted\" <case>").took(10, Duration::from_secs(2));
        let rows = [Row { passed: Some(false), note: "too slow".into(), ..row }];
        let dir = std::env::temp_dir().join(format!("chronolith-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        write_json(&rows, &dir.join("r.json")).unwrap();
        write_csv(&rows, &dir.join("r.csv")).unwrap();
        super::super::html::write(&rows, "about", &dir.join("r.html")).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
        assert_eq!(json[0]["per_s"], 5.0);
        let csv = read("r.csv");
        let line =
            "\"reads\",\"memory\",\"a \"\"quoted\"\" <case>\",10,2,5,,,,,,,\"too slow\",false";
        assert_eq!(csv.lines().nth(1), Some(line));
        let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
        let fields: Vec<&str> = json[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(head.iter().all(|name| fields.contains(name)), "{head:?} {fields:?}");
        assert_eq!(head.len(), fields.len());
        let html = read("r.html");
        assert!(
            html.contains("&lt;case&gt;")
                && html.contains("FAIL too slow")
                && html.contains("class=chart")
        );
        assert!(table(&rows).to_string().contains("FAIL too slow"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
