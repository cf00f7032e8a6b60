//! Writes and reads for ten seconds, and shows once a second what the engine does: on a terminal in
//! place, with warnings in red; otherwise one block below the other.
//!
//! `cargo run --release -p chronolith-engine --example monitor`, or, for the engine on disk,
//! `cargo run --release -p chronolith-engine --features rocksdb --example monitor -- rocksdb`

use chronolith_engine::{Durability, Engine, Line, MemoryEngine, Monitor, Result, WriteBatch};
use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const SECONDS: u32 = 10;
const KEYS: u32 = 100_000;

fn load(engine: &dyn Engine, done: &AtomicBool) -> Result<()> {
    let column = engine.column("keys")?;
    for number in (0..KEYS).cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let key = number.to_be_bytes();
        let mut batch = WriteBatch::new();
        batch.put(column, key, format!("value {number}"));
        engine.write(batch, Durability::NoWal)?;
        engine.get(column, &key)?;
    }
    Ok(())
}

fn show(name: &str, lines: &[Line], in_place: bool) {
    let home = if in_place { "\x1b[2J\x1b[H" } else { "\n" };
    println!("{home}{name}");
    for line in lines {
        match in_place && line.warns {
            true => println!("\x1b[31m{line}\x1b[0m"),
            false => println!("{line}"),
        }
    }
}

fn watch(engine: &dyn Engine) -> Result<()> {
    let in_place = std::io::stdout().is_terminal();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let loader = scope.spawn(|| load(engine, &done));
        let watched = redraw(engine, in_place);
        done.store(true, Ordering::Relaxed);
        loader.join().expect("the load does not panic").and(watched)
    })
}

fn redraw(engine: &dyn Engine, in_place: bool) -> Result<()> {
    let mut monitor = Monitor::default();
    // Rates need two moments: this one gives no lines yet.
    monitor.lines(engine.stats()?);
    for _ in 0..SECONDS {
        thread::sleep(Duration::from_secs(1));
        show(engine.name(), &monitor.lines(engine.stats()?), in_place);
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let engine: Arc<dyn Engine> = match std::env::args().nth(1).as_deref() {
        None | Some("memory") => Arc::new(MemoryEngine::open(dir.path())?),
        #[cfg(feature = "rocksdb")]
        Some("rocksdb") => {
            use chronolith_engine::{Profile, RocksEngine};
            Arc::new(RocksEngine::open(dir.path(), &Profile::dev())?)
        }
        Some(other) => {
            let known = "memory, or rocksdb in a build with the feature of that name";
            return Err(format!("no engine {other} here: {known}").into());
        }
    };
    watch(&*engine)?;
    Ok(engine.close()?)
}
