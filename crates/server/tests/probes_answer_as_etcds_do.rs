//! Plain HTTP on the client port.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use chronolith_proto::etcdserverpb::{
    AlarmRequest, AlarmType, alarm_request::AlarmAction, maintenance_client::MaintenanceClient,
};
use chronolith_proto::history::CheckpointRequest;
use common::{Node, put};

const TEXT: &str = "content-type: text/plain; charset=utf-8";

async fn raise(node: &Node, alarm: AlarmType) {
    let request =
        AlarmRequest { action: AlarmAction::Activate.into(), member_id: 0, alarm: alarm.into() };
    MaintenanceClient::new(node.channel().await).alarm(request).await.unwrap();
}

#[tokio::test]
async fn a_healthy_node_says_so_everywhere() {
    let node = Node::start().await;
    let (code, head, body) = node.http("GET", "/health").await;
    assert_eq!((code, body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    assert!(head.contains(TEXT), "{head}");
    for path in ["/livez", "/readyz", "/readyz/linearizable_read", "/livez/serializable_read"] {
        let (code, head, body) = node.http("GET", path).await;
        assert_eq!((code, body.as_str()), (200, "ok\n"), "{path}");
        assert!(head.contains(TEXT), "{head}");
    }
    let (_, _, body) = node.http("GET", "/livez?verbose").await;
    assert_eq!(body, "[+]serializable_read ok\nok\n");
    let (_, _, body) = node.http("GET", "/readyz?verbose").await;
    assert_eq!(
        body,
        "[+]non_learner ok\n[+]data_corruption ok\n[+]serializable_read ok\n\
         [+]linearizable_read ok\nok\n"
    );
    let (_, _, body) = node.http("GET", "/readyz?verbose&exclude=data_corruption").await;
    assert!(!body.contains("data_corruption"), "{body}");
}

#[tokio::test]
async fn the_version_is_etcds() {
    let node = Node::start().await;
    let (code, head, body) = node.http("GET", "/version").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let expected = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!(body, expected);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_as_etcd_refuses_them() {
    let node = Node::start().await;
    for path in ["/", "/v2/keys", "/livez/nothing", "/debug/pprof/"] {
        let (code, _, body) = node.http("GET", path).await;
        assert_eq!((code, body.as_str()), (404, "404 page not found\n"), "{path}");
    }
    let (code, head, body) = node.http("POST", "/health").await;
    assert_eq!((code, body.as_str()), (405, "Method Not Allowed\n"));
    assert!(head.contains("allow: get"), "{head}");
}

#[tokio::test]
async fn a_full_store_is_not_healthy_but_ready_to_read() {
    let node = Node::start().await;
    raise(&node, AlarmType::Nospace).await;
    let (code, _, body) = node.http("GET", "/health").await;
    assert_eq!((code, body.as_str()), (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#));
    assert_eq!(node.http("GET", "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(node.http("GET", "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_corrupt_store_is_not_ready_and_says_why() {
    let node = Node::start().await;
    raise(&node, AlarmType::Corrupt).await;
    let (code, _, body) = node.http("GET", "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.starts_with("[+]non_learner ok\n[-]data_corruption failed: "), "{body}");
    assert!(body.ends_with("/readyz check failed\n"), "{body}");
    assert_eq!(node.http("GET", "/health").await.0, 503);
}

#[tokio::test]
async fn metrics_have_etcds_names_and_count() {
    let node = Node::start().await;
    node.kv().await.put(put("k", "v")).await.unwrap();
    node.kv().await.put(put("", "v")).await.unwrap_err();
    // A checkpoint waits for the log: what it lags behind is told, and is nothing then.
    node.history().await.checkpoint(CheckpointRequest {}).await.unwrap();
    let (code, head, body) = node.http("GET", "/metrics").await;
    assert_eq!(code, 200);
    for name in
        ["etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds"]
    {
        let count = body.lines().find_map(|line| line.strip_prefix(&format!("{name}_count ")));
        assert!(count.unwrap().parse::<u64>().unwrap() > 0, "{body}");
        let all = format!("{name}_bucket{{le=\"+Inf\"}} {}", count.unwrap());
        assert!(body.lines().any(|line| line == all), "{all} is not in\n{body}");
    }
    assert!(body.contains("\nchronolith_ledger_checkpoint_age_seconds "), "{body}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let put_labels = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    for line in [
        "etcd_server_has_leader 1".to_owned(),
        "etcd_server_is_leader 1".to_owned(),
        "etcd_server_quota_backend_bytes 2147483648".to_owned(),
        "etcd_debugging_mvcc_current_revision 2".to_owned(),
        "etcd_server_proposals_pending 0".to_owned(),
        "etcd_server_proposals_failed_total 0".to_owned(),
        "etcd_server_leader_changes_seen_total 1".to_owned(),
        "chronolith_ledger_lag_revisions 0".to_owned(),
        "chronolith_ledger_watermark_revision 2".to_owned(),
        format!("grpc_server_started_total{{{put_labels}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{put_labels}}} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put_labels}}} 1"),
        format!("grpc_server_handling_seconds_count{{{put_labels}}} 2"),
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    let typed = body.lines().filter(|line| line.starts_with("# TYPE")).count();
    let helped = body.lines().filter(|line| line.starts_with("# HELP")).count();
    assert!(typed == helped && typed > 15);
}
