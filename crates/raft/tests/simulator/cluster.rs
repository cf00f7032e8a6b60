//! Members, network, clients; see the parent.

use super::{
    disk::SimDisk,
    oracle::{Oracle, Progress, Travelling, Verdict},
    rng::Rng,
};
use bytes::Bytes;
use chronolith_raft::{
    Applied, Driver, DriverConfig, Install, LogConfig, LogWrite, Output, PeerMessage, Position,
    Role, Run, SegmentedLog, SnapshotData,
};
use std::{collections::HashSet, sync::Arc};

/// A mistake to be made on purpose: the checks must find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bug {
    #[default]
    None,
    /// The disk says synced, and is not.
    AcknowledgeBeforeSync,
    /// Term and vote are not written.
    ForgetVote,
    /// The applied index is not kept with the data.
    ForgetApplied,
    /// A read is answered without asking the others.
    ReadWithoutRound,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: u64,
    pub(crate) steps: u64,
    pub(crate) bug: Bug,
}

/// A state machine's state; a copy is a checkpoint.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<Applied>,
    progress: Progress,
}

struct Read {
    floor: usize,
}

/// What a read may see: everything that was acknowledged before it was asked for.
fn check_read(count: usize, floor: usize) -> Verdict {
    match count < floor {
        true => Err(format!("stale read: {count} of {floor} acknowledged")),
        false => Ok(()),
    }
}

struct Process {
    driver: Driver<u64, Read>,
    log: SegmentedLog,
    machine: Machine,
    in_flight: Option<LogWrite>,
    runs: Vec<Run<u64>>,
}

struct Member {
    id: u64,
    disk: SimDisk,
    durable: Machine,
    process: Option<Process>,
    lives: u64,
}

/// What the histories of a test saw: a test that sees nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: usize,
    pub(crate) applied: usize,
    pub(crate) reads: usize,
    pub(crate) crashes: usize,
    pub(crate) torn: usize,
    pub(crate) snapshots: usize,
    pub(crate) elections: usize,
    pub(crate) refused: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.applied += other.applied;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.snapshots += other.snapshots;
        self.elections += other.elections;
        self.refused += other.refused;
    }
}

pub(crate) struct Cluster {
    plan: Plan,
    rng: Rng,
    members: Vec<Member>,
    network: Vec<Travelling>,
    cut: HashSet<(u64, u64)>,
    oracle: Oracle,
    now: u64,
    next_command: u64,
    last_leader: Option<(u64, u64)>,
    is_calm: bool,
    pub(crate) counts: Counts,
}

/// Small, so that segments are left and reused all the time.
fn log_config(id: u64) -> LogConfig {
    LogConfig { segment_bytes: 32 << 10, first_segment_bytes: 16 << 10, ..LogConfig::new(id) }
}

/// Tells what happens, where `CHRONOLITH_TRACE` is set: to be used with one seed.
fn trace(text: impl FnOnce() -> String) {
    if std::env::var_os("CHRONOLITH_TRACE").is_some() {
        println!("{}", text());
    }
}

/// Runs one history.
pub(crate) fn run(seed: u64, plan: &Plan) -> Result<Counts, String> {
    let mut cluster = Cluster::new(seed, plan.clone());
    for _ in 0..plan.steps {
        cluster.step()?;
    }
    cluster.converge()?;
    cluster.counts.applied = cluster.oracle.len();
    cluster.counts.acknowledged = cluster.oracle.acknowledged;
    Ok(cluster.counts)
}

impl Cluster {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng::new(seed);
        let lies = plan.bug == Bug::AcknowledgeBeforeSync;
        let members = (1..=plan.members).map(|id| Member {
            id,
            disk: SimDisk::new(rng.next(), lies),
            durable: Machine::default(),
            process: None,
            lives: 0,
        });
        Self {
            members: members.collect(),
            plan,
            rng,
            network: Vec::new(),
            cut: HashSet::new(),
            oracle: Oracle::default(),
            now: 0,
            next_command: 0,
            last_leader: None,
            is_calm: false,
            counts: Counts::default(),
        }
    }

    fn step(&mut self) -> Verdict {
        self.now += 1;
        let who = self.rng.below(self.plan.members) as usize;
        // Clients know the leader, most of the time.
        let leader = self.last_leader.filter(|_| self.rng.chance(75));
        let client_asks = leader.map_or(who, |(leader, _)| leader as usize - 1);
        match self.rng.below(1000) {
            0..=199 => self.tick(who),
            200..=399 => self.finish_write(who)?,
            400..=499 => self.apply(who)?,
            500..=699 => self.deliver()?,
            700..=849 => self.propose(client_asks)?,
            850..=909 => self.read(client_asks)?,
            910..=939 => self.keep_house(who)?,
            940..=959 => self.checkpoint(who)?,
            960..=969 => self.flush(who),
            970..=976 => self.crash(who, None)?,
            977..=984 => self.arm(who),
            985..=991 => self.cut(),
            _ => self.restart_all()?,
        }
        self.deliver()?;
        self.pump(who)
    }

    fn tick(&mut self, who: usize) {
        if let Some(process) = &mut self.members[who].process {
            process.driver.tick();
        }
    }

    fn arm(&mut self, who: usize) {
        let operations = self.rng.below(6);
        self.members[who].disk.arm(operations);
    }

    fn cut(&mut self) {
        if self.plan.members == 1 {
            return;
        }
        if self.rng.chance(50) {
            return self.cut.clear();
        }
        let lonely = 1 + self.rng.below(self.plan.members);
        let (outward, inward) = (self.rng.chance(70), self.rng.chance(70));
        for other in (1..=self.plan.members).filter(|other| *other != lonely) {
            if outward {
                self.cut.insert((lonely, other));
            }
            if inward {
                self.cut.insert((other, lonely));
            }
        }
    }

    fn restart_all(&mut self) -> Verdict {
        for who in 0..self.members.len() {
            if self.members[who].process.is_none() {
                self.restart(who)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, who: usize) -> Verdict {
        let timeout = 10 + self.rng.below(10) as usize;
        let member = &mut self.members[who];
        member.lives += 1;
        let machine = member.durable.clone();
        let place = machine.applied.as_ref();
        let place = place.map(|at| Position { index: at.index, term: at.term });
        let disk = Arc::new(member.disk.clone());
        let opened = SegmentedLog::open(disk, log_config(member.id), place);
        let (log, recovered) = match opened {
            Ok(opened) => opened,
            Err(_) if member.disk.is_dead() => return self.crash(who, None),
            Err(error) => return Err(format!("member {} does not start: {error}", member.id)),
        };
        let (id, state, base, last) =
            (member.id, recovered.hard_state, recovered.base, recovered.last());
        let now = self.now;
        trace(|| format!("{now}: {id} restarts, {state:?} base {base:?} last {last:?}"));
        let config = DriverConfig {
            incarnation: member.lives,
            election_range: Some(timeout..timeout + 1),
            entry_commands_max: 4,
            ..DriverConfig::new(member.id, (1..=self.plan.members).collect())
        };
        let driver = Driver::new(config, recovered, log.reader(), machine.applied.clone());
        let mut driver = driver.map_err(|error| error.to_string())?;
        if self.plan.members == 1 {
            driver.campaign().map_err(|error| error.to_string())?;
        }
        let process = Process { driver, log, machine, in_flight: None, runs: Vec::new() };
        self.members[who].process = Some(process);
        Ok(())
    }

    /// The process dies, most often with the power, in the middle of what it did.
    fn crash(&mut self, who: usize, torn: Option<()>) -> Verdict {
        trace(|| format!("{}: {} crashes {torn:?}", self.now, who + 1));
        let member = &mut self.members[who];
        let Some(mut process) = member.process.take() else {
            member.disk.reboot(self.rng.chance(70));
            return Ok(());
        };
        if let Some(write) = process.in_flight.take() {
            member.disk.arm(self.rng.below(3));
            // Whether it arrives, in part or not at all is up to the disk: nobody was told.
            let _ = process.log.append(&write);
            self.counts.torn += 1;
        }
        self.counts.torn += usize::from(torn.is_some());
        self.counts.crashes += 1;
        member.disk.reboot(self.rng.chance(70));
        Ok(())
    }

    /// An error of a disk that died is a crash; any other is a finding.
    fn survive<T>(
        &mut self,
        who: usize,
        result: Result<T, chronolith_raft::Error>,
    ) -> Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.members[who].disk.is_dead() => {
                self.crash(who, Some(()))?;
                Ok(None)
            }
            Err(error) => Err(format!("member {}: {error}", self.members[who].id)),
        }
    }

    /// Takes out of a driver whatever it wants done.
    fn pump(&mut self, who: usize) -> Verdict {
        while let Some(process) = &mut self.members[who].process {
            let out = process.driver.poll();
            let Some(out) = self.survive(who, out)? else { return Ok(()) };
            let done = out.is_idle();
            self.handle(who, out)?;
            self.note_leader(who)?;
            if done {
                return Ok(());
            }
        }
        Ok(())
    }

    fn note_leader(&mut self, who: usize) -> Verdict {
        let member = &self.members[who];
        let Some(process) = &member.process else { return Ok(()) };
        let standing = process.driver.standing();
        if standing.role == Role::Leader {
            self.oracle.leads(member.id, standing.term)?;
            let leader = Some((member.id, standing.term));
            self.counts.elections += usize::from(leader != self.last_leader);
            self.last_leader = leader;
        }
        Ok(())
    }

    fn handle(&mut self, who: usize, out: Output<u64, Read>) -> Verdict {
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        let count = process.machine.progress.count;
        for read in out.reads {
            self.counts.reads += 1;
            check_read(count, read.floor)?;
        }
        self.counts.refused += out.refused.len();
        process.runs.extend(out.committed);
        if out.wants_snapshot
            && let Some(applied) = process.machine.applied.clone()
        {
            let count = process.machine.progress.count as u64;
            let state = Bytes::copy_from_slice(&count.to_be_bytes());
            let provided = process.driver.provide_snapshot(SnapshotData { applied, state });
            provided.map_err(|error| error.to_string())?;
        }
        if let Some(mut write) = out.write {
            self.oracle.writes(&write.entries)?;
            if self.plan.bug == Bug::ForgetVote {
                write.hard_state = write.hard_state.map(|mut state| {
                    state.vote = 0;
                    state
                });
            }
            process.in_flight = Some(write);
        }
        out.messages.into_iter().for_each(|message| self.send(message));
        out.install.map_or(Ok(()), |install| self.install(who, install))
    }

    fn install(&mut self, who: usize, install: Install) -> Verdict {
        trace(|| format!("{}: {} installs {install:?}", self.now, who + 1));
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        // Runs handed over before the snapshot end before it.
        process.runs.clear();
        let written = process.log.append(&install.before);
        if self.survive(who, written)?.is_none() {
            return Ok(());
        }
        if self.rng.chance(10) {
            return self.crash(who, None);
        }
        self.counts.snapshots += 1;
        let SnapshotData { applied, state } = install.snapshot;
        let count = u64::from_be_bytes(state[..].try_into().map_err(|_| "bad snapshot")?) as usize;
        let progress = Progress { index: applied.index, count };
        let member = &mut self.members[who];
        member.durable = Machine { applied: Some(applied), progress };
        if self.rng.chance(10) {
            return self.crash(who, None);
        }
        let Some(process) = &mut member.process else { return Ok(()) };
        process.machine = member.durable.clone();
        let after = install
            .after
            .as_ref()
            .map(|write| self.oracle.writes(&write.entries).map(|()| process.log.append(write)));
        let after = after.transpose()?.transpose();
        let Some(locations) = self.survive(who, after)? else { return Ok(()) };
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        process.driver.installed(&locations.unwrap_or_default());
        let purged = process.log.purge(process.machine.progress.index);
        self.survive(who, purged).map(drop)
    }

    fn send(&mut self, message: PeerMessage) {
        let (from, to) = (message.from(), message.to());
        let lost = self.cut.contains(&(from, to)) || !self.is_calm && self.rng.chance(10);
        let copies = if lost { 0 } else { 1 + u64::from(self.rng.chance(5)) };
        let is_snapshot = message.is_snapshot();
        for _ in 0..copies {
            let delay = if self.rng.chance(20) { self.rng.below(60) } else { self.rng.below(6) };
            self.network.push(Travelling { at: self.now + delay, message: message.clone() });
        }
        if is_snapshot
            && lost
            && let Some(process) = self.members[from as usize - 1].process.as_mut()
        {
            process.driver.snapshot_sent(to, false);
        }
    }

    fn deliver(&mut self) -> Verdict {
        let now = self.now;
        let due: Vec<_> = self.network.extract_if(.., |message| message.at <= now).collect();
        for Travelling { message, .. } in due {
            let (from, to) = (message.from() as usize - 1, message.to() as usize - 1);
            let is_snapshot = message.is_snapshot();
            trace(|| format!("{now}: {message:?}"));
            let arrived = match &mut self.members[to].process {
                Some(process) => {
                    process.driver.message(message);
                    true
                }
                None => false,
            };
            if is_snapshot && let Some(process) = &mut self.members[from].process {
                process.driver.snapshot_sent(to as u64 + 1, arrived);
            }
            self.pump(to)?;
        }
        Ok(())
    }

    fn finish_write(&mut self, who: usize) -> Verdict {
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        let Some(write) = process.in_flight.take() else { return Ok(()) };
        let written = process.log.append(&write);
        let Some(locations) = self.survive(who, written)? else { return Ok(()) };
        let id = who + 1;
        trace(|| {
            let entries: Vec<_> = write.entries.iter().map(|e| (e.index, e.term)).collect();
            format!("{}: {id} wrote {:?} {entries:?}", self.now, write.hard_state)
        });
        if let Some(process) = &mut self.members[who].process {
            process.driver.persisted(write.number, &locations);
        }
        Ok(())
    }

    fn apply(&mut self, who: usize) -> Verdict {
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        for run in std::mem::take(&mut process.runs) {
            let progress = &mut process.machine.progress;
            let before = progress.count;
            for committed in &run.commands {
                if committed.index <= progress.index {
                    return Err(format!("entry {} was handed over twice", committed.index));
                }
                self.oracle.apply(progress, committed)?;
            }
            progress.index = run.applied.index;
            for (range, waiters) in &run.waiters {
                for (place, id) in range.clone().zip(waiters) {
                    self.oracle.acknowledge(*id, before + place)?;
                }
            }
            process.driver.applied(run.applied.index);
            if self.plan.bug != Bug::ForgetApplied || process.machine.applied.is_none() {
                process.machine.applied = Some(run.applied);
            }
        }
        Ok(())
    }

    fn propose(&mut self, who: usize) -> Verdict {
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        for _ in 0..1 + self.rng.below(6) {
            self.next_command += 1;
            let mut command = self.next_command.to_be_bytes().to_vec();
            let size = if self.rng.chance(5) { 9000 } else { 300 };
            command.resize(8 + self.rng.below(size) as usize, 0xaa);
            process.driver.propose(command.into(), self.next_command);
        }
        Ok(())
    }

    fn read(&mut self, who: usize) -> Verdict {
        let floor = self.oracle.acknowledged;
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        let standing = process.driver.standing();
        if self.plan.bug == Bug::ReadWithoutRound && standing.is_settled {
            let count = process.machine.progress.count;
            return check_read(count, floor);
        }
        process.driver.read(Read { floor });
        Ok(())
    }

    fn keep_house(&mut self, who: usize) -> Verdict {
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        let job = process.log.housekeeping();
        let done = job.map_or(Ok(()), |job| job());
        self.survive(who, done).map(drop)
    }

    /// What a state machine keeps may become durable at any time.
    fn flush(&mut self, who: usize) {
        let member = &mut self.members[who];
        if let Some(process) = &member.process {
            member.durable = process.machine.clone();
        }
    }

    fn checkpoint(&mut self, who: usize) -> Verdict {
        self.flush(who);
        let kept = self.rng.below(8);
        let Some(process) = &mut self.members[who].process else { return Ok(()) };
        let up_to = process.machine.applied.as_ref().map_or(0, |at| at.index);
        let up_to = up_to.saturating_sub(kept);
        process.driver.purge(up_to);
        let purged = process.log.purge(up_to);
        self.survive(who, purged).map(drop)
    }

    /// Faults end: everything acknowledged must be everywhere, and new commands go through.
    fn converge(&mut self) -> Verdict {
        /// Ample: an election takes twenty ticks, a member is ticked in each round.
        const ROUNDS: usize = 600;
        self.is_calm = true;
        self.cut.clear();
        for round in 0..ROUNDS {
            self.restart_all()?;
            for who in 0..self.members.len() {
                self.now += 1;
                self.tick(who);
                if round % 20 == 0 {
                    self.propose(who)?;
                }
                self.pump(who)?;
                self.finish_write(who)?;
                self.pump(who)?;
                self.apply(who)?;
                self.deliver()?;
            }
            if round > 60 && round % 20 == 19 && self.has_converged() {
                return Ok(());
            }
        }
        let counts: Vec<_> = self.members.iter().map(|m| m.count()).collect();
        Err(format!("after all faults ended: {counts:?} of {} applied", self.oracle.len()))
    }

    fn has_converged(&self) -> bool {
        let goal = Some(self.oracle.len());
        self.oracle.acknowledged == self.oracle.len()
            && self.members.iter().all(|member| member.count() == goal)
    }
}

impl Member {
    fn count(&self) -> Option<usize> {
        self.process.as_ref().map(|process| process.machine.progress.count)
    }
}
