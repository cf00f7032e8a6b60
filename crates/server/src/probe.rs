//! Plain HTTP on the client port: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`.
//!
//! Paths, codes, bodies and content types are etcd's, because probes and dashboards rely on them.
//! A check reads the store as a client would; it never only reports that the process runs.

use bytes::Bytes;
use chronolith_proto::etcdserverpb::{
    AlarmRequest, AlarmType, RangeRequest, alarm_request::AlarmAction,
};
use chronolith_store::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use http::{Method, Response, StatusCode, Uri};

use crate::{
    metrics::Page,
    node::Node,
    plain::{JSON, TEXT, method_not_allowed, no_sniffing, page},
    query::Query,
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Answers a request for one of these paths, or says that there is no such path.
pub(crate) async fn answer(node: &Node, method: &Method, uri: &Uri) -> Response<Bytes> {
    let query = Query::of(uri);
    let path = uri.path();
    if !is_known(path) {
        return page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
    }
    if method != Method::GET && path != "/metrics" {
        return method_not_allowed("GET");
    }
    match path {
        "/health" => health(node, &query).await,
        "/version" => page(StatusCode::OK, JSON, version()),
        "/metrics" => page(StatusCode::OK, PROMETHEUS, metrics(node).await),
        _ => probe(node, path, &query).await,
    }
}

fn is_known(path: &str) -> bool {
    matches!(path, "/health" | "/version" | "/metrics") || checks_of(path).is_some()
}

fn version() -> String {
    format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_CLUSTER_VERSION}\",\"storage\":\"{ETCD_CLUSTER_VERSION}\"}}"
    )
}

/// One thing that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    NonLearner,
    DataCorruption,
    SerializableRead,
    LinearizableRead,
}

const LIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] =
    &[Check::NonLearner, Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::NonLearner => "non_learner",
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
        }
    }

    async fn run(self, node: &Node) -> Result<(), String> {
        match self {
            // A member votes from its first start on: learners come with clusters.
            Check::NonLearner => Ok(()),
            Check::DataCorruption => match is_raised(node, AlarmType::Corrupt).await? {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            },
            Check::SerializableRead => read(node, true).await,
            Check::LinearizableRead => read(node, false).await,
        }
    }
}

/// The checks behind a path: all of a probe, or the one that the sub-path names.
fn checks_of(path: &str) -> Option<Vec<Check>> {
    let (all, rest) = match path.strip_prefix("/livez") {
        Some(rest) => (LIVE, rest),
        None => (READY, path.strip_prefix("/readyz")?),
    };
    if rest.is_empty() {
        return Some(all.to_vec());
    }
    let name = rest.strip_prefix('/')?;
    all.iter().find(|check| check.name() == name).map(|check| vec![*check])
}

async fn probe(node: &Node, path: &str, query: &Query<'_>) -> Response<Bytes> {
    let mut details = String::new();
    let mut failed = false;
    for check in checks_of(path).unwrap_or_default() {
        if query.has_value("exclude", check.name()) {
            continue;
        }
        match check.run(node).await {
            Ok(()) => details += &format!("[+]{} ok\n", check.name()),
            Err(why) => {
                failed = true;
                details += &format!("[-]{} failed: {why}\n", check.name());
            }
        }
    }
    let (code, body) = match (failed, query.has("verbose")) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{details}{path} check failed\n")),
        (false, true) => (StatusCode::OK, format!("{details}ok\n")),
        (false, false) => (StatusCode::OK, "ok\n".to_owned()),
    };
    no_sniffing(page(code, TEXT, body))
}

async fn health(node: &Node, query: &Query<'_>) -> Response<Bytes> {
    let reason = unhealthy(node, query).await.err();
    let code = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let healthy = reason.is_none();
    let reason = serde_json::Value::from(reason.unwrap_or_default());
    page(code, TEXT, format!("{{\"health\":\"{healthy}\",\"reason\":{reason}}}"))
}

async fn unhealthy(node: &Node, query: &Query<'_>) -> Result<(), String> {
    for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
        let name = alarm.as_str_name();
        if !query.has_value("exclude", name) && is_raised(node, alarm).await? {
            return Err(format!("ALARM {name}"));
        }
    }
    let serializable = query.has_value("serializable", "true");
    read(node, serializable).await.map_err(|why| format!("RANGE ERROR:{why}"))
}

async fn read(node: &Node, serializable: bool) -> Result<(), String> {
    let request = RangeRequest {
        key: Bytes::from_static(b"health"),
        keys_only: true,
        limit: 1,
        serializable,
        ..RangeRequest::default()
    };
    node.store.range(request).await.map(drop).map_err(|error| error.to_string())
}

async fn is_raised(node: &Node, alarm: AlarmType) -> Result<bool, String> {
    let request =
        AlarmRequest { action: AlarmAction::Get.into(), alarm: alarm.into(), ..Default::default() };
    let answer = node.store.alarm(request).await.map_err(|error| error.to_string())?;
    Ok(answer.alarms.iter().any(|active| active.alarm == i32::from(alarm)))
}

async fn metrics(node: &Node) -> String {
    let mut page = Page::default();
    crate::maintenance::write_store_metrics(node, &mut page).await;
    node.metrics.write(&mut page);
    crate::audit::write_metrics(node, &mut page);
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_has_its_checks_and_each_of_them_a_path() {
        assert_eq!(checks_of("/livez"), Some(vec![Check::SerializableRead]));
        assert_eq!(checks_of("/readyz").map(|checks| checks.len()), Some(4));
        assert_eq!(checks_of("/readyz/linearizable_read"), Some(vec![Check::LinearizableRead]));
        assert_eq!(checks_of("/livez/linearizable_read"), None);
        assert_eq!(checks_of("/readyzz"), None);
        assert_eq!(checks_of("/"), None);
    }
}
