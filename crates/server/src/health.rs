//! gRPC's own health service, `grpc.health.v1.Health/Check`.
//!
//! etcd knows the whole server ("") only, and so does this one.

use bytes::Bytes;
use prost::Message;

use crate::{
    call::{Messages, frame},
    node::Node,
    status::{Code, Status},
};

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

pub(crate) async fn check(node: &Node, messages: Messages<'_>) -> Result<Bytes, Status> {
    let request: HealthCheckRequest = messages.only().await?;
    if !request.service.is_empty() {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    let serves = !node.is_stopping() && node.store.health().is_ok();
    let status = if serves { SERVING } else { NOT_SERVING };
    Ok(frame(&HealthCheckResponse { status }))
}
