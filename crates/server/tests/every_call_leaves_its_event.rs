//! Who did what, and what came of it: one event a call, for each kind of call.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_audit::{AuditLog, Class, Event, Outcome, Query, hex, own};
use chronolith_ledger::actor_reference;
use chronolith_proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, DefragmentRequest, DeleteRangeRequest, LeaseGrantRequest,
        LeaseKeepAliveRequest, LeaseRevokeRequest, MemberAddRequest, PutRequest, RequestOp,
        SnapshotRequest, TxnRequest, WatchCancelRequest, cluster_client::ClusterClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient, request_op::Request,
        watch_request::RequestUnion,
    },
    history::{AuditCheckpointRequest, AuditQueryRequest, audit_client::AuditClient},
};
use chronolith_server::{AuditConfig, FailMode};
use common::{Node, PATIENCE, get, prefix, put};
use std::{fs, time::Duration};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

async fn audited(change: impl FnOnce(&mut AuditConfig)) -> Node {
    Node::start_with(|config| {
        let mut audit = AuditConfig::default();
        change(&mut audit);
        config.audit = Some(audit);
    })
    .await
}

fn log(node: &Node) -> AuditLog {
    node.server.audit().unwrap().clone()
}

async fn events(node: &Node) -> Vec<Event> {
    let log = log(node);
    let found = tokio::task::spawn_blocking(move || log.query(&Query::default())).await.unwrap();
    found.unwrap().events.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The only event of a call.
async fn event(node: &Node, call: &str) -> Event {
    let mut found: Vec<_> =
        events(node).await.into_iter().filter(|event| event.call == call).collect();
    assert_eq!(found.len(), 1, "{call}: {found:?}");
    found.remove(0)
}

fn everything(directory: &std::path::Path) -> std::path::PathBuf {
    let path = directory.join("all.json");
    fs::write(&path, r#"{"rules": [{"level": "metadata"}]}"#).unwrap();
    path
}

#[tokio::test]
async fn a_put_tells_who_when_what_and_what_came_of_it() {
    let node = audited(|_| {}).await;
    let mut kv = node.kv().await;
    let mut request = tonic::Request::new(PutRequest { lease: 0, ..put("app/key", "value") });
    request.metadata_mut().insert("x-request-id", "order-66".parse().unwrap());
    let answer = kv.put(request).await.unwrap().into_inner();
    let revision = answer.header.unwrap().revision;
    let event = event(&node, "Put").await;
    assert_eq!((event.class, event.outcome), (Class::Write, Outcome::Ok));
    assert_eq!((event.key.as_str(), event.request_id.as_str()), ("app/key", "order-66"));
    assert_eq!((event.prev_revision, event.revision), (Some(revision - 1), Some(revision)));
    assert!(event.address.starts_with("127.0.0.1:"), "{}", event.address);
    assert!(event.user_agent.contains("tonic"), "{}", event.user_agent);
    assert!(event.time_ms > 1_700_000_000_000 && event.latency_us.unwrap() > 0);
    assert_eq!(event.size_bytes, Some(16));
    assert!(!event.member.is_empty());
    // The data log's entry names the same actor, and the event says who that is.
    let actor = actor_reference(log(&node).salt(), "", &event.address, &event.request_id);
    assert_eq!(event.actor, hex(&actor));
    let history = node.server.store().history().unwrap().clone();
    let version =
        tokio::task::spawn_blocking(move || history.versions(b"app/key", 0, i64::MAX, 10));
    let version = version.await.unwrap().unwrap().remove(0);
    assert_eq!(version.stamp.unwrap().actor, actor);
}

#[tokio::test]
async fn each_class_of_call_is_told() {
    let home = tempfile::tempdir().unwrap();
    let node = audited(|audit| audit.policy_file = Some(everything(home.path()))).await;
    let mut kv = node.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    kv.range(get("a")).await.unwrap();
    let delete =
        DeleteRangeRequest { key: "a".into(), range_end: "c".into(), ..Default::default() };
    kv.delete_range(delete).await.unwrap();
    let op = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("b", "2"))),
            op(Request::RequestDeleteRange(DeleteRangeRequest {
                key: "x".into(),
                range_end: "z".into(),
                ..Default::default()
            })),
        ],
        ..Default::default()
    };
    kv.txn(txn).await.unwrap();
    kv.compact(CompactionRequest { revision: 2, physical: false }).await.unwrap();
    let mut lease = LeaseClient::new(node.channel().await);
    let id = lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap().into_inner().id;
    let (asks, requests) = tokio::sync::mpsc::unbounded_channel();
    let mut kept =
        lease.lease_keep_alive(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
    for _ in 0..3 {
        asks.send(LeaseKeepAliveRequest { id }).unwrap();
        kept.message().await.unwrap().unwrap();
    }
    drop(asks);
    assert!(kept.message().await.unwrap().is_none());
    lease.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
    let mut watch = node.watch().await;
    let watch_id = watch.create(prefix("w/")).await.watch_id;
    watch.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    assert!(watch.next().await.canceled);
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    maintenance.alarm(AlarmRequest { action: 2, alarm: 1, member_id: 0 }).await.unwrap();
    maintenance.snapshot(SnapshotRequest {}).await.unwrap_err();
    let mut cluster = ClusterClient::new(node.channel().await);
    cluster.member_add(MemberAddRequest::default()).await.unwrap_err();

    for (call, class, outcome) in [
        ("Put", Class::Write, Outcome::Ok),
        ("Range", Class::Read, Outcome::Ok),
        ("DeleteRange", Class::Write, Outcome::Ok),
        ("Txn", Class::Write, Outcome::Ok),
        ("Compact", Class::Admin, Outcome::Ok),
        ("LeaseGrant", Class::Lease, Outcome::Ok),
        ("LeaseKeepAlive", Class::Lease, Outcome::Ok),
        ("LeaseRevoke", Class::Lease, Outcome::Ok),
        ("Watch", Class::Watch, Outcome::Ok),
        ("WatchCancel", Class::Watch, Outcome::Ok),
        ("Defragment", Class::Admin, Outcome::Ok),
        ("Alarm", Class::Admin, Outcome::Ok),
        ("Snapshot", Class::Admin, Outcome::Denied),
        ("MemberAdd", Class::Admin, Outcome::Denied),
    ] {
        let event = event(&node, call).await;
        assert_eq!((event.class, event.outcome), (class, outcome), "{event:?}");
        assert_eq!(event.code.is_empty(), outcome == Outcome::Ok, "{event:?}");
    }
    let deleted = event(&node, "DeleteRange").await;
    assert_eq!((deleted.key.as_str(), deleted.range_end.as_str()), ("a", "c"));
    let txn = event(&node, "Txn").await;
    assert_eq!((txn.ops, txn.succeeded, txn.targets.len()), (Some(2), Some(true), 2));
    assert!(txn.touches(b"b") && !txn.touches(b"c"));
    assert_eq!(event(&node, "Compact").await.reason, "up to revision 2");
    let kept = event(&node, "LeaseKeepAlive").await;
    assert_eq!((kept.ops, kept.lease), (Some(3), Some(id)));
    assert_eq!(event(&node, "LeaseGrant").await.lease, Some(id));
    let watched = event(&node, "Watch").await;
    assert_eq!((watched.key.as_str(), watched.range_end.as_str()), ("w/", "w0"));
}

#[tokio::test]
async fn the_default_tells_of_writes_and_refusals_and_not_of_reads() {
    let node = audited(|_| {}).await;
    let mut kv = node.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    kv.range(get("a")).await.unwrap();
    node.watch().await.create(prefix("a")).await;
    let future = chronolith_proto::etcdserverpb::RangeRequest { revision: 99, ..get("secret") };
    kv.range(future).await.unwrap_err();
    let calls: Vec<_> = events(&node).await.into_iter().map(|event| event.call).collect();
    assert_eq!(calls, [own::SEGMENT, own::START, own::CONFIG, "Put", "Range"]);
    let refused = event(&node, "Range").await;
    assert_eq!((refused.outcome, refused.key.as_str()), (Outcome::Denied, "secret"));
    assert_eq!(refused.code, "OutOfRange");
    assert_eq!(refused.error, "etcdserver: mvcc: required revision is a future revision");
}

#[tokio::test]
async fn whatever_is_refused_is_told() {
    let node = Node::start_with(|config| {
        config.audit = Some(AuditConfig::default());
        config.limits.request_bytes_max = 1024;
    })
    .await;
    let mut kv = node.kv().await;
    kv.put(put("", "no key")).await.unwrap_err();
    kv.put(put("large", &"x".repeat(2000))).await.unwrap_err();
    // A method that there is not.
    let channel = node.channel().await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/etcdserverpb.KV/Nope".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<PutRequest, PutRequest>::default();
    grpc.unary(tonic::Request::new(put("k", "v")), path, codec).await.unwrap_err();
    let told: Vec<_> = events(&node)
        .await
        .into_iter()
        .filter(|event| event.outcome == Outcome::Denied)
        .map(|event| (event.call.into_owned(), event.key, event.code.into_owned()))
        .collect();
    let expected = [
        ("Put", "", "InvalidArgument"),
        ("Put", "large", "InvalidArgument"),
        ("Nope", "", "Unimplemented"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_event() {
    let node = audited(|_| {}).await;
    let socket = tokio::net::TcpStream::connect(node.server.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://x/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (_answer, _body) = client.send_request(request, false).unwrap();
    // The request never comes whole.
    tokio::time::sleep(Duration::from_millis(50)).await;
    connection.abort();
    drop(client);
    let found = async {
        loop {
            let found = events(&node).await.into_iter().find(|event| event.call == "Put");
            if let Some(event) = found {
                break event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let event = tokio::time::timeout(PATIENCE, found).await.unwrap();
    assert_eq!((event.outcome, &*event.code), (Outcome::Failed, "Canceled"));
}

#[tokio::test]
async fn failing_closed_refuses_without_effect_and_answers_only_what_is_on_the_disk() {
    let node = audited(|audit| {
        audit.fail_mode = FailMode::Closed;
        audit.queue_events = 2;
    })
    .await;
    // The events of the start wait for nobody, and take the room of two.
    events(&node).await;
    let mut kv = node.kv().await;
    kv.put(put("k", "before")).await.unwrap();
    // Read from the file without asking the writer for anything.
    let dir = log(&node).dir().to_owned();
    let on_disk = chronolith_audit::query(&dir, &Query::default()).unwrap();
    assert!(on_disk.events.iter().any(|line| line.contains("\"call\":\"Put\"")));

    let held = [log(&node).reserve().unwrap(), log(&node).reserve().unwrap()];
    let revision = node.server.store().header().revision;
    let refused = kv.put(put("k", "after")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("the audit queue is full (limit 2"), "{refused}");
    assert_eq!(node.server.store().header().revision, revision, "it had no effect");
    // A read that is not recorded is served, and one that would be is not.
    kv.range(get("k")).await.unwrap();
    let future = chronolith_proto::etcdserverpb::RangeRequest { revision: 99, ..get("k") };
    assert_eq!(kv.range(future).await.unwrap_err().code(), Code::Unavailable);
    drop(held);
    kv.put(put("k", "after")).await.unwrap();
    let (_, _, metrics) = node.http("GET", "/metrics").await;
    assert!(metrics.contains("\nchronolith_audit_dropped_total 2\n"), "{metrics}");
    assert!(metrics.contains("\nchronolith_audit_queue_depth 0\n"), "{metrics}");
    let gaps: u64 = events(&node).await.iter().filter_map(|event| event.dropped).sum();
    assert_eq!(gaps, 2, "the refusals had no room: the log says how many");
}

#[tokio::test]
async fn queries_and_checkpoints_are_answered_over_the_wire() {
    let node = audited(|_| {}).await;
    let mut kv = node.kv().await;
    for number in 0..5 {
        kv.put(put(&format!("a/{number}"), "1")).await.unwrap();
        kv.put(put(&format!("b/{number}"), "1")).await.unwrap();
    }
    let mut audit = AuditClient::new(node.channel().await);
    let mut query =
        AuditQueryRequest { key_prefix: "a/".into(), limit: 2, ..AuditQueryRequest::default() };
    let mut keys = Vec::new();
    loop {
        let page = audit.query(query.clone()).await.unwrap().into_inner();
        for line in &page.events {
            keys.push(serde_json::from_str::<Event>(line).unwrap().key);
        }
        query.after_sequence = page.last_sequence;
        if !page.more {
            break;
        }
    }
    assert_eq!(keys, ["a/0", "a/1", "a/2", "a/3", "a/4"]);
    let signed = audit
        .audit_checkpoint(AuditCheckpointRequest { pinned_size: 5 })
        .await
        .unwrap()
        .into_inner();
    let key = chronolith_ledger::VerifierKey::parse(&signed.verifier_key).unwrap();
    let report = chronolith_audit::verify_directory(log(&node).dir(), &key, None).unwrap();
    assert_eq!(report.finding, None);
    assert_eq!((report.events, report.unsigned), (13, 0));
    // It continues the log of five events that somebody may have kept.
    let note = chronolith_ledger::SignedNote::parse(signed.note.as_bytes()).unwrap();
    let newest = chronolith_ledger::Checkpoint::parse(note.text()).unwrap();
    let mut kept = chronolith_ledger::Frontier::default();
    let first = fs::read_to_string(log(&node).dir().join("00000000000000000001.jsonl")).unwrap();
    let leaves = first.lines().map(|line| chronolith_ledger::Hash::of_leaf(line.as_bytes()));
    kept.extend(leaves.take(5));
    let path: Vec<_> = signed
        .consistency
        .iter()
        .map(|hash| chronolith_ledger::Hash(hash[..].try_into().unwrap()))
        .collect();
    chronolith_ledger::verify_consistency(5, &kept.root(), newest.size, &newest.root, &path)
        .unwrap();
    let wrong = AuditQueryRequest { limit: -1, ..AuditQueryRequest::default() };
    assert_eq!(audit.query(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let none = Node::start().await;
    let refused = AuditClient::new(none.channel().await).query(query).await.unwrap_err();
    assert!(refused.message().contains("serve with --audit on"), "{refused}");
}

#[tokio::test]
async fn a_policy_is_read_again_and_a_bad_one_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = everything(home.path());
    let node = audited(|audit| audit.policy_file = Some(path.clone())).await;
    let mut kv = node.kv().await;
    kv.range(get("first")).await.unwrap();
    fs::write(&path, "{\"rules\": [\n{\"level\": \"loud\"}]}").unwrap();
    let refused = node.server.reload_audit_policy().unwrap_err().to_string();
    assert!(refused.contains("all.json, line 2: unknown variant `loud`"), "{refused}");
    kv.range(get("second")).await.unwrap();
    fs::write(&path, r#"{"rules": [{"level": "none"}]}"#).unwrap();
    node.server.reload_audit_policy().unwrap();
    kv.range(get("third")).await.unwrap();
    let keys: Vec<_> = events(&node)
        .await
        .into_iter()
        .filter(|event| event.call == "Range" || event.call == own::CONFIG)
        .map(|event| (event.key, event.outcome))
        .collect();
    let expected = [
        ("", Outcome::Ok),
        ("first", Outcome::Ok),
        ("", Outcome::Failed),
        ("second", Outcome::Ok),
        ("", Outcome::Ok),
    ];
    assert_eq!(keys, expected.map(|(key, outcome)| (key.to_owned(), outcome)));
    let bad = chronolith_server::Config {
        audit: Some(AuditConfig {
            policy_file: Some(home.path().join("none.json")),
            ..AuditConfig::default()
        }),
        ..chronolith_server::Config::new(home.path().join("data"))
    };
    let refused = chronolith_server::Server::start(bad).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("none.json"), "{refused}");
}

#[tokio::test]
async fn a_server_tells_of_its_own_start_and_end_and_the_numbers_go_on() {
    let home = tempfile::tempdir().unwrap();
    let start = || async {
        let config = chronolith_server::Config {
            audit: Some(AuditConfig::default()),
            ..chronolith_server::Config::new(home.path().join("data"))
        };
        chronolith_server::Server::start(config).await.unwrap()
    };
    let mut key = None;
    for _ in 0..2 {
        let server = start().await;
        key = Some(server.audit().unwrap().verifier_key().clone());
        server.shutdown().await;
    }
    let dir = home.path().join("data/audit");
    let page = chronolith_audit::query(&dir, &Query::default()).unwrap();
    let events: Vec<Event> =
        page.events.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = events.iter().map(|event| (event.seq, &*event.call)).collect();
    let expected =
        [own::SEGMENT, own::START, own::CONFIG, own::STOP, own::START, own::CONFIG, own::STOP];
    assert_eq!(calls, (1..).zip(expected).collect::<Vec<_>>());
    assert!(events[1].reason.contains("chronolith 0."), "{}", events[1].reason);
    let report = chronolith_audit::verify_directory(&dir, &key.unwrap(), None).unwrap();
    assert_eq!((report.finding, report.unsigned), (None, 0));
}
