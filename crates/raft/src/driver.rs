//! One member, stepped from outside: no clock, no thread, no file.
//!
//! ```text
//! propose, read ──▶┌────────┐──▶ messages     send them now
//! message, tick ──▶│ Driver │──▶ committed    apply, answer the waiters, then `applied`
//! persisted ──────▶│        │──▶ write        put into the log with one sync, then `persisted`
//! applied ────────▶└────────┘──▶ install      a snapshot: write, restore, then `installed`
//! ```
//! * One write at a time. What is proposed while it runs waits, and makes the next group: the
//!   sync is the batching window, there is no timer.
//! * A leader's messages go out before its own write; a follower's, and every vote, after it.
//! * Entries are applied only once they are durable here and committed.
//! * A waiter is matched by index and term: another leader's entry at its index never answers it.
//! * While a snapshot is being installed nothing else happens.
//! * Reads are confirmed by a round among the members (never by a clock), all that wait share one.

use crate::{
    error::{Error, ProposeError},
    log::{LogReader, Recovered},
    members, payload,
    state_machine::{Applied, Committed, SnapshotData},
    tail::{self, Tail},
    types::{HardState, Location, LogEntry, LogWrite, Position},
};
use bytes::Bytes;
use raft::{
    RawNode, Ready, SnapshotStatus, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType, Snapshot},
};
use std::{collections::VecDeque, ops::Range};

/// A message between members. Opaque: how it travels is the transport's business.
#[derive(Clone, Debug)]
pub struct PeerMessage(pub(crate) Message);

impl PeerMessage {
    /// Who sent it.
    pub fn from(&self) -> u64 {
        self.0.from
    }

    /// Whom it is for.
    pub fn to(&self) -> u64 {
        self.0.to
    }

    /// Whether it carries a snapshot: the sender must be told how that went.
    pub fn is_snapshot(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgSnapshot
    }
}

/// Brings messages to other members. May lose, repeat and reorder them; must not wait.
pub trait PeerTransport: Send + 'static {
    /// Sends messages on.
    fn send(&mut self, messages: Vec<PeerMessage>);
}

/// Settings of a driver.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// This member. Not 0.
    pub node_id: u64,
    /// The first members, where the state machine knows of none yet.
    pub voters: Vec<u64>,
    /// Ticks without a leader before an election. Default 10.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats. Default 1.
    pub heartbeat_ticks: usize,
    /// Election timeouts are drawn from this range of ticks; by default one to two timeouts.
    pub election_range: Option<Range<usize>>,
    /// Differs in each life of a member: keeps answers to an earlier life apart.
    pub incarnation: u64,
    /// Commands in one entry. Default 1,024: an entry stays far below a message's size.
    pub entry_commands_max: usize,
    /// Bytes of commands in one entry. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// Bytes of commands in one write. Default 4 MiB: some milliseconds of a disk's time.
    pub group_bytes_max: usize,
}

impl DriverConfig {
    /// The defaults.
    pub fn new(node_id: u64, voters: Vec<u64>) -> Self {
        Self {
            node_id,
            voters,
            election_ticks: 10,
            heartbeat_ticks: 1,
            election_range: None,
            incarnation: 0,
            entry_commands_max: 1024,
            entry_bytes_max: 1 << 20,
            group_bytes_max: 4 << 20,
        }
    }

    fn to_raft(&self, applied: u64) -> raft::Config {
        let range = self.election_range.clone();
        let range = range.unwrap_or(self.election_ticks..2 * self.election_ticks);
        raft::Config {
            id: self.node_id,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            min_election_tick: range.start,
            max_election_tick: range.end,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            // raft-rs 0.7.0 adds entries to a queued message without entries even if they do not
            // follow on its index: the follower then acknowledges entries it does not have. The
            // simulator finds it; groups make the batches that this was for.
            batch_append: false,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: RUN_BYTES_MAX,
            ..raft::Config::default()
        }
    }
}

/// Bytes of entries in one message to a follower.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Messages to a follower that are not answered yet: enough to fill a network, few enough that a
/// follower that fell back is not flooded.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// Bytes a leader may hold that no quorum has; behind it proposals are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of entries handed over to be applied at once: bounds the memory of a replay.
const RUN_BYTES_MAX: u64 = 8 << 20;

/// Ticks after which an unanswered read round is repeated: raft-rs drops rounds without a word
/// while there is no leader, or one that has not committed yet.
const READ_RETRY_TICKS: u64 = 3;

/// Committed entries, and who waits for them.
#[derive(Debug)]
pub struct Run<W> {
    /// The commands, in order.
    pub commands: Vec<Committed>,
    /// Waiters of a range of the commands, in order.
    pub waiters: Vec<(Range<usize>, Vec<W>)>,
    /// Where the log stands after the run.
    pub applied: Applied,
}

/// A snapshot to be installed at once, before anything else.
#[derive(Debug)]
pub struct Install {
    /// Goes into the log, synced, first.
    pub before: LogWrite,
    /// Then this into the state machine, durable.
    pub snapshot: SnapshotData,
    /// Then this into the log, synced; its locations go to [`Driver::installed`].
    pub after: Option<LogWrite>,
}

/// What is to be done now, in this order.
#[derive(Debug)]
pub struct Output<W, R> {
    /// To be sent.
    pub messages: Vec<PeerMessage>,
    /// To be answered.
    pub refused: Vec<(W, ProposeError)>,
    /// Reads that may go ahead: the state is new enough.
    pub reads: Vec<R>,
    /// To be installed.
    pub install: Option<Install>,
    /// To be applied.
    pub committed: Option<Run<W>>,
    /// To be written and synced.
    pub write: Option<LogWrite>,
    /// A follower needs a snapshot: to be made and provided.
    pub wants_snapshot: bool,
}

impl<W, R> Default for Output<W, R> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            refused: Vec::new(),
            reads: Vec::new(),
            install: None,
            committed: None,
            write: None,
            wants_snapshot: false,
        }
    }
}

impl<W, R> Output<W, R> {
    /// Nothing to do.
    pub fn is_idle(&self) -> bool {
        self.messages.is_empty()
            && self.refused.is_empty()
            && self.reads.is_empty()
            && self.install.is_none()
            && self.committed.is_none()
            && self.write.is_none()
            && !self.wants_snapshot
    }
}

/// What a member thinks of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its part.
    pub role: Role,
    /// The leader, where it is known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The newest index known to be committed.
    pub commit: u64,
    /// The newest index applied.
    pub applied: u64,
    /// The first index in the log.
    pub first: u64,
    /// The last index in the log.
    pub last: u64,
    /// Leads, and has committed an entry of its own term: its commit index is the newest.
    pub is_settled: bool,
}

/// A member's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides the order.
    Leader,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
}

struct Waiting<W> {
    place: Position,
    waiters: Vec<W>,
}

/// Messages that wait for a write, and the write.
struct InFlight {
    number: u64,
    entries: Vec<LogEntry>,
    messages: Vec<PeerMessage>,
}

struct ReadRound<R> {
    context: Vec<u8>,
    readers: Vec<R>,
    begun_at: u64,
}

struct Reads<R> {
    next: Vec<R>,
    round: Option<ReadRound<R>>,
    confirmed: VecDeque<(u64, Vec<R>)>,
    rounds: u64,
}

/// What is left to do once a snapshot is installed.
struct Installing {
    ready: Ready,
    base: Position,
    members: raft::eraftpb::ConfState,
    entries: Vec<LogEntry>,
    messages: Vec<PeerMessage>,
}

/// One member. `W` waits for a proposal, `R` for a read.
pub struct Driver<W, R> {
    config: DriverConfig,
    raw: RawNode<Tail>,
    queue: VecDeque<(Bytes, W)>,
    queue_bytes: usize,
    waiting: VecDeque<Waiting<W>>,
    in_flight: Option<InFlight>,
    installing: Option<Installing>,
    /// Not worth a sync of its own.
    unwritten: Option<HardState>,
    written_commit: u64,
    reads: Reads<R>,
    refused: Vec<(W, ProposeError)>,
    ready_messages: Vec<PeerMessage>,
    ticks: u64,
    applied: u64,
}

impl<W, R> Driver<W, R> {
    /// A member as it was when its log was closed.
    pub fn new(
        config: DriverConfig,
        recovered: Recovered,
        reader: LogReader,
        applied: Option<Applied>,
    ) -> Result<Self, Error> {
        let members = match &applied {
            None => members::of_voters(&config.voters),
            Some(applied) => members::decode(applied.conf_state.clone()).ok_or_else(|| {
                Error::Mismatch("the state's list of members does not read".into())
            })?,
        };
        let applied = applied.map_or(crate::log::ORIGIN.index, |applied| applied.index);
        let written_commit = recovered.hard_state.commit;
        let tail = Tail::new(recovered, reader, members, applied);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config.to_raft(applied), tail, &logger)?;
        Ok(Self {
            config,
            raw,
            queue: VecDeque::new(),
            queue_bytes: 0,
            waiting: VecDeque::new(),
            in_flight: None,
            installing: None,
            unwritten: None,
            written_commit,
            reads: Reads { next: Vec::new(), round: None, confirmed: VecDeque::new(), rounds: 0 },
            refused: Vec::new(),
            ready_messages: Vec::new(),
            ticks: 0,
            applied,
        })
    }

    /// Stands for election now.
    pub fn campaign(&mut self) -> Result<(), Error> {
        Ok(self.raw.campaign()?)
    }

    /// Whether this member decides alone.
    pub fn is_alone(&self) -> bool {
        let members = self.raw.store().members();
        members.voters == [self.config.node_id] && members.voters_outgoing.is_empty()
    }

    /// Queues a command.
    pub fn propose(&mut self, command: Bytes, waiter: W) {
        if self.raw.raft.state != StateRole::Leader {
            let leader = self.leader();
            return self.refused.push((waiter, ProposeError::NotLeader { leader }));
        }
        self.queue_bytes += command.len();
        self.queue.push_back((command, waiter));
    }

    /// Asks for a read: the reader is handed back once everything is applied that any member had
    /// acknowledged by now.
    pub fn read(&mut self, reader: R) {
        self.reads.next.push(reader);
    }

    /// A message arrived. What a member must not react to is dropped.
    pub fn message(&mut self, message: PeerMessage) {
        if self.installing.is_some() {
            return;
        }
        // Refusals are the protocol's normal noise: unknown senders, proposals without a leader.
        let _ = self.raw.step(message.0);
    }

    /// Time passed.
    pub fn tick(&mut self) {
        if self.installing.is_some() {
            return;
        }
        self.ticks += 1;
        self.raw.tick();
        let due = |round: &mut ReadRound<R>| self.ticks - round.begun_at >= READ_RETRY_TICKS;
        if let Some(round) = self.reads.round.take_if(due) {
            self.reads.next.splice(0..0, round.readers);
        }
    }

    /// A member cannot be reached.
    pub fn unreachable(&mut self, member: u64) {
        self.raw.report_unreachable(member);
    }

    /// How the sending of a snapshot went. Must be told for every one, or its receiver gets nothing
    /// any more.
    pub fn snapshot_sent(&mut self, member: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(member, status);
    }

    /// The snapshot that was asked for.
    pub fn provide_snapshot(&mut self, data: SnapshotData) -> Result<(), Error> {
        let members = members::decode(data.applied.conf_state)
            .ok_or_else(|| Error::Mismatch("a snapshot's list of members does not read".into()))?;
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().set_conf_state(members);
        snapshot.mut_metadata().index = data.applied.index;
        snapshot.mut_metadata().term = data.applied.term;
        snapshot.data = data.state;
        self.raw.mut_store().provide(snapshot);
        Ok(())
    }

    /// A write is durable.
    pub fn persisted(&mut self, number: u64, locations: &[Location]) {
        let Some(done) = self.in_flight.take_if(|write| write.number == number) else { return };
        self.raw.mut_store().located(&done.entries, locations);
        self.raw.on_persist_ready(number);
        self.ready_messages.extend(done.messages);
    }

    /// A run is applied.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
        self.raw.mut_store().applied(index);
        self.applied = index;
    }

    /// A snapshot is installed, and what follows it written.
    pub fn installed(&mut self, locations: &[Location]) {
        let Some(done) = self.installing.take() else { return };
        let number = done.ready.number();
        let tail = self.raw.mut_store();
        tail.restart_at(done.base, done.members);
        tail.append(done.ready.entries());
        tail.located(&done.entries, locations);
        self.raw.advance_append_async(done.ready);
        self.raw.on_persist_ready(number);
        self.raw.advance_apply_to(done.base.index);
        self.applied = done.base.index;
        self.ready_messages.extend(done.messages);
    }

    /// Entries up to an index are in a checkpoint: they will not be needed.
    pub fn purge(&mut self, up_to: u64) {
        self.raw.mut_store().purge(up_to);
    }

    /// Commands that wait for the next group.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Everyone who still waits for a proposal, with what can be said of it, or for a read.
    pub fn abandon(&mut self) -> (Vec<(W, ProposeError)>, Vec<R>) {
        self.waiting_up_to(u64::MAX);
        let queued = std::mem::take(&mut self.queue).into_iter();
        let mut waiters = std::mem::take(&mut self.refused);
        waiters.extend(queued.map(|(_, waiter)| (waiter, ProposeError::Stopped)));
        let mut readers = std::mem::take(&mut self.reads.next);
        readers.extend(self.reads.round.take().into_iter().flat_map(|round| round.readers));
        readers.extend(self.reads.confirmed.drain(..).flat_map(|(_, readers)| readers));
        (waiters, readers)
    }

    /// What this member thinks of itself.
    pub fn standing(&self) -> Standing {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Standing {
            role,
            leader: self.leader(),
            term: raft.term,
            commit: raft.raft_log.committed,
            applied: self.applied,
            first: raft.raft_log.first_index(),
            last: raft.raft_log.last_index(),
            is_settled: role == Role::Leader && raft.commit_to_current_term(),
        }
    }

    fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// What is to be done now. To be called again until it answers nothing.
    pub fn poll(&mut self) -> Result<Output<W, R>, Error> {
        let mut out = Output::default();
        if self.in_flight.is_none() && self.installing.is_none() {
            self.advance(&mut out)?;
        }
        out.refused.append(&mut self.refused);
        out.reads = self.readable();
        out.wants_snapshot = self.raw.store().take_wants_snapshot();
        Ok(out)
    }

    fn advance(&mut self, out: &mut Output<W, R>) -> Result<(), Error> {
        self.begin_read_round();
        if !self.raw.has_ready() {
            self.form_group();
        }
        if self.raw.has_ready() {
            let ready = self.raw.ready();
            self.take_ready(ready, out)?;
        }
        // Before the messages of what follows, and after everything they speak of was written.
        out.messages.splice(0..0, self.ready_messages.drain(..));
        Ok(())
    }

    /// Everything that is queued becomes entries, which travel and are written together.
    fn form_group(&mut self) {
        if self.raw.raft.state != StateRole::Leader || self.queue.is_empty() {
            return;
        }
        let mut entries = Vec::new();
        let mut waiters = Vec::new();
        let mut bytes = 0;
        while bytes < self.config.group_bytes_max && !self.queue.is_empty() {
            let (commands, waiting) = self.take_entry();
            let entry = Entry { data: payload::encode(&commands), ..Entry::default() };
            bytes += entry.data.len();
            entries.push(entry);
            waiters.push(waiting);
        }
        self.step_proposal(entries, waiters);
    }

    fn take_entry(&mut self) -> (Vec<Bytes>, Vec<W>) {
        let mut commands = Vec::new();
        let mut waiters = Vec::new();
        let mut bytes = 0;
        while let Some((command, _)) = self.queue.front() {
            bytes += command.len();
            let full = commands.len() == self.config.entry_commands_max
                || bytes > self.config.entry_bytes_max && !commands.is_empty();
            if full {
                break;
            }
            let Some((command, waiter)) = self.queue.pop_front() else { break };
            self.queue_bytes -= command.len();
            commands.push(command);
            waiters.push(waiter);
        }
        (commands, waiters)
    }

    fn step_proposal(&mut self, entries: Vec<Entry>, waiters: Vec<Vec<W>>) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.node_id;
        message.set_entries(entries.into());
        let first = self.raw.raft.raft_log.last_index() + 1;
        let term = self.raw.raft.term;
        match self.raw.raft.step(message) {
            Ok(()) => self.waiting.extend(
                (first..)
                    .zip(waiters)
                    .map(|(index, waiters)| Waiting { place: Position { index, term }, waiters }),
            ),
            Err(_) => {
                let refused = waiters.into_iter().flatten();
                self.refused.extend(refused.map(|waiter| (waiter, ProposeError::Overloaded)));
            }
        }
    }

    fn take_ready(&mut self, mut ready: Ready, out: &mut Output<W, R>) -> Result<(), Error> {
        if ready.ss().is_some() {
            self.on_change_of_leader();
        }
        let into_messages = |messages: Vec<Message>| messages.into_iter().map(PeerMessage);
        out.messages.extend(into_messages(ready.take_messages()));
        self.on_read_states(ready.take_read_states());
        let later: Vec<PeerMessage> = into_messages(ready.take_persisted_messages()).collect();
        let committed = ready.take_committed_entries();
        if let Some(state) = ready.hs() {
            let (term, vote, commit) = (state.term, state.vote, state.commit);
            self.unwritten = Some(HardState { term, vote, commit });
        }
        if !ready.snapshot().is_empty() {
            out.install = Some(self.begin_install(ready, later));
            return Ok(());
        }
        out.committed = self.run_of(committed)?;
        if ready.must_sync() {
            out.write = Some(self.begin_write(ready, later));
        } else {
            let number = ready.number();
            self.raw.advance_append_async(ready);
            self.raw.on_persist_ready(number);
            out.messages.extend(later);
        }
        Ok(())
    }

    fn begin_write(&mut self, mut ready: Ready, messages: Vec<PeerMessage>) -> LogWrite {
        let number = ready.number();
        let raw_entries = ready.take_entries();
        self.raw.mut_store().append(&raw_entries);
        let entries: Vec<LogEntry> = raw_entries.iter().map(tail::from_raft).collect();
        self.raw.advance_append_async(ready);
        let hard_state = self.unwritten.take();
        self.written_commit = hard_state.map_or(self.written_commit, |state| state.commit);
        self.in_flight = Some(InFlight { number, entries: entries.clone(), messages });
        LogWrite { number, hard_state, snapshot: None, entries }
    }

    /// The place goes into the log before the state is replaced. Until then the old commit index
    /// holds: the new one means nothing in the old log.
    fn begin_install(&mut self, ready: Ready, messages: Vec<PeerMessage>) -> Install {
        let number = ready.number();
        let metadata = ready.snapshot().get_metadata();
        let base = Position { index: metadata.index, term: metadata.term };
        let members = metadata.get_conf_state().clone();
        let state = ready.snapshot().data.clone();
        let entries: Vec<LogEntry> = ready.entries().iter().map(tail::from_raft).collect();
        let new_state = self.unwritten.take();
        let old_commit = self.written_commit;
        let hard_state = new_state.map(|state| HardState { commit: old_commit, ..state });
        let before = LogWrite { number, hard_state, snapshot: Some(base), entries: Vec::new() };
        let after = match entries.is_empty() {
            true => {
                self.unwritten = new_state;
                None
            }
            false => {
                self.written_commit = new_state.map_or(old_commit, |state| state.commit);
                let entries = entries.clone();
                Some(LogWrite { number, hard_state: new_state, snapshot: None, entries })
            }
        };
        let conf_state = members::encode(&members);
        let applied = Applied { index: base.index, term: base.term, conf_state };
        self.waiting_up_to(base.index);
        self.installing = Some(Installing { ready, base, members, entries, messages });
        Install { before, snapshot: SnapshotData { applied, state }, after }
    }

    /// Entries of this member that a snapshot or another leader's entry took the place of.
    fn waiting_up_to(&mut self, index: u64) {
        while self.waiting.front().is_some_and(|waiting| waiting.place.index <= index) {
            let waiters = self.waiting.pop_front().map(|waiting| waiting.waiters);
            let unknown = waiters.into_iter().flatten();
            self.refused.extend(unknown.map(|waiter| (waiter, ProposeError::Unknown)));
        }
    }

    fn run_of(&mut self, entries: Vec<Entry>) -> Result<Option<Run<W>>, Error> {
        let Some(last) = entries.last() else { return Ok(None) };
        let conf_state = members::encode(self.raw.store().members());
        let applied = Applied { index: last.index, term: last.term, conf_state };
        let mut run = Run { commands: Vec::new(), waiters: Vec::new(), applied };
        for entry in entries {
            self.add_to_run(entry, &mut run)?;
        }
        Ok(Some(run))
    }

    fn add_to_run(&mut self, entry: Entry, run: &mut Run<W>) -> Result<(), Error> {
        let (index, term) = (entry.index, entry.term);
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(Error::Mismatch(format!(
                "entry {index} changes the members, which this version cannot do"
            )));
        }
        let commands = payload::decode(entry.data)
            .ok_or_else(|| Error::Mismatch(format!("the commands of entry {index} do not read")))?;
        let begin = run.commands.len();
        let commands = commands.into_iter();
        run.commands.extend(commands.map(|command| Committed { index, term, command }));
        self.waiting_up_to(index - 1);
        let is_own = |waiting: &mut Waiting<W>| waiting.place == Position { index, term };
        match self.waiting.pop_front_if(is_own) {
            Some(own) => run.waiters.push((begin..run.commands.len(), own.waiters)),
            None => self.waiting_up_to(index),
        }
        Ok(())
    }

    fn on_change_of_leader(&mut self) {
        if self.raw.raft.state == StateRole::Leader {
            return;
        }
        let leader = self.leader();
        let queued = std::mem::take(&mut self.queue).into_iter();
        self.refused.extend(queued.map(|(_, waiter)| (waiter, ProposeError::NotLeader { leader })));
        self.queue_bytes = 0;
        self.waiting_up_to(u64::MAX);
    }

    fn begin_read_round(&mut self) {
        if self.reads.round.is_some() || self.reads.next.is_empty() {
            return;
        }
        self.reads.rounds += 1;
        let parts = [self.config.node_id, self.config.incarnation, self.reads.rounds];
        let context: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
        self.raw.read_index(context.clone());
        let readers = std::mem::take(&mut self.reads.next);
        self.reads.round = Some(ReadRound { context, readers, begun_at: self.ticks });
    }

    fn on_read_states(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            let answers = |round: &mut ReadRound<R>| round.context == state.request_ctx;
            if let Some(round) = self.reads.round.take_if(answers) {
                self.reads.confirmed.push_back((state.index, round.readers));
            }
        }
    }

    fn readable(&mut self) -> Vec<R> {
        let mut readers = Vec::new();
        let applied = self.applied;
        while let Some((_, mut group)) =
            self.reads.confirmed.pop_front_if(|(index, _)| *index <= applied)
        {
            readers.append(&mut group);
        }
        readers
    }
}
