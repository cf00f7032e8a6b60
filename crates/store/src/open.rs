//! Opening: from a directory to a store that serves.
//!
//! ```text
//! lock, identity ─▶ engine (newest checkpoint that is whole) ─▶ versions, leases, alarms ─▶ log: replay
//!                                                            ─▶ history: catch up, follow
//! ```
//! What is missing or damaged is refused with a way out; nothing is begun anew in silence.

use crate::{
    EngineKind, StoreConfig, Verify,
    admission::Admission,
    checkpoints::{Checkpoints, Damaged, Restored},
    command::Envelopes,
    directory::{Directory, io_error},
    error::OpenError,
    figures::{NoPeers, Timed},
    history::{Cadence, History, LedgerCommitment, MakeDurable, signing_key},
    machine::{Columns, Follows, Machine, Outcome, storage::Storage},
    proposer::Proposer,
    reads::LARGE_READS_MAX,
    reserve::{FileSystemOf, Reserve},
    shared::Shared,
    space::Space,
    store::{Inner, Running, Store},
    upkeep::UpkeepThread,
};
use chronolith_engine::Engine;
#[cfg(feature = "rocksdb")]
use chronolith_engine::RocksEngine;
use chronolith_mvcc::{Mvcc, Reader, Retention};
use chronolith_raft::{RaftConfig, RaftHandle, RaftNode};
use parking_lot::Mutex;
use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::Semaphore;

impl Store {
    /// Opens the store in a directory, and replays what its log holds beyond the engine.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        if config.engine == EngineKind::RocksDb && !cfg!(feature = "rocksdb") {
            return Err(OpenError::EngineNotBuilt(config.engine.name()));
        }
        let mut directory = Directory::open(&config)?;
        let identity = directory.identity().clone();
        let disk = config.disk.clone();
        let disk = disk.unwrap_or_else(|| Arc::new(FileSystemOf(config.data_dir.clone())));
        let reserve = Reserve::new(disk, config.limits.reserve_disk_bytes)
            .map_err(io_error(&config.data_dir))?;
        let Opened { engine, storage, damaged } = open_engine(&config, &directory)?;
        // Hashes and no more: what a removed value's key, time and version were would be kept in memory
        // by the memory engine.
        let retention = match config.verify {
            Verify::Off => Retention::Nothing,
            Verify::Async => config
                .meta_retention_ms
                .map_or(Retention::Hashes, |keep_ms| Retention::Meta { keep_ms }),
        };
        let mvcc =
            Mvcc::open(Arc::clone(&engine))?.committed_by(Arc::new(LedgerCommitment), retention);
        let (reader, mvcc) = (mvcc.reader(), Arc::new(Mutex::new(mvcc)));
        let shared = Arc::<Shared>::default();
        let columns = Columns::open(&*engine)?;
        let follows = Follows::default();
        let machine = Machine::open(
            Arc::clone(&engine),
            Arc::clone(&mvcc),
            Arc::clone(&shared),
            storage.clone(),
            Arc::clone(&follows),
        )?;
        let raft = start_raft(&config, &directory, machine, &damaged, &shared)?;
        directory.log_has_begun()?;
        storage.set_aside(&damaged)?;
        let history = match config.verify {
            Verify::Off => None,
            Verify::Async => Some(open_history(&directory, &mvcc, reader.clone(), &follows)?),
        };
        let envelopes = Envelopes::new(identity.member_id, identity.starts);
        let proposer = Arc::new(Proposer::new(raft, envelopes));
        shared.raise_term(proposer.status().term);
        // Terms of the replay were not seen to begin; the one that this start began was.
        shared.leader_changes.store(1, Ordering::Relaxed);
        // The replay granted leases as if they were new: they have what was last on record.
        shared.restart_clock(Instant::now());
        let upkeep = UpkeepThread {
            shared: Arc::clone(&shared),
            mvcc,
            proposer: Arc::clone(&proposer),
            history: history.clone(),
        };
        let upkeep = upkeep.start().map_err(io_error(&config.data_dir))?;
        Ok(Self::new(Inner {
            identity,
            limits: config.limits.clone(),
            name: config.name,
            peer_urls: config.peer_urls,
            client_urls: Mutex::new(config.client_urls),
            columns,
            engine,
            reader,
            shared,
            proposer,
            history,
            admission: Admission::new(config.limits.max_requests_in_flight),
            large_reads: Arc::new(Semaphore::new(LARGE_READS_MAX)),
            space: Space::new(config.limits.quota_backend_bytes),
            reserve,
            running: Mutex::new(Some(Running { upkeep, directory })),
        }))
    }
}

/// Opens the log that proves the history, behind the replay: what the replay applied is in the revision
/// log, and the follower reads it there.
fn open_history(
    directory: &Directory,
    mvcc: &Mutex<Mvcc>,
    reader: Reader,
    follows: &Follows,
) -> Result<History, OpenError> {
    let dir = directory.ledger();
    fs::create_dir_all(&dir).map_err(io_error(&dir))?;
    let cluster = directory.identity().cluster_id;
    let key = signing_key(&dir, || format!("{cluster:016x}/main"))?;
    // What is applied is in the Raft log, and that is on the disk: nothing is left to be made durable.
    let make_durable: MakeDurable = Box::new(|| Ok(()));
    let history = History::open(&dir, key, reader, make_durable, Some(Cadence::SERVED))?;
    // Whatever was applied since is in the log before the next run is.
    let _writer = mvcc.lock();
    history.catch_up()?;
    follows.set(history.clone()).unwrap_or_else(|_| unreachable!("a store opens one history"));
    Ok(history)
}

fn start_raft(
    config: &StoreConfig,
    directory: &Directory,
    machine: Machine,
    damaged: &[Damaged],
    shared: &Shared,
) -> Result<RaftHandle<Outcome>, OpenError> {
    let member = directory.identity().member_id;
    let raft = RaftConfig {
        checkpoint_every_entries: config.checkpoint_every_entries,
        ..RaftConfig::new(member, vec![member], directory.log())
    };
    let syncs = Arc::clone(&shared.wal_syncs);
    let disk = chronolith_raft::Directory::open(&raft.log_dir, raft.sync_mode);
    let disk = Timed { disk: disk.map_err(io_error(&raft.log_dir))?, syncs };
    RaftNode::start_on(raft, machine, NoPeers, Arc::new(disk)).map_err(|error| {
        match (&error, damaged.first()) {
            (chronolith_raft::Error::Mismatch(_), Some(newest)) => OpenError::NoUsableCheckpoint {
                path: directory.checkpoints(),
                what: newest.what.clone(),
            },
            _ => error.into(),
        }
    })
}

/// An engine with the state that it has without the log.
struct Opened {
    engine: Arc<dyn Engine>,
    storage: Storage,
    damaged: Vec<Damaged>,
}

fn open_engine(config: &StoreConfig, directory: &Directory) -> Result<Opened, OpenError> {
    match config.engine {
        EngineKind::Memory => {
            let checkpoints = Checkpoints::open(directory.checkpoints())?;
            let Restored { engine, damaged } = checkpoints.restore()?;
            let storage = Storage::Checkpoints(checkpoints);
            Ok(Opened { engine: Arc::new(engine), storage, damaged })
        }
        #[cfg(feature = "rocksdb")]
        EngineKind::RocksDb => {
            let engine = Arc::new(RocksEngine::open(directory.engine(), &config.profile)?);
            Ok(Opened { engine, storage: Storage::Engine, damaged: Vec::new() })
        }
        #[cfg(not(feature = "rocksdb"))]
        EngineKind::RocksDb => Err(OpenError::EngineNotBuilt(config.engine.name())),
    }
}
