//! The log as its users see it: record, checkpoint, close.

use crate::{
    Error, Event, NotDurable, Policy, Refused, Result,
    event::{Class, own},
    keys::Secrets,
    queue::{Item, Queue},
    recover,
    writer::{TILES, Writer, now_ms},
};
use chronolith_ledger::{Hash, SALT_BYTES, TileFiles, VerifierKey, consistency_proof};
use parking_lot::{Mutex, RwLock};
use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

/// Events that may wait for the writer: it takes a hundred times a second what has come.
pub const QUEUE_EVENTS: usize = 16_384;
/// Bytes of events that may wait for the writer.
pub const QUEUE_BYTES: usize = 64 << 20;
/// A file of events is ended at this size: a quarter of a million events at metadata, read in a second.
pub const ROTATE_BYTES: u64 = 64 << 20;
/// A file of events is ended at this age: a day a file, where little happens.
pub const ROTATE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of events that are kept, 0 for all of them.
pub const KEEP_BYTES: u64 = 4 << 30;
/// What a crash may take of a log that fails open, and how old a checkpoint may be.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What happens to a request whose event would be lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// It is served; the loss is counted, and a gap marker stands in the log.
    #[default]
    Open,
    /// It is refused before it has an effect, and answered only when its event is on the disk.
    Closed,
}

impl FromStr for FailMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            other => Err(format!("{other:?} is neither open nor closed")),
        }
    }
}

/// How a log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub dir: PathBuf,
    /// Name of the cluster, part of the log's name.
    pub cluster: String,
    /// Name of the member, part of the log's name and in each event.
    pub member: String,
    /// What happens to a request whose event would be lost.
    pub fail_mode: FailMode,
    /// See [`QUEUE_EVENTS`].
    pub queue_events: usize,
    /// See [`QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// See [`ROTATE_BYTES`].
    pub rotate_bytes: u64,
    /// See [`ROTATE_AGE`].
    pub rotate_age: Duration,
    /// Files that are kept, 0 for all of them.
    pub keep_files: usize,
    /// See [`KEEP_BYTES`].
    pub keep_bytes: u64,
    /// See [`SYNC_INTERVAL`].
    pub sync_interval: Duration,
    /// Write the lines to standard output too.
    pub stdout: bool,
    /// What the first event says about the process.
    pub about: String,
}

impl Settings {
    /// The defaults, for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>, cluster: &str, member: &str) -> Self {
        Self {
            dir: dir.into(),
            cluster: cluster.to_owned(),
            member: member.to_owned(),
            fail_mode: FailMode::default(),
            queue_events: QUEUE_EVENTS,
            queue_bytes: QUEUE_BYTES,
            rotate_bytes: ROTATE_BYTES,
            rotate_age: ROTATE_AGE,
            keep_files: 0,
            keep_bytes: KEEP_BYTES,
            sync_interval: SYNC_INTERVAL,
            stdout: false,
            about: String::new(),
        }
    }

    /// Name of the log and of its key.
    pub fn origin(&self) -> String {
        format!("{}/audit/{}", self.cluster, self.member)
    }
}

/// What the log counts.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) events: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// What the log had counted at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events written.
    pub events: u64,
    /// Events that found no room.
    pub dropped: u64,
    /// Writes, syncs and lines to standard output that failed.
    pub failures: u64,
    /// Events that wait for the writer.
    pub queue_depth: usize,
}

/// Whether the writer writes.
#[derive(Clone, Debug)]
pub(crate) enum Health {
    Well,
    /// A write failed, and is being made again.
    Trying(String),
    /// Nothing will be written any more.
    Ended(String),
}

/// What the writer and its users share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) stats: Stats,
    /// Whether `health` is anything but well.
    unwell: AtomicBool,
    health: Mutex<Health>,
}

impl Shared {
    pub(crate) fn is_unwell(&self, health: Health) {
        self.stats.failures.fetch_add(1, Relaxed);
        match &health {
            Health::Ended(cause) => tracing::error!("the audit log has ended: {cause}"),
            Health::Trying(cause) => tracing::warn!("the audit log cannot be written: {cause}"),
            Health::Well => {}
        }
        *self.health.lock() = health;
        self.unwell.store(true, Relaxed);
    }

    pub(crate) fn is_well(&self) {
        if self.unwell.swap(false, Relaxed) {
            *self.health.lock() = Health::Well;
            tracing::info!("the audit log is being written again");
        }
    }

    /// Runs the writer to its end. A panic in it ends the log as a failed sync does: nobody waits in vain.
    fn run(&self, writer: Writer) {
        // The writer is gone with the panic; what is shared has locks that hold whole states.
        let run = std::panic::AssertUnwindSafe(|| writer.run());
        let ended = std::panic::catch_unwind(run);
        if let Some(cause) = ended.unwrap_or_else(|_| Some("its writer panicked".to_owned())) {
            self.is_unwell(Health::Ended(cause.clone()));
            self.refuse_all(&cause);
        }
    }

    /// Counts what comes as dropped and tells whoever waits, until the log is closed.
    fn refuse_all(&self, cause: &str) {
        loop {
            let batch = self.queue.take();
            for item in batch.items {
                match item {
                    Item::Event(_, waiter) => {
                        self.stats.dropped.fetch_add(1, Relaxed);
                        let refused = Err(NotDurable { cause: cause.to_owned() });
                        waiter.map(|waiter| waiter.send(refused));
                    }
                    Item::Gap(_) => {}
                    Item::Sync(tell) => drop(tell.send(Err(cause.to_owned()))),
                    Item::Flush(tell) => drop(tell.send(())),
                }
            }
            if batch.closed {
                return;
            }
            self.queue.wait(None);
        }
    }

    fn cause(&self) -> Option<String> {
        if !self.unwell.load(Relaxed) {
            return None;
        }
        match self.health.lock().clone() {
            Health::Well => None,
            Health::Trying(cause) | Health::Ended(cause) => Some(cause),
        }
    }
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events in the log before this start.
    pub events: u64,
    /// The process before did not end in order: in open mode, its last moment may be missing.
    pub after_crash: bool,
    /// Bytes of an unfinished line that were removed.
    pub repaired_bytes: u64,
}

/// An audit log that is being written. Cheap to clone; all clones are the same log.
///
/// ```
/// use chronolith_audit::{AuditLog, Class, Event, Query, Settings};
/// let dir = tempfile::tempdir().unwrap();
/// let log = AuditLog::open(Settings::new(dir.path(), "cluster", "member"))?;
/// log.record(Event { user: "ann".into(), ..Event::new("Put", Class::Write) });
/// log.flush();
/// let page = log.query(&Query { user: "ann".into(), ..Query::default() })?;
/// assert!(page.events[0].contains(r#""call":"Put""#));
/// log.close();
/// # Ok::<(), chronolith_audit::Error>(())
/// ```
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    secrets: Arc<Secrets>,
    policy: RwLock<Arc<Policy>>,
    dir: PathBuf,
    fail_mode: FailMode,
    queue_events: usize,
    recovered: Recovered,
    /// The thread, and the lock that is held as long as it runs.
    writer: Mutex<Option<(JoinHandle<()>, File)>>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLog({})", self.0.dir.display())
    }
}

/// Room for one event, kept while its request is carried out.
#[derive(Debug)]
pub struct Reservation {
    log: AuditLog,
    used: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.used {
            self.log.0.shared.queue.release();
        }
    }
}

impl AuditLog {
    /// Opens the log, or makes it; repairs what a crash tore; and begins to write.
    pub fn open(settings: Settings) -> Result<Self> {
        if settings.queue_events == 0 || settings.queue_bytes == 0 || settings.rotate_bytes == 0 {
            let what = "a limit of 0 on the audit log's queue or files would refuse everything";
            return Err(Error::Setting(what.to_owned()));
        }
        let opened = recover::open(&settings)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue_events, settings.queue_bytes),
            stats: Stats::default(),
            unwell: AtomicBool::new(false),
            health: Mutex::new(Health::Well),
        });
        let (dir, fail_mode) = (settings.dir.clone(), settings.fail_mode);
        let (queue_events, about) = (settings.queue_events, settings.about.clone());
        let secrets = Arc::new(opened.secrets);
        let begins_new_file = opened.begins_new_file;
        let is_empty = opened.position.size_bytes == 0;
        let mut writer =
            Writer::new(settings, Arc::clone(&shared), Arc::clone(&secrets), opened.position)?;
        if begins_new_file {
            writer.begin_next()?;
        } else if is_empty {
            writer.begin()?;
        }
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let watched = Arc::clone(&shared);
        let thread = thread.spawn(move || watched.run(writer));
        let thread = thread.map_err(|error| Error::Stopped(error.to_string()))?;
        let log = Self(Arc::new(Inner {
            shared,
            secrets,
            policy: RwLock::new(Arc::new(Policy::default())),
            dir,
            fail_mode,
            queue_events,
            recovered: opened.recovered,
            writer: Mutex::new(Some((thread, opened.lock))),
        }));
        log.tell_start(about);
        Ok(log)
    }

    /// The first events of a process: what was repaired, and that it began.
    fn tell_start(&self, about: String) {
        let Recovered { repaired_bytes, after_crash, .. } = self.0.recovered;
        if repaired_bytes > 0 {
            let reason = format!("{repaired_bytes} bytes of an unfinished line were removed");
            self.record_always(Event { reason, ..Event::new(own::REPAIR, Class::Admin) });
        }
        let reason = match after_crash {
            true => format!("{about} (the process before did not end in order)"),
            false => about,
        };
        self.record_always(Event { reason, ..Event::new(own::START, Class::Admin) });
    }

    /// What was found when it was opened.
    pub fn recovered(&self) -> &Recovered {
        &self.0.recovered
    }

    /// What happens to a request whose event would be lost.
    pub fn fail_mode(&self) -> FailMode {
        self.0.fail_mode
    }

    /// What is recorded.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.policy.read())
    }

    /// From now on, this is recorded; an event says so.
    pub fn set_policy(&self, policy: Policy, reason: &str) {
        *self.0.policy.write() = Arc::new(policy);
        let reason = reason.to_owned();
        self.record_always(Event { reason, ..Event::new(own::CONFIG, Class::Admin) });
    }

    /// Salts the digests of values and the references to actors.
    pub fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.0.secrets.salt
    }

    /// The key that checkpoints are signed with.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.0.secrets.key.verifier()
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        let stats = &self.0.shared.stats;
        Counts {
            events: stats.events.load(Relaxed),
            dropped: stats.dropped.load(Relaxed),
            failures: stats.failures.load(Relaxed),
            queue_depth: self.0.shared.queue.depth(),
        }
    }

    /// Why nothing is written at the moment; none if all is well.
    pub fn trouble(&self) -> Option<String> {
        self.0.shared.cause()
    }

    /// Records an event. Never waits: one that finds no room is counted, and a gap marker stands for it.
    pub fn record(&self, event: Event) {
        if self.0.shared.queue.push(stamped(event)).is_err() {
            self.0.shared.stats.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Keeps room for a request's event before the request is carried out: for [`FailMode::Closed`].
    pub fn reserve(&self) -> Result<Reservation, Refused> {
        if let Some(cause) = self.0.shared.cause() {
            return Err(Refused::NotWritten { cause });
        }
        let full = |_| Refused::Full { limit: self.0.queue_events };
        self.0.shared.queue.reserve().map_err(full)?;
        Ok(Reservation { log: self.clone(), used: false })
    }

    /// Records an event in the room that was kept for it, and resolves when it is on the disk.
    pub fn record_reserved(
        &self,
        event: Event,
        mut reservation: Reservation,
    ) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        let (tell, told) = oneshot::channel();
        reservation.used = true;
        if self.0.shared.queue.push_reserved(stamped(event), tell).is_err() {
            self.0.shared.stats.dropped.fetch_add(1, Relaxed);
        }
        async move {
            let gone = |_| NotDurable { cause: "the log was closed".to_owned() };
            told.await.map_err(gone)?
        }
    }

    /// Records what the server says about itself: these few events have no limit.
    pub fn record_always(&self, event: Event) {
        self.0.shared.queue.push_always(Item::Event(Box::new(stamped(event)), None));
    }

    /// Waits until everything recorded so far can be read. Blocks.
    pub fn flush(&self) {
        let (tell, told) = oneshot::channel();
        self.0.shared.queue.push_always(Item::Flush(tell));
        // A writer that is gone has written all that it will.
        let _ = told.blocking_recv();
    }

    /// A checkpoint over everything recorded so far, which then is on the disk. Blocks.
    pub fn checkpoint(&self) -> Result<String> {
        let (tell, told) = oneshot::channel();
        self.0.shared.queue.push_always(Item::Sync(tell));
        let answer =
            told.blocking_recv().map_err(|_| Error::Stopped("it was closed".to_owned()))?;
        answer.map_err(Error::Stopped)
    }

    /// Proof that the log of `to_size` events begins with that of `from_size`. Both must have been signed.
    /// Blocks.
    pub fn consistency(&self, from_size: u64, to_size: u64) -> Result<Vec<Hash>> {
        let files = TileFiles::at(self.0.dir.join(TILES));
        Ok(consistency_proof(&files, from_size, to_size)?)
    }

    /// Writes, syncs and signs everything and ends. Blocks. The second time it does nothing.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Inner {
    fn close(&self) {
        let Some((writer, lock)) = self.writer.lock().take() else { return };
        let stop = stamped(Event::new(own::STOP, Class::Admin));
        self.shared.queue.push_always(Item::Event(Box::new(stop), None));
        self.shared.queue.close();
        if writer.join().is_err() {
            tracing::error!("the audit log's writer had panicked");
        }
        drop(lock);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn stamped(mut event: Event) -> Event {
    if event.time_ms == 0 {
        event.time_ms = now_ms();
    }
    event
}
