//! Tests only: clients that others wrote use a node as they would use etcd.
//!
//! `cargo test -p chronolith-conformance`; needs protoc, see the manifest.
