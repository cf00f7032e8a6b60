//! The embedded store from end to end: named databases, batches, transactions, time travel, restoring, proofs.
//!
//! `cargo run -p chronolith-store --example embedded`
#![allow(clippy::unwrap_used, reason = "an example may panic")]

use chronolith_ledger::Bundle;
use chronolith_proto::etcdserverpb::{
    Compare, PutRequest, RequestOp, TxnRequest, compare::TargetUnion, request_op::Request,
};
use chronolith_store::embedded::{At, Options, Store, Write, verify_directory};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;

    // Named databases in one directory; each is a history of its own, with its own key.
    let store = Store::open_with(dir.path(), &Options::named("settings"))?;
    let other = Store::open_with(dir.path(), &Options::named("inventory"))?;
    assert_eq!(Store::databases(dir.path())?, ["inventory", "settings"]);

    // Each write is a revision, on the disk when the call returns.
    let red = store.put("app/colour", "red")?;
    store.put("app/colour", "blue")?;
    assert_eq!(store.get("app/colour")?.unwrap().value, "blue");
    store.write([Write::Put("app/size".into(), "9".into()), Write::Delete("app/colour".into())])?;

    // A hundred thousand records, all or none, in one revision.
    let loaded = other.batch_put((0..100_000).map(|n| (format!("part/{n:06}"), "in stock")))?;
    println!("revision {loaded} holds 100,000 records");

    // A transaction in etcd's terms: set the key only if it is not there.
    let put = PutRequest { key: "app/lock".into(), value: "mine".into(), ..Default::default() };
    let absent = Compare {
        key: "app/lock".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let request = TxnRequest {
        compare: vec![absent],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: Vec::new(),
    };
    assert!(store.txn(&request)?.succeeded);
    assert!(!store.txn(&request)?.succeeded, "it is there now");

    // The past: by revision, by time, as versions of a key, as differences of two moments.
    let then = store.get_at("app/colour", At::Revision(red))?;
    assert_eq!(then.kv.unwrap().value, "red");
    let now = store.get_at("app/colour", At::Time(u64::MAX))?;
    assert!(now.kv.is_none(), "it was deleted");
    for version in store.history("app/colour", 10)? {
        println!("app/colour at {}: {:?}", version.revision, version.put.map(|put| put.value));
    }
    let newest = At::Revision(store.revision());
    for difference in store.diff("app/", At::Revision(red), newest)? {
        println!(
            "{:?}: {} -> {}",
            difference.key,
            difference.before.is_some(),
            difference.after.is_some()
        );
    }

    // Bringing a prefix back: first what it would do, then one new revision that does it.
    let plan = store.restore_prefix("app/", At::Revision(red), true)?;
    println!("{} writes would restore revision {}", plan.writes.len(), plan.to);
    let done = store.restore_prefix("app/", At::Revision(red), false)?;
    assert!(done.revision.is_some());
    assert_eq!(store.get("app/colour")?.unwrap().value, "red");

    // Proofs hold without the store. The policy is the public key; get it once, over a way you trust.
    let policy = store.policy()?;
    let pinned = store.checkpoint()?;
    let proof = store.prove("app/colour")?.encode();
    Bundle::decode(&proof)?.verify_history(&policy, b"app/colour")?;
    store.prove_revision(red)?.verify(&policy)?;

    // Everything against its log, while it is open and when it is closed. The checkpoint that was kept finds
    // out when the history was changed, shortened or forked.
    store.put("app/colour", "green")?;
    store.verify_continues(&pinned)?;
    let report = store.verify(Some(&pinned), &mut |_, _| {})?;
    println!("{} revisions and {} versions are proven", report.revisions, report.versions);
    store.close()?;
    verify_directory(&dir.path().join("settings"), None, Some(&pinned), &mut |_, _| {})?;
    Ok(())
}
