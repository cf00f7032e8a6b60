//! Each call of the History service, as a client sees it: what it answers holds by itself, and what it
//! cannot answer it says.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, Hash, Policy, ProofFile, SignedNote, VerifierKey, verify_consistency,
};
use chronolith_proto::{
    etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest},
    history::{
        CheckpointRequest, ConsistencyRequest, DiffRequest, EraseRequest, KeyHistoryRequest,
        Moment, ProveRequest, RestorePrefixRequest, RevisionRange, VerifiedGetRequest,
        VerifiedPutRequest, history_client::HistoryClient, key_version::State, moment,
        prove_request::What,
    },
};
use chronolith_store::Verify;
use common::*;
use tonic::{Code, Status, transport::Channel};

type History = HistoryClient<Channel>;

/// Revision 2 puts a=1, 3 puts b=2, 4 puts a=3, 5 deletes b, 6 puts c=4.
async fn node() -> (Node, History) {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        kv.put(put(key, value)).await.unwrap();
    }
    kv.delete_range(DeleteRangeRequest { key: "b".into(), ..Default::default() }).await.unwrap();
    kv.put(put("c", "4")).await.unwrap();
    let history = node.history().await;
    (node, history)
}

fn at(revision: i64) -> Option<Moment> {
    Some(Moment { at: Some(moment::At::Revision(revision)) })
}

fn at_time(time_ms: u64) -> Option<Moment> {
    Some(Moment { at: Some(moment::At::TimeMs(time_ms)) })
}

async fn policy(history: &mut History) -> Policy {
    let answer = history.checkpoint(CheckpointRequest {}).await.unwrap().into_inner();
    Policy::log_only(VerifierKey::parse(&answer.verifier_key).unwrap()).unwrap()
}

async fn checkpoint(history: &mut History, policy: &Policy) -> Checkpoint {
    let answer = history.checkpoint(CheckpointRequest {}).await.unwrap().into_inner();
    opened(&answer.note, policy)
}

fn opened(note: &str, policy: &Policy) -> Checkpoint {
    policy.open(&SignedNote::parse(note.as_bytes()).unwrap()).unwrap()
}

fn continues(old: &Checkpoint, new: &Checkpoint, path: &[Bytes]) -> bool {
    let path: Vec<_> = path.iter().map(|hash| Hash(hash[..].try_into().unwrap())).collect();
    verify_consistency(old.size, &old.root, new.size, &new.root, &path).is_ok()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn a_checkpoint_speaks_of_everything_that_was_acknowledged() {
    let (node, mut history) = node().await;
    let policy = policy(&mut history).await;
    assert_eq!(checkpoint(&mut history, &policy).await.revision(), 6);
    node.kv().await.put(put("d", "5")).await.unwrap();
    let newer = checkpoint(&mut history, &policy).await;
    assert_eq!((newer.revision(), newer.size), (7, 6));
    assert_eq!(checkpoint(&mut history, &policy).await, newer, "nothing was written since");
}

#[tokio::test]
async fn an_empty_history_has_a_checkpoint_too() {
    let node = Node::start().await;
    let mut history = node.history().await;
    let policy = policy(&mut history).await;
    let empty = checkpoint(&mut history, &policy).await;
    assert_eq!((empty.size, empty.root), (0, Hash::of_empty_tree()));
}

#[tokio::test]
async fn each_size_of_the_log_continues_each_smaller_one() {
    let (node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let old = checkpoint(&mut history, &policy).await;
    for number in 0..20 {
        node.kv().await.put(put("more", &number.to_string())).await.unwrap();
    }
    let request = ConsistencyRequest { from_size: old.size, to_size: 0 };
    let answer = history.consistency(request).await.unwrap().into_inner();
    let new = opened(&answer.note, &policy);
    assert_eq!((answer.to_size, new.size), (25, 25));
    assert!(continues(&old, &new, &answer.hashes));
    let mut forked = old.clone();
    forked.root.0[0] ^= 1;
    assert!(!continues(&forked, &new, &answer.hashes));
    for (from_size, to_size) in [(26, 0), (3, 2), (2, 26)] {
        let answer = history.consistency(ConsistencyRequest { from_size, to_size }).await;
        refused(answer, Code::OutOfRange, "the log has 25 leaves");
    }
}

#[tokio::test]
async fn a_key_a_revision_and_a_range_are_proven() {
    let (_node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let prove = |what| ProveRequest { what: Some(what) };

    let answer = history.prove(prove(What::Key("a".into()))).await.unwrap().into_inner();
    let bundle = Bundle::decode(&answer.bundle).unwrap();
    assert_eq!(bundle.verify_history(&policy, b"a").unwrap().revision(), 6);
    let values: Vec<_> =
        bundle.revisions.iter().map(|revision| revision.ops[0].value().unwrap()).collect();
    assert_eq!(values, [b"1", b"3"]);

    let one = What::Revisions(RevisionRange { from: 5, to: 5 });
    let answer = history.prove(prove(one)).await.unwrap().into_inner();
    let proof = ProofFile::parse(answer.proof_file.as_bytes()).unwrap();
    assert_eq!(proof.entry.revision, 5);
    proof.verify(&policy).unwrap();

    let all = What::Revisions(RevisionRange { from: 2, to: 6 });
    let answer = history.prove(prove(all)).await.unwrap().into_inner();
    let bundle = Bundle::decode(&answer.bundle).unwrap();
    bundle.verify(&policy).unwrap();
    assert_eq!(bundle.revisions.len(), 5);
    assert!(answer.proof_file.is_empty());
}

#[tokio::test]
async fn what_cannot_be_proven_is_said() {
    let (node, mut history) = node().await;
    let revisions =
        |from, to| ProveRequest { what: Some(What::Revisions(RevisionRange { from, to })) };
    refused(history.prove(ProveRequest { what: None }).await, Code::InvalidArgument, "name a key");
    refused(history.prove(revisions(1, 3)).await, Code::InvalidArgument, "begin with revision 2");
    refused(history.prove(revisions(4, 3)).await, Code::InvalidArgument, "no range");
    refused(history.prove(revisions(2, 7)).await, Code::OutOfRange, "the newest is 6");
    let empty = ProveRequest { what: Some(What::Key(Bytes::new())) };
    refused(history.prove(empty).await, Code::InvalidArgument, "key is not provided");
    let compact = CompactionRequest { revision: 4, physical: true };
    node.kv().await.compact(compact).await.unwrap();
    let compacted = history.prove(revisions(2, 3)).await.unwrap().into_inner();
    let bundle = Bundle::decode(&compacted.bundle).unwrap();
    bundle.verify(&policy(&mut history).await).unwrap();
    let shown = |revision: usize| bundle.revisions[revision - 2].ops.len();
    assert_eq!((shown(2), shown(3)), (0, 1), "a=1 was superseded; b=2 was the state at revision 4");
}

#[tokio::test]
async fn the_versions_of_a_key_come_newest_first_and_in_pages() {
    let (node, mut history) = node().await;
    let versions = |key: &str, limit| KeyHistoryRequest {
        key: key.to_owned().into(),
        limit,
        ..KeyHistoryRequest::default()
    };
    let answer = history.key_history(versions("b", 0)).await.unwrap().into_inner();
    let found: Vec<_> =
        answer.versions.iter().map(|version| (version.revision, version.state())).collect();
    assert_eq!(found, [(5, State::Tombstone), (3, State::Value)]);
    assert_eq!(answer.versions[1].value, "2");
    assert!(answer.versions.iter().all(|version| version.time_ms > 0) && !answer.more);

    for number in 0..100 {
        node.kv().await.put(put("many", &number.to_string())).await.unwrap();
    }
    let mut request = versions("many", 30);
    let mut seen = Vec::new();
    loop {
        let page = history.key_history(request.clone()).await.unwrap().into_inner();
        assert!(page.versions.len() <= 30);
        seen.extend(page.versions.iter().map(|version| version.version));
        if !page.more {
            break;
        }
        request.to_revision = page.versions.last().unwrap().revision - 1;
    }
    assert_eq!(seen, (1..=100).rev().collect::<Vec<_>>());

    let between = KeyHistoryRequest { from_revision: 3, to_revision: 4, ..versions("a", 0) };
    let answer = history.key_history(between).await.unwrap().into_inner();
    assert_eq!(answer.versions.len(), 1);
    assert_eq!(answer.versions[0].revision, 4);
    assert!(
        history.key_history(versions("none", 0)).await.unwrap().into_inner().versions.is_empty()
    );
    refused(history.key_history(versions("", 0)).await, Code::InvalidArgument, "key");
    refused(history.key_history(versions("a", -1)).await, Code::InvalidArgument, "-1 entries");
    let wrong = KeyHistoryRequest { from_revision: 5, to_revision: 4, ..versions("a", 0) };
    refused(history.key_history(wrong).await, Code::InvalidArgument, "no range");
}

#[tokio::test]
async fn a_page_of_large_values_ends_before_it_is_too_large_for_a_client() {
    let node = Node::start().await;
    let value = "v".repeat(1_000_000);
    for _ in 0..8 {
        node.kv().await.put(put("large", &value)).await.unwrap();
    }
    let mut kv = node.kv().await;
    kv.put(put("large2", &value)).await.unwrap();
    kv.put(put("large3", &value)).await.unwrap();
    // As a client that never raised gRPC's own limit of 4 MiB.
    let mut history = HistoryClient::new(node.channel().await);
    let request = KeyHistoryRequest { key: "large".into(), ..Default::default() };
    let page = history.key_history(request).await.unwrap().into_inner();
    assert_eq!((page.versions.len(), page.more), (3, true));
    let request = DiffRequest { prefix: "large".into(), from: at(5), ..Default::default() };
    let page = history.diff(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.differences.len(), page.more), (2, true));
    let rest = DiffRequest { after_key: page.differences[1].key.clone(), ..request };
    let page = history.diff(rest).await.unwrap().into_inner();
    assert_eq!((page.differences.len(), page.more), (1, false));
}

#[tokio::test]
async fn a_verified_get_proves_the_version_that_it_shows() {
    let (_node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let pinned = checkpoint(&mut history, &policy).await;
    for (when, value, set_at) in [(None, "3", 4), (at(3), "1", 2), (at(4), "3", 4)] {
        let request = VerifiedGetRequest {
            key: "a".into(),
            at: when,
            pinned_size: pinned.size,
            without_proof: false,
        };
        let answer = history.verified_get(request).await.unwrap().into_inner();
        let kv = answer.kv.unwrap();
        assert_eq!((&kv.value[..], kv.mod_revision), (value.as_bytes(), set_at));
        let new = opened(&answer.note, &policy);
        assert!(continues(&pinned, &new, &answer.consistency));
        let bundle = Bundle::decode(&answer.bundle).unwrap();
        assert_eq!(bundle.verify(&policy).unwrap(), new);
        assert_eq!(bundle.revisions.len(), 1);
        assert_eq!(bundle.revisions[0].ops[0].value(), Some(value.as_bytes()));
    }
}

#[tokio::test]
async fn a_get_of_the_past_says_which_revision_it_means() {
    let (node, mut history) = node().await;
    let versions = KeyHistoryRequest { key: "a".into(), ..Default::default() };
    let versions = history.key_history(versions).await.unwrap().into_inner().versions;
    let get = |when| VerifiedGetRequest {
        key: "b".into(),
        at: when,
        without_proof: true,
        ..VerifiedGetRequest::default()
    };
    let answer = history.verified_get(get(at(4))).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.kv.unwrap().value), (4, "2".into()));
    assert!(answer.bundle.is_empty() && answer.note.is_empty());
    let gone = history.verified_get(get(None)).await.unwrap().into_inner();
    assert_eq!((gone.revision, gone.kv), (6, None));
    let before = history.verified_get(get(at_time(versions[1].time_ms - 1))).await.unwrap();
    assert_eq!(before.into_inner().revision, 1);
    let later = history.verified_get(get(at_time(u64::MAX))).await.unwrap().into_inner();
    assert_eq!(later.revision, 6);

    refused(history.verified_get(get(at(7))).await, Code::OutOfRange, "future revision");
    refused(history.verified_get(get(at(0))).await, Code::InvalidArgument, "begin with 1");
    let compact = CompactionRequest { revision: 4, physical: true };
    node.kv().await.compact(compact).await.unwrap();
    refused(history.verified_get(get(at(2))).await, Code::OutOfRange, "compacted");
    refused(history.verified_get(get(at_time(1))).await, Code::OutOfRange, "compacted");
}

#[tokio::test]
async fn a_pin_beyond_the_log_gets_the_log_s_own_signature_against_it() {
    let (_node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let request = VerifiedGetRequest { key: "a".into(), pinned_size: 900, ..Default::default() };
    let answer = history.verified_get(request).await.unwrap().into_inner();
    assert!(answer.consistency.is_empty());
    assert_eq!(opened(&answer.note, &policy).size, 5);
}

#[tokio::test]
async fn a_verified_put_is_in_the_log_when_it_answers() {
    let (node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let pinned = checkpoint(&mut history, &policy).await;
    let request = VerifiedPutRequest { put: Some(put("a", "new")), pinned_size: pinned.size };
    let answer = history.verified_put(request).await.unwrap().into_inner();
    assert_eq!(answer.put.unwrap().header.unwrap().revision, 7);
    let new = opened(&answer.note, &policy);
    assert!(new.revision() >= 7 && continues(&pinned, &new, &answer.consistency));
    let bundle = Bundle::decode(&answer.bundle).unwrap();
    bundle.verify(&policy).unwrap();
    assert_eq!(bundle.revisions[0].entry.revision, 7);
    assert_eq!(bundle.revisions[0].ops[0].value(), Some(&b"new"[..]));
    assert_eq!(node.kv().await.range(get("a")).await.unwrap().into_inner().kvs[0].value, "new");

    let nothing = VerifiedPutRequest { put: None, pinned_size: 0 };
    refused(history.verified_put(nothing).await, Code::InvalidArgument, "nothing to put");
    let no_key = VerifiedPutRequest { put: Some(put("", "v")), pinned_size: 0 };
    refused(history.verified_put(no_key).await, Code::InvalidArgument, "key is not provided");
    let no_lease = PutRequest { lease: 77, ..put("a", "v") };
    let no_lease = VerifiedPutRequest { put: Some(no_lease), pinned_size: 0 };
    refused(history.verified_put(no_lease).await, Code::NotFound, "lease not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_that_come_together_share_signatures_and_each_is_proven() {
    const WRITERS: usize = 50;
    const PUTS: usize = 4;
    let (node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (mut history, policy) = (history.clone(), policy.clone());
        writers.spawn(async move {
            let mut notes = Vec::new();
            for number in 0..PUTS {
                let put = put(&format!("w{writer}"), &number.to_string());
                let request = VerifiedPutRequest { put: Some(put), pinned_size: 0 };
                let answer = history.verified_put(request).await.unwrap().into_inner();
                Bundle::decode(&answer.bundle).unwrap().verify(&policy).unwrap();
                notes.push(answer.note);
            }
            notes
        });
    }
    let mut notes: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(notes.len(), WRITERS * PUTS);
    notes.sort();
    notes.dedup();
    assert!(
        notes.len() < WRITERS * PUTS / 2,
        "{} signatures for {} puts",
        notes.len(),
        WRITERS * PUTS
    );
    assert_eq!(node.server.store().header().revision, 6 + (WRITERS * PUTS) as i64);
}

#[tokio::test]
async fn a_difference_names_what_came_went_and_changed() {
    let (_node, mut history) = node().await;
    let request = DiffRequest { from: at(3), to: at(6), ..DiffRequest::default() };
    let answer = history.diff(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.from_revision, answer.to_revision), (3, 6));
    let text = |kv: &Option<chronolith_proto::mvccpb::KeyValue>| {
        kv.as_ref().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    };
    let found: Vec<_> = answer
        .differences
        .iter()
        .map(|it| (&it.key[..], text(&it.before), text(&it.after)))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    let expected =
        [(&b"a"[..], some("1"), some("3")), (b"b", some("2"), None), (b"c", None, some("4"))];
    assert_eq!(found, expected);
    let paged = DiffRequest { limit: 2, ..request.clone() };
    let page = history.diff(paged).await.unwrap().into_inner();
    assert_eq!((page.differences.len(), page.more), (2, true));
    let prefixed = DiffRequest { prefix: "c".into(), ..request.clone() };
    assert_eq!(history.diff(prefixed).await.unwrap().into_inner().differences.len(), 1);
    let future = DiffRequest { to: at(99), ..request };
    refused(history.diff(future).await, Code::OutOfRange, "future revision");
}

#[tokio::test]
async fn a_prefix_goes_back_to_what_it_was_in_a_new_revision() {
    let (node, mut history) = node().await;
    let request = |dry_run| RestorePrefixRequest { to: at(3), dry_run, ..Default::default() };
    let planned = history.restore_prefix(request(true)).await.unwrap().into_inner();
    assert_eq!((planned.puts, planned.deletes, planned.new_revision), (2, 1, 0));
    assert_eq!(planned.keys, ["a", "b", "c"]);
    assert_eq!(node.server.store().header().revision, 6, "a dry run writes nothing");
    let done = history.restore_prefix(request(false)).await.unwrap().into_inner();
    assert_eq!((done.puts, done.deletes, done.new_revision), (2, 1, 7));
    assert_eq!(done.new_revisions, [7]);
    let mut kv = node.kv().await;
    assert_eq!(kv.range(get("a")).await.unwrap().into_inner().kvs[0].value, "1");
    assert_eq!(kv.range(get("b")).await.unwrap().into_inner().kvs[0].value, "2");
    assert!(kv.range(get("c")).await.unwrap().into_inner().kvs.is_empty());
    let again = history.restore_prefix(request(false)).await.unwrap().into_inner();
    assert_eq!((again.puts, again.deletes, again.new_revision), (0, 0, 0));
    refused(
        history.restore_prefix(RestorePrefixRequest::default()).await,
        Code::InvalidArgument,
        "to go back to",
    );
}

#[tokio::test]
async fn an_erased_value_is_told_from_one_that_never_was() {
    let (node, mut history) = node().await;
    let policy = policy(&mut history).await;
    let erase = |key: &'static str, from, to| EraseRequest {
        key: key.into(),
        revisions: Some(RevisionRange { from, to }),
        reason: "asked for".to_owned(),
    };
    refused(history.erase(erase("a", 2, 4)).await, Code::FailedPrecondition, "put another value");
    let erased = history.erase(erase("a", 2, 3)).await.unwrap().into_inner();
    assert_eq!(erased.revisions, [2]);
    assert!(history.erase(erase("a", 2, 3)).await.unwrap().into_inner().revisions.is_empty());
    let get = VerifiedGetRequest { key: "a".into(), at: at(3), ..Default::default() };
    let answer = history.verified_get(get).await.unwrap().into_inner();
    assert!(answer.erased && answer.kv.is_none());
    let bundle = Bundle::decode(&answer.bundle).unwrap();
    bundle.verify(&policy).unwrap();
    assert_eq!((bundle.revisions[0].entry.revision, bundle.revisions[0].ops.len()), (2, 1));
    assert!(bundle.revisions[0].ops[0].record().unwrap().is_none(), "nothing but the hash");
    let versions = KeyHistoryRequest { key: "a".into(), ..Default::default() };
    let versions = history.key_history(versions).await.unwrap().into_inner().versions;
    let states: Vec<_> = versions.iter().map(|it| (it.revision, it.state())).collect();
    assert_eq!(states, [(4, State::Value), (2, State::Erased)]);
    let get = RangeRequest { key: "a".into(), revision: 3, ..Default::default() };
    refused(node.kv().await.range(get).await, Code::OutOfRange, "has been erased");
}

#[tokio::test]
async fn without_its_log_a_node_says_how_to_get_one() {
    let node = Node::start_with(|config| config.verify = Verify::Off).await;
    let mut history = node.history().await;
    let text = "start it with --verify async";
    let off = Code::FailedPrecondition;
    refused(history.checkpoint(CheckpointRequest {}).await, off, text);
    refused(history.consistency(ConsistencyRequest::default()).await, off, text);
    let key = ProveRequest { what: Some(What::Key("a".into())) };
    refused(history.prove(key).await, off, text);
    let request = KeyHistoryRequest { key: "a".into(), ..Default::default() };
    refused(history.key_history(request).await, off, text);
    let request = VerifiedGetRequest { key: "a".into(), ..Default::default() };
    refused(history.verified_get(request).await, off, text);
    let request = VerifiedPutRequest { put: Some(put("a", "1")), pinned_size: 0 };
    refused(history.verified_put(request).await, off, text);
    assert_eq!(node.server.store().header().revision, 1, "nothing was written");
    refused(history.diff(DiffRequest::default()).await, off, text);
    let request = RestorePrefixRequest { to: at(1), ..Default::default() };
    refused(history.restore_prefix(request).await, off, text);
    assert_eq!(node.fetch("GET", "/tlog/main/checkpoint", &[], b"").await.code, 400);
}
