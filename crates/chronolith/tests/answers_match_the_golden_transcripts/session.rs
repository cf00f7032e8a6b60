//! One client of one node: runs a transcript's commands in turn.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use chronolith_proto::etcdserverpb::cluster_client::ClusterClient;
use chronolith_proto::etcdserverpb::kv_client::KvClient;
use chronolith_proto::etcdserverpb::lease_client::LeaseClient;
use chronolith_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use chronolith_proto::etcdserverpb::watch_client::WatchClient;
use chronolith_proto::etcdserverpb::watch_request::RequestUnion;
use chronolith_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, PutResponse, StatusRequest,
    WatchCancelRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::command::{self, Words};
use super::render;
use super::support::{Node, PATIENCE};

/// How long a stream must be quiet to count as silent: many times the longest answer of a busy machine.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Session {
    channel: Channel,
    port: u16,
    streams: BTreeMap<String, Watches>,
}

/// One watch stream. Without a sender the client has closed its half.
struct Watches {
    requests: Option<mpsc::Sender<WatchRequest>>,
    answers: mpsc::Receiver<Result<WatchResponse, Status>>,
}

type Lines = Result<Vec<String>, Status>;

impl Session {
    pub(crate) fn new(node: &Node) -> Session {
        Session { channel: node.channel(), port: node.port, streams: BTreeMap::new() }
    }

    /// The answer, in lines.
    pub(crate) async fn execute(&mut self, text: &str) -> String {
        let mut words = Words::new(text);
        let verb = words.next();
        if verb == "http" {
            return self.http(&mut words);
        }
        if verb == "watch" {
            return self.watch(&mut words).await;
        }
        let lines = match verb.as_str() {
            "put" | "get" | "del" | "txn" | "compact" => self.kv(&verb, &mut words).await,
            "grant" | "revoke" | "ttl" | "keepalive" | "leases" => {
                self.lease(&verb, &mut words).await
            }
            "grpc" => self.unknown(words.next()).await,
            _ => self.maintenance(&verb).await,
        };
        assert!(words.is_empty(), "{text}: words are left over");
        render::answer(lines)
    }

    async fn kv(&mut self, verb: &str, words: &mut Words) -> Lines {
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        match verb {
            "put" => client.put(command::put(words)).await.map(|a| render::put(a.into_inner())),
            "get" => client.range(command::get(words)).await.map(|a| render::range(a.into_inner())),
            "del" => {
                let answer = client.delete_range(command::delete(words)).await?;
                Ok(render::delete(answer.into_inner()))
            }
            "txn" => client.txn(command::txn(words)).await.map(|a| render::txn(a.into_inner())),
            _ => {
                let request = CompactionRequest { revision: words.number(), physical: false };
                let answer = client.compact(request).await?.into_inner();
                Ok(vec![render::header(answer.header)])
            }
        }
    }

    async fn lease(&mut self, verb: &str, words: &mut Words) -> Lines {
        let mut client = LeaseClient::new(self.channel.clone());
        match verb {
            "grant" => {
                let request = LeaseGrantRequest { id: words.number(), ttl: words.number() };
                let chosen = request.id == 0;
                let answer = client.lease_grant(request).await?.into_inner();
                let id = if chosen { (answer.id > 0).to_string() } else { answer.id.to_string() };
                let what = if chosen { "id is positive" } else { "id" };
                let header = render::header(answer.header);
                Ok(vec![format!("{header} {what} {id} ttl {}", answer.ttl)])
            }
            "revoke" => {
                let request = LeaseRevokeRequest { id: words.number() };
                let answer = client.lease_revoke(request).await?.into_inner();
                Ok(vec![render::header(answer.header)])
            }
            "ttl" => self.time_to_live(words).await,
            "keepalive" => self.keep_alive(words).await,
            _ => {
                let answer = client.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
                let mut ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                Ok(vec![format!("{} {ids:?}", render::header(answer.header))])
            }
        }
    }

    async fn time_to_live(&mut self, words: &mut Words) -> Lines {
        let id = words.number();
        let keys = !words.is_empty() && words.next() == "keys";
        let request = LeaseTimeToLiveRequest { id, keys };
        let mut client = LeaseClient::new(self.channel.clone());
        let answer = client.lease_time_to_live(request).await?.into_inner();
        // The seconds left depend on the test's own speed: say only whether they are within the grant.
        let left = match answer.ttl {
            left if left > 0 && left <= answer.granted_ttl => "within granted".to_owned(),
            left => left.to_string(),
        };
        let mut listed = answer.keys.clone();
        listed.sort();
        let listed: Vec<_> = listed.iter().map(|key| render::bytes(key)).collect();
        let header = render::header(answer.header);
        let granted = answer.granted_ttl;
        Ok(vec![format!("{header} id {} ttl {left} granted {granted} keys {listed:?}", answer.id)])
    }

    async fn keep_alive(&mut self, words: &mut Words) -> Lines {
        let mut requests = Vec::new();
        while !words.is_empty() {
            requests.push(LeaseKeepAliveRequest { id: words.number() });
        }
        let mut client = LeaseClient::new(self.channel.clone());
        let mut answers = client.lease_keep_alive(tokio_stream::iter(requests)).await?.into_inner();
        let mut lines = vec![String::new()];
        while let Some(answer) = answers.message().await? {
            let header = render::header(answer.header);
            lines.push(format!(" {header} id {} ttl {}", answer.id, answer.ttl));
        }
        Ok(lines)
    }

    async fn maintenance(&mut self, verb: &str) -> Lines {
        let mut client = MaintenanceClient::new(self.channel.clone());
        match verb {
            "status" => {
                let status = client.status(StatusRequest {}).await?.into_inner();
                let version_3 = status.version.starts_with("3.");
                let leader = status.header.is_some_and(|header| header.member_id == status.leader);
                let header = render::header(status.header);
                Ok(vec![format!(
                    "{header} version 3: {version_3}, leads itself: {leader}, errors {:?}, size > 0: {}",
                    status.errors,
                    status.db_size > 0
                )])
            }
            "members" => {
                let mut client = ClusterClient::new(self.channel.clone());
                let request = MemberListRequest { linearizable: false };
                let answer = client.member_list(request).await?.into_inner();
                let names: Vec<_> = answer.members.iter().map(|m| m.name.as_str()).collect();
                Ok(vec![format!(" members {names:?}")])
            }
            "alarms" => {
                let answer = client.alarm(AlarmRequest::default()).await?.into_inner();
                Ok(vec![format!(" alarms {:?}", answer.alarms)])
            }
            _ => panic!("{verb} is no command"),
        }
    }

    /// Calls a method that no server has; the request is any message.
    async fn unknown(&mut self, path: String) -> Lines {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let codec: tonic_prost::ProstCodec<StatusRequest, PutResponse> = Default::default();
        let path = path.parse().unwrap();
        let answer = client.unary(Request::new(StatusRequest {}), path, codec).await?;
        Ok(render::put(answer.into_inner()))
    }

    async fn watch(&mut self, words: &mut Words) -> String {
        let name = words.next();
        if !self.streams.contains_key(&name) {
            let watches = Watches::open(self.channel.clone());
            self.streams.insert(name.clone(), watches);
        }
        let watches = self.streams.get_mut(&name).unwrap();
        let request = match words.next().as_str() {
            "create" => Some(RequestUnion::CreateRequest(command::watch_create(words))),
            "cancel" => {
                let watch_id = words.number();
                Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            }
            "progress" => Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
            "empty" => None,
            "close" => {
                watches.requests = None;
                return String::new();
            }
            "silence" => return watches.silence().await,
            "read" => return watches.read(words.number()).await,
            other => panic!("watch has no command {other}"),
        };
        let request = WatchRequest { request_union: request };
        watches.requests.as_ref().unwrap().send(request).await.unwrap();
        String::new()
    }

    /// HTTP/1.1 by hand: what a load balancer or curl would see.
    fn http(&mut self, words: &mut Words) -> String {
        let (method, path) = (words.next(), words.next());
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        let kind = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-type").then_some(value)
        });
        // Figures differ from node to node: metrics show only that there are some.
        let body = if path == "/metrics" {
            format!("{} lines of text", if body.lines().count() > 10 { "many" } else { "few" })
        } else {
            body.trim_end().replace('\n', "\n  ")
        };
        format!("{status} {}\n  {body}\n", kind.unwrap_or("without a content type"))
    }
}

impl Watches {
    /// A task of its own forwards the answers: a server may answer nothing before the first request.
    fn open(channel: Channel) -> Watches {
        let (requests, receiver) = mpsc::channel(16);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let (forward, answers) = mpsc::channel(1024);
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        tokio::spawn(async move {
            let mut stream = client.watch(outgoing).await?.into_inner();
            while let Some(answer) = stream.message().await.transpose() {
                // Nobody listens any more once the transcript is through.
                let _ = forward.send(answer).await;
            }
            Ok::<(), Status>(())
        });
        Watches { requests: Some(requests), answers }
    }

    /// Reads so many answers; those of different watches come in any order, so they are sorted by watch.
    async fn read(&mut self, count: i64) -> String {
        let mut answers = Vec::new();
        for _ in 0..count {
            match tokio::time::timeout(PATIENCE, self.answers.recv()).await {
                Ok(Some(Ok(answer))) => answers.push(answer),
                Ok(Some(Err(status))) => return format!("{}\n", render::error(&status)),
                Ok(None) => return "the stream ended\n".to_owned(),
                Err(_) => {
                    let heard: Vec<_> = answers.iter().flat_map(render::watch).collect();
                    return format!("only {heard:?}\n");
                }
            }
        }
        answers.sort_by_key(|answer| answer.watch_id);
        answers.iter().flat_map(render::watch).map(|line| line + "\n").collect()
    }

    async fn silence(&mut self) -> String {
        match tokio::time::timeout(SILENCE, self.answers.recv()).await {
            Err(_) => "silence\n".to_owned(),
            Ok(None) => "the stream ended\n".to_owned(),
            Ok(Some(Ok(answer))) => render::watch(&answer).join("\n") + "\n",
            Ok(Some(Err(status))) => format!("{}\n", render::error(&status)),
        }
    }
}
