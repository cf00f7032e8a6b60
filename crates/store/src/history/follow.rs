//! The thread that turns applied revisions into leaves.
//!
//! ```text
//! writer ─ Applied ─▶ queue ─▶ thread: hash ─▶ Follower ─▶ tiles
//!                                               ├▶ watermark ─▶ who waits
//!                                               └▶ notary: checkpoints, now and then
//! ```
//! The queue is in revision order because the writer pushes while it holds its lock. What the thread
//! had not reached when the program ended is read from the store at the next start. A failure ends the
//! thread, and every later write is told its cause.

use super::{Error, Result, notary::Notary, queue::Queue, remains::entry_left};
use chronolith_ledger::{Entry, Follower, Hash, Op, OpKind, Revision, TileFiles, TileWriter};
use chronolith_mvcc::{Applied, AppliedRevision, ChangeRef, Kind, Reader, Stamp};
use parking_lot::{Condvar, Mutex};
use std::{
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

/// Revisions read at once when the log catches up.
pub(super) const CATCH_UP_REVISIONS: usize = 256;

/// Puts the revisions that were applied on the disk, so that the log may be declared complete up to
/// them: files of the log must never be ahead of what they hash.
pub(crate) type MakeDurable = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// Calls `use_it` with the revision as the ledger sees it.
pub(super) fn with_revision<'a, T>(
    revision: i64,
    stamp: &Stamp,
    changes: impl Iterator<Item = ChangeRef<'a>>,
    use_it: impl FnOnce(Revision<'_>) -> T,
) -> T {
    let ops: Vec<_> = changes.map(op).collect();
    use_it(Revision {
        revision: revision.cast_unsigned(),
        time_ms: stamp.time_ms,
        actor: stamp.actor,
        salt: stamp.salt,
        ops: &ops,
    })
}

fn op(change: ChangeRef<'_>) -> Op<'_> {
    Op {
        kind: kind(change.kind),
        key: change.key,
        value: change.value.map_or(&[], |value| value),
        previous: change.previous.cast_unsigned(),
        create: change.create_revision.cast_unsigned(),
        version: change.version.cast_unsigned(),
        lease: change.lease.cast_unsigned(),
    }
}

/// What an operation did, in the ledger's terms.
pub(super) fn kind(kind: Kind) -> OpKind {
    match kind {
        Kind::Put => OpKind::Put,
        Kind::Delete => OpKind::Delete,
        Kind::Expire => OpKind::Expire,
    }
}

fn entry_of(applied: &AppliedRevision<'_>) -> Entry {
    with_revision(applied.revision, &applied.stamp, applied.changes(), |it| it.leaf().entry)
}

#[derive(Default)]
struct Progress {
    watermark: i64,
    failed: Option<String>,
}

struct Shared {
    follower: Mutex<Follower>,
    queue: Queue,
    progress: Mutex<Progress>,
    moved: Condvar,
    make_durable: MakeDurable,
    notary: Arc<Notary>,
}

/// The follower of a history, and its thread.
pub(super) struct Following {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Following {
    /// Opens the tiles in `dir`, appends what they miss, and starts the thread.
    pub(super) fn open(
        dir: &Path,
        reader: &Reader,
        make_durable: MakeDurable,
        notary: Arc<Notary>,
    ) -> Result<Self> {
        let mut follower = Follower::new(TileWriter::open(dir)?);
        refuse_tiles_of_another_history(&follower, reader, dir)?;
        catch_up(&mut follower, &make_durable, reader, dir)?;
        let watermark = follower.watermark().cast_signed();
        let shared = Arc::new(Shared {
            follower: Mutex::new(follower),
            queue: Queue::default(),
            progress: Mutex::new(Progress { watermark, failed: None }),
            moved: Condvar::new(),
            make_durable,
            notary,
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || of_thread.work())
            .map_err(Error::io(dir))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Appends what was applied before anybody handed over runs.
    pub(super) fn catch_up(&self, reader: &Reader, dir: &Path) -> Result<()> {
        let mut follower = self.shared.follower.lock();
        catch_up(&mut follower, &self.shared.make_durable, reader, dir)?;
        self.shared.progress.lock().watermark = follower.watermark().cast_signed();
        Ok(())
    }

    /// The last revision that a crash cannot take from the log.
    pub(super) fn synced(&self) -> i64 {
        self.shared.follower.lock().tiles().synced().cast_signed() + 1
    }

    /// Hands over a run; waits while the queue is full.
    pub(super) fn send(&self, applied: Applied) -> Result<()> {
        if applied.is_empty() || self.shared.queue.push(applied) {
            Ok(())
        } else {
            Err(self.cause())
        }
    }

    fn cause(&self) -> Error {
        let failed = self.shared.progress.lock().failed.clone();
        Error::Stopped(failed.unwrap_or_else(|| "the log's thread has ended".to_owned()))
    }

    /// The last revision in the log.
    pub(super) fn watermark(&self) -> i64 {
        self.shared.progress.lock().watermark
    }

    /// Waits until the log has `revision`.
    pub(super) fn wait_for(&self, revision: i64) -> Result<()> {
        let mut progress = self.shared.progress.lock();
        while progress.watermark < revision && progress.failed.is_none() {
            self.shared.queue.hurry();
            self.shared.moved.wait(&mut progress);
        }
        let failed = progress.failed.is_some();
        drop(progress);
        if failed { Err(self.cause()) } else { Ok(()) }
    }

    /// Puts the log on the disk, behind the revisions that it speaks of. The size and root of what is
    /// there now.
    pub(super) fn sync(&self) -> Result<(u64, Hash)> {
        let mut follower = self.shared.follower.lock();
        (self.shared.make_durable)()?;
        follower.sync()?;
        let frontier = follower.tiles().frontier();
        Ok((frontier.size(), frontier.root()))
    }

    /// The tiles, for proofs up to the watermark.
    pub(super) fn tiles(&self) -> TileFiles {
        self.shared.follower.lock().tiles().files()
    }

    /// Ends the thread, once it has hashed what it was given.
    pub(super) fn stop(&self) {
        self.shared.queue.close();
        let panicked = self.thread.lock().take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            // What it missed is caught up with at the next start.
            tracing::error!("the log's thread had panicked");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self) {
        // A panic ends the queue as well, or writers would wait for ever.
        let _ended = CloseOnDrop(&self.queue, &self.progress, &self.moved);
        while let Some(runs) = self.queue.take(self.notary.due()) {
            if let Err(error) = self.follow(&runs) {
                self.progress.lock().failed = Some(format!("the log: {error}"));
                return;
            }
        }
    }

    /// Appends all of these runs; then one write to the files, and a checkpoint if one is due.
    fn follow(&self, runs: &[Applied]) -> Result<()> {
        let revisions = runs.iter().flat_map(Applied::revisions);
        let entries: Vec<_> = revisions.map(|it| entry_of(&it)).collect();
        let mut follower = self.follower.lock();
        entries.iter().try_for_each(|entry| follower.append(entry))?;
        if follower.wants_sync() {
            (self.make_durable)()?;
        }
        let watermark = follower.flush()?.cast_signed();
        let frontier = follower.tiles().frontier().clone();
        drop(follower);
        self.progress.lock().watermark = watermark;
        self.moved.notify_all();
        self.notary.sign_if_due(&frontier, &self.make_durable)
    }
}

struct CloseOnDrop<'a>(&'a Queue, &'a Mutex<Progress>, &'a Condvar);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let mut progress = self.1.lock();
        progress.failed.get_or_insert_with(|| "the log's thread has ended".to_owned());
        drop(progress);
        self.0.close();
        self.2.notify_all();
    }
}

/// Appends the revisions that the tiles lack.
fn catch_up(
    follower: &mut Follower,
    make_durable: &MakeDurable,
    reader: &Reader,
    dir: &Path,
) -> Result<()> {
    loop {
        let logged = follower.watermark();
        let next = logged.cast_signed() + 1;
        if next > reader.current_revision() {
            return Ok(());
        }
        // Hidden by a compaction or not: what the log lacks was not removed, if it was always kept.
        let found = reader.remains(next, CATCH_UP_REVISIONS)?;
        let entries = (next..).zip(&found).map(|(next, remains)| {
            if remains.revision == next { entry_left(remains) } else { None }
        });
        let entries = entries.collect::<Option<Vec<_>>>().filter(|entries| !entries.is_empty());
        let Some(entries) = entries else {
            let compacted = reader.compact_revision();
            return Err(Error::Gap { path: dir.to_owned(), logged, compacted });
        };
        entries.iter().try_for_each(|entry| follower.append(entry))?;
        if follower.wants_sync() {
            make_durable()?;
        }
        follower.flush()?;
    }
}

/// Tiles are declared complete behind the revisions that they hash. More of them means that somebody put
/// an older engine beside them.
fn refuse_tiles_of_another_history(follower: &Follower, reader: &Reader, dir: &Path) -> Result<()> {
    let (logged, revision) = (follower.watermark(), reader.current_revision().cast_unsigned());
    if logged <= revision {
        return Ok(());
    }
    Err(Error::Damaged {
        path: dir.to_owned(),
        what: format!("the history ends at revision {revision}, its log at {logged}"),
        revision: Some(revision + 1),
    })
}
