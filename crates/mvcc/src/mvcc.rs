//! The store itself: opening it, and handing out its writer and readers.

use crate::{
    Commitment, Reader, Result, Retention, Run, core::Core, scrub::Scrub, watch::WatchHub,
};
use bytes::Bytes;
use chronolith_engine::Engine;
use std::sync::Arc;

/// When a command was proposed, by whom, and its salt; recorded with its revision. It comes in with
/// the command: applying reads no clock and draws nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Milliseconds since 1970, by the proposer's clock.
    pub time_ms: u64,
    /// Who: an id that the caller gives a meaning.
    pub actor: [u8; 16],
    /// Random: what commits to the revision's values is salted with it, so that nobody can guess them.
    pub salt: [u8; 16],
}

/// Who keeps the leases: asked whether one exists, told which keys move between them.
pub trait Leases {
    /// Whether lease `id` exists.
    fn contains(&self, id: i64) -> bool;
    /// `key` is now attached to lease `to` instead of `from`; 0 is none. Told once a command has
    /// succeeded, in the order of its changes.
    fn moved(&mut self, key: &Bytes, from: i64, to: i64);
}

/// Versioned keys over an engine. One writer, by type: a [`Run`] borrows it.
///
/// ```
/// use chronolith_engine::{Durability, MemoryEngine};
/// use chronolith_mvcc::{Leases, Mvcc, Stamp};
/// use chronolith_proto::etcdserverpb::{PutRequest, RangeRequest};
/// use std::sync::Arc;
///
/// struct NoLeases;
/// impl Leases for NoLeases {
///     fn contains(&self, _: i64) -> bool { false }
///     fn moved(&mut self, _: &bytes::Bytes, _: i64, _: i64) {}
/// }
///
/// let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new()))?;
/// let mut run = mvcc.begin_run()?;
/// let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
/// run.put(&put, &mut NoLeases, &Stamp::default())?;
/// assert_eq!(run.revision(), 2);
/// run.commit(Durability::Buffered)?;
///
/// let get = RangeRequest { key: "k".into(), ..Default::default() };
/// let found = mvcc.reader().range(&get)?;
/// assert_eq!((found.revision, found.count, &found.kvs[0].value[..]), (2, 1, &b"v"[..]));
/// # Ok::<(), chronolith_mvcc::Error>(())
/// ```
pub struct Mvcc {
    pub(crate) core: Arc<Core>,
    pub(crate) hub: Arc<WatchHub>,
    /// Time of the newest revision; the next one's is not smaller.
    pub(crate) time_ms: u64,
    pub(crate) scrub: Scrub,
    pub(crate) commitment: Option<Arc<dyn Commitment>>,
    pub(crate) retention: Retention,
}

impl Mvcc {
    /// Opens what `engine` holds, or begins at revision 1.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Self> {
        let (core, time_ms) = Core::open(engine)?;
        let core = Arc::new(core);
        let hub = Arc::new(WatchHub::new(Arc::clone(&core)));
        Ok(Self {
            core,
            hub,
            time_ms,
            scrub: Scrub::default(),
            commitment: None,
            retention: Retention::Nothing,
        })
    }

    /// Lets compaction and erasure leave what a log outside needs. Every replica needs the same
    /// commitment; how much compaction leaves is its own affair.
    #[must_use]
    pub fn committed_by(mut self, commitment: Arc<dyn Commitment>, retention: Retention) -> Self {
        self.commitment = Some(commitment);
        self.retention = retention;
        self
    }

    /// A reader; any number of them work beside the writer.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { core: Arc::clone(&self.core), hub: Arc::clone(&self.hub) }
    }

    /// Begins a run of commands that will be one engine batch.
    pub fn begin_run(&mut self) -> Result<Run<'_>> {
        Run::new(self)
    }
}
