//! How long a small put waits while somebody lists a million keys.
//!
//! ```text
//! cargo run --release -p chronolith-server --example beside_a_huge_range [keys] [seconds] [ADDRESS:PORT]
//! ```
//! The server runs in this process, on two I/O threads, unless the address of an empty one is given.
//!
//! One client puts 64 bytes, one put at a time; another lists all keys (256-byte values) without a limit,
//! again and again, and throws the answers away. Once on two connections and once on one: what shares a
//! connection shares a task. Three rounds of each.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement: it ends at what it did not expect"
)]

use std::{
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use chronolith_proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use chronolith_server::{Config, RunningServer, Server};
use h2::client::SendRequest;
use prost::Message;
use tokio::{net::TcpStream, runtime::Runtime};

const VALUE_BYTES: usize = 256;
/// Puts of one transaction while the keys are loaded: etcd's limit.
const BATCH: usize = 128;
const LOADERS: usize = 32;
const WINDOW_BYTES: u32 = 16 << 20;

fn main() {
    let mut arguments = env::args().skip(1);
    let keys = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    let time = Duration::from_secs(arguments.next().map_or(3, |text| text.parse().unwrap()));
    let given: Option<SocketAddr> = arguments.next().map(|text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (runtime(2), runtime(1));
    let mut config = Config::new(directory.path().join("data"));
    config.limits.quota_bytes = 64 << 30;
    let own = given.is_none().then(|| servers.block_on(Server::start(config)).unwrap());
    let address = given.or(own.as_ref().map(RunningServer::address)).unwrap();
    let connect = || {
        clients.block_on(async {
            let socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let handshake = h2::client::Builder::new()
                .initial_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .handshake::<_, Bytes>(socket);
            let (client, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            client.ready().await.unwrap()
        })
    };
    let (first, second) = (connect(), connect());
    let begun = Instant::now();
    clients.block_on(load(&first, keys));
    println!("{keys} keys of {VALUE_BYTES} bytes loaded in {:.1} s", begun.elapsed().as_secs_f64());
    for round in 1..=3 {
        let alone = clients.block_on(puts(first.clone(), time));
        println!("round {round}  alone                 {alone}");
        for (name, lister) in
            [("beside, 2 connections", &second), ("beside, 1 connection ", &first)]
        {
            let stop = Arc::new(AtomicBool::new(false));
            let listing = clients.spawn(list_until(lister.clone(), Arc::clone(&stop), keys));
            let beside = clients.block_on(puts(first.clone(), time));
            stop.store(true, Ordering::Relaxed);
            let (lists, mean) = clients.block_on(listing).unwrap();
            println!("round {round}  {name} {beside}   {lists} lists, {mean:.2} s each");
        }
    }
    if let Some(server) = own {
        servers.block_on(server.shutdown());
    }
}

fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// Sends one call and drops what is answered; how many bytes that was, and its status.
async fn call(client: SendRequest<Bytes>, method: &str, request: &impl Message) -> (u64, String) {
    let head = http::Request::post(format!("http://x/etcdserverpb.KV/{method}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, mut body) = client.send_request(head, false).unwrap();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(request.encoded_len()).unwrap());
    request.encode(&mut frame).unwrap();
    body.send_data(frame.freeze(), true).unwrap();
    let answer = answer.await.unwrap();
    let status = |headers: &http::HeaderMap| headers["grpc-status"].to_str().unwrap().to_owned();
    if answer.headers().contains_key("grpc-status") {
        return (0, status(answer.headers()));
    }
    let mut body = answer.into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        received += data.len() as u64;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    (received, status(&trailers))
}

async fn load(client: &SendRequest<Bytes>, keys: u64) {
    let loaders: Vec<_> = (0..LOADERS as u64)
        .map(|loader| {
            let client = client.clone();
            tokio::spawn(async move {
                let mine: Vec<u64> = (loader..keys).step_by(LOADERS).collect();
                for batch in mine.chunks(BATCH) {
                    let put = |key: &u64| {
                        let key = format!("key/{key:012}").into_bytes().into();
                        let value = vec![b'v'; VALUE_BYTES].into();
                        let put = PutRequest { key, value, ..PutRequest::default() };
                        RequestOp { request: Some(Request::RequestPut(put)) }
                    };
                    let success = batch.iter().map(put).collect();
                    let txn = TxnRequest { success, ..TxnRequest::default() };
                    assert_eq!(call(client.clone(), "Txn", &txn).await.1, "0");
                }
            })
        })
        .collect();
    for loader in loaders {
        loader.await.unwrap();
    }
}

/// One put after the other; their times.
async fn puts(client: SendRequest<Bytes>, time: Duration) -> String {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let key = format!("put/{:04}", took.len() % 1000).into_bytes().into();
        let put = PutRequest { key, value: vec![b'p'; 64].into(), ..PutRequest::default() };
        let sent = Instant::now();
        assert_eq!(call(client.clone(), "Put", &put).await.1, "0");
        took.push(sent.elapsed());
    }
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!(
        "{:>6} puts  p50 {:>7.2}  p99 {:>8.2}  max {:>8.2} ms",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

async fn list_until(client: SendRequest<Bytes>, stop: Arc<AtomicBool>, keys: u64) -> (u32, f64) {
    let (begun, mut lists) = (Instant::now(), 0);
    let all =
        RangeRequest { key: "key/".into(), range_end: "key0".into(), ..RangeRequest::default() };
    while !stop.load(Ordering::Relaxed) {
        let (received, status) = call(client.clone(), "Range", &all).await;
        assert_eq!(status, "0");
        assert!(received > keys * VALUE_BYTES as u64);
        lists += 1;
    }
    (lists, begun.elapsed().as_secs_f64() / f64::from(lists.max(1)))
}
