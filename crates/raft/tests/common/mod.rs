//! A state machine for the tests: keeps every command, durable only by checkpoints.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each file uses its part")]

use bytes::Bytes;
use chronolith_raft::{
    Applied, CheckpointJob, Committed, RaftConfig, RaftHandle, RaftNode, StateMachine,
};
use parking_lot::Mutex;
use std::{path::Path, sync::Arc, sync::mpsc};

/// What survives the process: the newest checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Durable(pub(crate) Arc<Mutex<Checkpoint>>);

type Checkpoint = Option<(Applied, Vec<Bytes>)>;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) &'static str);

pub(crate) struct Journal {
    pub(crate) durable: Durable,
    applied: Option<Applied>,
    pub(crate) checkpoints_fail: bool,
    pub(crate) commands: Arc<Mutex<Vec<Bytes>>>,
}

impl Journal {
    pub(crate) fn open(durable: &Durable) -> Self {
        let (applied, commands) = durable.0.lock().clone().unzip();
        let commands = Arc::new(Mutex::new(commands.unwrap_or_default()));
        Self { durable: durable.clone(), applied, checkpoints_fail: false, commands }
    }
}

impl StateMachine for Journal {
    type Outcome = usize;
    type Error = Failure;

    fn applied(&self) -> Result<Option<Applied>, Failure> {
        Ok(self.applied.clone())
    }

    fn apply(&mut self, run: &[Committed], applied: &Applied) -> Result<Vec<usize>, Failure> {
        let mut commands = self.commands.lock();
        let mut outcomes = Vec::new();
        for Committed { command, .. } in run {
            match &command[..] {
                b"fail" => return Err(Failure("told to fail")),
                b"panic" => panic!("told to panic"),
                _ => commands.push(command.clone()),
            }
            outcomes.push(commands.len());
        }
        self.applied = Some(applied.clone());
        Ok(outcomes)
    }

    fn begin_checkpoint(&mut self) -> Result<CheckpointJob<Failure>, Failure> {
        if self.checkpoints_fail {
            return Err(Failure("no room for a checkpoint"));
        }
        let durable = self.durable.clone();
        let copy = self.applied.clone().map(|applied| (applied, self.commands.lock().clone()));
        Ok(Box::new(move || {
            let index = copy.as_ref().map_or(0, |(applied, _)| applied.index);
            *durable.0.lock() = copy;
            Ok(index)
        }))
    }
}

pub(crate) fn config(dir: &Path) -> RaftConfig {
    RaftConfig::new(7, vec![7], dir.join("log"))
}

pub(crate) fn start(dir: &Path, durable: &Durable) -> RaftHandle<usize> {
    RaftNode::start(config(dir), Journal::open(durable)).unwrap()
}

pub(crate) type Answer = Result<chronolith_raft::Reply<usize>, chronolith_raft::ProposeError>;

pub(crate) fn propose(node: &RaftHandle<usize>, command: Bytes) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    node.propose(command, Box::new(move |reply| sender.send(reply).unwrap()));
    receiver
}

pub(crate) fn put(node: &RaftHandle<usize>, command: impl Into<Bytes>) -> Answer {
    propose(node, command.into()).recv().unwrap()
}

pub(crate) fn numbered(number: usize) -> Bytes {
    Bytes::from(number.to_be_bytes().to_vec())
}
