//! Results as a table, JSON, CSV and one HTML file that needs nothing else.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{fmt::Write, path::Path, time::Duration};

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

    fn columns(&self) -> [String; 12] {
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

    fn verdict(&self) -> String {
        match self.passed {
            Some(true) => format!("pass {}", self.note),
            Some(false) => format!("FAIL {}", self.note),
            None => self.note.clone(),
        }
    }
}

const HEAD: [&str; 12] = [
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

pub(super) fn write_csv(rows: &[Row], path: &Path) -> Result<()> {
    let mut text = HEAD.join(",") + "\n";
    for row in rows {
        let quoted = row.columns().map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
        text += &(quoted.join(",") + "\n");
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

const STYLE: &str = "body{font:14px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
 table{border-collapse:collapse;width:100%}td,th{padding:.2rem .5rem;border-bottom:1px solid #ddd;text-align:right}\
 td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}svg text{font:12px system-ui,sans-serif}";

pub(super) fn write_html(rows: &[Row], path: &Path) -> Result<()> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>chronolith bench engine</title>\
         <style>{STYLE}</style><h1>chronolith bench engine</h1>\n"
    );
    let mut suites: Vec<&str> = rows.iter().map(|row| row.suite).collect();
    suites.dedup();
    for suite in suites {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.suite == suite).collect();
        write!(html, "<h2>{}</h2>{}{}", escape(suite), chart(&rows)?, html_table(&rows)?)?;
    }
    std::fs::write(path, html).with_context(|| path.display().to_string())
}

/// Bars of the rates.
fn chart(rows: &[&Row]) -> Result<String> {
    const BAR: usize = 18;
    const LABEL: f64 = 330.0;
    const WIDTH: f64 = 500.0;
    let most = rows.iter().map(|row| row.per_s).fold(1.0, f64::max);
    let mut svg = format!("<svg width=1000 height={} role=img>", rows.len() * BAR + 4);
    for (number, row) in rows.iter().enumerate() {
        let (y, width) = (number * BAR, row.per_s / most * WIDTH);
        let colour = if row.engine.starts_with("memory") { "#3b7dd8" } else { "#d8833b" };
        let label = escape(&format!("{} · {}", row.engine, row.case));
        write!(
            svg,
            "<text x={} y={} text-anchor=end>{label}</text>\
             <rect x={LABEL} y={} width={width:.1} height=14 fill='{colour}'/>\
             <text x={} y={}>{:.0}/s</text>",
            LABEL - 6.0,
            y + 13,
            y + 2,
            LABEL + width + 6.0,
            y + 13,
            row.per_s
        )?;
    }
    Ok(svg + "</svg>")
}

fn html_table(rows: &[&Row]) -> Result<String> {
    let mut html = String::from("<table><tr>");
    HEAD[1..].iter().try_for_each(|name| write!(html, "<th>{}</th>", escape(name)))?;
    for row in rows {
        html += "</tr>\n<tr>";
        row.columns()[1..].iter().try_for_each(|cell| write!(html, "<td>{}</td>", escape(cell)))?;
    }
    Ok(html + "</tr></table>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
        write_html(&rows, &dir.join("r.html")).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
        assert_eq!(json[0]["per_s"], 5.0);
        assert!(read("r.csv").contains("\"a \"\"quoted\"\" <case>\""));
        let html = read("r.html");
        assert!(
            html.contains("&lt;case&gt;")
                && html.contains("FAIL too slow")
                && html.contains("<svg")
        );
        assert!(table(&rows).to_string().contains("FAIL too slow"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
