//! The log of a served store: every revision is in it, the same commands make the same log, and it
//! outlives restarts, compactions and its own absence.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use chronolith_ledger::{Checkpoint, Frontier, Hash, Op, OpKind, Revision, SignedNote, leaf_index};
use chronolith_mvcc::Kind;
use chronolith_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseRevokeRequest, TxnRequest, request_op::Request,
};
use chronolith_store::{
    EngineKind, Limits, OpenError, Store, StoreConfig, StoreError, Verify,
    history::{At, Error, History},
};
use common::*;
use std::{collections::BTreeMap, path::Path, time::Duration};

fn config(dir: &Path, engine: EngineKind) -> StoreConfig {
    let limits =
        Limits { max_txn_operations: 10_000, max_request_bytes: 8 << 20, ..Limits::default() };
    StoreConfig { engine, limits, checkpoint_every_entries: 50, ..StoreConfig::new(dir) }
}

fn history(store: &Store) -> &History {
    store.history().unwrap()
}

fn silently(_: u64, _: u64) {}

fn root(history: &History) -> (u64, Hash) {
    let checkpoint = Checkpoint::parse(history.checkpoint().unwrap().text()).unwrap();
    (checkpoint.size, checkpoint.root)
}

async fn batch(store: &Store, operations: usize, round: usize) {
    let put = |n: usize| op(Request::RequestPut(put(&format!("{n:05}"), &format!("{round}/{n}"))));
    let success = (0..operations).map(put).collect();
    store.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
}

/// The root of a history that only put keys, each revision these many, computed from what was asked for
/// and from who, when and salt as the versions tell them. None of the store's own hashing is used.
fn recomputed(history: &History, batches: &[usize]) -> Hash {
    let (mut frontier, mut seen) = (Frontier::default(), BTreeMap::<usize, (u64, u64)>::new());
    for (round, operations) in batches.iter().enumerate() {
        let revision = round as u64 + 2;
        let at = revision.cast_signed();
        let stamp = history.versions(b"00000", at, at, 1).unwrap()[0].stamp.unwrap();
        let keys: Vec<_> = (0..*operations).map(|n| format!("{n:05}")).collect();
        let values: Vec<_> = (0..*operations).map(|n| format!("{round}/{n}")).collect();
        let ops: Vec<_> = (0..*operations)
            .map(|n| {
                let (previous, version) = seen.get(&n).copied().unwrap_or((0, 0));
                let first = batches.iter().position(|operations| *operations > n).unwrap() as u64;
                seen.insert(n, (revision, version + 1));
                Op {
                    kind: OpKind::Put,
                    key: keys[n].as_bytes(),
                    value: values[n].as_bytes(),
                    previous,
                    create: first + 2,
                    version: version + 1,
                    lease: 0,
                }
            })
            .collect();
        let (time_ms, actor, salt) = (stamp.time_ms, stamp.actor, stamp.salt);
        frontier.append(Revision { revision, time_ms, actor, salt, ops: &ops }.leaf_hash());
    }
    frontier.root()
}

#[tokio::test]
async fn nothing_is_skipped_whatever_the_size_of_a_revision() {
    const BATCHES: [usize; 9] = [1, 100, 500, 501, 10_000, 2, 501, 9_999, 1];
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        for (round, operations) in BATCHES.iter().enumerate() {
            batch(&store, *operations, round).await;
        }
        let found = root(history(&store));
        assert_eq!(found, (BATCHES.len() as u64, recomputed(history(&store), &BATCHES)));
        store.shutdown().await;
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        assert_eq!(root(history(&store)), found);
    }
}

/// The log is a cache of the revisions: thrown away, it comes back the same, from the Raft log and from
/// the engine's own revisions.
#[tokio::test]
async fn a_replay_makes_the_same_log() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        for number in 0..300 {
            store.put(put(&format!("k{}", number % 7), &number.to_string())).await.unwrap();
            if number % 50 == 49 {
                store.delete_range(delete("k3")).await.unwrap();
            }
        }
        let crashed = tempfile::tempdir().unwrap();
        copy_as_it_lies(dir.path(), crashed.path());
        let before = root(history(&store));
        store.shutdown().await;
        std::fs::remove_dir_all(crashed.path().join("ledger/tlog")).unwrap();
        let store = Store::open(config(crashed.path(), *engine)).unwrap();
        assert_eq!(root(history(&store)), before);
        history(&store).verify(None, &mut silently).unwrap();
    }
}

#[tokio::test]
async fn what_is_compacted_before_the_log_was_on_the_disk_is_not_lost_to_it() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path(), *engine)).unwrap();
        put_all(&store, (0..200).map(|n| (format!("k{}", n % 7), n.to_string()))).await;
        let pinned = history(&store).newest_checkpoint().unwrap();
        store.compact(CompactionRequest { revision: 150, physical: true }).await.unwrap();
        // The memory engine begins with a checkpoint, which must be one without the removed.
        put_all(&store, (0..120).map(|n| (format!("k{}", n % 7), "after".to_owned()))).await;
        let newest = || {
            let entries = std::fs::read_dir(dir.path().join("checkpoints")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter_map(|name| name.parse::<u64>().ok()).max().unwrap_or(0)
        };
        while *engine == EngineKind::Memory && newest() < 250 {
            store.put(put("k0", "after")).await.unwrap();
        }
        // As a crash leaves it: nothing was closed in order.
        let crashed = tempfile::tempdir().unwrap();
        copy_as_it_lies(dir.path(), crashed.path());
        store.shutdown().await;
        let store = Store::open(config(crashed.path(), *engine)).unwrap();
        // Where the Raft log brought removed versions back, they are removed behind the opening: one more
        // compaction waits for that.
        store.compact(CompactionRequest { revision: 151, physical: true }).await.unwrap();
        let report = history(&store).verify(pinned.as_ref(), &mut silently).unwrap();
        // 149 revisions before the compact one, of which 6 hold the state at it.
        assert_eq!(report.hashes_only, 143, "{report:?}");
        let proof = history(&store).prove_range(2, 302).unwrap();
        proof.verify(&history(&store).policy().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_log_that_was_off_while_revisions_were_compacted_cannot_be_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let with = |verify| StoreConfig { verify, ..config(dir.path(), EngineKind::Memory) };
    let store = Store::open(with(Verify::Off)).unwrap();
    assert!(store.history().is_none());
    for number in 0..10 {
        store.put(put("k", &number.to_string())).await.unwrap();
    }
    store.shutdown().await;
    let store = Store::open(with(Verify::Async)).unwrap();
    assert_eq!(root(history(&store)).0, 10, "what is still there is hashed");
    store.shutdown().await;
    let store = Store::open(with(Verify::Off)).unwrap();
    store.put(put("k", "unseen")).await.unwrap();
    store.put(put("k", "seen")).await.unwrap();
    store.compact(CompactionRequest { revision: 13, physical: true }).await.unwrap();
    // The state that the next start begins with must be one without them: the Raft log would bring
    // them back.
    let has_checkpoints = || std::fs::read_dir(dir.path().join("checkpoints")).unwrap().count() > 1;
    while !has_checkpoints() {
        put_all(&store, (0..60).map(|n| (format!("filler/{n}"), "v".to_owned()))).await;
    }
    store.shutdown().await;
    let refused = Store::open(with(Verify::Async)).err().unwrap();
    assert!(
        matches!(&refused, OpenError::History(Error::Gap { logged: 11, compacted: 13, .. })),
        "{refused}"
    );
    Store::open(with(Verify::Off)).unwrap().shutdown().await;
}

#[tokio::test]
async fn a_data_directory_that_was_set_back_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    store.put(put("k", "1")).await.unwrap();
    store.shutdown().await;
    let old = tempfile::tempdir().unwrap();
    copy_as_it_lies(&dir.path().join("log"), &old.path().join("log"));
    let store = Store::open(config(dir.path(), EngineKind::Memory)).unwrap();
    store.put(put("k", "2")).await.unwrap();
    store.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    copy_as_it_lies(&old.path().join("log"), &dir.path().join("log"));
    let refused = Store::open(config(dir.path(), EngineKind::Memory)).err().unwrap();
    assert!(
        matches!(&refused, OpenError::History(Error::Damaged { revision: Some(3), .. })),
        "{refused}"
    );
}

#[tokio::test]
async fn checkpoints_are_signed_unasked() {
    let store = open();
    let signed =
        |store: &Store| -> Option<SignedNote> { history(store).newest_checkpoint().unwrap() };
    store.put(put("k", "1")).await.unwrap();
    let size = |note: SignedNote| Checkpoint::parse(note.text()).unwrap().size;
    while signed(&store).is_none_or(|note| size(note) < 1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let policy = history(&store).policy().unwrap();
    let note = signed(&store).unwrap();
    let checkpoint = policy.open(&note).unwrap();
    assert!(checkpoint.origin.ends_with("/main"), "{}", checkpoint.origin);
    let cluster = format!("{:016x}", store.header().cluster_id);
    assert!(checkpoint.origin.starts_with(&cluster), "{}", checkpoint.origin);
    // Ten thousand revisions do not wait for the second.
    let before = std::time::Instant::now();
    put_all(&store, (0..11_000).map(|n| (format!("{}", n % 110), n.to_string()))).await;
    while size(signed(&store).unwrap()) < 10_001 {
        assert!(before.elapsed() < Duration::from_secs(60), "no checkpoint appeared");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let consistent = history(&store).verify(Some(&note), &mut silently).unwrap();
    assert_eq!(consistent.revisions, 11_001);
}

/// Puts all of these, a thousand at a time: so many share a sync.
async fn put_all(store: &Store, pairs: impl Iterator<Item = (String, String)>) {
    let pairs: Vec<_> = pairs.collect();
    for pairs in pairs.chunks(1_000) {
        for done in futures(pairs.iter().map(|(key, value)| store.put(put(key, value)))).await {
            done.unwrap();
        }
    }
}

/// Waits for all of them at once.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn a_lease_that_ran_out_is_told_from_one_that_was_revoked() {
    let store = open();
    store.lease_grant(grant(1, 2)).await.unwrap();
    store.lease_grant(grant(2, 600)).await.unwrap();
    store.put(leased("ran out", "v", 1)).await.unwrap();
    store.put(leased("revoked", "v", 2)).await.unwrap();
    store.lease_revoke(LeaseRevokeRequest { id: 2 }).await.unwrap();
    while store.range(get("ran out")).await.unwrap().count != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bundle = history(&store).prove_range(2, 5).unwrap();
    bundle.verify(&history(&store).policy().unwrap()).unwrap();
    let kinds: Vec<_> = bundle
        .revisions
        .iter()
        .flat_map(|revision| &revision.ops)
        .map(|op| op.record().unwrap().unwrap())
        .map(|record| (String::from_utf8(record.key.to_vec()).unwrap(), record.kind))
        .collect();
    let (revoked, ran_out) = ("revoked".to_owned(), "ran out".to_owned());
    assert_eq!(
        kinds,
        [
            (ran_out.clone(), OpKind::Put),
            (revoked.clone(), OpKind::Put),
            (revoked, OpKind::Delete),
            (ran_out, OpKind::Expire)
        ]
    );
    assert!(Kind::Put.is_put() && !Kind::Expire.is_put());
}

#[tokio::test]
async fn a_prefix_is_restored_unless_something_under_it_changed() {
    let store = open();
    for (key, value) in [("app/a", "1"), ("app/b", "2"), ("other", "3")] {
        store.put(put(key, value)).await.unwrap();
    }
    store.put(put("app/a", "bad")).await.unwrap();
    store.delete_range(delete("app/b")).await.unwrap();
    store.put(put("app/c", "new")).await.unwrap();
    let plan = || history(&store).plan_restore(b"app/", At::Revision(4)).unwrap();
    let stale = [plan(), plan()];
    assert_eq!(stale[0].writes.len(), 3);
    // A removal is a change too, and so is one of a key that the plan does not name.
    store.put(put("app/d", "x")).await.unwrap();
    assert!(matches!(store.restore_prefix(stale[0].clone()).await, Err(StoreError::Overtaken)));
    store.delete_range(delete("app/d")).await.unwrap();
    let plan_then = plan();
    assert!(matches!(store.restore_prefix(stale[1].clone()).await, Err(StoreError::Overtaken)));
    store.put(put("other", "4")).await.unwrap();
    let before = store.header().revision;
    let done = store.restore_prefix(plan_then).await.unwrap();
    assert_eq!((done.to, done.revisions), (4, vec![before + 1]));
    let found = store.range(all()).await.unwrap();
    let expected = [("app/a", "1"), ("app/b", "2"), ("other", "4")];
    let expected: Vec<_> = expected.map(|(key, value)| (key.into(), value.into())).into();
    assert_eq!(values(&found), expected);
    assert!(plan().writes.is_empty());
    assert!(store.restore_prefix(plan()).await.unwrap().revisions.is_empty());
}

#[tokio::test]
async fn a_restoration_too_large_for_one_command_takes_several_revisions() {
    let store = open_with(|config| config.limits.max_request_bytes = 10_000);
    put_all(&store, (0..100).map(|n| (format!("k{n:02}"), "v".repeat(500)))).await;
    let range_end = "l".into();
    store.delete_range(DeleteRangeRequest { range_end, ..delete("k") }).await.unwrap();
    let plan = history(&store).plan_restore(b"k", At::Revision(101)).unwrap();
    let done = store.restore_prefix(plan).await.unwrap();
    assert_eq!(done.revisions, (103..115).collect::<Vec<_>>());
    assert_eq!(store.range(all()).await.unwrap().count, 100);
}

#[tokio::test]
async fn differences_come_in_pages() {
    let store = open();
    put_all(&store, (0..250).map(|n| (format!("p/{n:03}"), "1".to_owned()))).await;
    let from = store.header().revision;
    put_all(&store, (0..250).step_by(2).map(|n| (format!("p/{n:03}"), "2".to_owned()))).await;
    store.delete_range(delete("p/001")).await.unwrap();
    store.put(put("p/new", "3")).await.unwrap();
    store.put(put("q", "elsewhere")).await.unwrap();
    let to = store.header().revision;
    let page = |after: &[u8], limit| {
        history(&store).diff(b"p/", At::Revision(from), At::Revision(to), after, limit).unwrap()
    };
    let whole = page(b"", usize::MAX);
    assert_eq!((whole.from, whole.to, whole.more), (from, to, false));
    assert_eq!(whole.differences.len(), 127);
    let (mut paged, mut after) = (Vec::new(), Vec::new());
    loop {
        let found = page(&after, 10);
        paged.extend(found.differences);
        if !found.more {
            break;
        }
        after = paged.last().unwrap().key.to_vec();
    }
    assert_eq!(paged, whole.differences);
}

#[tokio::test]
async fn tiles_and_entries_are_those_of_the_log() {
    let store = open();
    put_all(&store, (0..600).map(|n| ("k".to_owned(), n.to_string()))).await;
    let history = history(&store);
    let (size, root) = root(history);
    assert_eq!(size, 600);
    let mut frontier = Frontier::default();
    for (index, width) in [(0, 256), (1, 256), (2, 88)] {
        let tile = history.tile(0, index, width).unwrap().unwrap();
        let entries = history.entries(index, width).unwrap().unwrap();
        let mut leaves = tile.chunks_exact(32);
        let mut rest = &entries[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            let leaf = Hash::of_leaf(entry);
            assert_eq!(leaves.next().unwrap(), leaf.0);
            frontier.append(leaf);
            rest = after;
        }
    }
    assert_eq!((frontier.size(), frontier.root()), (size, root));
    assert_eq!(history.tile(1, 0, 2).unwrap().unwrap().len(), 64);
    for (level, index, width) in
        [(0, 2, 89), (0, 3, 1), (1, 0, 3), (0, 0, 0), (9, 0, 1), (0, u64::MAX, 1)]
    {
        assert!(history.tile(level, index, width).unwrap().is_none(), "{level}/{index}.p/{width}");
    }
    let proof = history.consistency(100, 600).unwrap();
    let old = history.tile(0, 0, 100).unwrap().unwrap();
    let mut frontier = Frontier::default();
    frontier.extend(old.chunks_exact(32).map(|hash| Hash(hash.try_into().unwrap())));
    chronolith_ledger::verify_consistency(100, &frontier.root(), 600, &root, &proof).unwrap();
    assert!(history.consistency(100, 601).is_err());
    assert_eq!(leaf_index(history.watermark().cast_unsigned()), Some(599));
}

/// Two stores that are told the same, by the same clock, have the same log but for salts and times; the
/// machine's own tests fix those. Here: what one proves, the other's key does not sign.
#[tokio::test]
async fn every_member_signs_for_itself() {
    let (a, b) = (open(), open());
    a.put(put("k", "v")).await.unwrap();
    let note = history(&a).checkpoint().unwrap();
    history(&a).policy().unwrap().open(&note).unwrap();
    assert!(history(&b).policy().unwrap().open(&note).is_err());
    assert_ne!(history(&a).verifier_key(), history(&b).verifier_key());
}
