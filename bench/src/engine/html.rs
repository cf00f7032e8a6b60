//! One HTML file that needs nothing else: charts and the table of each suite, light or dark as the reader's.
//!
//! ```text
//! suite ─▶ case ─▶ a bar of each engine, one below the other;  rates, p99, compression ratio
//! ```
//! A chart whose figures lie more than a hundredfold apart is logarithmic, and says so: otherwise a scan
//! leaves nothing of the bars of synced writes.

use super::report::{HEAD, Row};
use anyhow::{Context, Result};
use std::{fmt::Write, path::Path};

/// Beyond this a linear bar is too short to be seen.
const LINEAR_SPREAD: f64 = 100.0;

const STYLE: &str = "\
    :root{color-scheme:light dark;--memory:#2f6fbf;--rocksdb:#c2661a}\
    @media(prefers-color-scheme:dark){:root{--memory:#6aa5ee;--rocksdb:#e8974f}}\
    body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
    h2{margin:2.5rem 0 .3rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}small{font-weight:normal;opacity:.75}\
    .chart{display:grid;grid-template-columns:minmax(9rem,21rem) 4.5rem 1fr 6rem;gap:.1rem .6rem;align-items:center}\
    .chart div{height:.85rem}.chart b{display:block;height:100%;border-radius:0 .2rem .2rem 0;min-width:2px}\
    .chart em{font-style:normal;text-align:right}.chart i{font-style:normal;opacity:.75}\
    .memory{background:var(--memory)}.rocksdb{background:var(--rocksdb)}\
    details{margin-top:.8rem;overflow-x:auto}\
    table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}\
    td,th{padding:.15rem .6rem;border-bottom:1px solid #8884;text-align:right;white-space:nowrap}\
    td:nth-child(-n+2),th:nth-child(-n+2),td:last-child,th:last-child{text-align:left}\
    .missed{color:#d33;font-weight:bold}";

/// A figure of a row that is worth a chart.
struct Figure {
    title: &'static str,
    of: fn(&Row) -> Option<f64>,
    text: fn(f64) -> String,
}

const FIGURES: [Figure; 3] = [
    Figure {
        title: "Operations a second",
        of: |row| Some(row.per_s),
        text: |rate| format!("{}/s", short(rate)),
    },
    Figure { title: "p99; shorter is better", of: |row| row.p99_us, text: time },
    Figure { title: "Compression ratio", of: |row| row.ratio, text: |ratio| format!("{ratio:.2}") },
];

/// Writes all rows; `about` says what they were measured with.
pub(super) fn write(rows: &[Row], about: &str, path: &Path) -> Result<()> {
    std::fs::write(path, page(rows, about)?).with_context(|| path.display().to_string())
}

fn page(rows: &[Row], about: &str) -> Result<String> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width'><title>chronolith bench engine</title>\
         <style>{STYLE}</style><h1>chronolith bench engine</h1><p>{}</p>\n",
        escape(about)
    );
    for suite in unique(rows.iter().map(|row| row.suite)) {
        let rows = paired(rows.iter().filter(|row| row.suite == suite).collect());
        write!(html, "<h2>{}</h2>", escape(suite))?;
        FIGURES.iter().try_for_each(|figure| chart(&mut html, &rows, figure))?;
        table(&mut html, &rows)?;
    }
    Ok(html)
}

/// The rows of one case next to each other, in the order of the first engine's cases.
fn paired(rows: Vec<&Row>) -> Vec<&Row> {
    let cases = unique(rows.iter().map(|row| row.case.as_str()));
    let mut paired = Vec::with_capacity(rows.len());
    for case in cases {
        paired.extend(rows.iter().filter(|row| row.case == case));
    }
    paired
}

/// Each once, in the order of its first appearance.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn chart(html: &mut String, rows: &[&Row], figure: &Figure) -> Result<()> {
    let bars: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((*row, (figure.of)(row).filter(|value| *value > 0.0)?)))
        .collect();
    if bars.is_empty() {
        return Ok(());
    }
    let scale = Scale::of(bars.iter().map(|(_, value)| *value));
    write!(html, "<h3>{}{}</h3><div class=chart>", figure.title, scale.note(figure.text))?;
    let mut previous = "";
    for (row, value) in bars {
        // One label for the bars of all engines.
        let label = if row.case == previous { "" } else { &row.case };
        previous = &row.case;
        write!(
            html,
            "<span>{}</span><i>{engine}</i><div><b class={engine} style='width:{:.1}%'></b></div><em>{}</em>",
            escape(label),
            scale.percent(value),
            (figure.text)(value),
            engine = escape(&row.engine),
        )?;
    }
    *html += "</div>\n";
    Ok(())
}

/// From a figure to the length of its bar.
enum Scale {
    Linear {
        most: f64,
    },
    /// From a power of ten on.
    Logarithmic {
        first: f64,
        most: f64,
    },
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        match most / least > LINEAR_SPREAD {
            true => Self::Logarithmic { first: least.log10().floor(), most: most.log10() },
            false => Self::Linear { most },
        }
    }

    fn percent(&self, value: f64) -> f64 {
        match self {
            Self::Linear { most } => value / most * 100.0,
            Self::Logarithmic { first, most } => (value.log10() - first) / (most - first) * 100.0,
        }
    }

    fn note(&self, text: fn(f64) -> String) -> String {
        match self {
            Self::Linear { .. } => String::new(),
            Self::Logarithmic { first, .. } => {
                format!(" <small>(logarithmic, from {})</small>", text(10f64.powf(*first)))
            }
        }
    }
}

fn table(html: &mut String, rows: &[&Row]) -> Result<()> {
    *html += "<details open><summary>All figures</summary><table><tr>";
    HEAD[1..].iter().try_for_each(|name| write!(html, "<th>{}</th>", escape(name)))?;
    for row in rows {
        let missed = if row.passed == Some(false) { " class=missed" } else { "" };
        write!(html, "</tr>\n<tr{missed}>")?;
        row.columns()[1..].iter().try_for_each(|cell| write!(html, "<td>{}</td>", escape(cell)))?;
    }
    *html += "</tr></table></details>\n";
    Ok(())
}

/// Microseconds, or the unit that keeps them short.
fn time(microseconds: f64) -> String {
    match microseconds {
        1e6.. => format!("{} s", short(microseconds / 1e6)),
        1e3.. => format!("{} ms", short(microseconds / 1e3)),
        _ => format!("{} µs", short(microseconds)),
    }
}

/// Three digits and a multiple.
fn short(figure: f64) -> String {
    let (figure, multiple) = match figure {
        1e6.. => (figure / 1e6, " M"),
        1e3.. => (figure / 1e3, " K"),
        _ => (figure, ""),
    };
    let decimals = match figure {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}{multiple}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(suite: &'static str, engine: &str, case: &str, per_s: u64) -> Row {
        Row::new(suite, engine, case).took(per_s, Duration::from_secs(1))
    }

    /// The rows come engine by engine, so each suite comes once for each engine.
    #[test]
    fn a_suite_of_two_engines_is_one_section_with_its_cases_side_by_side() {
        let mut rows = Vec::new();
        for engine in ["memory", "rocksdb"] {
            rows.push(row("reads", engine, "hit", 100));
            rows.push(row("reads", engine, "miss", 200));
            rows.push(row("writes", engine, "one", 300));
        }
        let html = page(&rows, "about").unwrap();
        assert_eq!(html.matches("<h2>").count(), 2, "{html}");
        assert_eq!(html.matches("<h2>reads</h2>").count(), 1);
        // One row in the table for each row, and its case names its bars once.
        assert_eq!(html.matches("<td>miss</td>").count(), 2);
        assert_eq!(html.matches("<span>miss</span>").count(), 1);
        let pairs = paired(rows.iter().filter(|row| row.suite == "reads").collect());
        let names: Vec<_> =
            pairs.iter().map(|row| (row.case.as_str(), row.engine.as_str())).collect();
        let expected =
            [("hit", "memory"), ("hit", "rocksdb"), ("miss", "memory"), ("miss", "rocksdb")];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let html = page(&[row("reads", "memory", "hit", 1)], "about").unwrap();
        for link in ["http", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!html.contains(link), "{link}: {html}");
        }
    }

    #[test]
    fn a_bar_that_would_vanish_makes_the_chart_logarithmic() {
        let linear = Scale::of([50.0, 100.0].into_iter());
        assert_eq!((linear.percent(50.0), linear.note(short)), (50.0, String::new()));
        let wide = Scale::of([10.0, 100_000.0].into_iter());
        assert_eq!(wide.percent(1_000.0), 50.0);
        assert!(wide.note(short).contains("logarithmic, from 10"), "{}", wide.note(short));
    }

    #[test]
    fn text_is_escaped_and_figures_are_short() {
        let html = page(&[row("reads", "memory", "<a&b>", 1)], "1 < 2").unwrap();
        assert!(html.contains("&lt;a&amp;b&gt;") && html.contains("1 &lt; 2"), "{html}");
        let cases = [(0.0, "0.00"), (999.0, "999"), (1_234.0, "1.23 K"), (64_480_000.0, "64.5 M")];
        for (figure, text) in cases {
            assert_eq!(short(figure), text);
        }
        for (figure, text) in [(12.5, "12.5 µs"), (4_420.0, "4.42 ms"), (2e6, "2.00 s")] {
            assert_eq!(time(figure), text);
        }
    }
}
