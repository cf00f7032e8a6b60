//! The thread that turns applied revisions into leaves.
//!
//! ```text
//! writer ─ Applied ─▶ queue (at most QUEUED_RUNS) ─▶ thread: hash ─▶ Follower ─▶ tiles
//!                                                                     └▶ watermark ─▶ who waits
//! ```
//! The queue is in revision order because the writer sends while it holds its lock. A full queue makes
//! the writer wait: no revision is ever skipped. What the thread had not reached when the program ended
//! is read from the store at the next start.

use super::{Error, Result};
use chronolith_engine::{ColumnId, Engine};
use chronolith_ledger::{Follower, Hash, Op, OpKind, Revision, SALT_BYTES, TileFiles, TileWriter};
use chronolith_mvcc::{Change, Kind, Reader, Revised, Run, Stamp};
use parking_lot::{Condvar, Mutex};
use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Engine column of the revisions' salts, by revision.
pub(super) const SALTS: &str = "ledger";
/// Runs that wait to be hashed: so much memory may be held by values that are applied already.
const QUEUED_RUNS: usize = 64;
/// Revisions read at once when the log catches up.
pub(super) const CATCH_UP_REVISIONS: usize = 256;

/// Revisions as they were applied, with their salt.
pub(super) struct Applied {
    pub(super) revision: i64,
    pub(super) stamp: Stamp,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) changes: Vec<Change>,
}

impl Applied {
    /// The one revision of a run.
    pub(super) fn of(run: &Run<'_>, stamp: Stamp, salt: [u8; SALT_BYTES]) -> Self {
        let stamp = Stamp { time_ms: run.time_ms(), ..stamp };
        Self { revision: run.revision(), stamp, salt, changes: run.changes().collect() }
    }

    /// A revision read from the store.
    pub(super) fn read(revised: Revised, salt: [u8; SALT_BYTES]) -> Self {
        let Revised { revision, stamp, changes } = revised;
        Self { revision, stamp, salt, changes }
    }

    /// Calls `use_it` with the revision as the ledger sees it.
    pub(super) fn with<T>(&self, use_it: impl FnOnce(Revision<'_>) -> T) -> T {
        let ops: Vec<_> = self.changes.iter().map(op).collect();
        use_it(Revision {
            revision: self.revision.cast_unsigned(),
            time_ms: self.stamp.time_ms,
            actor: self.stamp.actor,
            salt: self.salt,
            ops: &ops,
        })
    }

    pub(super) fn leaf_hash(&self) -> Hash {
        self.with(|revision| revision.leaf_hash())
    }
}

fn op(change: &Change) -> Op<'_> {
    let previous = change.previous.cast_unsigned();
    let (key, kind) = (&change.key[..], OpKind::Delete);
    let removal = Op { kind, key, value: &[], previous, create: 0, version: 0, lease: 0 };
    change.put.as_ref().map_or(removal, |put| Op {
        kind: OpKind::Put,
        value: &put.value,
        create: put.create_revision.cast_unsigned(),
        version: put.version.cast_unsigned(),
        lease: put.lease.cast_unsigned(),
        ..removal
    })
}

/// Whether every value of a revision is still there, so that its leaf can be computed again.
pub(super) fn is_whole(revised: &Revised) -> bool {
    revised.changes.iter().all(|change| change.kind == Kind::Delete || change.put.is_some())
}

/// The salt of a revision.
pub(super) fn salt(
    engine: &dyn Engine,
    column: ColumnId,
    revision: i64,
) -> Result<[u8; SALT_BYTES]> {
    let bytes = engine.get(column, &revision.to_be_bytes())?;
    let salt = bytes.and_then(|bytes| bytes[..].try_into().ok());
    let missing = chronolith_ledger::Error::Mismatch {
        what: "salt of the revision (it is missing, or damaged), which",
        revision: Some(revision.cast_unsigned()),
    };
    Ok(salt.ok_or(missing)?)
}

#[derive(Default)]
struct Progress {
    watermark: i64,
    failed: Option<String>,
}

struct Shared {
    follower: Mutex<Follower>,
    progress: Mutex<Progress>,
    moved: Condvar,
}

/// The follower of a database, and its thread.
pub(super) struct Following {
    pub(super) salts: ColumnId,
    shared: Arc<Shared>,
    queue: Option<SyncSender<Applied>>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Opens the tiles, appends what they miss, and starts the thread.
    pub(super) fn open(dir: &Path, engine: &Arc<dyn Engine>, reader: &Reader) -> Result<Self> {
        let salts = engine.column(SALTS)?;
        let dir = dir.join("tlog");
        let mut follower = Follower::new(TileWriter::open(&dir)?);
        refuse_tiles_of_another_history(&follower, reader, &dir)?;
        catch_up(&mut follower, &**engine, salts, reader)?;
        let watermark = follower.watermark().cast_signed();
        let progress = Mutex::new(Progress { watermark, failed: None });
        let shared =
            Arc::new(Shared { follower: Mutex::new(follower), progress, moved: Condvar::new() });
        let (queue, runs) = sync_channel(QUEUED_RUNS);
        let (of_thread, flushed) = (Arc::clone(&shared), Arc::clone(engine));
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || of_thread.work(&runs, &*flushed))
            .map_err(Error::io(&dir))?;
        Ok(Self { salts, shared, queue: Some(queue), thread: Some(thread) })
    }

    /// Hands over a run; waits while the queue is full.
    pub(super) fn send(&self, applied: Applied) -> Result<()> {
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(applied).is_ok());
        if sent { Ok(()) } else { Err(self.cause()) }
    }

    fn cause(&self) -> Error {
        let failed = self.shared.progress.lock().failed.clone();
        Error::Stopped(failed.unwrap_or_else(|| "the log's thread has ended".to_owned()))
    }

    /// Waits until the log has `revision`.
    pub(super) fn wait_for(&self, revision: i64) -> Result<()> {
        let mut progress = self.shared.progress.lock();
        while progress.watermark < revision && progress.failed.is_none() {
            self.shared.moved.wait(&mut progress);
        }
        let failed = progress.failed.is_some();
        drop(progress);
        if failed { Err(self.cause()) } else { Ok(()) }
    }

    /// Puts the log on the disk, behind the revisions that it speaks of. The size and root of what is
    /// there now.
    pub(super) fn sync(&self, engine: &dyn Engine) -> Result<(u64, Hash)> {
        let mut follower = self.shared.follower.lock();
        engine.flush()?;
        follower.sync()?;
        let frontier = follower.tiles().frontier();
        Ok((frontier.size(), frontier.root()))
    }

    /// The tiles, for proofs up to the watermark.
    pub(super) fn tiles(&self) -> TileFiles {
        self.shared.follower.lock().tiles().files()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.queue.take();
        // A thread that panicked has nothing left to say; what it missed is caught up with at the start.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn work(&self, runs: &Receiver<Applied>, engine: &dyn Engine) {
        while let Ok(applied) = runs.recv() {
            if let Err(error) = self.follow(&applied, runs, engine) {
                self.progress.lock().failed = Some(format!("the log: {error}"));
                self.moved.notify_all();
                return;
            }
        }
    }

    /// Takes one run and all that queued up behind it; then one write to the files.
    fn follow(
        &self,
        applied: &Applied,
        runs: &Receiver<Applied>,
        engine: &dyn Engine,
    ) -> Result<()> {
        let mut leaves = vec![(applied.revision, applied.leaf_hash())];
        leaves.extend(
            runs.try_iter().take(QUEUED_RUNS).map(|next| (next.revision, next.leaf_hash())),
        );
        let mut follower = self.follower.lock();
        for (revision, leaf) in leaves {
            follower.append(revision.cast_unsigned(), leaf)?;
        }
        if follower.wants_sync() {
            engine.flush()?;
        }
        let watermark = follower.flush()?.cast_signed();
        drop(follower);
        self.progress.lock().watermark = watermark;
        self.moved.notify_all();
        Ok(())
    }
}

fn catch_up(
    follower: &mut Follower,
    engine: &dyn Engine,
    salts: ColumnId,
    reader: &Reader,
) -> Result<()> {
    loop {
        let next = follower.watermark().cast_signed() + 1;
        if next > reader.current_revision() {
            return Ok(());
        }
        for revised in reader.changes(next, CATCH_UP_REVISIONS)? {
            let salt = salt(engine, salts, revised.revision)?;
            let applied = Applied::read(revised, salt);
            follower.append(applied.revision.cast_unsigned(), applied.leaf_hash())?;
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
