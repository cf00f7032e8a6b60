//! `ctl get`: a key as it is or was, with its proof if asked for.

use super::{
    connection::Client,
    failure::Failure,
    moment::{Moment, rfc3339},
    output::{Output, base64},
    trust::Trust,
};
use bytes::Bytes;
use chronolith_ledger::{Bundle, Checkpoint, Entry, OpKind};
use chronolith_proto::{
    etcdserverpb::RangeRequest,
    history::{VerifiedGetRequest, VerifiedGetResponse},
    mvccpb::KeyValue,
};
use clap::Args;
use serde_json::{Value, json};

/// Which key, when, and whom to believe.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The key.
    key: String,
    /// When: a revision or a time. Now, if not given.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    at: Option<Moment>,
    /// Check that the log has this version; needs --trust or --pin.
    #[arg(long)]
    pub(super) prove: bool,
    #[command(flatten)]
    trust: Trust,
}

pub(crate) async fn run(args: &GetArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let (revision, kv, proven) = match (args.prove, args.at) {
        (true, _) => verified(args, client, output).await?,
        (false, Some(Moment::TimeMs(_))) => {
            let answer = at_time(args, client, 0, false).await?;
            if answer.erased {
                return Err(erased(args, answer.revision, ""));
            }
            (answer.revision, answer.kv, None)
        }
        (false, at) => plain(args, at, client).await?,
    };
    let Some(kv) = kv else {
        return Err(Failure::Undecided(format!(
            "{} was not there at revision {revision}{}",
            output.bytes(args.key.as_bytes()),
            if args.prove { "; that a key is absent cannot be proven yet" } else { "" }
        )));
    };
    if output.is_json() {
        return output.json(&in_json(revision, &kv, proven.as_ref()));
    }
    output.raw(&kv.key)?;
    output.raw(&kv.value)?;
    output.note(&match proven {
        None => format!("at revision {revision}, set at revision {}", kv.mod_revision),
        Some(Proven { entry, checkpoint }) => format!(
            "proven: set at revision {} ({}), in the log as of revision {}; read at revision {revision}",
            entry.revision,
            rfc3339(entry.time_ms),
            checkpoint.revision()
        ),
    });
    Ok(())
}

/// What vouches for a version.
pub(super) struct Proven {
    pub(super) entry: Entry,
    pub(super) checkpoint: Checkpoint,
}

type Got = (i64, Option<KeyValue>, Option<Proven>);

/// etcd's own read: works without the log, too.
async fn plain(args: &GetArgs, at: Option<Moment>, client: &Client) -> Result<Got, Failure> {
    let revision = match at {
        Some(Moment::Revision(revision)) => revision,
        _ => 0,
    };
    let key = args.key.clone().into();
    let request = RangeRequest { key, revision, ..RangeRequest::default() };
    let mut answer = client.ask(client.kv().range(request)).await?;
    let newest = answer.header.map_or(0, |header| header.revision);
    Ok((if revision == 0 { newest } else { revision }, answer.kvs.pop(), None))
}

async fn at_time(
    args: &GetArgs,
    client: &Client,
    pinned_size: u64,
    prove: bool,
) -> Result<VerifiedGetResponse, Failure> {
    let request = VerifiedGetRequest {
        key: args.key.clone().into(),
        at: args.at.map(Moment::wire),
        pinned_size,
        without_proof: !prove,
    };
    client.ask(client.history().verified_get(request)).await
}

fn erased(args: &GetArgs, revision: i64, proven: &str) -> Failure {
    Failure::Undecided(format!(
        "the value of {} at revision {revision} was erased; its hash stays in the log{proven}",
        args.key
    ))
}

async fn verified(args: &GetArgs, client: &Client, output: &Output) -> Result<Got, Failure> {
    args.trust.must_be_given()?;
    let trusted = args.trust.read(client).await?;
    let answer = at_time(args, client, trusted.pinned_size(), true).await?;
    let checkpoint = trusted.accept(&answer.note, &answer.consistency)?;
    if answer.erased {
        // What is left is proven; what it was, nobody can tell any more.
        let bundle = trusted.verify(&answer.bundle, &checkpoint)?;
        trusted.keep_and_tell(&answer.note, &checkpoint, output)?;
        let left = bundle.revisions.last().map(|revision| revision.entry.revision);
        let left = left.map(|revision| format!(", proven in its place in revision {revision}"));
        return Err(erased(args, answer.revision, &left.unwrap_or_default()));
    }
    let Some(kv) = answer.kv else { return Ok((answer.revision, None, None)) };
    if kv.key != args.key.as_bytes() || kv.mod_revision > answer.revision {
        return Err(Failure::Tampered("the answer is to another question".to_owned()));
    }
    let bundle = trusted.verify(&answer.bundle, &checkpoint)?;
    let entry = shows(&bundle, &kv)?;
    trusted.keep_and_tell(&answer.note, &checkpoint, output)?;
    Ok((answer.revision, Some(kv), Some(Proven { entry, checkpoint })))
}

/// The entry of the revision in which a verified bundle shows that `kv` was set to just this.
pub(super) fn shows(bundle: &Bundle, kv: &KeyValue) -> Result<Entry, Failure> {
    let missing = || Failure::Tampered("the proof is of something else than the answer".to_owned());
    let revision = bundle
        .revisions
        .iter()
        .find(|revision| revision.entry.revision == kv.mod_revision.unsigned_abs())
        .ok_or_else(missing)?;
    for op in revision.ops.iter().rev() {
        let Some(record) = op.record()?.filter(|record| record.key == &kv.key[..]) else {
            continue;
        };
        // The last change of the key in its revision is what it was afterwards.
        let same = record.kind == OpKind::Put
            && record.create == kv.create_revision.unsigned_abs()
            && record.version == kv.version.unsigned_abs()
            && record.lease == kv.lease.cast_unsigned()
            && record.verify_value(&kv.value).is_ok();
        return if same { Ok(revision.entry) } else { Err(missing()) };
    }
    Err(missing())
}

fn in_json(revision: i64, kv: &KeyValue, proven: Option<&Proven>) -> Value {
    json!({
        "revision": revision,
        "kv": key_value(kv),
        "proven_as_of_revision": proven.map(|proven| proven.checkpoint.revision()),
        "time": proven.map(|proven| rfc3339(proven.entry.time_ms)),
    })
}

/// A key and its value as the JSON forms carry them.
pub(super) fn key_value(kv: &KeyValue) -> Value {
    json!({
        "key": base64(&kv.key),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": kv.lease,
        "value": base64(&kv.value),
    })
}

/// The key and the value that a put would leave, as far as the caller knows it.
pub(super) fn just_put(key: Bytes, value: Bytes, lease: i64, bundle: &Bundle) -> Option<KeyValue> {
    let revision = bundle.revisions.last()?;
    let op = revision
        .ops
        .iter()
        .rev()
        .find_map(|op| op.record().ok().flatten().filter(|op| op.key == key))?;
    Some(KeyValue {
        create_revision: op.create.cast_signed(),
        mod_revision: revision.entry.revision.cast_signed(),
        version: op.version.cast_signed(),
        key,
        value,
        lease,
    })
}
