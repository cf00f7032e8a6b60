//! A mixed load, and the engine's figures redrawn every second.

use super::{
    Scale,
    data::{Kind as Data, Rng, key, value},
    subject::{Kind, Subject},
};
use anyhow::Result;
use chronolith_engine::{ColumnId, Durability, Engine, Monitor, Profile, WriteBatch};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Moves the cursor home and clears what is below it.
const REDRAW: &str = "\x1b[H\x1b[J";
const WARNING: &str = "\x1b[31m";
const NORMAL: &str = "\x1b[0m";

pub(super) fn run(
    kind: Kind,
    scale: &Scale,
    profile: &Profile,
    seconds: Option<u64>,
) -> Result<()> {
    let subject = Subject::new(kind, &scale.dir, profile)?;
    let column = subject.engine.column("watch")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&*subject.engine, column, scale, &done));
        let shown = show(&*subject.engine, &done, seconds);
        done.store(true, Ordering::Relaxed);
        let loaded = load.join().expect("the load does not panic");
        shown.and(loaded)
    })
}

fn show(engine: &dyn Engine, done: &AtomicBool, seconds: Option<u64>) -> Result<()> {
    let mut monitor = Monitor::default();
    for second in 0.. {
        let lines = monitor.lines(engine.stats()?);
        print!("{REDRAW}");
        println!("{} after {second} s; Ctrl-C stops\n", engine.name());
        for line in lines {
            let (begin, end) = if line.warns { (WARNING, NORMAL) } else { ("", "") };
            println!("{begin}{:<18}{}{end}", line.name, line.text);
        }
        if seconds.is_some_and(|seconds| second >= seconds) || done.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
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
                let mut batch = WriteBatch::with_capacity(1);
                batch.put(
                    column,
                    key(number).to_vec(),
                    value(number, Data::Json, scale.value_bytes),
                );
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
