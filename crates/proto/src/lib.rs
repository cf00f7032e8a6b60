//! The wire messages: etcd's v3 API, and our own services beside it.
//!
//! The texts in `proto/` are our own; names and field numbers of etcd's part are its public contract. The Rust
//! code in `src/generated` is made from them by a test (`CHRONOLITH_BLESS=1 cargo test -p
//! chronolith-proto`) and committed, so that a build needs neither protoc nor a build script.
//! Every `bytes` field is a [`bytes::Bytes`]: a value is copied once, off the wire, and shared from
//! there on.
//!
//! Invariant: this crate has no behaviour. It must never know what a message does.

// Generated code keeps the names of the wire contract.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}

// The generated code names its neighbours by the package's own depth.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod chronolith {
    pub mod history {
        pub mod v1 {
            include!("generated/chronolith.history.v1.rs");
        }
    }
}

/// Chronolith's own services, `chronolith.history.v1`: the history that proves itself, and the audit trail.
pub use chronolith::history::v1 as history;
