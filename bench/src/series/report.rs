//! What was measured: as a table, JSON, CSV, and one HTML page that needs nothing else.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

/// One workload in one variant with so many threads: rates in millions a second.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which workload.
    pub workload: &'static str,
    /// Which variant of it.
    pub variant: String,
    /// Threads that worked.
    pub threads: usize,
    /// Operations in one round.
    pub operations: u64,
    /// What an operation is.
    pub unit: &'static str,
    /// Readable by queries when the clock stopped: best of the rounds.
    pub visible_best: f64,
    /// The same, median of the rounds.
    pub visible_median: f64,
    /// Merged and linked as well, for insertions: best.
    pub settled_best: Option<f64>,
    /// The same, median.
    pub settled_median: Option<f64>,
    /// On stable storage as well, where asked: best.
    pub durable_best: Option<f64>,
    /// By the busiest writer's clock alone. Never a result by itself.
    pub writer_only_best: Option<f64>,
    /// What else is worth knowing.
    pub note: String,
}

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The processor, as the system names it.
    pub processor: String,
    /// Threads that the machine runs at once.
    pub cores: usize,
    /// Series.
    pub series: u32,
    /// Points of each series.
    pub points: i64,
    /// Rounds of each workload.
    pub rounds: usize,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Best and median of rates.
pub fn best_and_median(mut rates: Vec<f64>) -> (f64, f64) {
    rates.sort_by(f64::total_cmp);
    (
        rates.last().copied().unwrap_or(0.0),
        rates.get(rates.len().saturating_sub(1) / 2).copied().unwrap_or(0.0),
    )
}

const COLUMNS: [&str; 10] = [
    "workload", "variant", "threads", "unit", "visible", "(median)", "settled", "(median)",
    "durable", "note",
];

impl Row {
    fn cells(&self) -> [String; 10] {
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.1}"));
        [
            self.workload.into(),
            self.variant.clone(),
            self.threads.to_string(),
            format!("M {}/s", self.unit),
            rate(Some(self.visible_best)),
            rate(Some(self.visible_median)),
            rate(self.settled_best),
            rate(self.settled_median),
            rate(self.durable_best),
            self.note.clone(),
        ]
    }
}

impl Report {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header(COLUMNS);
        self.rows.iter().for_each(|row| {
            table.add_row(row.cells());
        });
        format!(
            "{} series × {} points, best (and median) of {} rounds, {} on {} cores\n\
             visible: readable when the clock stops; settled: merged and linked too; durable: synced too; every row was read back\n{table}",
            self.series, self.points, self.rounds, self.processor, self.cores
        )
    }

    /// Writes the rows, one line each.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_csv(&self, path: &Path) -> anyhow::Result<()> {
        let mut out = String::from(
            "workload,variant,threads,operations,unit,visible_best,visible_median,settled_best,settled_median,durable_best,writer_only_best,note\n",
        );
        let optional = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.3}"));
        for row in &self.rows {
            writeln!(
                out,
                "{},{},{},{},{},{:.3},{:.3},{},{},{},{},\"{}\"",
                row.workload,
                row.variant,
                row.threads,
                row.operations,
                row.unit,
                row.visible_best,
                row.visible_median,
                optional(row.settled_best),
                optional(row.settled_median),
                optional(row.durable_best),
                optional(row.writer_only_best),
                row.note.replace('"', "\"\"")
            )?;
        }
        std::fs::write(path, out).with_context(|| format!("write {}", path.display()))
    }

    /// Writes the whole report as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Writes one page with bars for every workload and the table below: no script, no other file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_html(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.html()?).with_context(|| format!("write {}", path.display()))
    }

    fn html(&self) -> anyhow::Result<String> {
        let mut page = String::from(PAGE_HEAD);
        writeln!(
            page,
            "<h1>Time-series index</h1><p>{} series × {} points · {} rounds · {} · {} cores</p>\
             <p>Millions a second. Dark: readable when the clock stops. Light: merged and linked as well. \
             Every row written was read back and compared.</p>",
            self.series,
            self.points,
            self.rounds,
            escape(&self.processor),
            self.cores
        )?;
        let mut workloads: Vec<&str> = self.rows.iter().map(|row| row.workload).collect();
        workloads.dedup();
        for workload in workloads {
            self.bars(&mut page, workload)?;
        }
        self.growth(&mut page)?;
        page.push_str("<table><tr>");
        COLUMNS.iter().for_each(|column| page.push_str(&format!("<th>{column}</th>")));
        for row in &self.rows {
            page.push_str("</tr><tr>");
            row.cells()
                .iter()
                .for_each(|cell| page.push_str(&format!("<td>{}</td>", escape(cell))));
        }
        page.push_str("</tr></table></body></html>\n");
        Ok(page)
    }

    /// The cost of a point as the index doubles, as a line: flat is what is wanted.
    fn growth(&self, page: &mut String) -> anyhow::Result<()> {
        let costs: Vec<f64> = self
            .rows
            .iter()
            .filter(|row| row.workload == "grow")
            .map(|row| 1000.0 / row.visible_best)
            .collect();
        let most = costs.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if costs.len() < 2 {
            return Ok(());
        }
        let at = |n: usize, cost: f64| {
            format!(
                "{:.0},{:.0}",
                40.0 + 600.0 * n as f64 / (costs.len() - 1) as f64,
                160.0 - 140.0 * cost / most
            )
        };
        let line: Vec<String> = costs.iter().enumerate().map(|(n, cost)| at(n, *cost)).collect();
        writeln!(
            page,
            "<h2>Nanoseconds a point while the index doubles</h2><svg viewBox=\"0 0 680 180\">\
             <path d=\"M40 20V160H640\" fill=none stroke=#888 />\
             <polyline points=\"{}\" fill=none stroke=#2a6fb0 stroke-width=3 />\
             <text x=0 y=24 fill=currentColor font-size=12>{most:.1}</text><text x=20 y=164 fill=currentColor font-size=12>0</text></svg>",
            line.join(" ")
        )?;
        Ok(())
    }

    fn bars(&self, page: &mut String, workload: &str) -> anyhow::Result<()> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.workload == workload).collect();
        let most = rows.iter().map(|row| row.visible_best).fold(f64::MIN_POSITIVE, f64::max);
        writeln!(page, "<h2>{}</h2><div class=bars>", escape(workload))?;
        for row in rows {
            let settled = row.settled_best.unwrap_or(row.visible_best);
            writeln!(
                page,
                "<span>{} · {} threads</span><div><i style=\"width:{:.1}%\"></i><b style=\"width:{:.1}%\"></b></div><em>{:.1}</em>",
                escape(&row.variant),
                row.threads,
                100.0 * settled / most,
                100.0 * (row.visible_best - settled).max(0.0) / most,
                settled
            )?;
        }
        page.push_str("</div>");
        Ok(())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const PAGE_HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Time-series index</title><style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
.bars{display:grid;grid-template-columns:18rem 1fr 4rem;gap:.3rem .8rem;align-items:center}\
.bars div{display:flex;height:1.1rem}.bars i{background:#2a6fb0}.bars b{background:#9cc3e6}.bars em{text-align:right;font-style:normal}\
table{border-collapse:collapse;margin-top:2rem;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;border-bottom:1px solid #8884;text-align:left}\
</style><body>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_holds_every_row_and_escapes_its_text() {
        let row = Row {
            workload: "insert",
            variant: "a<b".into(),
            threads: 2,
            operations: 10,
            unit: "points",
            visible_best: 20.0,
            visible_median: 19.0,
            settled_best: Some(18.0),
            settled_median: Some(17.0),
            durable_best: None,
            writer_only_best: Some(21.0),
            note: "say \"hi\"".into(),
        };
        let report = Report {
            processor: "p".into(),
            cores: 2,
            series: 1,
            points: 10,
            rounds: 1,
            rows: vec![row.clone(), row],
        };
        let folder = tempfile::tempdir().unwrap();
        let (csv, html) = (folder.path().join("r.csv"), folder.path().join("r.html"));
        report.write_csv(&csv).unwrap();
        report.write_html(&html).unwrap();
        let csv = std::fs::read_to_string(csv).unwrap();
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.contains("\"say \"\"hi\"\"\""));
        let html = std::fs::read_to_string(html).unwrap();
        assert_eq!(html.matches("a&lt;b").count(), 4);
        assert!(!html.contains("http"));
        assert!(report.table().contains("18.0"));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(best_and_median(vec![3.0, 1.0, 2.0]), (3.0, 2.0));
        assert_eq!(best_and_median(vec![2.0, 1.0]), (2.0, 1.0));
    }
}
