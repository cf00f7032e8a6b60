//! What was answered outlives a shutdown under load.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use common::{PATIENCE, put};
use std::time::Duration;

#[tokio::test]
async fn under_load_every_answer_given_stays_true() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = chronolith_server::Config::new(directory.path().join("data"));
    config.drain_timeout = PATIENCE;
    let server = chronolith_server::Server::start(config.clone()).await.unwrap();
    let endpoint = format!("http://{}", server.address());
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let endpoint = endpoint.clone();
        clients.spawn(async move {
            let channel =
                tonic::transport::Channel::from_shared(endpoint).unwrap().connect().await.unwrap();
            let mut kv = chronolith_proto::etcdserverpb::kv_client::KvClient::new(channel);
            let mut acknowledged = Vec::new();
            loop {
                let key = format!("{client}/{}", acknowledged.len());
                match kv.put(put(&key, &key)).await {
                    Ok(_) => acknowledged.push(key),
                    Err(_) => return acknowledged,
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.shutdown().await;
    let acknowledged: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(!acknowledged.is_empty());
    let server = chronolith_server::Server::start(config).await.unwrap();
    for key in acknowledged {
        let found = server.store().range(common::get(&key)).await.unwrap();
        assert_eq!(found.count, 1, "{key} was acknowledged");
    }
    server.shutdown().await;
}
