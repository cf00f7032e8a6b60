//! Reading the audit trail over the wire: off the I/O threads, a few at a time.

use bytes::Bytes;
use chronolith_audit::{AuditLog, Query};
use chronolith_ledger::{Checkpoint, SignedNote};
use chronolith_proto::history::{
    AuditCheckpointRequest, AuditCheckpointResponse, AuditQueryRequest, AuditQueryResponse,
};
use tokio::sync::Semaphore;

use crate::{
    node::Node,
    status::{Code, Status},
};

/// Reads of the trail that run at once: each scans up to 64 MiB of files; the others wait.
const READERS_MAX: usize = 4;

/// Who may read the trail at the moment.
pub(crate) struct Readers(Semaphore);

impl Default for Readers {
    fn default() -> Self {
        Self(Semaphore::new(READERS_MAX))
    }
}

pub(crate) async fn query(
    node: &Node,
    request: AuditQueryRequest,
) -> Result<AuditQueryResponse, Status> {
    let limit = usize::try_from(request.limit)
        .map_err(|_| Status::new(Code::InvalidArgument, "chronolith: a limit is not negative"))?;
    let wanted = Query {
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        user: request.user,
        key_prefix: request.key_prefix.to_vec(),
        call: request.call,
        only_failed: request.only_failed,
        limit,
        after_sequence: request.after_sequence,
    };
    let page = read(node, move |log| log.query(&wanted)).await?;
    Ok(AuditQueryResponse {
        events: page.events,
        last_sequence: page.last_sequence,
        more: page.more,
    })
}

pub(crate) async fn checkpoint(
    node: &Node,
    request: AuditCheckpointRequest,
) -> Result<AuditCheckpointResponse, Status> {
    let pinned_size = request.pinned_size;
    let (note, verifier_key, proof) = read(node, move |log| {
        let note = log.checkpoint()?;
        let size = Checkpoint::parse(SignedNote::parse(note.as_bytes())?.text())?.size;
        // A pin that is larger than the log contradicts it: the client sees that by itself.
        let proof = log.consistency(pinned_size.min(size), size)?;
        Ok((note, log.verifier_key().to_string(), proof))
    })
    .await?;
    let consistency = proof.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect();
    Ok(AuditCheckpointResponse { note, verifier_key, consistency })
}

async fn read<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&AuditLog) -> chronolith_audit::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let Some(log) = node.audit.clone() else {
        return Err(Status::new(
            Code::FailedPrecondition,
            "chronolith: this server keeps no audit trail: serve with --audit on",
        ));
    };
    let _turn = node.audit_readers.0.acquire().await;
    let failed = |text: String| Status::new(Code::Internal, format!("chronolith: {text}"));
    let done = tokio::task::spawn_blocking(move || work(&log)).await;
    let done = done.map_err(|panic| failed(panic.to_string()))?;
    done.map_err(|error| failed(error.to_string()))
}
