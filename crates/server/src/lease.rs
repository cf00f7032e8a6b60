//! The keep-alive stream: one answer for each request, in order.

use chronolith_proto::etcdserverpb::LeaseKeepAliveRequest;

use crate::{
    call::{Messages, Reply, frame},
    node::Node,
    status::Status,
};

/// Serves keep-alives until the client is done or the server stops.
pub(crate) async fn keep_alive(
    node: &Node,
    mut messages: Messages<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Status> {
    let trail = messages.trail();
    if let Some(trail) = trail {
        trail.admit_stream()?;
    }
    reply.open()?;
    loop {
        let request = tokio::select! {
            request = messages.next::<LeaseKeepAliveRequest>() => request?,
            () = node.stopping() => return Err(Status::stopped()),
        };
        let Some(request) = request else { return Ok(()) };
        if let Some(trail) = trail {
            trail.count_lease(request.id);
        }
        let response = node.store.lease_keep_alive(request.id).await?;
        reply.send(frame(&response)).await?;
    }
}
