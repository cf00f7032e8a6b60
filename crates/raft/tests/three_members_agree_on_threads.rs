//! Three nodes on threads of their own, messages through channels: the seam a network will use.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use chronolith_raft::{
    PeerMessage, PeerTransport, ProposeError, RaftConfig, RaftHandle, RaftNode, Role,
};
use common::{Durable, Journal, numbered, propose};
use parking_lot::Mutex;
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

type Nodes = Arc<Mutex<Vec<Option<RaftHandle<usize>>>>>;

struct Wire(mpsc::Sender<PeerMessage>);

impl PeerTransport for Wire {
    fn send(&mut self, messages: Vec<PeerMessage>) {
        for message in messages {
            // The wire ends when the test does.
            let _ = self.0.send(message);
        }
    }
}

fn node_of(nodes: &Nodes, id: u64) -> Option<RaftHandle<usize>> {
    nodes.lock()[id as usize - 1].clone()
}

fn start(id: u64, dir: &std::path::Path, journal: Journal, wire: Wire) -> RaftHandle<usize> {
    let mut config = RaftConfig::new(id, vec![1, 2, 3], dir.join(id.to_string()));
    config.tick_ms = 5;
    RaftNode::start_with(config, journal, wire).unwrap()
}

/// Proposes until a leader took it. `Unknown` may have been taken too: then it counts.
fn put(nodes: &Nodes, command: Bytes) {
    loop {
        let all: Vec<_> = nodes.lock().iter().flatten().cloned().collect();
        let leader = all.into_iter().find(|node| node.status().role == Role::Leader);
        let answer = leader.map(|node| propose(&node, command.clone()).recv().unwrap());
        match answer {
            Some(Ok(_) | Err(ProposeError::Unknown)) => return,
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn wait_for(commands: &Mutex<Vec<Bytes>>, last: &Bytes) {
    while commands.lock().last() != Some(last) {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn and_go_on_when_the_leader_is_gone_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let nodes: Nodes = Arc::new(Mutex::new(vec![None; 3]));
    let (wire, messages) = mpsc::channel::<PeerMessage>();
    let carried = Arc::clone(&nodes);
    let network = thread::spawn(move || {
        for message in messages {
            if let Some(node) = node_of(&carried, message.to()) {
                node.deliver(message);
            }
        }
    });
    let mut journals = Vec::new();
    for id in 1..=3 {
        let journal = Journal::open(&Durable::default());
        journals.push(journal.commands.clone());
        let node = start(id, dir.path(), journal, Wire(wire.clone()));
        nodes.lock()[id as usize - 1] = Some(node);
    }
    (0..50).for_each(|number| put(&nodes, numbered(number)));
    let leader = (1..=3)
        .find(|id| node_of(&nodes, *id).is_some_and(|node| node.status().role == Role::Leader));
    let gone = leader.unwrap();
    let stopped = nodes.lock()[gone as usize - 1].take().unwrap();
    stopped.stop();
    (50..100).for_each(|number| put(&nodes, numbered(number)));
    let journal = Journal::open(&Durable::default());
    journals[gone as usize - 1] = journal.commands.clone();
    let node = start(gone, dir.path(), journal, Wire(wire.clone()));
    nodes.lock()[gone as usize - 1] = Some(node.clone());
    let last = numbered(100);
    put(&nodes, last.clone());
    journals.iter().for_each(|commands| wait_for(commands, &last));
    let expected = journals[0].lock().clone();
    assert!(journals.iter().all(|commands| *commands.lock() == expected));
    let (sender, receiver) = mpsc::channel();
    node.read_index(Box::new(move |index| sender.send(index).unwrap()));
    assert!(receiver.recv().unwrap().is_ok());
    let all: Vec<_> = nodes.lock().iter_mut().filter_map(Option::take).collect();
    all.iter().for_each(RaftHandle::stop);
    drop((all, node, stopped, wire));
    network.join().unwrap();
}
