//! A node of one member on a real directory.

mod common;
mod simulator;

use bytes::Bytes;
use chronolith_raft::{Error, ProposeError, RaftNode, Role};
use common::{Durable, Journal, config, numbered, propose, put, start};
use simulator::disk::SimDisk;
use std::{
    sync::{Arc, mpsc},
    thread,
};

#[test]
fn leads_at_once_and_answers_reads_on_the_callers_thread() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &Durable::default());
    let status = node.status();
    assert_eq!((status.role, status.leader), (Role::Leader, Some(7)));
    let reply = put(&node, "a").unwrap();
    assert_eq!((reply.outcome, reply.term), (1, status.term));
    let (sender, receiver) = mpsc::channel();
    let caller = thread::current().id();
    node.read_index(Box::new(move |index| {
        sender.send((index, thread::current().id() == caller)).unwrap();
    }));
    assert_eq!(receiver.try_recv().unwrap(), (Ok(reply.index), true));
}

#[test]
fn everything_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    for round in 0..4 {
        let journal = Journal::open(&durable);
        let commands = journal.commands.clone();
        let mut config = config(dir.path());
        config.checkpoint_every_entries = 40;
        let node = RaftNode::start(config, journal).unwrap();
        let before: Vec<Bytes> = (0..round * 100).map(numbered).collect();
        assert_eq!(*commands.lock(), before);
        for number in round * 100..(round + 1) * 100 {
            assert_eq!(put(&node, numbered(number)).unwrap().outcome, number + 1);
        }
        node.stop();
    }
}

#[test]
fn the_log_is_purged_behind_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    let mut config = config(dir.path());
    config.checkpoint_every_entries = 50;
    (config.segment_bytes, config.first_segment_bytes) = (64 << 10, 16 << 10);
    let node = RaftNode::start(config.clone(), Journal::open(&durable)).unwrap();
    for number in 0..600 {
        put(&node, numbered(number)).unwrap();
    }
    node.stop();
    let segments = std::fs::read_dir(&config.log_dir).unwrap().count();
    assert!(segments < 20, "600 blocks of 4 KiB in segments of 64 KiB: {segments} files");
    let journal = Journal::open(&durable);
    let commands = journal.commands.clone();
    let node = RaftNode::start(config, journal).unwrap();
    assert_eq!(commands.lock().len(), 600);
    assert!(node.status().log_first > 300);
}

#[test]
fn many_callers_get_their_own_answers() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &Durable::default());
    thread::scope(|scope| {
        for caller in 0..8 {
            let node = node.clone();
            scope.spawn(move || {
                let waiting: Vec<_> =
                    (0..500).map(|i| propose(&node, numbered(caller * 1000 + i))).collect();
                let outcomes: Vec<usize> =
                    waiting.into_iter().map(|w| w.recv().unwrap().unwrap().outcome).collect();
                assert!(outcomes.is_sorted_by(|a, b| a < b), "a caller's order is kept");
            });
        }
    });
    assert_eq!(put(&node, "last").unwrap().outcome, 4001);
}

#[test]
fn stopping_handles_what_was_queued_and_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    let node = start(dir.path(), &durable);
    let waiting: Vec<_> = (0..1000).map(|number| propose(&node, numbered(number))).collect();
    node.stop();
    assert!(waiting.into_iter().all(|waiter| waiter.recv().unwrap().is_ok()));
    assert_eq!(put(&node, "late").unwrap_err(), ProposeError::Stopped);
    let node = start(dir.path(), &durable);
    assert_eq!(put(&node, "next").unwrap().outcome, 1001);
}

#[test]
fn an_error_in_apply_poisons_the_node() {
    for command in ["fail", "panic"] {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path(), &Durable::default());
        put(&node, "good").unwrap();
        let cause = format!("told to {command}");
        let ProposeError::Poisoned(told) = put(&node, command).unwrap_err() else {
            panic!("poisoned expected")
        };
        assert!(told.contains(&cause), "{told}");
        assert!(matches!(put(&node, "later").unwrap_err(), ProposeError::Poisoned(_)));
        let (sender, receiver) = mpsc::channel();
        node.read_index(Box::new(move |index| sender.send(index).unwrap()));
        assert!(receiver.recv().unwrap().is_err());
        assert!(node.status().poisoned.unwrap().contains(&cause));
        node.stop();
        let again = RaftNode::start(config(dir.path()), Journal::open(&Durable::default()));
        let Err(Error::Poisoned(told)) = again.map(|_| ()) else {
            panic!("the same entry must poison the node again")
        };
        assert!(told.contains(&cause), "{told}");
    }
}

#[test]
fn a_command_beyond_a_limit_is_refused_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    (config.command_bytes_max, config.queue_commands_max) = (100, 0);
    let node = RaftNode::start(config, Journal::open(&Durable::default())).unwrap();
    let too_large = ProposeError::TooLarge { size_bytes: 101, limit_bytes: 100 };
    assert_eq!(put(&node, vec![0; 101]).unwrap_err(), too_large);
    assert_eq!(put(&node, vec![0; 100]).unwrap_err(), ProposeError::Overloaded);
    assert!(node.status().poisoned.is_none());
}

#[test]
fn a_large_command_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    let large = Bytes::from(vec![7; 3 << 20]);
    let node = start(dir.path(), &durable);
    put(&node, large.clone()).unwrap();
    put(&node, "small").unwrap();
    node.stop();
    let journal = Journal::open(&durable);
    let commands = journal.commands.clone();
    let _node = RaftNode::start(config(dir.path()), journal).unwrap();
    assert_eq!(*commands.lock(), [large, Bytes::from("small")]);
}

#[test]
fn a_log_without_its_state_or_of_another_member_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    let node = start(dir.path(), &durable);
    put(&node, "a").unwrap();
    node.stop();
    let mut other = config(dir.path());
    (other.node_id, other.voters) = (8, vec![8]);
    let refused = RaftNode::start(other, Journal::open(&durable)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
    let applied = chronolith_raft::Applied { index: 900, term: 2, ..Default::default() };
    *durable.0.lock() = Some((applied, Vec::new()));
    let refused =
        RaftNode::start(config(dir.path()), Journal::open(&durable)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Mismatch(_)), "{refused}");
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let refused =
        RaftNode::start(config(dir.path()), Journal::open(&durable)).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("the log is gone"), "{refused}");
}

/// Nothing to send to.
struct Nobody;

impl chronolith_raft::PeerTransport for Nobody {
    fn send(&mut self, _: Vec<chronolith_raft::PeerMessage>) {}
}

#[test]
fn a_failing_disk_poisons_the_node_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(1, false);
    let start = || {
        let journal = Journal::open(&Durable::default());
        let commands = journal.commands.clone();
        let node = RaftNode::start_on(config(dir.path()), journal, Nobody, Arc::new(disk.clone()));
        (node.unwrap(), commands)
    };
    let (node, _) = start();
    put(&node, "kept").unwrap();
    disk.arm(0);
    let ProposeError::Poisoned(cause) = put(&node, "in doubt").unwrap_err() else {
        panic!("poisoned expected")
    };
    assert!(cause.contains(".log: a synced write failed"), "{cause}");
    node.stop();
    disk.reboot(true);
    let (_node, commands) = start();
    assert_eq!(commands.lock()[0], "kept");
}

#[test]
fn a_failed_checkpoint_is_told_and_the_log_kept() {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::default();
    let mut config = config(dir.path());
    config.checkpoint_every_entries = 1;
    let mut journal = Journal::open(&durable);
    journal.checkpoints_fail = true;
    let node = RaftNode::start(config.clone(), journal).unwrap();
    put(&node, "kept").unwrap();
    while node.status().checkpoint_error.is_none() {
        thread::yield_now();
    }
    assert_eq!(put(&node, "kept too").unwrap().outcome, 2);
    node.stop();
    let journal = Journal::open(&durable);
    let commands = journal.commands.clone();
    let _node = RaftNode::start(config, journal).unwrap();
    assert_eq!(commands.lock().len(), 2);
}
