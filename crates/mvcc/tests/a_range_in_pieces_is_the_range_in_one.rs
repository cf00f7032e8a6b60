//! Pauses change nothing in an answer, and an answer keeps within its bytes.
#![allow(clippy::unwrap_used)]

mod fixture;

use chronolith_mvcc::{Begun, Error, Pause, RangeResult, Result};
use chronolith_proto::etcdserverpb::{
    RangeRequest, TxnRequest,
    range_request::{SortOrder, SortTarget},
};
use fixture::{Store, commands, delete, op, put, span};
use proptest::{collection::vec, prelude::*};
use prost::Message;

/// The answer with a pause wherever one is due, and how many there were.
fn in_pieces(
    store: &Store,
    request: &RangeRequest,
    pause: Pause,
    max_bytes: usize,
) -> Result<(RangeResult, usize)> {
    let mut begun = store.mvcc.reader().begin_range(request, pause, max_bytes)?;
    for pauses in 0.. {
        match begun {
            Begun::Answered(answer) => return Ok((answer, pauses)),
            Begun::Paused(listing) => begun = listing.advance(&pause)?,
        }
    }
    unreachable!()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn wherever_it_pauses(
        writes in vec((commands::key(), vec(any::<u8>(), 0..4), 0u8..4), 1..40),
        request in commands::range(),
        after_keys in 1usize..5,
        after_bytes in 0usize..60,
    ) {
        let mut store = Store::new();
        for (key, value, kind) in writes {
            match kind {
                0 => drop(store.delete(delete(key, "")).unwrap()),
                _ => drop(store.put(put(key, value)).unwrap()),
            }
        }
        let whole = store.mvcc.reader().range(&request);
        let pieces = in_pieces(&store, &request, Pause { after_keys, after_bytes }, usize::MAX);
        match (whole, pieces) {
            (Ok(whole), Ok((pieces, _))) => prop_assert_eq!(whole, pieces),
            (Err(whole), Err(pieces)) => prop_assert_eq!(whole.to_string(), pieces.to_string()),
            (whole, pieces) => prop_assert!(false, "{whole:?} {pieces:?}"),
        }
    }
}

/// Keys k000 to k999, with values of 100 bytes.
fn thousand() -> Store {
    let mut store = Store::new();
    for number in 0..1000 {
        store.put(put(format!("k{number:03}"), "v".repeat(100))).unwrap();
    }
    store
}

const NEVER: Pause = Pause { after_keys: usize::MAX, after_bytes: usize::MAX };

#[test]
fn it_pauses_after_keys_and_after_bytes() {
    let store = thousand();
    let all = span("k", "l");
    let pauses = |pause| in_pieces(&store, &all, pause, usize::MAX).unwrap().1;
    assert_eq!(pauses(NEVER), 0);
    assert_eq!(pauses(Pause { after_keys: 100, ..NEVER }), 9);
    assert!((9..12).contains(&pauses(Pause { after_bytes: 11_000, ..NEVER })));
}

#[test]
fn keys_that_are_gone_are_work_too() {
    let mut store = thousand();
    store.delete(delete("k", "l")).unwrap();
    let pause = Pause { after_keys: 100, ..NEVER };
    let (answer, pauses) = in_pieces(&store, &span("k", "l"), pause, usize::MAX).unwrap();
    assert_eq!((answer.count, pauses), (0, 9));
}

#[test]
fn what_is_written_between_two_pieces_is_not_in_the_answer() {
    let mut store = thousand();
    let pause = Pause { after_keys: 400, ..NEVER };
    let begun = store.mvcc.reader().begin_range(&span("k", "l"), pause, usize::MAX).unwrap();
    let Begun::Paused(listing) = begun else { panic!("it has only begun") };
    store.put(put("k999", "late")).unwrap();
    store.put(put("k9999", "new")).unwrap();
    let Begun::Answered(answer) = listing.advance(&NEVER).unwrap() else { panic!("to the end") };
    assert_eq!((answer.count, answer.kvs[999].value.len(), answer.revision), (1000, 100, 1001));
}

#[test]
fn an_answer_as_large_as_allowed_is_given_and_a_larger_one_refused() {
    let store = thousand();
    let all = span("k", "l");
    let whole = store.mvcc.reader().range(&all).unwrap();
    let keys_only = |result: &RangeResult| {
        let mut response = result.clone().into_response();
        (response.count, response.more) = (0, false);
        response.encoded_len()
    };
    let bytes = keys_only(&whole);
    assert_eq!(in_pieces(&store, &all, NEVER, bytes).unwrap().0, whole);
    let refused = in_pieces(&store, &all, NEVER, bytes - 1).unwrap_err();
    assert!(matches!(refused, Error::AnswerTooLarge { max_bytes } if max_bytes == bytes - 1));
    // Values that are not shown are not counted.
    let keys = RangeRequest { keys_only: true, ..all.clone() };
    assert_eq!(in_pieces(&store, &keys, NEVER, bytes / 2).unwrap().0.kvs.len(), 1000);
    // Nor is what a limit cuts off, sorted or not.
    let newest = RangeRequest {
        limit: 2,
        sort_order: SortOrder::Descend as i32,
        sort_target: SortTarget::Mod as i32,
        ..all.clone()
    };
    let (newest, _) = in_pieces(&store, &newest, NEVER, 1_000).unwrap();
    assert_eq!((&newest.kvs[0].key[..], &newest.kvs[1].key[..]), (&b"k999"[..], &b"k998"[..]));
    assert!(newest.more && newest.count == 1000);
    let first = RangeRequest { limit: 2, ..all };
    assert_eq!(in_pieces(&store, &first, NEVER, 1_000).unwrap().0.kvs.len(), 2);
}

#[test]
fn the_ranges_of_a_transaction_share_one_limit() {
    let store = thousand();
    let request =
        |ranges| TxnRequest { success: vec![op(span("k", "k5")); ranges], ..TxnRequest::default() };
    let reader = store.mvcc.reader();
    let one = reader.txn(&request(1), usize::MAX).unwrap().response.encoded_len();
    assert!(reader.txn(&request(1), one + 10).is_ok());
    let refused = reader.txn(&request(2), one + 10).unwrap_err();
    assert!(matches!(refused, Error::AnswerTooLarge { max_bytes } if max_bytes == one + 10));
}
