//! Opening: from a directory to a store that serves.
//!
//! ```text
//! lock, identity ─▶ engine (newest checkpoint that is whole) ─▶ versions, leases, alarms ─▶ log: replay
//! ```

#[cfg(not(feature = "rocksdb"))]
use crate::EngineKind;
use crate::{
    StoreConfig,
    admission::Admission,
    checkpoints::{Checkpoints, Restored},
    command::Envelopes,
    directory::Directory,
    error::OpenError,
    machine::{Columns, Machine},
    proposer::Proposer,
    sequencer::RaftHandle,
    shared::Shared,
    store::{Inner, Running, Store},
    upkeep::UpkeepThread,
};
use chronolith_engine::Engine;
use chronolith_mvcc::Mvcc;
use parking_lot::Mutex;
use std::sync::Arc;

impl Store {
    /// Opens the store in a directory, and replays what its log holds beyond the engine.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        #[cfg(not(feature = "rocksdb"))]
        if config.engine == EngineKind::RocksDb {
            return Err(OpenError::EngineNotBuilt(config.engine.name()));
        }
        let directory = Directory::open(&config)?;
        let identity = directory.identity().clone();
        let Restored { engine, .. } = Checkpoints::open(directory.checkpoints())?.restore()?;
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let mvcc = Mvcc::open(Arc::clone(&engine))?;
        let (reader, mvcc) = (mvcc.reader(), Arc::new(Mutex::new(mvcc)));
        let shared = Arc::new(Shared::default());
        let machine = Machine::open(Arc::clone(&engine), Arc::clone(&mvcc), Arc::clone(&shared))?;
        let raft = RaftHandle::start(identity.member_id, machine).map_err(Box::new)?;
        let envelopes = Envelopes::new(identity.member_id, identity.starts);
        let proposer = Arc::new(Proposer::new(raft, envelopes));
        shared.raise_term(proposer.status().term);
        let upkeep = UpkeepThread {
            shared: Arc::clone(&shared),
            mvcc: Arc::clone(&mvcc),
            proposer: Arc::clone(&proposer),
        };
        let upkeep = upkeep.start().map_err(crate::directory::io_error(&config.data_dir))?;
        Ok(Self::new(Inner {
            identity,
            limits: config.limits.clone(),
            name: config.name,
            peer_urls: config.peer_urls,
            client_urls: Mutex::new(config.client_urls),
            columns: Columns::open(&*engine)?,
            engine,
            reader,
            shared,
            proposer,
            admission: Admission::new(config.limits.max_requests_in_flight),
            running: Mutex::new(Some(Running { upkeep, directory })),
        }))
    }
}
