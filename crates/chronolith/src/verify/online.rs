//! A running server, believed in nothing.
//!
//! ```text
//! gRPC   checkpoint, signed ─▶ continues the pin ─▶ --key, --revisions: bundles, checked here
//! HTTP   tiles: every leaf ─▶ root of the checkpoint; every entry ─▶ its leaf, in order
//! ```

use super::{
    Outcome, PROVEN_AT_ONCE, Refused, VerifyArgs, export, progress_bar,
    tiles::{Tiles, row},
    unverifiable,
};
use crate::ctl::{
    connection::{Client, Connection},
    trust::{Pinned, Trust, Trusted},
};
use bytes::Bytes;
use chronolith_ledger::{
    Bundle, Checkpoint, ENTRY_BYTES, Entry, Frontier, HASH_BYTES, Hash, revision_of_leaf,
};
use chronolith_proto::history::{
    CheckpointRequest, ConsistencyRequest, ProveRequest, RevisionRange, prove_request::What,
};

pub(super) fn verify(args: &VerifyArgs, endpoint: &str) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unverifiable(&error.to_string()))?;
    let (checkpoint, mut proven) = runtime.block_on(signed(args, endpoint))?;
    if args.key.is_none() && args.revisions.is_none() {
        proven += &walk(endpoint, &checkpoint)?;
    }
    Ok(format!("{endpoint}: signed up to revision {}{proven}", checkpoint.revision()))
}

/// The newest checkpoint, that it continues the pin, and what is asked for by name.
async fn signed(args: &VerifyArgs, endpoint: &str) -> Result<(Checkpoint, String), Refused> {
    let client = Connection::to(endpoint).open().await?;
    let trust = Trust { trust: args.trust.clone(), pin: args.pin.clone() };
    let trusted = trust.read(&client).await?;
    let note = client.ask(client.history().checkpoint(CheckpointRequest {})).await?.note;
    let consistency = consistency(&client, trusted.pinned_size(), &note, &trusted).await?;
    let checkpoint = trusted.accept(&note, &consistency)?;
    let mut proven = String::new();
    if let Some(key) = &args.key {
        proven += &history_of(args, key, &client, &trusted, &checkpoint).await?;
    }
    if let Some(range) = &args.revisions {
        let (from, to) = (*range.start(), *range.end());
        proven += &revisions(args, (from, to), &client, &trusted, &checkpoint).await?;
    }
    match trusted.keep(&note, &checkpoint)? {
        Pinned::No => {}
        Pinned::First => proven += "; the pin was written for the first time",
        Pinned::Continues(revision) => {
            proven += &format!("; it continues the pinned checkpoint of revision {revision}");
        }
    }
    if !trusted.is_known {
        eprintln!(
            "note: checked against the key that the server itself names; --trust names one you know"
        );
    }
    Ok((checkpoint, proven))
}

/// The proof that a newer checkpoint continues an older size; empty where there is nothing to ask for.
async fn consistency(
    client: &Client,
    from_size: u64,
    note: &str,
    trusted: &Trusted,
) -> Result<Vec<Bytes>, Refused> {
    let note = chronolith_ledger::SignedNote::parse(note.as_bytes())?;
    let to_size = trusted.policy.open(&note)?.size;
    if from_size == 0 || from_size >= to_size {
        return Ok(Vec::new());
    }
    let request = ConsistencyRequest { from_size, to_size };
    Ok(client.ask(client.history().consistency(request)).await?.hashes)
}

/// A bundle that the server makes, in which everything holds, of a log that continues `accepted`.
async fn bundle(
    what: What,
    client: &Client,
    trusted: &Trusted,
    accepted: &Checkpoint,
) -> Result<Bundle, Refused> {
    let answer = client.ask(client.history().prove(ProveRequest { what: Some(what) })).await?;
    let bundle = Bundle::decode(&answer.bundle)?;
    let newer = bundle.verify(&trusted.policy)?;
    let note = bundle.checkpoint.to_string();
    let path = consistency(client, accepted.size, &note, trusted).await?;
    crate::ctl::trust::continues(accepted, &newer, &path)?;
    Ok(bundle)
}

async fn history_of(
    args: &VerifyArgs,
    key: &str,
    client: &Client,
    trusted: &Trusted,
    accepted: &Checkpoint,
) -> Result<String, Refused> {
    let what = What::Key(key.to_owned().into());
    let bundle = bundle(what, client, trusted, accepted).await?;
    bundle.verify_history(&trusted.policy, key.as_bytes())?;
    export(args, &bundle)?;
    Ok(format!("\n{key}: {} revisions, none left out in between", bundle.revisions.len()))
}

async fn revisions(
    args: &VerifyArgs,
    (from, to): (i64, i64),
    client: &Client,
    trusted: &Trusted,
    accepted: &Checkpoint,
) -> Result<String, Refused> {
    let to = to.min(accepted.revision().cast_signed());
    if args.export.is_some() && to - from.max(2) >= PROVEN_AT_ONCE {
        return Err(unverifiable(&format!(
            "a server proves up to {PROVEN_AT_ONCE} revisions at once: export fewer"
        ))
        .into());
    }
    let bar = progress_bar("revisions");
    bar.set_length((to - from + 1).max(0).cast_unsigned());
    let mut next = from.max(2);
    while next <= to {
        let end = to.min(next + PROVEN_AT_ONCE - 1);
        let what = What::Revisions(RevisionRange { from: next, to: end });
        let shown = bundle(what, client, trusted, accepted).await?;
        let in_a_row =
            (next..=end).eq(shown.revisions.iter().map(|it| it.entry.revision.cast_signed()));
        if !in_a_row {
            return Err(unverifiable("the server does not show each of these revisions").into());
        }
        export(args, &shown)?;
        next = end + 1;
        bar.set_position((next - from).cast_unsigned());
    }
    bar.finish_and_clear();
    Ok(format!("\nrevisions {from} to {to}"))
}

/// Every leaf and every entry of the log, from its static files.
fn walk(endpoint: &str, checkpoint: &Checkpoint) -> Outcome {
    let mut tiles = Tiles::connect(endpoint)?;
    let bar = progress_bar("revisions");
    bar.set_length(checkpoint.size);
    let (mut frontier, mut entries) = (Frontier::default(), Some(Entries::default()));
    for (index, width) in row(checkpoint.size) {
        let Some(tile) = tiles.tile("0", index, width)? else {
            return Ok("; its first leaves are pruned, so the tiles were not walked".to_owned());
        };
        let first = revision_of_leaf(index * 256);
        let leaves = hashes(&tile, width).ok_or_else(|| differs("tile", first))?;
        let bundle = tiles.tile("entries", index, width)?;
        entries = match (entries, bundle) {
            (Some(seen), Some(bundle)) => Some(seen.follow(&bundle, first, &leaves)?),
            _ => None,
        };
        leaves.into_iter().for_each(|leaf| frontier.append(leaf));
        bar.set_position(frontier.size());
    }
    bar.finish_and_clear();
    if frontier.root() != checkpoint.root {
        return Err(Refused::tampered("the tiles do not have the root of the signed checkpoint"));
    }
    let entries = match entries {
        Some(entries) => format!("{} entries", entries.seen),
        None => "no entries: the server does not show them all".to_owned(),
    };
    Ok(format!("; {} leaves, {entries}", frontier.size()))
}

fn hashes(tile: &[u8], width: u64) -> Option<Vec<Hash>> {
    let hash = |bytes: &[u8]| Hash(bytes.try_into().expect("chunks of 32 bytes"));
    let whole = tile.len() as u64 == width * HASH_BYTES as u64;
    whole.then(|| tile.chunks_exact(HASH_BYTES).map(hash).collect())
}

fn differs(what: &str, revision: u64) -> Refused {
    Refused::tampered(format!("the {what} of revision {revision} is not what was signed"))
        .at(revision)
}

/// How far the entries have been looked at.
#[derive(Default)]
struct Entries {
    seen: u64,
    time_ms: u64,
}

impl Entries {
    /// The next bundle: each entry behind its 2-byte length, each the leaf's, revisions in a row, times
    /// never going back.
    fn follow(mut self, bundle: &[u8], first: u64, leaves: &[Hash]) -> Result<Self, Refused> {
        let mut rest = bundle;
        for (revision, leaf) in (first..).zip(leaves) {
            let (entry, behind) = split(rest).ok_or_else(|| differs("entry", revision))?;
            let read = Entry::decode(entry).map_err(|_| differs("entry", revision))?;
            let in_order = read.revision == revision && read.time_ms >= self.time_ms;
            if Hash::of_leaf(entry) != *leaf || !in_order {
                return Err(differs("entry", revision));
            }
            (self.seen, self.time_ms, rest) = (self.seen + 1, read.time_ms, behind);
        }
        if rest.is_empty() { Ok(self) } else { Err(differs("bundle of entries", first)) }
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (length == ENTRY_BYTES).then_some(())?;
    rest.split_at_checked(length)
}
