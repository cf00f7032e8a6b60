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
