//! A mixed load, and the engine's figures every second: redrawn in place on a terminal, otherwise one
//! block below the other, without control characters.

use super::{
    Scale,
    data::{Kind as Data, Rng, key, value},
    subject::{Kind, Subject},
};
use crate::interrupt;
use anyhow::Result;
use chronolith_engine::{
    ColumnId, Durability, Engine, Line, Monitor, Profile, Thresholds, WriteBatch,
};
use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Arguments of `--watch`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct WatchArgs {
    /// Instead of measuring, run a mixed load and show the engine's figures every second. One engine:
    /// the one that --engine names, otherwise memory.
    #[arg(long)]
    watch: bool,
    /// Stop watching after so many seconds [default: at Ctrl-C].
    #[arg(long, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Warn where the slowest hundredth of gets or batches takes longer than this [default: 1000].
    #[arg(long, requires = "watch", value_name = "MICROSECONDS")]
    warn_p99_us: Option<u64>,
    /// Warn where fewer blocks than this are found in the cache [default: 80].
    #[arg(long, requires = "watch", value_name = "PERCENT")]
    warn_hits: Option<f64>,
    /// Warn where writers are stopped for a larger share of the time than this [default: 5].
    #[arg(long, requires = "watch", value_name = "PERCENT")]
    warn_stalled: Option<f64>,
}

impl WatchArgs {
    pub(super) fn asked(&self) -> bool {
        self.watch
    }

    fn thresholds(&self) -> Thresholds {
        let usual = Thresholds::default();
        let share = |percent: Option<f64>, usual| percent.map_or(usual, |percent| percent / 100.0);
        Thresholds {
            p99: self.warn_p99_us.map_or(usual.p99, Duration::from_micros),
            cache_hit_rate: share(self.warn_hits, usual.cache_hit_rate),
            stalled_share: share(self.warn_stalled, usual.stalled_share),
        }
    }
}

/// How often a wish to end is looked for between two moments.
const PATIENCE: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// Empties the screen once; later moments overwrite line by line, so that nothing flickers.
const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const WARNING: &str = "\x1b[31m";
const NORMAL: &str = "\x1b[0m";

pub(super) fn run(kind: Kind, scale: &Scale, profile: &Profile, args: &WatchArgs) -> Result<()> {
    let subject = Subject::new(kind, &scale.dir, profile)?;
    let column = subject.engine.column("watch")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&*subject.engine, column, scale, &done));
        let stdout = io::stdout();
        let screen = Screen { in_place: stdout.is_terminal(), out: stdout.lock(), drawn: false };
        let shown = show(&*subject.engine, screen, &done, args);
        done.store(true, Ordering::Relaxed);
        let loaded = load.join().expect("the load does not panic");
        shown.and(loaded)
    })
}

fn show<W: Write>(
    engine: &dyn Engine,
    mut screen: Screen<W>,
    done: &AtomicBool,
    args: &WatchArgs,
) -> Result<()> {
    let mut monitor = Monitor::new(args.thresholds());
    // Rates need two moments: this one gives no lines yet.
    monitor.lines(engine.stats()?);
    let begun = Instant::now();
    for second in 1..=args.seconds.unwrap_or(u64::MAX) {
        if !wait_until(begun + SECOND * u32::try_from(second)?, done) {
            break;
        }
        let lines = monitor.lines(engine.stats()?);
        let title = format!("{} after {second} s; Ctrl-C stops", engine.name());
        match screen.draw(&title, &lines) {
            // Whoever read the figures has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            drawn => drawn?,
        }
    }
    Ok(())
}

/// Whether it came to the moment: not if the load failed, or somebody asked to end.
fn wait_until(moment: Instant, done: &AtomicBool) -> bool {
    loop {
        if done.load(Ordering::Relaxed) || interrupt::asked() {
            return false;
        }
        let rest = moment.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return true;
        }
        thread::sleep(rest.min(PATIENCE));
    }
}

/// Where moments are drawn.
struct Screen<W> {
    out: W,
    /// A terminal: one moment takes the place of the one before, warnings are red.
    in_place: bool,
    drawn: bool,
}

impl<W: Write> Screen<W> {
    /// One write for a whole moment.
    fn draw(&mut self, title: &str, lines: &[Line]) -> io::Result<()> {
        let text = if self.in_place { self.redrawn(title, lines) } else { plain(title, lines) };
        self.drawn = true;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn redrawn(&self, title: &str, lines: &[Line]) -> String {
        let mut text = if self.drawn { HOME.to_owned() } else { format!("{CLEAR}{HOME}") };
        text += &format!("{title}{CLEAR_LINE_END}\n{CLEAR_LINE_END}\n");
        for line in lines {
            let (begin, end) = if line.warns { (WARNING, NORMAL) } else { ("", "") };
            text += &format!("{begin}{line}{end}{CLEAR_LINE_END}\n");
        }
        text + CLEAR_BELOW
    }
}

fn plain(title: &str, lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| format!("{line}\n"));
    format!("{title}\n\n{}\n", lines.collect::<String>())
}

/// Half reads, half writes; ends early when the engine refuses.
fn load(engine: &dyn Engine, column: ColumnId, scale: &Scale, done: &AtomicBool) -> Result<()> {
    let mut rng = Rng::new(1);
    let outcome = loop {
        if done.load(Ordering::Relaxed) {
            return Ok(());
        }
        let number = rng.below(scale.records);
        let outcome = match rng.below(2) {
            0 => engine.get(column, &key(number)).map(drop),
            _ => {
                let mut batch = WriteBatch::new();
                batch.put(column, key(number), value(number, Data::Json, scale.value_bytes));
                engine.write(batch, Durability::Buffered)
            }
        };
        if outcome.is_err() {
            break outcome;
        }
    };
    done.store(true, Ordering::Relaxed);
    Ok(outcome?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let line = |name, warns| Line { name, text: "1 /s".into(), trend: None, warns };
        vec![line("gets", false), line("batches", true)]
    }

    fn drawn(in_place: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen { out: &mut out, in_place, drawn: false };
        screen.draw("first", &lines()).unwrap();
        screen.draw("second", &lines()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_there_are_no_control_characters() {
        let text = drawn(false);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("first\n\n  gets") && text.contains("! batches"), "{text:?}");
    }

    #[test]
    fn a_terminal_is_cleared_once_and_warnings_are_red() {
        let text = drawn(true);
        assert_eq!(text.matches(CLEAR).count(), 1, "{text:?}");
        assert_eq!(text.matches(HOME).count(), 2, "{text:?}");
        assert!(text.contains("\x1b[31m! batches") && !text.contains("\x1b[31m  gets"), "{text:?}");
    }

    #[test]
    fn thresholds_are_as_asked_for() {
        let args =
            WatchArgs { warn_p99_us: Some(5), warn_hits: Some(99.0), ..WatchArgs::default() };
        let thresholds = args.thresholds();
        assert_eq!(thresholds.p99, Duration::from_micros(5));
        assert!((thresholds.cache_hit_rate - 0.99).abs() < 1e-9);
        assert!((thresholds.stalled_share - 0.05).abs() < 1e-9, "the usual one");
    }

    /// It ends by itself, having shown each second, and leaves nothing behind.
    #[test]
    fn a_watch_of_one_second_ends_and_its_load_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let scale = Scale {
            records: 1000,
            operations: 1000,
            value_bytes: 100,
            repeats: 1,
            data_sets: Vec::new(),
            dir: dir.path().to_owned(),
        };
        let subject = Subject::new(Kind::Memory, &scale.dir, &Profile::dev()).unwrap();
        let column = subject.engine.column("watch").unwrap();
        let (done, mut out) = (AtomicBool::new(false), Vec::new());
        let args = WatchArgs { watch: true, seconds: Some(1), ..WatchArgs::default() };
        thread::scope(|scope| {
            let load = scope.spawn(|| load(&*subject.engine, column, &scale, &done));
            let screen = Screen { out: &mut out, in_place: false, drawn: false };
            show(&*subject.engine, screen, &done, &args).unwrap();
            done.store(true, Ordering::Relaxed);
            load.join().unwrap().unwrap();
        });
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("memory after 1 s") && text.contains("records written"), "{text}");
        drop(subject);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
