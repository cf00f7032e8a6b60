//! Proposals of 256 bytes in a closed loop against one member: rate, latency, CPU of its thread.
//!
//! ```text
//! cargo run --release -p chronolith-raft --example proposals -- DIRECTORY [SECONDS]
//! ```
//! `inline` is the node as it is: its thread syncs by itself. `log thread` is the same driver with
//! the log on a second thread. CPU is that of these threads alone, without the callers'.

use bytes::Bytes;
use chronolith_raft::{
    Applied, CheckpointJob, Committed, Directory, Driver, DriverConfig, LogConfig, LogWrite,
    RaftConfig, RaftNode, SegmentedLog, StateMachine, SyncMode,
};
use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

const VALUE_BYTES: usize = 256;

/// A map of the newest values: about the least that a state machine can do.
#[derive(Default)]
struct Map(HashMap<u64, Bytes>);

impl StateMachine for Map {
    type Outcome = ();
    type Error = io::Error;

    fn applied(&self) -> io::Result<Option<Applied>> {
        Ok(None)
    }

    fn apply(&mut self, run: &[Committed], _: &Applied) -> io::Result<Vec<()>> {
        for Committed { command, .. } in run {
            let key = command.first_chunk().map_or(0, |key| u64::from_be_bytes(*key));
            self.0.insert(key % 10_000, command.clone());
        }
        Ok(vec![(); run.len()])
    }

    fn begin_checkpoint(&mut self) -> io::Result<CheckpointJob<io::Error>> {
        Ok(Box::new(|| Ok(0)))
    }
}

type Done = Box<dyn FnOnce() + Send>;
type Propose = Box<dyn Fn(Bytes, Done)>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let seconds = args.next().map_or(Ok(2), |seconds| seconds.parse())?;
    println!("mode                    clients      prop/s  CPU µs/prop  p50 µs  p99 µs");
    for mode in [SyncMode::Cached, SyncMode::Direct] {
        for clients in [1, 64, 256] {
            let dir = tempfile::tempdir_in(&dir)?;
            let (propose, stop) = inline(dir.path(), mode)?;
            measure(&format!("inline, {mode:?}"), clients, seconds, &propose);
            stop();
            let dir = tempfile::tempdir_in(&dir)?;
            measure(&format!("log thread, {mode:?}"), clients, seconds, &split(dir.path(), mode)?);
        }
    }
    Ok(())
}

fn inline(
    dir: &Path,
    mode: SyncMode,
) -> Result<(Propose, impl FnOnce() + use<>), chronolith_raft::Error> {
    let config = RaftConfig { sync_mode: mode, ..RaftConfig::new(1, vec![1], dir) };
    let node = RaftNode::start(config, Map::default())?;
    let stopping = node.clone();
    let propose: Propose =
        Box::new(move |command, done| node.propose(command, Box::new(move |_| done())));
    Ok((propose, move || stopping.stop()))
}

/// What the node does, with the log on a thread of its own.
fn split(dir: &Path, mode: SyncMode) -> Result<Propose, chronolith_raft::Error> {
    let disk = Arc::new(Directory::open(dir, mode).expect("the directory was just made"));
    let (mut log, recovered) = SegmentedLog::open(disk, LogConfig::new(1), None)?;
    let config = DriverConfig::new(1, vec![1]);
    let mut driver: Driver<Done, ()> = Driver::new(config, recovered, log.reader(), None)?;
    driver.campaign()?;
    enum Input {
        Command(Bytes, Done),
        Written(u64, Vec<chronolith_raft::Location>),
    }
    let (inputs, inbox): (Sender<Input>, Receiver<Input>) = mpsc::channel();
    let (writes, to_write): (Sender<LogWrite>, Receiver<LogWrite>) = mpsc::channel();
    let written = inputs.clone();
    let log_thread = move || {
        for write in to_write {
            let locations = log.append(&write).expect("a write");
            while let Some(job) = log.housekeeping() {
                thread::spawn(move || job().expect("a spare segment"));
            }
            let _ = written.send(Input::Written(write.number, locations));
        }
    };
    thread::Builder::new().name("raft-log".into()).spawn(log_thread).expect("a thread");
    let driver_thread = move || {
        let mut map = Map::default();
        loop {
            loop {
                let out = driver.poll().expect("a sound log");
                if out.is_idle() {
                    break;
                }
                if let Some(run) = out.committed {
                    map.apply(&run.commands, &run.applied).expect("a map");
                    driver.applied(run.applied.index);
                    run.waiters
                        .into_iter()
                        .flat_map(|(_, waiters)| waiters)
                        .for_each(|done| done());
                }
                out.write.map(|write| writes.send(write));
            }
            let Ok(first) = inbox.recv() else { return };
            for input in std::iter::once(first).chain(inbox.try_iter()) {
                match input {
                    Input::Command(command, done) => driver.propose(command, done),
                    Input::Written(number, locations) => driver.persisted(number, &locations),
                }
            }
        }
    };
    thread::Builder::new().name("raft".into()).spawn(driver_thread).expect("a thread");
    Ok(Box::new(move |command, done| drop(inputs.send(Input::Command(command, done)))))
}

/// Nanoseconds of CPU that threads of the node have used.
fn cpu_ns() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with("raft") {
            let spent = read("schedstat");
            sum += spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        }
    }
    sum
}

fn measure(name: &str, clients: usize, seconds: u64, propose: &Propose) {
    let (done, finished) = mpsc::channel();
    let send = |number: u64| {
        let mut command = vec![0xaa; VALUE_BYTES];
        command[..8].copy_from_slice(&number.to_be_bytes());
        let (done, begun) = (done.clone(), Instant::now());
        let answer = move || {
            // The measurement may be over.
            let _ = done.send(begun.elapsed());
        };
        propose(command.into(), Box::new(answer));
    };
    (0..clients as u64).for_each(send);
    let mut number = clients as u64;
    let mut latencies: Vec<Duration> = Vec::new();
    let (mut begun, mut cpu, mut warm) = (Instant::now(), 0, false);
    while let Ok(latency) = finished.recv() {
        if !warm && begun.elapsed() > Duration::from_millis(500) {
            (begun, cpu, warm) = (Instant::now(), cpu_ns(), true);
            latencies.clear();
        }
        latencies.push(latency);
        if warm && begun.elapsed().as_secs() >= seconds {
            break;
        }
        number += 1;
        send(number);
    }
    let count = latencies.len() as f64;
    let cpu_us = (cpu_ns() - cpu) as f64 / 1000.0 / count;
    let rate = count / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len() * percent / 100].as_micros();
    let (p50, p99) = (at(50), at(99));
    println!("{name:<22} {clients:>8} {rate:>11.0} {cpu_us:>12.2} {p50:>7} {p99:>7}");
}
