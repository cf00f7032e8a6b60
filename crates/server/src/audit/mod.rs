//! What the audit trail hears of a call.
//!
//! ```text
//! head ─▶ Trail ── request whole ─▶ describe; closed: keep room for the event, or refuse ─▶ store, as the actor
//!           └── answer known ─▶ what came of it ─▶ event ─▶ closed: wait for the disk ─▶ reply
//! ```
//! Invariants
//! 1. A call makes one event, whatever ends it: an answer, an error, a panic, a client that goes away.
//! 2. Failing closed, nothing reaches the store before its event has room, and no answer leaves before its
//!    event is on the disk. Failing open, nothing here waits.
//! 3. Without an audit log there is no trail: a call pays for looking at one `Option`.

mod facts;
mod query;

pub(crate) use facts::{Answered, Asked, Facts};
pub(crate) use query::{Readers, checkpoint, query};

use std::{borrow::Cow, path::Path, sync::Arc, time::Instant};

use chronolith_audit::{
    AuditLog, Class, Event, FailMode, Level, MAX_TEXT_BYTES, NotDurable, Operation, Outcome,
    Policy, Reservation, Settings, Subject, hex, own,
};
use chronolith_ledger::actor_reference;
use chronolith_proto::etcdserverpb::WatchCreateRequest;
use chronolith_store::Store;
use http::{HeaderMap, header::USER_AGENT};
use parking_lot::Mutex;

use crate::{
    config::{AuditConfig, Config},
    methods::Method,
    metrics::Page,
    node::Node,
    server::Error,
    status::{Code, Status},
};

/// Where the log is, inside the data directory.
const DIRECTORY: &str = "audit";
/// What a client names its request with, so that its own records and ours fit together.
const REQUEST_ID: &str = "x-request-id";
/// Calls that are no methods: parts of a stream.
const PARTS: [&str; 1] = [WATCH_CANCEL];
const WATCH_CANCEL: &str = "WatchCancel";

/// Opens the audit log, if there is to be one.
pub(crate) fn open(config: &Config, store: &Store) -> Result<Option<AuditLog>, Error> {
    let Some(wanted) = &config.audit else { return Ok(None) };
    let policy = read_policy(wanted)?;
    let header = store.header();
    let cluster = format!("{:016x}", header.cluster_id);
    let member = format!("{:016x}", header.member_id);
    let settings = Settings {
        fail_mode: wanted.fail_mode,
        queue_events: wanted.queue_events,
        rotate_bytes: wanted.rotate_bytes,
        rotate_age: wanted.rotate_age,
        keep_files: wanted.keep_files,
        keep_bytes: wanted.keep_bytes,
        sync_interval: wanted.sync_interval,
        stdout: wanted.stdout,
        about: about(config),
        ..Settings::new(config.data_dir.join(DIRECTORY), &cluster, &member)
    };
    let log = AuditLog::open(settings)?;
    let found = log.recovered();
    tracing::info!(
        events = found.events,
        after_crash = found.after_crash,
        repaired_bytes = found.repaired_bytes,
        key = %log.verifier_key(),
        "the audit log is open"
    );
    log.set_policy(policy, &of_policy(wanted));
    Ok(Some(log))
}

/// Puts the policy file in force again.
pub(crate) fn reload(log: &AuditLog, wanted: &AuditConfig) -> Result<(), Error> {
    let policy = read_policy(wanted).inspect_err(|error| {
        let reason = format!("the policy stays as it was: {error}");
        let mut event = Event { reason, ..Event::new(own::CONFIG, Class::Admin) };
        event.outcome = Outcome::Failed;
        log.record_always(event);
    })?;
    log.set_policy(policy, &of_policy(wanted));
    Ok(())
}

fn read_policy(wanted: &AuditConfig) -> Result<Policy, Error> {
    let Some(path) = &wanted.policy_file else { return Ok(Policy::default()) };
    Ok(Policy::read(path, &call_names())?)
}

fn of_policy(wanted: &AuditConfig) -> String {
    match &wanted.policy_file {
        None => "policy: the default".to_owned(),
        Some(path) => format!("policy: {}", shown(path)),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What the first event of a process says about it.
fn about(config: &Config) -> String {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    format!(
        "chronolith {} member {:?} on {} ({} engine)",
        env!("CARGO_PKG_VERSION"),
        config.name,
        listen.join(","),
        config.engine.name()
    )
}

/// Everything that a rule may call a call.
fn call_names() -> Vec<&'static str> {
    let methods = Method::ALL.iter().map(|method| call_name(*method));
    methods.chain(PARTS).chain(own::ALL).collect()
}

/// A method's name in events. `Query` alone would say nothing.
fn call_name(method: Method) -> &'static str {
    match method {
        Method::AuditQuery => "AuditQuery",
        Method::MaintenanceStatus => "Status",
        other => other.name(),
    }
}

/// What kind of call a method is, unless its request says more.
fn class_of(method: Method) -> Class {
    match method {
        Method::Put | Method::DeleteRange | Method::Txn | Method::VerifiedPut => Class::Write,
        Method::Watch => Class::Watch,
        Method::LeaseGrant | Method::LeaseRevoke | Method::LeaseKeepAlive => Class::Lease,
        Method::Compact
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::Alarm
        | Method::Defragment
        | Method::Snapshot
        | Method::MoveLeader
        | Method::Downgrade
        | Method::RestorePrefix
        | Method::Erase => Class::Admin,
        Method::Range
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::MemberList
        | Method::MaintenanceStatus
        | Method::Hash
        | Method::HashKv
        | Method::AuditQuery
        | Method::AuditCheckpoint
        | Method::Checkpoint
        | Method::Consistency
        | Method::Prove
        | Method::KeyHistory
        | Method::VerifiedGet
        | Method::Diff
        | Method::HealthCheck => Class::Read,
    }
}

/// Whether the server refused, or tried and did not succeed.
fn outcome_of(code: Code) -> Outcome {
    match code {
        Code::Ok => Outcome::Ok,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Outcome::Denied,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Failed,
    }
}

/// One call, from its head to its event.
pub(crate) struct Trail<'a> {
    log: &'a AuditLog,
    policy: Arc<Policy>,
    call: Cow<'static, str>,
    headers: &'a HeaderMap,
    /// The client's address.
    peer: &'a str,
    since: Instant,
    is_stream: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    facts: Facts,
    /// Made when first needed.
    request_id: String,
    actor: Option<[u8; 16]>,
    reservation: Option<Reservation>,
    /// The event is made; whatever comes now belongs to it already.
    is_told: bool,
}

impl<'a> Trail<'a> {
    /// The trail of a call, if there is an audit log.
    pub(crate) fn begin(
        node: &'a Node,
        method: Method,
        headers: &'a HeaderMap,
        peer: &'a str,
    ) -> Option<Self> {
        let log = node.audit.as_ref()?;
        let mut trail = Self::new(log, call_name(method).into(), headers, peer);
        trail.state.get_mut().facts.class = class_of(method);
        trail.is_stream = method.kind() != crate::methods::Kind::Unary;
        Some(trail)
    }

    /// The trail of a call to a method that there is not.
    pub(crate) fn unknown(
        node: &'a Node,
        path: &str,
        headers: &'a HeaderMap,
        peer: &'a str,
    ) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or_default();
        Some(Self::new(node.audit.as_ref()?, cut(name).into(), headers, peer))
    }

    fn new(
        log: &'a AuditLog,
        call: Cow<'static, str>,
        headers: &'a HeaderMap,
        peer: &'a str,
    ) -> Self {
        Self {
            log,
            policy: log.policy(),
            call,
            headers,
            peer,
            since: Instant::now(),
            is_stream: false,
            state: Mutex::new(State::default()),
        }
    }

    /// The store, for what this call does in it: the data log then refers to the call's event.
    pub(crate) fn store(&self, store: &Store) -> Store {
        let mut state = self.state.lock();
        let actor = self.actor(&mut state);
        store.acting_as(actor)
    }

    fn actor(&self, state: &mut State) -> [u8; 16] {
        if state.request_id.is_empty() {
            state.request_id = self.request_id();
        }
        let request_id = &state.request_id;
        let make = || actor_reference(self.log.salt(), "", self.peer, request_id);
        *state.actor.get_or_insert_with(make)
    }

    /// The client's name for the request, or a new one.
    fn request_id(&self) -> String {
        match self.text(REQUEST_ID) {
            text if text.is_empty() => hex(&rand::random::<[u8; 12]>()),
            text => text,
        }
    }

    fn text(&self, name: &str) -> String {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        cut(value.unwrap_or_default())
    }

    /// Hears what is asked for. Failing closed, keeps room for the event, or says why not.
    pub(crate) fn admit<Q: Asked>(&self, request: &Q) -> Result<(), Status> {
        let mut state = self.state.lock();
        request.ask(&mut state.facts, self.policy.wants_values());
        if self.log.fail_mode() == FailMode::Open {
            return Ok(());
        }
        let State { facts, reservation, .. } = &mut *state;
        let subject = self.subject(facts.class, &facts.operations);
        // A read has no effect: if it is refused, there is still time to ask for room.
        let is_recorded = match facts.class {
            Class::Read => self.policy.level(&subject, Outcome::Ok) > Level::None,
            _ => self.policy.highest_level(&subject) > Level::None,
        };
        if is_recorded {
            *reservation = Some(self.reserve()?);
        }
        Ok(())
    }

    fn reserve(&self) -> Result<Reservation, Status> {
        self.log.reserve().map_err(|refused| Status::new(Code::Unavailable, refused.to_string()))
    }

    /// Failing closed, a stream begins only while events are written.
    pub(crate) fn admit_stream(&self) -> Result<(), Status> {
        match self.log.fail_mode() {
            FailMode::Open => Ok(()),
            FailMode::Closed => self.reserve().map(drop),
        }
    }

    fn subject<'s>(&'s self, class: Class, operations: &'s [Operation]) -> Subject<'s> {
        Subject { user: "", call: &self.call, class, operations }
    }

    /// Hears the answer.
    pub(crate) fn hear<A: Answered>(&self, answer: &A) {
        answer.answer(&mut self.state.lock().facts);
    }

    /// Counts a message of a stream about a lease.
    pub(crate) fn count_lease(&self, id: i64) {
        let facts = &mut self.state.lock().facts;
        facts.ops = Some(facts.ops.unwrap_or_default() + 1);
        facts.lease = Some(id);
    }

    /// Makes the call's event. Failing closed, resolves when it is on the disk.
    pub(crate) async fn finish(&self, ended: Result<(), &Status>) -> Result<(), Status> {
        let Some((event, reservation)) = self.tell(ended) else { return Ok(()) };
        let reservation = match (reservation, self.log.fail_mode()) {
            (Some(reservation), _) => reservation,
            (None, FailMode::Open) => {
                self.log.record(event);
                return Ok(());
            }
            (None, FailMode::Closed) => match self.reserve() {
                Ok(reservation) => reservation,
                Err(refused) => {
                    // It has no room, which is counted and marked.
                    self.log.record(event);
                    return Err(refused);
                }
            },
        };
        let lost = |lost: NotDurable| Status::new(Code::Unavailable, lost.to_string());
        self.log.record_reserved(event, reservation).await.map_err(lost)
    }

    /// The event, if it is not made yet and is wanted.
    fn tell(&self, ended: Result<(), &Status>) -> Option<(Event, Option<Reservation>)> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_told, true) {
            return None;
        }
        let facts = std::mem::take(&mut state.facts);
        let code = ended.err().map_or(Code::Ok, |status| status.code);
        // Streams end when the client has enough, or the server: that is no failure of theirs.
        let is_over = code == Code::Cancelled || ended == Err(&Status::stopped());
        let outcome = if self.is_stream && is_over { Outcome::Ok } else { outcome_of(code) };
        let subject = self.subject(facts.class, &facts.operations);
        let level = self.policy.level(&subject, outcome);
        // The parts of a stream were told already; its end says something only where it counts them.
        let is_silent = self.is_stream && outcome == Outcome::Ok && facts.ops.is_none();
        if level == Level::None || is_silent {
            return None;
        }
        let mut event = self.event(&mut state, facts, level);
        event.outcome = outcome;
        if let Err(status) = ended {
            event.code = status.code.label().into();
            event.error = cut(&status.message);
        }
        Some((event, state.reservation.take()))
    }

    fn event(&self, state: &mut State, facts: Facts, level: Level) -> Event {
        if state.request_id.is_empty() {
            state.request_id = self.request_id();
        }
        let changed = facts.revision.is_some() && facts.class != Class::Read;
        let mut event = Event {
            request_id: state.request_id.clone(),
            address: self.peer.to_owned(),
            user_agent: self.text(USER_AGENT.as_str()),
            lease: facts.lease,
            size_bytes: facts.size_bytes,
            succeeded: facts.succeeded,
            prev_revision: facts.prev_revision(),
            revision: facts.revision,
            latency_us: Some(u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)),
            actor: match state.actor {
                Some(actor) if changed => hex(&actor),
                _ => String::new(),
            },
            ops: facts.ops,
            reason: facts.reason,
            ..Event::new(self.call.clone(), facts.class)
        };
        event.describe(&facts.operations, level, self.log.salt());
        event
    }

    /// A watch was asked for. Failing closed, refuses it where its event has no room.
    pub(crate) fn watch(
        &self,
        create: &WatchCreateRequest,
        register: impl FnOnce() -> Result<i64, String>,
    ) -> Result<i64, String> {
        let operations = [facts::watched(create)];
        let wanted = self.policy.highest_level(&self.subject(Class::Watch, &operations));
        let reservation = match self.log.fail_mode() {
            FailMode::Closed if wanted > Level::None => {
                Some(self.log.reserve().map_err(|refused| refused.to_string())?)
            }
            _ => None,
        };
        let answer = register();
        let outcome = if answer.is_ok() { Outcome::Ok } else { Outcome::Denied };
        let told = match &answer {
            Ok(id) => (format!("watch {id}"), String::new()),
            Err(why) => (String::new(), why.clone()),
        };
        self.part(self.call.clone(), &operations, outcome, told, reservation);
        answer
    }

    /// A watch ended before its stream.
    pub(crate) fn watch_cancelled(&self, id: i64, why: &str) {
        let told = (format!("watch {id}: {why}"), String::new());
        self.part(WATCH_CANCEL.into(), &[], Outcome::Ok, told, None);
    }

    /// An event of a part of a stream.
    fn part(
        &self,
        call: Cow<'static, str>,
        operations: &[Operation],
        outcome: Outcome,
        (reason, error): (String, String),
        reservation: Option<Reservation>,
    ) {
        let subject = Subject { user: "", call: &call, class: Class::Watch, operations };
        let level = self.policy.level(&subject, outcome);
        if level == Level::None {
            return;
        }
        let facts = Facts { class: Class::Watch, reason, ..Facts::default() };
        let mut event = self.event(&mut self.state.lock(), facts, level);
        event.describe(operations, level, self.log.salt());
        (event.call, event.outcome, event.error) = (call, outcome, cut(&error));
        match reservation {
            None => self.log.record(event),
            // A watch changes nothing: nobody waits for the disk.
            Some(reservation) => drop(self.log.record_reserved(event, reservation)),
        }
    }
}

impl Drop for Trail<'_> {
    fn drop(&mut self) {
        let gone = Status::new(Code::Cancelled, "the client went away before it was answered");
        match self.tell(Err(&gone)) {
            None => {}
            Some((event, None)) => self.log.record(event),
            Some((event, Some(reservation))) => {
                drop(self.log.record_reserved(event, reservation));
            }
        }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

/// What the audit log counts; absent without one.
pub(crate) fn write_metrics(node: &Node, page: &mut Page) {
    let Some(log) = &node.audit else { return };
    let counts = log.counts();
    page.counter(
        "chronolith_audit_events_total",
        "Events written to the audit log.",
        counts.events,
    );
    page.counter(
        "chronolith_audit_dropped_total",
        "Events that found no room; a gap marker in the log stands for them.",
        counts.dropped,
    );
    page.counter(
        "chronolith_audit_failures_total",
        "Writes and syncs of the audit log that failed, and lines that standard output did not take.",
        counts.failures,
    );
    page.gauge(
        "chronolith_audit_queue_depth",
        "Events that wait to be written.",
        counts.queue_depth,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names_of_their_own() {
        let names = call_names();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}
