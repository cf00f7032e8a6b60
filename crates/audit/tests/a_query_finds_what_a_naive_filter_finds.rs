//! Queries, page by page, against a filter over all events.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod common;

use bytes::Bytes;
use chronolith_audit::{
    Action, AuditLog, Class, Event, Level, Operation, Outcome, Query, Settings,
};
use common::{all, settings};
use proptest::prelude::*;

const USERS: [&str; 3] = ["", "ann", "bob"];
const CALLS: [&str; 3] = ["Put", "Range", "Txn"];

fn operation() -> impl Strategy<Value = Operation> {
    let key = prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xff)], 0..4);
    let end = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![0]),
        2 => prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xff)], 1..4),
    ];
    (key, end).prop_map(|(key, range_end)| Operation {
        action: Action::Get,
        key: Bytes::from(key),
        range_end: Bytes::from(range_end),
        value: None,
    })
}

fn event() -> impl Strategy<Value = Event> {
    let operations = prop::collection::vec(operation(), 0..3);
    (0..3_usize, 0..3_usize, 0..3_usize, 0..50_u64, operations).prop_map(
        |(user, call, outcome, time_ms, operations)| {
            let mut event = Event::new(CALLS[call], Class::Write);
            USERS[user].clone_into(&mut event.user);
            event.outcome = Outcome::ALL[outcome];
            event.time_ms = 1_000_000_000_000_000 + time_ms;
            event.describe(&operations, Level::Metadata, &[0; 16]);
            event
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    let prefix = prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xff)], 0..3);
    let time = prop_oneof![Just(0), 1_000_000_000_000_000..1_000_000_000_000_060_u64];
    (time.clone(), time, 0..3_usize, prefix, 0..4_usize, any::<bool>(), 1..9_usize).prop_map(
        |(from_ms, to_ms, user, key_prefix, call, only_failed, limit)| Query {
            from_ms,
            to_ms,
            user: USERS[user].to_owned(),
            key_prefix,
            call: CALLS.get(call).copied().unwrap_or_default().to_owned(),
            only_failed,
            limit,
            after_sequence: 0,
        },
    )
}

/// Whether a key that begins with the prefix may lie in the range; by trying, not by comparing ends.
fn naive_touch(prefix: &[u8], key: &[u8], end: &[u8]) -> bool {
    if end.is_empty() {
        return key.starts_with(prefix);
    }
    let in_range = |tried: &[u8]| tried >= key && (end == [0] || tried < end);
    // The smallest keys of the prefix and of the range decide.
    let candidates = [prefix.to_vec(), key.to_vec(), [prefix, &[0]].concat(), [key, &[0]].concat()];
    candidates.iter().any(|tried| tried.starts_with(prefix) && in_range(tried))
}

fn naive(event: &Event, query: &Query) -> bool {
    let bytes = |text: &str, base64: &str| -> Vec<u8> {
        use base64::Engine as _;
        match base64.is_empty() {
            true => text.as_bytes().to_vec(),
            false => base64::prelude::BASE64_STANDARD.decode(base64).unwrap(),
        }
    };
    let mut ranges: Vec<_> = event
        .targets
        .iter()
        .map(|target| {
            let end = bytes(&target.range_end, &target.range_end_base64);
            (bytes(&target.key, &target.key_base64), end)
        })
        .collect();
    if ranges.is_empty() {
        let end = bytes(&event.range_end, &event.range_end_base64);
        ranges.push((bytes(&event.key, &event.key_base64), end));
        ranges.retain(|(key, end)| !key.is_empty() || !end.is_empty());
    }
    (query.from_ms == 0 || event.time_ms >= query.from_ms)
        && (query.to_ms == 0 || event.time_ms <= query.to_ms)
        && (query.user.is_empty() || event.user == query.user)
        && (query.call.is_empty() || event.call == query.call)
        && !(query.only_failed && event.outcome == Outcome::Ok)
        && (query.key_prefix.is_empty()
            || ranges.iter().any(|(key, end)| naive_touch(&query.key_prefix, key, end)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_page_of_every_query(
        events in prop::collection::vec(event(), 1..120),
        queries in prop::collection::vec(query(), 40),
    ) {
        let home = tempfile::tempdir().unwrap();
        let small = Settings { rotate_bytes: 3000, ..settings(home.path()) };
        let log = AuditLog::open(small).unwrap();
        events.into_iter().for_each(|event| log.record(event));
        log.close();
        let everything = all(home.path());
        for mut query in queries {
            let expected: Vec<u64> = everything
                .iter()
                .filter(|event| naive(event, &query))
                .map(|event| event.seq)
                .collect();
            let mut found = Vec::new();
            loop {
                let page = chronolith_audit::query(home.path(), &query).unwrap();
                prop_assert!(page.events.len() <= query.limit);
                for line in &page.events {
                    found.push(serde_json::from_str::<Event>(line).unwrap().seq);
                }
                prop_assert!(page.last_sequence >= query.after_sequence);
                query.after_sequence = page.last_sequence;
                if !page.more {
                    break;
                }
            }
            prop_assert_eq!(found, expected, "{:?}", query);
        }
    }
}

/// A log of files that are too large to be read in one go.
#[test]
fn a_place_in_a_large_file_is_found_by_halving() {
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(settings(home.path())).unwrap();
    let start_ms = 1_000_000_000_000_000;
    for number in 0..3_000 {
        let mut event = common::put("ann", &format!("{number:06}"));
        event.time_ms = start_ms + number;
        event.user_agent = "x".repeat(number as usize % 300);
        log.record(event);
    }
    log.close();
    for number in (0..3_000).step_by(97) {
        let at = start_ms + number;
        let query = Query { from_ms: at, to_ms: at, ..Query::default() };
        let page = chronolith_audit::query(home.path(), &query).unwrap();
        assert_eq!(page.events.len(), 1, "{number}");
        assert!(page.events[0].contains(&format!("\"key\":\"{number:06}\"")));
        let event: Event = serde_json::from_str(&page.events[0]).unwrap();
        let next = Query { after_sequence: event.seq - 1, limit: 1, ..Query::default() };
        assert_eq!(chronolith_audit::query(home.path(), &next).unwrap().events, page.events);
    }
}
