//! What a server says is believed only after it was checked: a server that was rolled back, forked or
//! exchanged is found by the pin, and one that lies by its own proofs.
#![allow(clippy::unwrap_used)]

mod support;

use chronolith_proto::{
    etcdserverpb::{PutRequest, kv_client::KvClient},
    history::{
        CheckpointRequest, CheckpointResponse, ConsistencyRequest, ConsistencyResponse,
        DiffRequest, DiffResponse, EraseRequest, EraseResponse, KeyHistoryRequest,
        KeyHistoryResponse, ProveRequest, ProveResponse, RestorePrefixRequest,
        RestorePrefixResponse, VerifiedGetRequest, VerifiedGetResponse, VerifiedPutRequest,
        VerifiedPutResponse,
        history_client::HistoryClient,
        history_server::{History, HistoryServer},
    },
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustix::process::Signal;
use std::{fs, path::Path, process::Command};
use support::{Node, Program};
use tonic::{Request, Response, Status, transport::Channel};

const MEMORY: Program = Program::Chronolith { engine: "memory" };

/// Exit code, and what was said.
fn ctl(endpoint: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chronolith"))
        .args(["ctl", "--endpoints", endpoint])
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn put(node: &Node, key: &str, value: &str) {
    let (code, text) = ctl(&node.endpoint(), &["put", key, value]);
    assert_eq!(code, 0, "{text}");
}

fn stop(node: &mut Node) {
    node.signal(Signal::TERM);
    assert!(node.wait().success());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// All verbs that take a pin, as a user would give them.
fn with_pin<'a>(pin: &'a str, proof: &'a str) -> [Vec<&'a str>; 4] {
    [
        vec!["checkpoint", "--pin", pin],
        vec!["get", "a", "--prove", "--pin", pin],
        vec!["put", "b", "new", "--prove", "--pin", pin],
        vec!["prove", "a", "-o", proof, "--pin", pin],
    ]
}

#[test]
fn a_server_that_was_rolled_back_or_forked_is_found_by_the_pin() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (pin, proof) = (path("pin"), path("proof"));
    let mut node = Node::start_in(MEMORY, home.path(), &[]);
    put(&node, "a", "1");
    stop(&mut node);
    copy(&home.path().join("data"), &home.path().join("old/data"));
    node.restart();
    put(&node, "a", "2");
    put(&node, "a", "3");
    let (code, text) = ctl(&node.endpoint(), &["checkpoint", "--pin", &pin]);
    assert!(code == 0 && text.contains("pinned: the log as of revision 4"), "{text}");
    let pinned = fs::read_to_string(&pin).unwrap();
    stop(&mut node);

    // Brought back as it was: shorter than the pin.
    let old = Node::start_in(MEMORY, &home.path().join("old"), &[]);
    for verb in &with_pin(&pin, &proof)[..2] {
        let (code, text) = ctl(&old.endpoint(), verb);
        assert!(code == 1 && text.contains("rolled back or forked"), "{verb:?}: {code} {text}");
        assert!(text.contains("kept: revision 4, now: revision 2"), "{text}");
    }
    // Longer again, but another history.
    for value in ["x", "y", "z"] {
        put(&old, "a", value);
    }
    for verb in with_pin(&pin, &proof) {
        let (code, text) = ctl(&old.endpoint(), &verb);
        assert!(code == 1 && text.contains("rolled back or forked"), "{verb:?}: {code} {text}");
        assert!(text.contains("does not continue"), "{text}");
    }
    assert!(!Path::new(&proof).exists(), "nothing unproven is written");
    // Another server altogether.
    let other = Node::start(MEMORY);
    put(&other, "a", "1");
    for verb in with_pin(&pin, &proof) {
        let (code, text) = ctl(&other.endpoint(), &verb);
        assert!(code == 1 && text.contains("rolled back or forked"), "{verb:?}: {code} {text}");
    }
    assert_eq!(fs::read_to_string(&pin).unwrap(), pinned, "a pin moves only to what was proven");

    // And the true one goes on.
    node.restart();
    for verb in with_pin(&pin, &proof) {
        let (code, text) = ctl(&node.endpoint(), &verb);
        assert_eq!(code, 0, "{verb:?}: {text}");
    }
    assert_ne!(fs::read_to_string(&pin).unwrap(), pinned);
}

/// A server between the client and the node, that changes what the node answers.
struct Liar {
    node: HistoryClient<Channel>,
    lie: Lie,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    No,
    /// Another value than the one that is proven.
    Value,
    /// The value, create revision and version of another revision, with its proof.
    OldVersion,
    /// One bit of the bundle.
    Bundle,
    /// The size that the checkpoint speaks of.
    Note,
    /// The proof of another key.
    OtherKey,
    /// The last revision is left out.
    LeftOut,
}

impl Liar {
    async fn bundle_of(&self, key: &str) -> bytes::Bytes {
        let request = VerifiedGetRequest { key: key.to_owned().into(), ..Default::default() };
        self.node.clone().verified_get(request).await.unwrap().into_inner().bundle
    }

    fn changed(bytes: &bytes::Bytes) -> bytes::Bytes {
        let mut bytes = bytes.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes.into()
    }

    /// The same note, as if the log were a leaf longer.
    fn longer(note: &str) -> String {
        let mut lines: Vec<_> = note.split('\n').map(str::to_owned).collect();
        lines[1] = (lines[1].parse::<u64>().unwrap() + 1).to_string();
        lines.join("\n")
    }
}

macro_rules! honest_except {
    ($($name:ident: $request:ty => $response:ty;)* { $($lies:tt)* }) => {
        #[tonic::async_trait]
        impl History for Liar {
            $($lies)*

            $(async fn $name(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                self.node.clone().$name(request).await
            })*
        }
    };
}

honest_except! {
    checkpoint: CheckpointRequest => CheckpointResponse;
    consistency: ConsistencyRequest => ConsistencyResponse;
    key_history: KeyHistoryRequest => KeyHistoryResponse;
    diff: DiffRequest => DiffResponse;
    restore_prefix: RestorePrefixRequest => RestorePrefixResponse;
    erase: EraseRequest => EraseResponse;
{
    async fn verified_get(
        &self,
        request: Request<VerifiedGetRequest>,
    ) -> Result<Response<VerifiedGetResponse>, Status> {
        let mut request = request.into_inner();
        if self.lie == Lie::OldVersion {
            let at = chronolith_proto::history::moment::At::Revision(2);
            request.at = Some(chronolith_proto::history::Moment { at: Some(at) });
        }
        let mut answer = self.node.clone().verified_get(request).await?.into_inner();
        match self.lie {
            Lie::Value => answer.kv.as_mut().unwrap().value = "forged".into(),
            Lie::OldVersion => answer.revision = 4,
            Lie::Bundle => answer.bundle = Liar::changed(&answer.bundle),
            Lie::Note => answer.note = Liar::longer(&answer.note),
            Lie::OtherKey => answer.bundle = self.bundle_of("other").await,
            Lie::No | Lie::LeftOut => {}
        }
        Ok(Response::new(answer))
    }

    async fn verified_put(
        &self,
        request: Request<VerifiedPutRequest>,
    ) -> Result<Response<VerifiedPutResponse>, Status> {
        let mut request = request.into_inner();
        if self.lie == Lie::Value {
            request.put.as_mut().unwrap().value = "forged".into();
        }
        let mut answer = self.node.clone().verified_put(request).await?.into_inner();
        match self.lie {
            Lie::Bundle => answer.bundle = Liar::changed(&answer.bundle),
            Lie::Note => answer.note = Liar::longer(&answer.note),
            Lie::OtherKey => answer.bundle = self.bundle_of("other").await,
            _ => {}
        }
        Ok(Response::new(answer))
    }

    async fn prove(
        &self,
        request: Request<ProveRequest>,
    ) -> Result<Response<ProveResponse>, Status> {
        let mut answer = self.node.clone().prove(request).await?.into_inner();
        match self.lie {
            Lie::Bundle => answer.bundle = Liar::changed(&answer.bundle),
            Lie::OtherKey => answer.bundle = self.bundle_of("other").await,
            Lie::LeftOut => {
                let mut bundle = chronolith_ledger::Bundle::decode(&answer.bundle).unwrap();
                bundle.revisions.pop();
                answer.bundle = bundle.encode().into();
            }
            _ => {}
        }
        Ok(Response::new(answer))
    }
}}

/// Where a liar in front of `node` is reached.
async fn liar(node: &Node, lie: Lie) -> String {
    let liar = Liar { node: HistoryClient::new(node.channel()), lie };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = TowerToHyperService::new(HistoryServer::new(liar));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(socket), service.clone()));
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lies_is_found_by_its_own_proofs() {
    let node = Node::start(MEMORY);
    let mut kv = KvClient::new(node.channel());
    for (key, value) in [("a", "1"), ("other", "2"), ("a", "3")] {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
    let key = node.directory.path().join("data/ledger/log.vkey").to_str().unwrap().to_owned();
    let proof = node.directory.path().join("proof").to_str().unwrap().to_owned();
    let get = ["get", "a", "--prove", "--trust", &key];
    let put = ["put", "a", "true", "--prove", "--trust", &key];
    let prove = ["prove", "a", "-o", &proof, "--trust", &key];
    let range = ["prove", "--range", "2-4", "-o", &proof, "--trust", &key];
    for (lie, verbs) in [
        (Lie::Value, &[&get[..], &put][..]),
        (Lie::Bundle, &[&get, &put, &prove, &range]),
        (Lie::Note, &[&get, &put]),
        (Lie::OtherKey, &[&get, &put, &prove, &range]),
        (Lie::LeftOut, &[&range]),
    ] {
        let endpoint = liar(&node, lie).await;
        for verb in verbs {
            let (code, text) = ask(&endpoint, verb).await;
            assert!(code == 1 && text.contains("tampered: "), "{lie:?} {verb:?}: {code} {text}");
        }
    }
    assert!(!Path::new(&proof).exists(), "nothing unproven is written");
    // An old version is a true one: that it is not the latest, no proof of one version can tell.
    let endpoint = liar(&node, Lie::OldVersion).await;
    let (code, text) = ask(&endpoint, &get).await;
    assert!(code == 0 && text.contains("set at revision 2"), "{text}");
    let endpoint = liar(&node, Lie::No).await;
    for verb in [&get[..], &put, &prove, &range] {
        let (code, text) = ask(&endpoint, verb).await;
        assert_eq!(code, 0, "{verb:?}: {text}");
    }
}

/// The program waits for a server of this process, so it is waited for elsewhere.
async fn ask(endpoint: &str, verb: &[&str]) -> (i32, String) {
    let endpoint = endpoint.to_owned();
    let verb: Vec<String> = verb.iter().map(|&word| word.to_owned()).collect();
    let asked = tokio::task::spawn_blocking(move || {
        let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
        ctl(&endpoint, &verb)
    });
    asked.await.unwrap()
}
