//! Which methods there are: path, kind, label. A method is an index, so that counters are arrays.

use crate::status::{Code, Status};

/// How many messages go which way; etcd's metrics label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($variant:ident = $service:literal / $name:literal $kind:ident,)*) => {
        /// A method that this server knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method { $($variant,)* }

        impl Method {
            pub(crate) const ALL: &'static [Method] = &[$(Method::$variant,)*];

            /// The method that a request's path names.
            pub(crate) fn of_path(path: &str) -> Result<Method, Status> {
                match path {
                    $(concat!("/", $service, "/", $name) => Ok(Method::$variant),)*
                    _ => Err(unknown(path)),
                }
            }

            pub(crate) fn service(self) -> &'static str {
                match self { $(Method::$variant => $service,)* }
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(Method::$variant => $name,)* }
            }

            pub(crate) fn kind(self) -> Kind {
                match self { $(Method::$variant => Kind::$kind,)* }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" / "Range" Unary,
    Put = "etcdserverpb.KV" / "Put" Unary,
    DeleteRange = "etcdserverpb.KV" / "DeleteRange" Unary,
    Txn = "etcdserverpb.KV" / "Txn" Unary,
    Compact = "etcdserverpb.KV" / "Compact" Unary,
    Watch = "etcdserverpb.Watch" / "Watch" BidiStream,
    LeaseGrant = "etcdserverpb.Lease" / "LeaseGrant" Unary,
    LeaseRevoke = "etcdserverpb.Lease" / "LeaseRevoke" Unary,
    LeaseKeepAlive = "etcdserverpb.Lease" / "LeaseKeepAlive" BidiStream,
    LeaseTimeToLive = "etcdserverpb.Lease" / "LeaseTimeToLive" Unary,
    LeaseLeases = "etcdserverpb.Lease" / "LeaseLeases" Unary,
    MemberAdd = "etcdserverpb.Cluster" / "MemberAdd" Unary,
    MemberRemove = "etcdserverpb.Cluster" / "MemberRemove" Unary,
    MemberUpdate = "etcdserverpb.Cluster" / "MemberUpdate" Unary,
    MemberList = "etcdserverpb.Cluster" / "MemberList" Unary,
    MemberPromote = "etcdserverpb.Cluster" / "MemberPromote" Unary,
    Alarm = "etcdserverpb.Maintenance" / "Alarm" Unary,
    MaintenanceStatus = "etcdserverpb.Maintenance" / "Status" Unary,
    Defragment = "etcdserverpb.Maintenance" / "Defragment" Unary,
    Hash = "etcdserverpb.Maintenance" / "Hash" Unary,
    HashKv = "etcdserverpb.Maintenance" / "HashKV" Unary,
    Snapshot = "etcdserverpb.Maintenance" / "Snapshot" ServerStream,
    MoveLeader = "etcdserverpb.Maintenance" / "MoveLeader" Unary,
    Downgrade = "etcdserverpb.Maintenance" / "Downgrade" Unary,
    AuditQuery = "chronolith.history.v1.Audit" / "Query" Unary,
    AuditCheckpoint = "chronolith.history.v1.Audit" / "AuditCheckpoint" Unary,
    Checkpoint = "chronolith.history.v1.History" / "Checkpoint" Unary,
    Consistency = "chronolith.history.v1.History" / "Consistency" Unary,
    Prove = "chronolith.history.v1.History" / "Prove" Unary,
    KeyHistory = "chronolith.history.v1.History" / "KeyHistory" Unary,
    VerifiedGet = "chronolith.history.v1.History" / "VerifiedGet" Unary,
    VerifiedPut = "chronolith.history.v1.History" / "VerifiedPut" Unary,
    Diff = "chronolith.history.v1.History" / "Diff" Unary,
    RestorePrefix = "chronolith.history.v1.History" / "RestorePrefix" Unary,
    Erase = "chronolith.history.v1.History" / "Erase" Unary,
    HealthCheck = "grpc.health.v1.Health" / "Check" Unary,
}

/// What grpc-go answers to a path it has no method for.
fn unknown(path: &str) -> Status {
    let names = path.strip_prefix('/').and_then(|names| names.rsplit_once('/'));
    let text = match names {
        None => format!("malformed method name: {path:?}"),
        Some((service, name)) if is_service(service) => {
            format!("unknown method {name} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

fn is_service(service: &str) -> bool {
    Method::ALL.iter().any(|method| method.service() == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_methods_and_the_rest_to_the_texts_of_grpc() {
        assert_eq!(Method::of_path("/etcdserverpb.KV/Put"), Ok(Method::Put));
        let text = |path| Method::of_path(path).unwrap_err().message;
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(text("/x.Y/Z"), "unknown service x.Y");
        assert_eq!(text("/nothing"), "malformed method name: \"/nothing\"");
    }

    #[test]
    fn a_method_is_its_own_index() {
        for (index, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, index);
        }
    }
}
