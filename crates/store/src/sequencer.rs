//! Puts commands in order and applies them: stands in for Raft until that crate is there, with the
//! same names. It keeps no log, so nothing survives the process.

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::{collections::VecDeque, sync::Arc, thread::JoinHandle};

/// A command that is to be applied.
pub(crate) struct Committed {
    #[allow(dead_code)]
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) command: Bytes,
}

/// How far the log is applied.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) conf_state: Bytes,
}

pub(crate) trait StateMachine: Send + 'static {
    type Outcome: Send + 'static;
    type Error: std::error::Error + Send + Sync + 'static;
    fn applied(&self) -> Result<Option<Applied>, Self::Error>;
    fn apply(
        &mut self,
        run: &[Committed],
        applied: &Applied,
    ) -> Result<Vec<Self::Outcome>, Self::Error>;
}

pub(crate) struct Reply<O> {
    pub(crate) outcome: O,
}

#[derive(Debug)]
pub(crate) enum ProposeError {
    Overloaded,
    Stopped,
    Poisoned(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

pub(crate) struct RaftStatus {
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) role: Role,
    pub(crate) poisoned: Option<String>,
}

type Waiter<O> = Box<dyn FnOnce(Result<Reply<O>, ProposeError>) + Send>;

struct Queue<O> {
    waiting: VecDeque<(Bytes, Waiter<O>)>,
    applied: u64,
    stopped: bool,
    poisoned: Option<String>,
}

struct Core<O> {
    queue: Mutex<Queue<O>>,
    bell: Condvar,
}

/// Commands that may wait.
const QUEUE: usize = 8192;
const TERM: u64 = 1;

pub(crate) struct RaftHandle<O> {
    core: Arc<Core<O>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    node_id: u64,
}

impl<O: Send + 'static> RaftHandle<O> {
    pub(crate) fn start<M: StateMachine<Outcome = O>>(
        node_id: u64,
        machine: M,
    ) -> Result<Self, M::Error> {
        let applied = machine.applied()?.map_or(0, |applied| applied.index);
        let queue = Queue { waiting: VecDeque::new(), applied, stopped: false, poisoned: None };
        let core = Arc::new(Core { queue: Mutex::new(queue), bell: Condvar::new() });
        let worker = Arc::clone(&core);
        let thread = std::thread::spawn(move || worker.run(machine));
        Ok(Self { core, thread: Mutex::new(Some(thread)), node_id })
    }

    pub(crate) fn propose(&self, command: Bytes, reply: Waiter<O>) {
        let mut queue = self.core.queue.lock();
        let refused = match &queue.poisoned {
            Some(cause) => Some(ProposeError::Poisoned(cause.clone())),
            None if queue.stopped => Some(ProposeError::Stopped),
            None if queue.waiting.len() >= QUEUE => Some(ProposeError::Overloaded),
            None => None,
        };
        if let Some(error) = refused {
            drop(queue);
            return reply(Err(error));
        }
        queue.waiting.push_back((command, reply));
        drop(queue);
        self.core.bell.notify_one();
    }

    pub(crate) fn read_index(&self, reply: Box<dyn FnOnce(Result<u64, ProposeError>) + Send>) {
        let applied = self.core.queue.lock().applied;
        reply(Ok(applied));
    }

    pub(crate) fn status(&self) -> RaftStatus {
        let queue = self.core.queue.lock();
        let stopped = queue.stopped;
        RaftStatus {
            leader: (!stopped).then_some(self.node_id),
            term: TERM,
            commit: queue.applied,
            applied: queue.applied,
            role: if stopped { Role::Follower } else { Role::Leader },
            poisoned: queue.poisoned.clone(),
        }
    }

    pub(crate) fn stop(&self) {
        self.core.queue.lock().stopped = true;
        self.core.bell.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl<O> Core<O> {
    fn run<M: StateMachine<Outcome = O>>(&self, mut machine: M) {
        while let Some((waiting, from)) = self.take() {
            let (commands, waiters): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            let run: Vec<Committed> = (from..)
                .zip(commands)
                .map(|(index, command)| Committed { index, term: TERM, command })
                .collect();
            let index = from + run.len() as u64 - 1;
            match machine.apply(&run, &Applied { index, term: TERM, conf_state: Bytes::new() }) {
                Ok(outcomes) => {
                    self.queue.lock().applied = index;
                    let both = waiters.into_iter().zip(outcomes);
                    both.for_each(|(reply, outcome)| reply(Ok(Reply { outcome })));
                }
                Err(error) => {
                    let cause = error.to_string();
                    self.queue.lock().poisoned = Some(cause.clone());
                    let all = waiters.into_iter();
                    return all.for_each(|reply| reply(Err(ProposeError::Poisoned(cause.clone()))));
                }
            }
        }
    }

    fn take(&self) -> Option<(VecDeque<(Bytes, Waiter<O>)>, u64)> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.stopped {
                return None;
            }
            self.bell.wait(&mut queue);
        }
        Some((std::mem::take(&mut queue.waiting), queue.applied + 1))
    }
}
