//! Writes and reads for ten seconds, and shows once a second what the engine does.
//!
//! `cargo run --release -p chronolith-engine --example monitor`

use chronolith_engine::{Durability, Engine, MemoryEngine, Monitor, Result, WriteBatch};
use std::{
    sync::atomic::{AtomicBool, Ordering},
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
        batch.put(column, key.to_vec(), format!("value {number}"));
        engine.write(batch, Durability::NoWal)?;
        engine.get(column, &key)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let engine = MemoryEngine::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let loader = scope.spawn(|| load(&engine, &done));
        let mut monitor = Monitor::default();
        for _ in 0..=SECONDS {
            println!();
            for line in monitor.lines(engine.stats()?) {
                let mark = if line.warns { "  ← warning" } else { "" };
                println!("{:<18}{}{mark}", line.name, line.text);
            }
            thread::sleep(Duration::from_secs(1));
        }
        done.store(true, Ordering::Relaxed);
        loader.join().expect("the load does not panic")
    })
}
