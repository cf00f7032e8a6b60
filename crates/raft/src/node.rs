//! One member on a thread of its own.
//!
//! ```text
//! callers ─▶ Inbox (bounded) ─▶ thread "raft":  drain ─▶ poll ─▶ write + sync ─▶ apply ─▶ reply ─┐
//!                                    ▲                                                          │
//!                                    └──────────────────────────────────────────────────────────┘
//!            threads that live as long as their job:  "raft-checkpoint", "raft-segments"
//! ```
//! * The thread syncs by itself: while it waits for the disk the callers fill the inbox, which is
//!   the next group. Measured against a second thread for the log: the same throughput, and two
//!   context switches less per group.
//! * A caller wakes the thread only if it sleeps.
//! * A member that decides alone answers reads on the caller's thread: everything acknowledged is
//!   applied, and nobody else could have acknowledged anything.
//! * The first error or panic closes the inbox with its cause, and answers everybody with it.

use crate::{
    disk::{Directory, Disk, SyncMode},
    driver::{
        Driver, DriverConfig, Install, Output, PeerMessage, PeerTransport, Role, Run, Standing,
    },
    error::{Error, ProposeError, ReadError},
    log::{Housekeeping, LogConfig, SegmentedLog},
    payload::COMMAND_HEAD,
    state_machine::{CheckpointJob, StateMachine},
    types::Position,
};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::{
    any::Any,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Answer to a proposal.
#[derive(Debug)]
pub struct Reply<O> {
    /// What the state machine answered.
    pub outcome: O,
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
}

/// Called once with the answer to a proposal, on the node's thread: must not wait.
pub type Replier<O> = Box<dyn FnOnce(Result<Reply<O>, ProposeError>) + Send>;

/// Called once with the index a read may rely on; must not wait.
pub type ReadReply = Box<dyn FnOnce(Result<u64, ReadError>) + Send>;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This member. Not 0.
    pub node_id: u64,
    /// The first members, this one included.
    pub voters: Vec<u64>,
    /// Where the log is; made if missing. Nothing else may be in there.
    pub log_dir: PathBuf,
    /// How writes are synced.
    pub sync_mode: SyncMode,
    /// Entries (groups of commands) between checkpoints. Default 10,000.
    pub checkpoint_every_entries: u64,
    /// Bytes of commands between checkpoints, which bounds the time of a replay. Default 256 MiB.
    pub checkpoint_every_bytes: u64,
    /// Entries kept for followers behind a checkpoint, so that a short absence needs no snapshot.
    /// Default 5,000; nothing is kept by a member that decides alone.
    pub follower_lag_entries: u64,
    /// Commands that may wait; more are refused. Default 50,000.
    pub queue_commands_max: usize,
    /// Bytes of commands that may wait; more are refused. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Reads that may wait; more are refused. Default 100,000.
    pub queue_reads_max: usize,
    /// Messages of other members that may wait; more are dropped. Default 4,096.
    pub queue_messages_max: usize,
    /// Bytes of one command. Default 16 MiB, above every request's own limit.
    pub command_bytes_max: usize,
    /// Length of a tick. Default 100 ms, etcd's heartbeat.
    pub tick_ms: u64,
    /// Ticks without a leader before an election. Default 10.
    pub election_ticks: usize,
    /// Ticks between heartbeats. Default 1.
    pub heartbeat_ticks: usize,
    /// Size of a segment of the log.
    pub segment_bytes: u64,
    /// Size of the very first one.
    pub first_segment_bytes: u64,
}

impl RaftConfig {
    /// The defaults.
    pub fn new(node_id: u64, voters: Vec<u64>, log_dir: impl Into<PathBuf>) -> Self {
        let log = LogConfig::new(node_id);
        Self {
            node_id,
            voters,
            log_dir: log_dir.into(),
            sync_mode: SyncMode::default(),
            checkpoint_every_entries: 10_000,
            checkpoint_every_bytes: 256 << 20,
            follower_lag_entries: 5_000,
            queue_commands_max: 50_000,
            queue_bytes_max: 64 << 20,
            queue_reads_max: 100_000,
            queue_messages_max: 4_096,
            command_bytes_max: 16 << 20,
            tick_ms: 100,
            election_ticks: 10,
            heartbeat_ticks: 1,
            segment_bytes: log.segment_bytes,
            first_segment_bytes: log.first_segment_bytes,
        }
    }

    fn log(&self) -> LogConfig {
        LogConfig {
            node_id: self.node_id,
            segment_bytes: self.segment_bytes,
            first_segment_bytes: self.first_segment_bytes,
        }
    }

    fn driver(&self) -> DriverConfig {
        DriverConfig {
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            incarnation: incarnation(),
            ..DriverConfig::new(self.node_id, self.voters.clone())
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.node_id == 0 || !self.voters.contains(&self.node_id) {
            let (id, voters) = (self.node_id, &self.voters);
            return Err(Error::Config(format!("member {id} is 0 or not among {voters:?}")));
        }
        Ok(())
    }
}

/// Another number in each life: the time, of which only the difference matters.
fn incarnation() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_nanos() as u64
}

/// What a node thinks of itself.
#[derive(Clone, Debug)]
pub struct RaftStatus {
    /// This member.
    pub node_id: u64,
    /// The leader, where it is known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The newest index known to be committed.
    pub commit: u64,
    /// The newest index applied.
    pub applied: u64,
    /// This member's part.
    pub role: Role,
    /// The first index in the log.
    pub log_first: u64,
    /// The last index in the log.
    pub log_last: u64,
    /// Why the node stopped for good.
    pub poisoned: Option<String>,
    /// Why the newest checkpoint failed: the log grows until one succeeds.
    pub checkpoint_error: Option<String>,
}

/// Starts nodes.
pub struct RaftNode;

/// No other members: nothing to send.
struct NoPeers;

impl PeerTransport for NoPeers {
    fn send(&mut self, _messages: Vec<PeerMessage>) {}
}

impl RaftNode {
    /// Starts a member that decides alone. When this returns it leads, and everything committed
    /// before is applied.
    ///
    /// ```
    /// # use chronolith_raft::*;
    /// # use bytes::Bytes;
    /// /// Counts commands; keeps nothing.
    /// struct Counter(u64);
    ///
    /// impl StateMachine for Counter {
    ///     type Outcome = u64;
    ///     type Error = std::io::Error;
    ///     fn applied(&self) -> Result<Option<Applied>, Self::Error> {
    ///         Ok(None)
    ///     }
    ///     fn apply(&mut self, run: &[Committed], _: &Applied) -> Result<Vec<u64>, Self::Error> {
    ///         Ok(run.iter().map(|_| { self.0 += 1; self.0 }).collect())
    ///     }
    ///     fn begin_checkpoint(&mut self) -> Result<CheckpointJob<Self::Error>, Self::Error> {
    ///         Ok(Box::new(|| Ok(0)))
    ///     }
    /// }
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = RaftConfig::new(1, vec![1], dir.path().join("log"));
    /// let node = RaftNode::start(config, Counter(0))?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// node.propose(Bytes::from("hello"), Box::new(move |reply| sender.send(reply).unwrap()));
    /// assert_eq!(receiver.recv()??.outcome, 1);
    /// node.stop();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start<M: StateMachine>(
        config: RaftConfig,
        state_machine: M,
    ) -> Result<RaftHandle<M::Outcome>, Error> {
        if config.voters != [config.node_id] {
            return Err(Error::Config("a cluster of several members needs a transport".into()));
        }
        Self::start_with(config, state_machine, NoPeers)
    }

    /// Starts a member of a cluster.
    pub fn start_with<M: StateMachine>(
        config: RaftConfig,
        state_machine: M,
        transport: impl PeerTransport,
    ) -> Result<RaftHandle<M::Outcome>, Error> {
        config.check()?;
        let disk =
            Directory::open(&config.log_dir, config.sync_mode).map_err(|source| Error::Io {
                file: config.log_dir.display().to_string(),
                action: "opening the directory",
                source,
            })?;
        Self::start_on(config, state_machine, transport, Arc::new(disk))
    }

    /// Starts a member whose log is on a disk of the caller's.
    pub fn start_on<M: StateMachine>(
        config: RaftConfig,
        state_machine: M,
        transport: impl PeerTransport,
        disk: Arc<dyn Disk>,
    ) -> Result<RaftHandle<M::Outcome>, Error> {
        config.check()?;
        let applied = state_machine.applied().map_err(of_state_machine)?;
        let place = applied.as_ref().map(|at| Position { index: at.index, term: at.term });
        let from = place.map_or(0, |place| place.index);
        let (log, recovered) = SegmentedLog::open(disk, config.log(), place)?;
        let driver = Driver::new(config.driver(), recovered, log.reader(), applied)?;
        let shared = Arc::new(Shared::new(&config, driver.standing()));
        let worker = Worker {
            is_alone: driver.is_alone(),
            driver,
            log,
            state_machine,
            transport: Box::new(transport),
            shared: Arc::clone(&shared),
            applying: Vec::new(),
            jobs: Vec::new(),
            checkpoint: CheckpointState { entry: from, ..CheckpointState::default() },
            next_tick: Instant::now(),
            config,
        };
        let (started, wait) = mpsc::channel();
        let thread = spawn("raft", move || worker.run(started))?;
        let guard = Arc::new(Guard { shared, thread: Mutex::new(Some(thread)) });
        match wait.recv() {
            Ok(()) => Ok(RaftHandle { guard }),
            Err(_) => Err(guard.shared.death()),
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = thread::Builder::new().name(name.into()).spawn(body);
    thread.map_err(|source| Error::Io { file: name.into(), action: "starting a thread", source })
}

fn of_state_machine(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::StateMachine(Box::new(error))
}

/// A running node. Clones share it; it stops with the last of them.
pub struct RaftHandle<O> {
    guard: Arc<Guard<O>>,
}

impl<O> Clone for RaftHandle<O> {
    fn clone(&self) -> Self {
        Self { guard: Arc::clone(&self.guard) }
    }
}

struct Guard<O> {
    shared: Arc<Shared<O>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<O> Guard<O> {
    fn stop(&self) {
        self.shared.inbox.lock().stop = true;
        self.shared.bell.notify_one();
        let Some(thread) = self.thread.lock().take() else { return };
        // A reply that held the last handle drops it on the node's own thread.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

impl<O> Drop for Guard<O> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<O: Send + 'static> RaftHandle<O> {
    /// Proposes a command. The reply comes once it is durable and applied, or at once where it is
    /// refused.
    pub fn propose(&self, command: Bytes, reply: Replier<O>) {
        if let Err((error, reply)) = self.guard.shared.queue_command(command, reply) {
            reply(Err(error));
        }
    }

    /// Confirms a read: the reply comes once everything is applied here that any member had
    /// acknowledged when this was called.
    pub fn read_index(&self, reply: ReadReply) {
        if let Some(index) = self.read_index_alone() {
            return reply(Ok(index));
        }
        if let Err((error, reply)) = self.guard.shared.queue_read(reply) {
            reply(Err(error));
        }
    }

    /// The index a read may rely on right now, if this member decides alone: then nobody else is to
    /// be asked. Otherwise [`RaftHandle::read_index`] asks.
    pub fn read_index_alone(&self) -> Option<u64> {
        let shared = &*self.guard.shared;
        let alone = shared.decides_alone.load(Ordering::Acquire);
        alone.then(|| shared.applied.load(Ordering::Acquire))
    }

    /// A message of another member arrived.
    pub fn deliver(&self, message: PeerMessage) {
        self.guard.shared.queue_event(Event::Message(message));
    }

    /// Another member cannot be reached.
    pub fn report_unreachable(&self, member: u64) {
        self.guard.shared.queue_event(Event::Unreachable(member));
    }

    /// How the sending of a snapshot went; must be called for each.
    pub fn report_snapshot(&self, member: u64, arrived: bool) {
        self.guard.shared.queue_event(Event::SnapshotSent(member, arrived));
    }

    /// What the node thinks of itself.
    pub fn status(&self) -> RaftStatus {
        let shared = &*self.guard.shared;
        let standing = *shared.standing.lock();
        let inbox = shared.inbox.lock();
        RaftStatus {
            node_id: shared.limits.node_id,
            leader: standing.leader.filter(|_| inbox.closed.is_none()),
            term: standing.term,
            commit: standing.commit,
            applied: standing.applied,
            role: if inbox.closed.is_none() { standing.role } else { Role::Follower },
            log_first: standing.first,
            log_last: standing.last,
            poisoned: match &inbox.closed {
                Some(Closed::Poisoned(cause)) => Some(cause.to_string()),
                _ => None,
            },
            checkpoint_error: inbox.checkpoint_error.clone(),
        }
    }

    /// Handles what is queued, and stops. Returns when the threads are gone.
    pub fn stop(&self) {
        self.guard.stop();
    }
}

enum Event {
    Message(PeerMessage),
    Unreachable(u64),
    SnapshotSent(u64, bool),
}

#[derive(Clone)]
enum Closed {
    Stopped,
    Poisoned(Arc<str>),
}

impl Closed {
    fn propose_error(&self) -> ProposeError {
        match self {
            Self::Stopped => ProposeError::Stopped,
            Self::Poisoned(cause) => ProposeError::Poisoned(Arc::clone(cause)),
        }
    }

    fn read_error(&self) -> ReadError {
        match self {
            Self::Stopped => ReadError::Stopped,
            Self::Poisoned(cause) => ReadError::Poisoned(Arc::clone(cause)),
        }
    }
}

struct Inbox<O> {
    commands: Vec<(Bytes, Replier<O>)>,
    command_bytes: usize,
    reads: Vec<ReadReply>,
    events: Vec<Event>,
    checkpointed: Option<Result<u64, String>>,
    checkpoint_error: Option<String>,
    stop: bool,
    sleeping: bool,
    closed: Option<Closed>,
}

impl<O> Inbox<O> {
    fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.reads.is_empty()
            && self.events.is_empty()
            && self.checkpointed.is_none()
    }

    fn refusal(&self) -> Option<&Closed> {
        match self.stop {
            true if self.closed.is_none() => Some(&Closed::Stopped),
            _ => self.closed.as_ref(),
        }
    }
}

struct Shared<O> {
    inbox: Mutex<Inbox<O>>,
    bell: Condvar,
    limits: RaftConfig,
    /// The member decides alone, leads, and is not closed.
    decides_alone: AtomicBool,
    applied: AtomicU64,
    standing: Mutex<Standing>,
}

impl<O> Shared<O> {
    fn new(config: &RaftConfig, standing: Standing) -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                commands: Vec::new(),
                command_bytes: 0,
                reads: Vec::new(),
                events: Vec::new(),
                checkpointed: None,
                checkpoint_error: None,
                stop: false,
                sleeping: false,
                closed: None,
            }),
            bell: Condvar::new(),
            limits: config.clone(),
            decides_alone: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            standing: Mutex::new(standing),
        }
    }

    /// Puts something into the inbox, and wakes the thread if it sleeps.
    fn put<T>(&self, put: impl FnOnce(&mut Inbox<O>) -> T) -> T {
        let mut inbox = self.inbox.lock();
        let result = put(&mut inbox);
        let sleeping = std::mem::take(&mut inbox.sleeping);
        drop(inbox);
        if sleeping {
            self.bell.notify_one();
        }
        result
    }

    fn queue_command(
        &self,
        command: Bytes,
        reply: Replier<O>,
    ) -> Result<(), (ProposeError, Replier<O>)> {
        let limits = &self.limits;
        let (size_bytes, limit_bytes) = (command.len(), limits.command_bytes_max);
        if size_bytes > limit_bytes {
            return Err((ProposeError::TooLarge { size_bytes, limit_bytes }, reply));
        }
        self.put(|inbox| {
            if let Some(closed) = inbox.refusal() {
                return Err((closed.propose_error(), reply));
            }
            let bytes = inbox.command_bytes + command.len() + COMMAND_HEAD;
            if inbox.commands.len() >= limits.queue_commands_max || bytes > limits.queue_bytes_max {
                return Err((ProposeError::Overloaded, reply));
            }
            inbox.command_bytes = bytes;
            inbox.commands.push((command, reply));
            Ok(())
        })
    }

    fn queue_read(&self, reply: ReadReply) -> Result<(), (ReadError, ReadReply)> {
        self.put(|inbox| match inbox.refusal() {
            Some(closed) => Err((closed.read_error(), reply)),
            None if inbox.reads.len() >= self.limits.queue_reads_max => {
                Err((ReadError::Overloaded, reply))
            }
            None => {
                inbox.reads.push(reply);
                Ok(())
            }
        })
    }

    fn queue_event(&self, event: Event) {
        self.put(|inbox| {
            let full = inbox.events.len() >= self.limits.queue_messages_max;
            // The protocol repeats messages; a report is never dropped, and there are few.
            if !full || !matches!(event, Event::Message(_)) {
                inbox.events.push(event);
            }
        });
    }

    fn death(&self) -> Error {
        match &self.inbox.lock().closed {
            Some(Closed::Poisoned(cause)) => Error::Poisoned(Arc::clone(cause)),
            _ => Error::Poisoned("the node stopped while it started".into()),
        }
    }
}

#[derive(Default)]
struct CheckpointState {
    /// Entries since the last one.
    entries: u64,
    /// Bytes since the last one.
    bytes: u64,
    running: bool,
    /// The last entry counted.
    entry: u64,
}

/// Who waits for a range of a run's commands.
type RangeWaiters<O> = (Range<usize>, Vec<Replier<O>>);

struct Worker<M: StateMachine> {
    config: RaftConfig,
    driver: Driver<Replier<M::Outcome>, ReadReply>,
    log: SegmentedLog,
    state_machine: M,
    transport: Box<dyn PeerTransport>,
    shared: Arc<Shared<M::Outcome>>,
    /// Who waits for the run that is being applied.
    applying: Vec<RangeWaiters<M::Outcome>>,
    jobs: Vec<JoinHandle<()>>,
    checkpoint: CheckpointState,
    is_alone: bool,
    next_tick: Instant,
}

impl<M: StateMachine> Worker<M> {
    fn run(mut self, started: mpsc::Sender<()>) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(&started)));
        let closed = match served {
            Ok(Ok(())) => Closed::Stopped,
            Ok(Err(error)) => Closed::Poisoned(error.to_string().into()),
            Err(panic) => Closed::Poisoned(format!("panic: {}", panic_text(&*panic)).into()),
        };
        if let Closed::Poisoned(cause) = &closed {
            tracing::error!(node_id = self.config.node_id, %cause, "the node stopped for good");
        }
        self.close(closed);
        // Whoever waits for the start finds the cause.
        drop(started);
        for job in self.jobs.drain(..) {
            // Jobs report by themselves, panics too.
            let _ = job.join();
        }
    }

    fn serve(&mut self, started: &mpsc::Sender<()>) -> Result<(), Error> {
        if self.is_alone {
            self.driver.campaign()?;
        }
        self.work()?;
        self.shared
            .decides_alone
            .store(self.is_alone && self.driver.standing().is_settled, Ordering::Release);
        // Nobody may be waiting any more; that is no reason not to serve.
        let _ = started.send(());
        self.next_tick = Instant::now() + self.tick();
        while self.wait()? {
            self.work()?;
        }
        Ok(())
    }

    /// Does what is to be done until there is nothing.
    fn work(&mut self) -> Result<(), Error> {
        loop {
            let out = self.driver.poll()?;
            if out.is_idle() {
                break;
            }
            self.handle(out)?;
            *self.shared.standing.lock() = self.driver.standing();
            self.drain()?;
        }
        Ok(())
    }

    fn handle(&mut self, out: Output<Replier<M::Outcome>, ReadReply>) -> Result<(), Error> {
        if !out.messages.is_empty() {
            self.transport.send(out.messages);
        }
        out.refused.into_iter().for_each(|(reply, error)| reply(Err(error)));
        let applied = self.shared.applied.load(Ordering::Acquire);
        out.reads.into_iter().for_each(|reply| reply(Ok(applied)));
        if let Some(install) = out.install {
            self.install(install)?;
        }
        if let Some(run) = out.committed {
            self.apply(run)?;
        }
        if let Some(write) = out.write {
            let locations = self.log.append(&write)?;
            self.driver.persisted(write.number, &locations);
            self.keep_house()?;
        }
        if out.wants_snapshot
            && let Some(data) = self.state_machine.snapshot().map_err(of_state_machine)?
        {
            self.driver.provide_snapshot(data)?;
        }
        Ok(())
    }

    fn apply(&mut self, mut run: Run<Replier<M::Outcome>>) -> Result<(), Error> {
        // Kept where they are found if the state machine fails or panics.
        self.applying = std::mem::take(&mut run.waiters);
        let applied = self.state_machine.apply(&run.commands, &run.applied);
        let outcomes = applied.map_err(of_state_machine)?;
        if outcomes.len() != run.commands.len() {
            let (got, wanted) = (outcomes.len(), run.commands.len());
            return Err(Error::Mismatch(format!("{got} outcomes for {wanted} commands")));
        }
        self.driver.applied(run.applied.index);
        self.shared.applied.store(run.applied.index, Ordering::Release);
        self.count(&run);
        let mut outcomes = run.commands.iter().zip(outcomes);
        let mut at = 0;
        for (range, waiters) in std::mem::take(&mut self.applying) {
            let own = outcomes.by_ref().skip(range.start - at).take(range.len());
            for ((command, outcome), reply) in own.zip(waiters) {
                reply(Ok(Reply { outcome, index: command.index, term: command.term }));
            }
            at = range.end;
        }
        self.maybe_checkpoint()
    }

    fn install(&mut self, install: Install) -> Result<(), Error> {
        self.log.append(&install.before)?;
        let restored = self.state_machine.restore(&install.snapshot);
        if !restored.map_err(of_state_machine)? {
            let what = "another member sent its state, and this state machine cannot take one in";
            return Err(Error::Mismatch(what.into()));
        }
        let locations = match &install.after {
            Some(write) => self.log.append(write)?,
            None => Vec::new(),
        };
        self.driver.installed(&locations);
        let index = install.snapshot.applied.index;
        self.shared.applied.store(index, Ordering::Release);
        self.log.purge(index)
    }

    fn count(&mut self, run: &Run<Replier<M::Outcome>>) {
        self.checkpoint.entries += run.applied.index.saturating_sub(self.checkpoint.entry);
        self.checkpoint.entry = run.applied.index;
        let bytes = run.commands.iter().map(|command| command.command.len() as u64);
        self.checkpoint.bytes += bytes.sum::<u64>();
    }

    fn maybe_checkpoint(&mut self) -> Result<(), Error> {
        let state = &mut self.checkpoint;
        let due = state.entries >= self.config.checkpoint_every_entries
            || state.bytes >= self.config.checkpoint_every_bytes;
        if state.running || !due {
            return Ok(());
        }
        (state.entries, state.bytes, state.running) = (0, 0, true);
        let shared = Arc::clone(&self.shared);
        let begun = self.state_machine.begin_checkpoint();
        self.jobs.push(spawn("raft-checkpoint", move || {
            let result = run_checkpoint(begun);
            shared.put(|inbox| inbox.checkpointed = Some(result));
        })?);
        Ok(())
    }

    fn on_checkpoint(&mut self, result: Result<u64, String>) -> Result<(), Error> {
        self.checkpoint.running = false;
        self.shared.inbox.lock().checkpoint_error = result.as_ref().err().cloned();
        match result {
            Ok(index) => {
                let kept = if self.is_alone { 0 } else { self.config.follower_lag_entries };
                self.driver.purge(index.saturating_sub(kept));
                self.log.purge(index.saturating_sub(kept))?;
                self.keep_house()
            }
            Err(error) => {
                tracing::warn!(%error, "a checkpoint failed; the log is kept");
                Ok(())
            }
        }
    }

    fn keep_house(&mut self) -> Result<(), Error> {
        self.jobs.retain(|job| !job.is_finished());
        while let Some(job) = self.log.housekeeping() {
            self.jobs.push(spawn("raft-segments", move || do_house(job))?);
        }
        Ok(())
    }

    fn tick(&self) -> Duration {
        Duration::from_millis(self.config.tick_ms)
    }

    /// Sleeps until there is something to do; `false` when the node shall stop.
    fn wait(&mut self) -> Result<bool, Error> {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.inbox.lock();
        while inbox.is_empty() && !inbox.stop {
            inbox.sleeping = true;
            if self.is_alone {
                shared.bell.wait(&mut inbox);
            } else if shared.bell.wait_until(&mut inbox, self.next_tick).timed_out() {
                break;
            }
        }
        inbox.sleeping = false;
        let go_on = !inbox.stop || !inbox.is_empty();
        drop(inbox);
        self.drain()?;
        Ok(go_on)
    }

    /// Hands the inbox to the driver.
    fn drain(&mut self) -> Result<(), Error> {
        let mut inbox = self.shared.inbox.lock();
        let mut commands = Vec::new();
        // What the driver has not yet taken on stays here, where it counts against the limit.
        if self.driver.queued() == 0 {
            commands = std::mem::take(&mut inbox.commands);
            inbox.command_bytes = 0;
        }
        let reads = std::mem::take(&mut inbox.reads);
        let events = std::mem::take(&mut inbox.events);
        let checkpointed = inbox.checkpointed.take();
        drop(inbox);
        events.into_iter().for_each(|event| self.event(event));
        commands.into_iter().for_each(|(command, reply)| self.driver.propose(command, reply));
        reads.into_iter().for_each(|reply| self.driver.read(reply));
        self.pass_time();
        checkpointed.map_or(Ok(()), |result| self.on_checkpoint(result))
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.driver.message(message),
            Event::Unreachable(member) => self.driver.unreachable(member),
            Event::SnapshotSent(member, arrived) => self.driver.snapshot_sent(member, arrived),
        }
    }

    /// At most one tick at a time: a member that slept must not storm.
    fn pass_time(&mut self) {
        let now = Instant::now();
        if !self.is_alone && now >= self.next_tick {
            self.next_tick = now + self.tick();
            self.driver.tick();
        }
    }

    fn close(&mut self, closed: Closed) {
        self.shared.decides_alone.store(false, Ordering::Release);
        let mut inbox = self.shared.inbox.lock();
        inbox.closed = Some(closed.clone());
        let commands = std::mem::take(&mut inbox.commands);
        let reads = std::mem::take(&mut inbox.reads);
        drop(inbox);
        let (waiters, readers) = self.driver.abandon();
        for reply in self.applying.drain(..).flat_map(|(_, waiters)| waiters) {
            reply(Err(closed.propose_error()));
        }
        for (_, reply) in commands {
            reply(Err(closed.propose_error()));
        }
        for (reply, error) in waiters {
            let stopped = matches!(closed, Closed::Stopped);
            reply(Err(if stopped { error } else { closed.propose_error() }));
        }
        readers.into_iter().chain(reads).for_each(|reply| reply(Err(closed.read_error())));
    }
}

fn run_checkpoint<E: std::error::Error>(begun: Result<CheckpointJob<E>, E>) -> Result<u64, String> {
    let job = begun.map_err(|error| error.to_string())?;
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("panic: {}", panic_text(&*panic))),
    }
}

fn do_house(job: Housekeeping) {
    if let Err(error) = job() {
        tracing::warn!(%error, "no spare segment could be prepared; one is made when it is needed");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
