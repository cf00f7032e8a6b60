//! Apply is a function of the log: however it is cut into runs, and wherever the member restarts.

use super::{storage::Storage, *};
use crate::{
    checkpoints::Checkpoints,
    command::{LeaseCheckpoint, LeaseRemaining, Restore},
    history::Cadence,
};
use chronolith_engine::{KeyRange, MemoryEngine};
use chronolith_ledger::{Hash, KeyKind, SigningKey};
use chronolith_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
};
use proptest::prelude::*;
use std::path::Path;

const COLUMNS: [&str; 6] = ["versions", "log", "meta", "store", "leases", "lease_keys"];
const TERM: u64 = 3;

fn open(engine: &Arc<dyn Engine>) -> Machine {
    let mvcc = Arc::new(Mutex::new(Mvcc::open(Arc::clone(engine)).unwrap()));
    let nowhere = Checkpoints::open(std::env::temp_dir().join("no-checkpoint-is-written")).unwrap();
    let storage = Storage::Checkpoints(nowhere);
    Machine::open(Arc::clone(engine), mvcc, Arc::default(), storage, Follows::default()).unwrap()
}

fn memory() -> Arc<dyn Engine> {
    Arc::new(MemoryEngine::new())
}

/// Every record of the engine, and what each command answered.
#[derive(Debug, PartialEq)]
struct Seen {
    records: Vec<(&'static str, Bytes, Bytes)>,
    answers: Vec<String>,
}

fn records(engine: &Arc<dyn Engine>) -> Vec<(&'static str, Bytes, Bytes)> {
    let snapshot = engine.snapshot().unwrap();
    let mut records = Vec::new();
    for name in COLUMNS {
        let column = engine.column(name).unwrap();
        let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
        cursor.seek_to_first().unwrap();
        while cursor.valid() {
            records.push((name, cursor.key_bytes(), cursor.value_bytes()));
            cursor.next().unwrap();
        }
    }
    records
}

/// Applies the log in runs of these lengths (again and again), opening the machine anew after each
/// run if `restarts`.
fn apply(log: &[Change], lengths: &[usize], restarts: bool) -> Seen {
    let engine = memory();
    let (mut machine, mut answers, mut at) = (open(&engine), Vec::new(), 0);
    for length in lengths.iter().cycle() {
        let run: Vec<Committed> = log[at..].iter().take(*length).zip(at..).map(entry).collect();
        let Some(last) = run.last() else { break };
        let conf_state = Bytes::from_static(b"voters");
        let applied = Applied { index: last.index, term: TERM, conf_state };
        let outcomes = machine.apply(&run, &applied).unwrap();
        answers.extend(outcomes.iter().map(|outcome| format!("{outcome:?}")));
        at += run.len();
        if restarts {
            machine = open(&engine);
            assert_eq!(machine.applied().unwrap().unwrap().index, last.index);
        }
    }
    Seen { records: records(&engine), answers }
}

/// Applies the log as [`apply`] does, with a history that follows; the root of its log, and of one that
/// is computed from the revisions alone.
fn roots(log: &[Change], lengths: &[usize], restarts: bool) -> (Hash, Hash) {
    let (engine, dir) = (memory(), tempfile::tempdir().unwrap());
    let (mut machine, mut at) = (open(&engine), 0);
    let mut history = follow(&mut machine, dir.path());
    for length in lengths.iter().cycle() {
        let run: Vec<Committed> = log[at..].iter().take(*length).zip(at..).map(entry).collect();
        let Some(last) = run.last() else { break };
        let applied = Applied { index: last.index, term: TERM, conf_state: Bytes::new() };
        machine.apply(&run, &applied).unwrap();
        at += run.len();
        if restarts {
            // As a crash does it: nothing is closed.
            drop((history, machine));
            machine = open(&engine);
            history = follow(&mut machine, dir.path());
        }
    }
    let root = |history: &History| {
        let note = history.checkpoint().unwrap();
        chronolith_ledger::Checkpoint::parse(note.text()).unwrap().root
    };
    let fresh = tempfile::tempdir().unwrap();
    let caught_up = follow(&mut open(&engine), fresh.path());
    (root(&history), root(&caught_up))
}

fn follow(machine: &mut Machine, dir: &Path) -> History {
    let reader = machine.mvcc.lock().reader();
    let key = SigningKey::from_seed("test/main", KeyKind::Log, &[1; 32]).unwrap();
    let history = History::open(dir, key, reader, Box::new(|| Ok(())), None).unwrap();
    assert!(machine.history.set(history.clone()).is_ok());
    history
}

fn entry((change, position): (&Change, usize)) -> Committed {
    let index = position as u64 + 1;
    let command = Command {
        // Clocks of proposers differ and go back.
        time_ms: 1_000_000 - index * 7 % 50,
        actor: Bytes::from_static(b"an actor's id 16"),
        member: 7,
        start: 1,
        sequence: index,
        salt_high: index,
        salt_low: !index,
        change: Some(change.clone()),
    };
    Committed { index, term: TERM, command: command.encode_to_vec().into() }
}

fn key() -> impl Strategy<Value = Bytes> {
    (0u8..6).prop_map(|key| Bytes::from(vec![b'a' + key]))
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 4 => 1i64..4]
}

fn put() -> impl Strategy<Value = PutRequest> {
    (key(), any::<u16>(), lease(), any::<bool>(), 0u8..8).prop_map(
        |(key, value, lease, prev_kv, ignore)| PutRequest {
            key,
            value: if ignore == 0 { Bytes::new() } else { value.to_string().into() },
            lease: if ignore == 1 { 0 } else { lease },
            prev_kv,
            ignore_value: ignore == 0,
            ignore_lease: ignore == 1,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), prop_oneof![Just(Bytes::new()), key()], any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest { key, range_end, prev_kv })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let operation = prop_oneof![
        put().prop_map(Request::RequestPut),
        delete().prop_map(Request::RequestDeleteRange),
    ];
    let operation = operation.prop_map(|request| RequestOp { request: Some(request) });
    let branch = || proptest::collection::vec(operation.clone(), 0..3);
    (key(), branch(), branch()).prop_map(|(key, success, failure)| TxnRequest {
        // Version equal to 0: the key is not there.
        compare: vec![Compare { key, ..Compare::default() }],
        success,
        failure,
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => put().prop_map(Change::Put),
        3 => delete().prop_map(Change::DeleteRange),
        4 => txn().prop_map(Change::Txn),
        2 => (1i64..40).prop_map(|revision| {
            Change::Compact(CompactionRequest { revision, physical: false })
        }),
        4 => (1i64..4, 0i64..100).prop_map(|(id, ttl)| {
            Change::LeaseGrant(LeaseGrantRequest { id, ttl })
        }),
        2 => (1i64..4).prop_map(|id| Change::LeaseRevoke(LeaseRevokeRequest { id })),
        2 => (1i64..4).prop_map(|id| Change::LeaseExpire(LeaseRevokeRequest { id })),
        1 => (key(), 0i64..60, txn()).prop_map(|(prefix, since, writes)| {
            Change::Restore(Restore { prefix, since, writes: Some(writes) })
        }),
        1 => (1i64..4, 0i64..200).prop_map(|(id, remaining_s)| {
            Change::LeaseCheckpoint(LeaseCheckpoint {
                leases: vec![LeaseRemaining { id, remaining_s }],
            })
        }),
        1 => (0i32..3, 0i32..3, 1u64..3).prop_map(|(action, alarm, member_id)| {
            Change::Alarm(AlarmRequest { action, member_id, alarm })
        }),
    ]
}

proptest! {
    #[test]
    fn runs_and_restarts_leave_no_trace(
        log in proptest::collection::vec(change(), 1..120),
        lengths in proptest::collection::vec(1usize..20, 1..8),
    ) {
        let one_by_one = apply(&log, &[1], false);
        prop_assert_eq!(&apply(&log, &[log.len()], false), &one_by_one);
        prop_assert_eq!(&apply(&log, &lengths, false), &one_by_one);
        prop_assert_eq!(&apply(&log, &lengths, true), &one_by_one);
    }
}

proptest! {
    // Each case opens dozens of logs, with the disk's syncs.
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn runs_and_restarts_make_the_same_log_of_the_history(
        log in proptest::collection::vec(change(), 1..40),
        lengths in proptest::collection::vec(1usize..20, 1..8),
    ) {
        let (root, from_revisions) = roots(&log, &[1], false);
        prop_assert_eq!(root, from_revisions);
        prop_assert_eq!(roots(&log, &[log.len()], false), (root, root));
        prop_assert_eq!(roots(&log, &lengths, true), (root, root));
    }
}

/// If this fails, members of different builds disagree about their history: bring the old result back.
#[test]
fn a_fixed_log_has_a_fixed_root() {
    let put = |key: &'static str, value: &'static str, lease| PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        ..Default::default()
    };
    let operation = |request| RequestOp { request: Some(request) };
    let log = [
        Change::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 10 }),
        Change::LeaseGrant(LeaseGrantRequest { id: 2, ttl: 10 }),
        Change::Put(put("a", "1", 1)),
        Change::Put(put("b", "2", 2)),
        Change::Txn(TxnRequest {
            success: vec![
                operation(Request::RequestPut(put("c", "3", 0))),
                operation(Request::RequestDeleteRange(DeleteRangeRequest {
                    key: "b".into(),
                    ..Default::default()
                })),
                operation(Request::RequestPut(put("d", "4", 2))),
            ],
            ..Default::default()
        }),
        Change::LeaseExpire(LeaseRevokeRequest { id: 1 }),
        Change::LeaseRevoke(LeaseRevokeRequest { id: 2 }),
        Change::Compact(CompactionRequest { revision: 3, physical: false }),
        Change::Put(put("a", "5", 0)),
    ];
    let golden = "53ddba0f3cb7649a2b049a8cd5daf45dc5d7509b5104793362e331461348907c";
    let (root, from_revisions) = roots(&log, &[2], false);
    assert_eq!((root.to_string(), from_revisions), (golden.to_owned(), root));
}

#[test]
fn the_property_above_sees_every_kind_of_answer() {
    let seen = apply(
        &[
            Change::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 10 }),
            Change::Put(PutRequest { key: "a".into(), lease: 1, ..Default::default() }),
            Change::LeaseRevoke(LeaseRevokeRequest { id: 1 }),
            Change::LeaseRevoke(LeaseRevokeRequest { id: 1 }),
        ],
        &[4],
        false,
    );
    let revisions = ["revision: 1", "revision: 2", "revision: 3", "revision: 3"];
    for (answer, revision) in seen.answers.iter().zip(revisions) {
        assert!(answer.contains(revision), "{answer}");
    }
    assert!(seen.answers[3].contains("LeaseNotFound"));
    assert!(!seen.records.iter().any(|(column, ..)| column.starts_with("lease")));
}

#[test]
fn an_entry_that_is_no_command_stops_the_member() {
    let engine = memory();
    let mut machine = open(&engine);
    let before = records(&engine);
    let applied = Applied { index: 2, term: TERM, conf_state: Bytes::new() };
    let good = Change::Put(PutRequest { key: "a".into(), ..Default::default() });
    let bad = Committed { index: 2, term: TERM, command: Bytes::from_static(b"\xff\xff") };
    let error = machine.apply(&[entry((&good, 0)), bad], &applied).unwrap_err();
    assert!(matches!(error, ApplyError::UnknownCommand { index: 2 }), "{error}");
    assert_eq!(records(&engine), before, "nothing of the run was written");
}

#[test]
fn a_follower_that_failed_stops_the_writes() {
    let (engine, dir) = (memory(), tempfile::tempdir().unwrap());
    let mut machine = open(&engine);
    let reader = machine.mvcc.lock().reader();
    let key = SigningKey::from_seed("test/main", KeyKind::Log, &[1; 32]).unwrap();
    let broken = || Err(crate::history::Error::Stopped("the disk is gone".to_owned()));
    let every = std::time::Duration::ZERO;
    let cadence = Cadence { every, every_revisions: 1, keep_every: every };
    let history = History::open(dir.path(), key, reader, Box::new(broken), Some(cadence)).unwrap();
    assert!(machine.history.set(history.clone()).is_ok());
    let mut write = |position| {
        let put = Change::Put(PutRequest { key: "a".into(), ..Default::default() });
        let run = [entry((&put, position))];
        let applied = Applied { index: run[0].index, term: TERM, conf_state: Bytes::new() };
        machine.apply(&run, &applied)
    };
    write(0).unwrap();
    let refused = (1..).find_map(|position| write(position).err()).unwrap();
    assert!(refused.to_string().contains("the disk is gone"), "{refused}");
    assert!(matches!(refused, ApplyError::History(_)));
    assert!(history.checkpoint().unwrap_err().to_string().contains("the disk is gone"));
}

#[test]
fn a_run_without_commands_still_moves_the_applied_index() {
    let engine = memory();
    let mut machine = open(&engine);
    assert!(machine.applied().unwrap().is_none());
    let conf_state = Bytes::from_static(b"voters");
    let applied = Applied { index: 9, term: TERM, conf_state: conf_state.clone() };
    assert!(machine.apply(&[], &applied).unwrap().is_empty());
    let found = open(&engine).applied().unwrap().unwrap();
    assert_eq!((found.index, found.term, found.conf_state), (9, TERM, conf_state));
}
