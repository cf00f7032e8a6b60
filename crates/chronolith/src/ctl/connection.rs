//! Where the server is, and what it says when it cannot help.

use super::failure::Failure;
use chronolith_proto::{
    etcdserverpb::kv_client::KvClient,
    history::{audit_client::AuditClient, history_client::HistoryClient},
};
use clap::Args;
use std::{error::Error, future::Future, time::Duration};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2379";
/// Bundles are as large as what they prove; the server limits them.
const ANSWER_BYTES_MAX: usize = usize::MAX;

/// Which server, and how long to wait for it.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// Servers, comma-separated: the first that answers is asked. Without it ETCDCTL_ENDPOINTS, then
    /// http://127.0.0.1:2379.
    #[arg(long, value_name = "URLS", env = "CHRONOLITH_ENDPOINTS", global = true)]
    endpoints: Option<String>,
    /// Seconds to wait for a connection.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, global = true)]
    dial_timeout: u64,
    /// Seconds to wait for an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    command_timeout: u64,
}

/// A server that was reached.
pub(crate) struct Client {
    channel: Channel,
    endpoint: String,
    patience: Duration,
}

impl Connection {
    /// One server, with the patience that the flags have by default.
    pub(crate) fn to(endpoint: &str) -> Self {
        Self { endpoints: Some(endpoint.to_owned()), dial_timeout: 2, command_timeout: 60 }
    }

    /// Reaches the first server that accepts a connection.
    pub(crate) async fn open(&self) -> Result<Client, Failure> {
        let mut refused = Vec::new();
        for endpoint in self.endpoints(|name| std::env::var(name).ok())? {
            match self.dial(&endpoint).await {
                Ok(channel) => {
                    let patience = Duration::from_secs(self.command_timeout);
                    return Ok(Client { channel, endpoint, patience });
                }
                Err(error) => refused.push(format!("{endpoint}: {}", innermost(&error))),
            }
        }
        Err(Failure::Undecided(format!(
            "cannot reach {}\nIs the server up? `chronolith serve` starts one; --endpoints names another.",
            refused.join("\ncannot reach ")
        )))
    }

    async fn dial(&self, endpoint: &str) -> Result<Channel, tonic::transport::Error> {
        let wait = Duration::from_secs(self.dial_timeout);
        Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(wait)
            .tcp_nodelay(true)
            .connect()
            .await
    }

    fn endpoints(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Failure> {
        let given = self.endpoints.clone().or_else(|| variable("ETCDCTL_ENDPOINTS"));
        let given = given.filter(|text| !text.is_empty());
        let text = given.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(url).collect()
    }
}

fn url(endpoint: &str) -> Result<String, Failure> {
    match endpoint.split_once("://") {
        None => Ok(format!("http://{endpoint}")),
        Some(("http", _)) => Ok(endpoint.to_owned()),
        Some(("https", _)) => {
            Err(Failure::Undecided(format!("{endpoint}: TLS is not supported yet: use http://")))
        }
        Some(_) => Err(Failure::Undecided(format!("{endpoint}: write it as http://HOST:PORT"))),
    }
}

/// The cause at the bottom: the ones above only say that something failed.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl Client {
    /// The history that proves itself.
    pub(crate) fn history(&self) -> HistoryClient<Channel> {
        HistoryClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The audit trail.
    pub(crate) fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// etcd's own keys and values.
    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Waits for an answer, and says what to do where there is none.
    pub(crate) async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Failure::Undecided(self.in_words(&status))),
            Err(_) => Err(Failure::Undecided(format!(
                "{}: no answer within {} s: the server is busy or cut off; --command-timeout waits longer",
                self.endpoint,
                self.patience.as_secs()
            ))),
        }
    }

    fn in_words(&self, status: &Status) -> String {
        let (endpoint, text) = (&self.endpoint, status.message());
        match status.code() {
            Code::Unimplemented => format!(
                "{endpoint}: {text}\nThis server does not have the call: it is etcd, or an older Chronolith."
            ),
            Code::Unavailable | Code::Unknown if text.contains("transport") => {
                format!("{endpoint}: the connection broke: {text}\nIs the server still up?")
            }
            Code::OutOfRange if text.contains("future revision") => {
                format!("{text}\n`chronolith ctl checkpoint` tells the newest revision.")
            }
            Code::OutOfRange if text.contains("compacted") => {
                format!("{text}\nIt is older than what compaction left: choose a later moment.")
            }
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoints: Option<&str>) -> Connection {
        let endpoints = endpoints.map(str::to_owned);
        Connection { endpoints, dial_timeout: 1, command_timeout: 1 }
    }

    #[test]
    fn endpoints_are_the_flags_then_etcdctls_then_our_own_machine() {
        let etcdctl =
            |name: &str| (name == "ETCDCTL_ENDPOINTS").then(|| "a:1, http://b:2".to_owned());
        assert_eq!(with(None).endpoints(|_| None).unwrap(), ["http://127.0.0.1:2379"]);
        assert_eq!(with(None).endpoints(etcdctl).unwrap(), ["http://a:1", "http://b:2"]);
        assert_eq!(with(Some("c:3")).endpoints(etcdctl).unwrap(), ["http://c:3"]);
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_says_how_to_write_it() {
        let refused = |text| with(Some(text)).endpoints(|_| None).unwrap_err().to_string();
        assert!(refused("https://a:1").contains("TLS is not supported yet"));
        assert!(refused("unix://a").contains("http://HOST:PORT"));
    }
}
