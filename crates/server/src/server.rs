//! Starting and stopping: in which order things come up and go down.
//!
//! ```text
//! up    bind every address ─▶ open the store ─▶ open the audit log ─▶ accept
//! down  stop accepting ─▶ drain: connections say goodbye, streams end, requests finish
//!       ─▶ deadline: close what is left ─▶ store.shutdown: queued writes are synced
//!       ─▶ the audit log: everything is written, signed, synced ─▶ done
//! ```
//! Invariants: an address is bound before `start` returns; a connection holds one permit from
//! before it is accepted until it is closed, so the limit and the end of the drain are one count;
//! the store is shut down after the last request, so an answer that was sent stays true.

use std::{io, net::SocketAddr, sync::Arc};

use chronolith_audit::AuditLog;
use chronolith_store::{OpenError, Store, StoreConfig};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::{
    audit,
    config::{AuditConfig, Config},
    connection,
    node::{Node, Phase},
};

/// Pause after a failed accept: what makes accept fail, like too few file handles, lasts a while.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why a server did not start. All of them are the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The audit log could not be opened.
    #[error(transparent)]
    Audit(#[from] chronolith_audit::Error),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The process could not be set up.
    #[error("{what}: {source}")]
    Process {
        /// What was being set up.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A server that is not running yet.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// use chronolith_server::{Config, Server};
/// let directory = tempfile::tempdir().unwrap();
/// let server = Server::start(Config::new(directory.path().join("data"))).await.unwrap();
/// assert_ne!(server.address().port(), 0);
/// server.shutdown().await;
/// # });
/// ```
#[derive(Debug)]
pub struct Server;

/// A server that accepts clients until it is shut down.
pub struct RunningServer {
    addresses: Vec<SocketAddr>,
    node: Arc<Node>,
    phase: watch::Sender<Phase>,
    acceptors: JoinSet<()>,
    permits: Arc<Semaphore>,
    drain_timeout: Duration,
    audit: Option<AuditConfig>,
}

impl Server {
    /// Opens the store and starts to accept clients.
    pub async fn start(config: Config) -> Result<RunningServer, Error> {
        let listeners = listen(&config.listen).await?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|(address, _)| *address).collect();
        let store = open(&config, &addresses).await?;
        let (phase, phases) = watch::channel(Phase::Running);
        let audit = match open_audit(&config, &store).await {
            Ok(audit) => audit,
            Err(error) => {
                store.shutdown().await;
                return Err(error);
            }
        };
        let node = Arc::new(Node::new(store, audit, &config, phases));
        let permits = Arc::new(Semaphore::new(config.limits.connections_max));
        let mut acceptors = JoinSet::new();
        for (_, listener) in listeners {
            acceptors.spawn(accept(Arc::clone(&node), listener, Arc::clone(&permits)));
        }
        let drain_timeout = config.drain_timeout;
        let audit = config.audit;
        Ok(RunningServer { addresses, node, phase, acceptors, permits, drain_timeout, audit })
    }
}

impl RunningServer {
    /// The first address that clients are listened for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses that clients are listened for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    #[cfg(test)]
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The store behind the server.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.node.store
    }

    /// The audit log, if one is kept.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditLog> {
        self.node.audit.as_ref()
    }

    /// Puts the file of the audit policy in force again; a bad one changes nothing. Reads a file.
    pub fn reload_audit_policy(&self) -> Result<(), Error> {
        match (&self.node.audit, &self.audit) {
            (Some(log), Some(wanted)) => audit::reload(log, wanted),
            _ => Ok(()),
        }
    }

    /// Stops in order: no acknowledged write is lost, and requests under way get their answers as
    /// long as the drain timeout lasts.
    pub async fn shutdown(mut self) {
        self.acceptors.shutdown().await;
        self.phase.send_replace(Phase::Draining);
        let limit = self.node.limits.connections_max;
        let all = u32::try_from(limit).unwrap_or(u32::MAX);
        // Every connection holds a permit, so getting them all means that the last one is closed.
        if timeout(self.drain_timeout, self.permits.acquire_many(all)).await.is_err() {
            let open = limit - self.permits.available_permits();
            tracing::warn!(connections = open, "drain timeout: closing what is still open");
        }
        self.phase.send_replace(Phase::Closed);
        self.node.store.shutdown().await;
        close_audit(&self.node).await;
    }
}

async fn open_audit(config: &Config, store: &Store) -> Result<Option<AuditLog>, Error> {
    let (config, store) = (config.clone(), store.clone());
    // Opening may hash what was written since the last sync of the tile files.
    let opened = tokio::task::spawn_blocking(move || audit::open(&config, &store)).await;
    opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn close_audit(node: &Node) {
    let Some(log) = node.audit.clone() else { return };
    if let Err(panic) = tokio::task::spawn_blocking(move || log.close()).await {
        tracing::error!("closing the audit log panicked: {panic}");
    }
}

async fn listen(addresses: &[SocketAddr]) -> Result<Vec<(SocketAddr, TcpListener)>, Error> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let failed = |source| Error::Listen { address: *address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        listeners.push((listener.local_addr().map_err(failed)?, listener));
    }
    match listeners.is_empty() {
        true => Err(Error::Setting("no address to listen on".to_owned())),
        false => Ok(listeners),
    }
}

async fn open(config: &Config, addresses: &[SocketAddr]) -> Result<Store, Error> {
    let limits = chronolith_store::Limits {
        max_request_bytes: config.limits.request_bytes_max,
        max_response_bytes: config.limits.response_bytes_max,
        max_requests_in_flight: config.limits.requests_in_flight_max,
        quota_backend_bytes: config.limits.quota_bytes,
        reserve_disk_bytes: config.limits.reserve_disk_bytes,
        ..chronolith_store::Limits::default()
    };
    let settings = StoreConfig {
        engine: config.engine,
        verify: config.verify,
        meta_retention_ms: config
            .meta_retention
            .map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)),
        name: config.name.clone(),
        client_urls: addresses.iter().map(|address| format!("http://{address}")).collect(),
        checkpoint_every_entries: config.checkpoint_every_entries,
        limits,
        ..StoreConfig::new(&config.data_dir)
    };
    // Opening reads the checkpoint and the log, which takes as long as there is data.
    let opened = tokio::task::spawn_blocking(move || Store::open(settings)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn accept(node: Arc<Node>, listener: TcpListener, permits: Arc<Semaphore>) {
    loop {
        if permits.available_permits() == 0 {
            node.metrics.connections_waited.add(1);
            tracing::warn!(
                limit = node.limits.connections_max,
                "connection limit reached: new ones wait"
            );
        }
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((socket, _)) => {
                node.metrics.connections_accepted.add(1);
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    connection::serve(node, socket).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
