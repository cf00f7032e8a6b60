//! What every connection shares: the store, the limits, the counters and the server's phase.

use chronolith_audit::AuditLog;
use chronolith_store::Store;
use tokio::sync::watch;

use crate::{
    audit::Readers,
    call::ReceiveBudget,
    config::{Config, Limits},
    history::Desk,
    metrics::{Entered, Metrics},
    status::{Code, Status},
};

/// How far the server is on its way from start to end; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// No new connections or streams; requests finish.
    Draining,
    /// Whatever is still open is dropped.
    Closed,
}

pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) watch_progress_interval: std::time::Duration,
    pub(crate) metrics: Metrics,
    pub(crate) received: ReceiveBudget,
    /// Who did what; none with `--audit off`.
    pub(crate) audit: Option<AuditLog>,
    pub(crate) audit_readers: Readers,
    pub(crate) desk: Desk,
    phase: watch::Receiver<Phase>,
}

impl Node {
    pub(crate) fn new(
        store: Store,
        audit: Option<AuditLog>,
        config: &Config,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Node {
            store,
            limits: config.limits.clone(),
            watch_progress_interval: config.watch_progress_interval,
            metrics: Metrics::default(),
            received: ReceiveBudget::new(config.limits.receive_bytes_max),
            audit,
            audit_readers: Readers::default(),
            desk: Desk::default(),
            phase,
        }
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// Resolves when streams should end because the server stops.
    pub(crate) async fn stopping(&self) {
        let mut phases = self.phases();
        // An error means that the server itself is gone, which is stopping too.
        let _ = phases.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Counts a unary request in, or says that there are too many.
    pub(crate) fn admit(&self) -> Result<Entered<'_>, Status> {
        let entered = self.metrics.requests_in_flight.enter();
        let limit = self.limits.requests_in_flight_max;
        if self.metrics.requests_in_flight.get() <= limit as u64 {
            return Ok(entered);
        }
        self.metrics.requests_refused.add(1);
        let text = format!(
            "chronolith: too many requests in flight (limit {limit}, --max-requests-in-flight)"
        );
        Err(Status::new(Code::ResourceExhausted, text))
    }
}
