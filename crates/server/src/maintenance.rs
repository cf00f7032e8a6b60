//! What the store says about itself, as etcd's metrics name it.

use chronolith_store::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

use crate::{metrics::Page, node::Node};

/// Writes the figures that come from the store. While it cannot answer, they are absent.
pub(crate) async fn write_store_metrics(node: &Node, page: &mut Page) {
    write_versions(page);
    page.gauge(
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        node.limits.quota_bytes,
    );
    page.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Total number of watchers.",
        node.store.watch_hub().watchers(),
    );
    write_process(page);
    write_figures(node, page);
    write_ledger(node, page);
    let Ok(status) = node.store.status().await else { return };
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    page.head(
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
        "gauge",
    );
    page.sample("etcd_server_id", &format!("server_id=\"{id:x}\""), 1);
    page.gauge(
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        u8::from(status.leader != 0),
    );
    page.gauge(
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        u8::from(status.leader != 0 && status.leader == id),
    );
    page.gauge(
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        u8::from(status.is_learner),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        status.raft_index,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        status.raft_applied_index,
    );
    page.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        status.db_size,
    );
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        status.db_size_in_use,
    );
    if let Some(header) = status.header {
        page.gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            header.revision,
        );
    }
}

/// How the disk and the proposals do.
fn write_figures(node: &Node, page: &mut Page) {
    let figures = node.store.figures();
    page.durations(
        "etcd_disk_wal_fsync_duration_seconds",
        "The latency distributions of fsync called by WAL.",
        &figures.wal_syncs,
    );
    page.durations(
        "etcd_disk_backend_commit_duration_seconds",
        "The latency distributions of commit called by backend.",
        &figures.commits,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        figures.proposals_pending,
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "The total number of failed proposals seen.",
        figures.proposals_failed,
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        figures.leader_changes,
    );
}

/// How far the log of the history is; absent on a node that keeps none.
fn write_ledger(node: &Node, page: &mut Page) {
    let Some(history) = node.store.history() else { return };
    let (watermark, newest) = (history.watermark(), history.revision());
    page.gauge(
        "chronolith_ledger_watermark_revision",
        "The last revision that is in the log of the history.",
        watermark,
    );
    page.gauge(
        "chronolith_ledger_lag_revisions",
        "Revisions that are applied and not in the log of the history yet.",
        newest.saturating_sub(watermark).max(0),
    );
    if let Some(age) = history.checkpoint_age() {
        page.gauge(
            "chronolith_ledger_checkpoint_age_seconds",
            "Time since the newest checkpoint of the log was signed; it grows while nothing is written.",
            age.as_secs_f64(),
        );
    }
}

fn write_versions(page: &mut Page) {
    page.head(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        "gauge",
    );
    page.sample("etcd_cluster_version", &format!("cluster_version=\"{ETCD_CLUSTER_VERSION}\""), 1);
    page.head(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        "gauge",
    );
    page.sample("etcd_server_version", &format!("server_version=\"{ETCD_VERSION}\""), 1);
    page.head("chronolith_build_info", "The version of this program.", "gauge");
    page.sample("chronolith_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
}

/// The process's memory, where the operating system tells it.
fn write_process(page: &mut Page) {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return };
    let resident_kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    if let Some(kib) = resident_kib {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", kib * 1024);
    }
}
