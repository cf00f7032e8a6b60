//! One function a call: request in, answer out. In which form it was asked is not known here; what writes
//! gets the store of whoever asks.

use super::desk::{Signed, ask, covering};
use crate::{
    config::{
        DIFFERENCES_MAX, HISTORY_PAGE_BYTES_MAX, PROOF_BYTES_MAX, PROVEN_REVISIONS_MAX,
        RESTORED_KEYS_SHOWN_MAX, VERSIONS_MAX,
    },
    node::Node,
    status::{Code, Status},
};
use bytes::Bytes;
use chronolith_ledger::Hash;
use chronolith_proto::{
    etcdserverpb::{PutRequest, ResponseHeader},
    history::{
        CheckpointRequest, CheckpointResponse, ConsistencyRequest, ConsistencyResponse,
        DiffRequest, DiffResponse, Difference, EraseRequest, EraseResponse, KeyHistoryRequest,
        KeyHistoryResponse, KeyVersion, Moment, ProveRequest, ProveResponse, RestorePrefixRequest,
        RestorePrefixResponse, RevisionRange, VerifiedGetRequest, VerifiedGetResponse,
        VerifiedPutRequest, VerifiedPutResponse, key_version::State, moment, prove_request::What,
    },
};
use chronolith_store::{
    Store, VersionError,
    history::{At, Error, Found, History, Shown, Write},
};

/// Versions that are read at once while a page is filled: values may be large.
const VERSIONS_AT_ONCE: usize = 32;

/// `Checkpoint`.
pub(crate) async fn checkpoint(
    node: &Node,
    _: CheckpointRequest,
) -> Result<CheckpointResponse, Status> {
    let revision = newest(node).await?;
    let signed = covering(node, revision).await?;
    let verifier_key = ask(node, |history| Ok(history.verifier_key())).await?;
    Ok(CheckpointResponse { note: signed.note.to_string(), verifier_key })
}

/// `Consistency`.
pub(crate) async fn consistency(
    node: &Node,
    request: ConsistencyRequest,
) -> Result<ConsistencyResponse, Status> {
    let revision = newest(node).await?;
    let signed = covering(node, revision).await?;
    let ConsistencyRequest { from_size, to_size } = request;
    let to_size = if to_size == 0 { signed.size } else { to_size };
    if from_size > to_size || to_size > signed.size {
        return Err(Status::new(
            Code::OutOfRange,
            format!(
                "chronolith: the log has {} leaves, and a proof leads from a smaller size to a larger \
                 one: not from {from_size} to {to_size}",
                signed.size
            ),
        ));
    }
    let hashes = between(node, from_size, to_size).await?;
    Ok(ConsistencyResponse { hashes, to_size, note: signed.note.to_string() })
}

/// `Prove`.
pub(crate) async fn prove(node: &Node, request: ProveRequest) -> Result<ProveResponse, Status> {
    let what = request.what.ok_or_else(|| invalid("name a key or revisions to prove"))?;
    let revision = newest(node).await?;
    if let What::Revisions(range) = &what {
        check_range(range, revision)?;
    }
    if let What::Key(key) = &what {
        require_key(key)?;
    }
    let note = covering(node, revision).await?.note;
    let (bundle, proof_file) = ask(node, move |history| {
        let proof_file = match &what {
            What::Revisions(range) if range.from == range.to => {
                history.proof_file(range.from, note.clone())?.to_string()
            }
            _ => String::new(),
        };
        let shown = match &what {
            What::Key(key) => Shown::Key(key),
            What::Revisions(RevisionRange { from, to }) => Shown::Revisions(*from, *to),
        };
        let bundle = history.prove(shown, note, PROOF_BYTES_MAX)?;
        Ok((Bytes::from(bundle.encode()), proof_file))
    })
    .await?;
    Ok(ProveResponse { header: header(node), bundle, proof_file })
}

fn check_range(range: &RevisionRange, newest: i64) -> Result<(), Status> {
    let RevisionRange { from, to } = range;
    if *from < 2 || from > to {
        return Err(invalid(&format!(
            "revisions {from} to {to} are no range: writes begin with revision 2"
        )));
    }
    if *to > newest {
        return Err(Status::new(
            Code::OutOfRange,
            format!("chronolith: revision {to} is not written yet: the newest is {newest}"),
        ));
    }
    let count = to - from + 1;
    if count > PROVEN_REVISIONS_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!(
                "chronolith: {count} revisions in one proof (limit {PROVEN_REVISIONS_MAX}): prove \
                 them in parts"
            ),
        ));
    }
    Ok(())
}

/// `KeyHistory`.
pub(crate) async fn key_history(
    node: &Node,
    request: KeyHistoryRequest,
) -> Result<KeyHistoryResponse, Status> {
    let KeyHistoryRequest { key, from_revision: from, to_revision: to, limit } = request;
    require_key(&key)?;
    let to = if to == 0 { i64::MAX } else { to };
    if from < 0 || to < from {
        return Err(invalid(&format!("revisions {from} to {to} are no range")));
    }
    let limit = page_limit(limit, VERSIONS_MAX)?;
    newest(node).await?;
    let (versions, more) =
        ask(node, move |history| page_of_versions(history, &key, (from, to), limit)).await?;
    Ok(KeyHistoryResponse { header: header(node), versions, more })
}

type Page<T> = (Vec<T>, bool);

/// Versions, newest first, until the page is full; read a few at a time, because of their size.
fn page_of_versions(
    history: &History,
    key: &[u8],
    (from, mut to): (i64, i64),
    limit: usize,
) -> Result<Page<KeyVersion>, chronolith_store::history::Error> {
    let (mut page, mut size_bytes) = (Vec::new(), 0);
    loop {
        let wanted = VERSIONS_AT_ONCE.min(limit - page.len() + 1);
        let found = history.versions(key, from, to, wanted)?;
        let is_last = found.len() < wanted;
        for version in found {
            let version = wire_version(version);
            size_bytes += version.value.len();
            let is_full =
                page.len() == limit || (size_bytes > HISTORY_PAGE_BYTES_MAX && !page.is_empty());
            if is_full {
                return Ok((page, true));
            }
            to = version.revision - 1;
            page.push(version);
        }
        if is_last {
            return Ok((page, false));
        }
    }
}

fn wire_version(version: chronolith_store::history::KeyVersion) -> KeyVersion {
    let stamp = version.stamp;
    let mut wire = KeyVersion {
        revision: version.revision,
        state: State::Tombstone.into(),
        time_ms: stamp.map_or(0, |stamp| stamp.time_ms),
        actor: stamp.map_or_else(Bytes::new, |stamp| Bytes::copy_from_slice(&stamp.actor)),
        ..KeyVersion::default()
    };
    if version.erased {
        wire.state = State::Erased.into();
    }
    if let Some(put) = version.put {
        wire.state = State::Value.into();
        wire.value = put.value;
        wire.create_revision = put.create_revision;
        wire.version = put.version;
        wire.lease = put.lease;
    }
    wire
}

/// `VerifiedGet`.
pub(crate) async fn verified_get(
    node: &Node,
    request: VerifiedGetRequest,
) -> Result<VerifiedGetResponse, Status> {
    let VerifiedGetRequest { key, at, pinned_size, without_proof } = request;
    require_key(&key)?;
    let now = newest(node).await?;
    let at = moment(at.as_ref(), now)?;
    let asked = key.clone();
    let (found, erased) = ask(node, move |history| get_or_erased(history, &asked, at)).await?;
    let revision = found.revision;
    let answer = VerifiedGetResponse {
        header: header(node),
        revision,
        kv: found.kv,
        erased: erased.is_some(),
        ..Default::default()
    };
    if without_proof {
        return Ok(answer);
    }
    // Up to the revision that was read: what the server hides behind it contradicts its signature.
    let signed = covering(node, revision).await?;
    let (note, consistency) = (signed.note.to_string(), since(node, pinned_size, &signed).await?);
    let bundle = match answer.kv.as_ref().map(|kv| kv.mod_revision).or(erased) {
        None => Bytes::new(),
        Some(version) => version_proof(node, key, version, signed).await?,
    };
    Ok(VerifiedGetResponse { bundle, note, consistency, ..answer })
}

/// A key as it was, or the revision that gave it a value which was erased since.
fn get_or_erased(
    history: &History,
    key: &[u8],
    at: At,
) -> chronolith_store::history::Result<(Found, Option<i64>)> {
    match history.get_at(key, at) {
        Err(Error::Request(VersionError::Erased)) => {
            let revision = history.resolve(at)?;
            let newest = history.versions(key, 0, revision, 1)?;
            let erased = newest.first().map(|version| version.revision);
            Ok((Found { revision, kv: None }, erased))
        }
        found => Ok((found?, None)),
    }
}

/// `VerifiedPut`.
pub(crate) async fn verified_put(
    node: &Node,
    store: &Store,
    request: VerifiedPutRequest,
) -> Result<VerifiedPutResponse, Status> {
    let VerifiedPutRequest { put, pinned_size } = request;
    let put: PutRequest = put.ok_or_else(|| invalid("there is nothing to put"))?;
    // Before anything is written: a put that could not be proven would leave the caller in doubt.
    ask(node, |_| Ok(())).await?;
    let key = put.key.clone();
    let answer = store.put(put).await?;
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    let proven = put_proof(node, key, revision, pinned_size).await;
    let (bundle, note, consistency) = proven.map_err(|status| {
        let message = format!(
            "{} (the write itself is done, as revision {revision}: ask for its proof again)",
            status.message
        );
        Status { message, ..status }
    })?;
    Ok(VerifiedPutResponse { put: Some(answer), bundle, note, consistency })
}

async fn put_proof(
    node: &Node,
    key: Bytes,
    revision: i64,
    pinned_size: u64,
) -> Result<(Bytes, String, Vec<Bytes>), Status> {
    let signed = covering(node, revision).await?;
    let (note, consistency) = (signed.note.to_string(), since(node, pinned_size, &signed).await?);
    Ok((version_proof(node, key, revision, signed).await?, note, consistency))
}

async fn version_proof(
    node: &Node,
    key: Bytes,
    revision: i64,
    signed: Signed,
) -> Result<Bytes, Status> {
    let prove = move |history: &History| {
        history.prove(Shown::Version(&key, revision), signed.note, PROOF_BYTES_MAX)
    };
    Ok(ask(node, prove).await?.encode().into())
}

/// Proof that a checkpoint continues the client's. A pin beyond the checkpoint has none: the client sees
/// by the signed size that this log is shorter.
async fn since(node: &Node, pinned_size: u64, signed: &Signed) -> Result<Vec<Bytes>, Status> {
    match pinned_size < signed.size {
        true => between(node, pinned_size, signed.size).await,
        false => Ok(Vec::new()),
    }
}

async fn between(node: &Node, from_size: u64, to_size: u64) -> Result<Vec<Bytes>, Status> {
    if from_size == 0 || from_size == to_size {
        return Ok(Vec::new());
    }
    let hashes = ask(node, move |history| history.consistency(from_size, to_size)).await?;
    Ok(hashes.iter().map(|Hash(hash)| Bytes::copy_from_slice(hash)).collect())
}

/// `Diff`.
pub(crate) async fn diff(node: &Node, request: DiffRequest) -> Result<DiffResponse, Status> {
    let DiffRequest { prefix, from, to, limit, after_key } = request;
    let limit = page_limit(limit, DIFFERENCES_MAX)?;
    let now = newest(node).await?;
    let moments = (moment(from.as_ref(), now)?, moment(to.as_ref(), now)?);
    let page = ask(node, move |history| {
        history.diff_within(&prefix, moments, &after_key, (limit, HISTORY_PAGE_BYTES_MAX))
    })
    .await?;
    let differences = page.differences.into_iter();
    Ok(DiffResponse {
        header: header(node),
        from_revision: page.from,
        to_revision: page.to,
        differences: differences
            .map(|found| Difference { key: found.key, before: found.before, after: found.after })
            .collect(),
        more: page.more,
    })
}

/// `RestorePrefix`.
pub(crate) async fn restore_prefix(
    node: &Node,
    store: &Store,
    request: RestorePrefixRequest,
) -> Result<RestorePrefixResponse, Status> {
    let RestorePrefixRequest { prefix, to, dry_run } = request;
    let to = to.filter(|moment| moment.at.is_some());
    let to = to.ok_or_else(|| invalid("name the revision or the time to go back to"))?;
    let now = newest(node).await?;
    let to = moment(Some(&to), now)?;
    let plan = ask(node, move |history| history.plan_restore(&prefix, to)).await?;
    let puts = plan.writes.iter().filter(|write| matches!(write, Write::Put(..))).count();
    let keys = plan.writes.iter().take(RESTORED_KEYS_SHOWN_MAX).map(|write| match write {
        Write::Put(key, _) | Write::Delete(key) => key.clone(),
    });
    let mut answer = RestorePrefixResponse {
        header: None,
        to_revision: plan.to,
        new_revision: 0,
        puts: puts as i64,
        deletes: (plan.writes.len() - puts) as i64,
        keys: keys.collect(),
        new_revisions: Vec::new(),
    };
    if !dry_run && !plan.writes.is_empty() {
        let restored = store.restore_prefix(plan).await?;
        answer.new_revision = restored.revisions.last().copied().unwrap_or(0);
        answer.new_revisions = restored.revisions;
    }
    answer.header = header(node);
    Ok(answer)
}

/// `Erase`.
pub(crate) async fn erase(
    node: &Node,
    store: &Store,
    request: EraseRequest,
) -> Result<EraseResponse, Status> {
    let EraseRequest { key, revisions, reason } = request;
    require_key(&key)?;
    if reason.trim().is_empty() {
        return Err(invalid("say why: the reason goes into the audit trail"));
    }
    if let Some(range) = &revisions
        && (range.from < 2 || range.from > range.to)
    {
        return Err(invalid(&format!(
            "revisions {} to {} are no range: writes begin with revision 2",
            range.from, range.to
        )));
    }
    let range = revisions.map(|range| range.from..=range.to);
    let erased = store.erase(key, range, reason).await?;
    Ok(EraseResponse {
        header: erased.header.or_else(|| header(node)),
        revisions: erased.revisions,
    })
}

/// Waits until all that was acknowledged is applied here; the newest revision.
async fn newest(node: &Node) -> Result<i64, Status> {
    node.store.confirm_read().await?;
    Ok(node.store.header().revision)
}

fn header(node: &Node) -> Option<ResponseHeader> {
    Some(node.store.header())
}

fn invalid(why: &str) -> Status {
    Status::new(Code::InvalidArgument, format!("chronolith: {why}"))
}

fn require_key(key: &[u8]) -> Result<(), Status> {
    match key.is_empty() {
        // etcd's words for it.
        true => Err(Status::new(Code::InvalidArgument, "etcdserver: key is not provided")),
        false => Ok(()),
    }
}

/// Entries of a page: what was asked for, up to the most there may be.
fn page_limit(asked: i64, most: usize) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(most),
        Ok(asked) => Ok(asked.min(most)),
        Err(_) => Err(invalid(&format!("a page of {asked} entries cannot be"))),
    }
}

/// The moment that a request means; now, where it names none.
fn moment(asked: Option<&Moment>, now: i64) -> Result<At, Status> {
    match asked.and_then(|moment| moment.at.as_ref()) {
        None => Ok(At::Revision(now)),
        Some(moment::At::Revision(revision)) if *revision < 1 => {
            Err(invalid(&format!("revisions begin with 1: there is no revision {revision}")))
        }
        Some(moment::At::Revision(revision)) => Ok(At::Revision(*revision)),
        Some(moment::At::TimeMs(time_ms)) => Ok(At::Time(*time_ms)),
    }
}
