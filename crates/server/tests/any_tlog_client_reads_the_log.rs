//! The static tiles, read over HTTP by an implementation of tlog-tiles that others wrote.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use chronolith_ledger::{Entry, Policy, SignedNote, VerifierKey};
use chronolith_proto::history::CheckpointRequest;
use chronolith_store::Verify;
use common::*;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};
use tlog_tiles::{Hash, Tile, TileHashReader, TileReader};

const TYPE_TEXT: &str = "content-type: text/plain; charset=utf-8";
const TYPE_OCTETS: &str = "content-type: application/octet-stream";

/// A node with this many revisions.
async fn node(revisions: usize) -> Node {
    let node = Node::start_with(|config| config.verify = Verify::Async).await;
    // The store itself: thousands of round trips would only make the test slow.
    let store = node.server.store();
    for number in 0..revisions {
        store.put(put(&format!("key/{}", number % 7), &number.to_string())).await.unwrap();
    }
    node
}

fn get(address: SocketAddr, path: &str) -> HttpAnswer {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("GET /tlog/main/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    HttpAnswer::read(&answer)
}

/// A client that knows the log's address and nothing else of ours.
struct Client(SocketAddr);

impl TileReader for Client {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            let answer = get(self.0, &path);
            assert_eq!(answer.code, 200, "{path}");
            assert!(answer.head.contains(TYPE_OCTETS), "{}", answer.head);
            assert!(answer.head.contains("immutable"), "{}", answer.head);
            answer.body
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The newest checkpoint, its signature checked with the published key.
fn checkpoint(address: SocketAddr) -> chronolith_ledger::Checkpoint {
    let key = get(address, "log.vkey");
    assert!(key.head.contains(TYPE_TEXT), "{}", key.head);
    let key = VerifierKey::parse(std::str::from_utf8(&key.body).unwrap().trim_end()).unwrap();
    let note = get(address, "checkpoint");
    assert!(note.head.contains(TYPE_TEXT) && note.head.contains("no-store"), "{}", note.head);
    Policy::log_only(key).unwrap().open(&SignedNote::parse(&note.body).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_included_and_every_size_continued() {
    let node = node(600).await;
    node.history().await.checkpoint(CheckpointRequest {}).await.unwrap();
    let address = node.server.address();
    let old = tokio::task::spawn_blocking(move || checkpoint(address)).await.unwrap();
    assert_eq!(old.size, 600);
    for number in 0..99 {
        node.server.store().put(put("later", &number.to_string())).await.unwrap();
    }
    node.history().await.checkpoint(CheckpointRequest {}).await.unwrap();
    let client = move || {
        let new = checkpoint(address);
        assert_eq!(new.size, 699);
        let (size, root) = (new.size, Hash(new.root.0));
        let client = Client(address);
        let reader = TileHashReader::new(size, root, &client);
        let mut entries = entries_of(address, "tile/entries/000");
        entries.extend(entries_of(address, "tile/entries/001"));
        entries.extend(entries_of(address, "tile/entries/002.p/187"));
        assert_eq!(entries.len(), 699);
        for (index, entry) in entries.iter().enumerate().step_by(13) {
            let decoded = Entry::decode(entry).unwrap();
            assert_eq!(decoded.revision, index as u64 + 2);
            let path = tlog_tiles::prove_record(size, index as u64, &reader).unwrap();
            let leaf = tlog_tiles::record_hash(entry);
            tlog_tiles::check_record(&path, size, root, index as u64, leaf).unwrap();
        }
        let path = tlog_tiles::prove_tree(size, old.size, &reader).unwrap();
        tlog_tiles::check_tree(&path, size, root, old.size, Hash(old.root.0)).unwrap();
    };
    tokio::task::spawn_blocking(client).await.unwrap();
}

/// The entries of a bundle: each behind its length in two bytes.
fn entries_of(address: SocketAddr, path: &str) -> Vec<Vec<u8>> {
    let answer = get(address, path);
    assert_eq!(answer.code, 200, "{path}");
    assert!(answer.head.contains(TYPE_OCTETS), "{}", answer.head);
    let mut rest = &answer.body[..];
    let mut entries = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        rest = after;
    }
    entries
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let node = node(3).await;
    node.history().await.checkpoint(CheckpointRequest {}).await.unwrap();
    for path in [
        "",
        "tile",
        "tile/0/000",
        "tile/0/000.p/4",
        "tile/0/001",
        "tile/1/000.p/1",
        "tile/0/0.p/3",
        "tile/entries/000.p/4",
        "tile/64/000",
        "../../log.key",
        "log.key",
        "state",
        "tile/0/000.p/0",
    ] {
        let answer = node.fetch("GET", &format!("/tlog/main/{path}"), &[], b"").await;
        assert_eq!(answer.code, 404, "{path}");
    }
    assert_eq!(node.fetch("GET", "/tlog/other/checkpoint", &[], b"").await.code, 404);
    assert_eq!(node.fetch("GET", "/tlog/main/tile/0/000.p/3", &[], b"").await.body.len(), 96);
    let post = node.fetch("POST", "/tlog/main/checkpoint", &[], b"x").await;
    assert_eq!(post.code, 405);
}

#[tokio::test]
async fn a_log_that_has_signed_nothing_yet_signs_when_it_is_asked() {
    let node = node(0).await;
    let answer = node.fetch("GET", "/tlog/main/checkpoint", &[], b"").await;
    assert_eq!(answer.code, 200);
    let note = SignedNote::parse(&answer.body).unwrap();
    assert_eq!(chronolith_ledger::Checkpoint::parse(note.text()).unwrap().size, 0);
}
