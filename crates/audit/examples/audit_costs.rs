//! What the audit log costs: to whoever records, to the machine, and to whoever reads or verifies.
//!
//! `cargo run --release -p chronolith-audit --example audit_costs`

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "an experiment, not a service")]

use bytes::Bytes;
use chronolith_audit::{
    Action, AuditLog, Class, Event, Level, Operation, Query, Settings, query, verify_directory,
};
use std::time::{Duration, Instant};

const EVENTS: u32 = 400_000;
/// A quarter of the queue: nothing is dropped.
const BURST: u32 = 4_096;

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn event(number: u32, salt: &[u8; 16]) -> Event {
    let operation = Operation {
        action: Action::Put,
        key: Bytes::from(format!("registry/pods/default/web-{number:08}")),
        range_end: Bytes::new(),
        value: None,
    };
    let mut event = Event {
        request_id: "0123456789abcdef01234567".to_owned(),
        address: "127.0.0.1:54321".to_owned(),
        user_agent: "grpc-go/1.79.0".to_owned(),
        actor: "00112233445566778899aabbccddeeff".to_owned(),
        size_bytes: Some(292),
        prev_revision: Some(i64::from(number)),
        revision: Some(i64::from(number) + 1),
        latency_us: Some(350),
        ..Event::new("Put", Class::Write)
    };
    event.describe(&[operation], Level::Metadata, salt);
    event
}

fn main() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(Settings::new(home.path(), "c0ffee", "beef")).unwrap();
    let salt = *log.salt();
    let (before, mut recording) = (cpu(), Duration::ZERO);
    for burst in 0..EVENTS / BURST {
        let began = Instant::now();
        for number in 0..BURST {
            log.record(event(burst * BURST + number, &salt));
        }
        recording += began.elapsed();
        log.flush();
    }
    let written = f64::from(EVENTS / BURST * BURST);
    let all = cpu() - before;
    println!("record    {:7.0} ns an event, for the caller", recording.as_nanos() as f64 / written);
    println!(
        "all       {:7.2} µs CPU an event, the writer's included",
        all.as_secs_f64() * 1e6 / written
    );
    log.close();
    assert_eq!(log.counts().dropped, 0);
    let bytes: u64 = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!("size      {:7.0} bytes a line, and 32 in the tile files", bytes as f64 / written);
    let began = Instant::now();
    let report = verify_directory(home.path(), log.verifier_key(), None).unwrap();
    assert!(report.finding.is_none());
    println!(
        "verify    {:7.0} events a second",
        report.events as f64 / began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let (mut wanted, mut found) =
        (Query { key_prefix: b"registry/pods/default/web-0039".to_vec(), ..Query::default() }, 0);
    loop {
        let page = query(home.path(), &wanted).unwrap();
        found += page.events.len();
        wanted.after_sequence = page.last_sequence;
        if !page.more {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("query     {:7.0} events a second looked at; {found} found", written / seconds);
}
