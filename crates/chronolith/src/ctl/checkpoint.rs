//! `ctl checkpoint`: what the log holds now, signed.

use super::{
    connection::Client,
    failure::Failure,
    output::Output,
    trust::{Pinned, Trust},
};
use bytes::Bytes;
use chronolith_proto::history::{CheckpointRequest, ConsistencyRequest};
use clap::Args;
use serde_json::json;

/// What to compare the checkpoint with.
#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    trust: Trust,
}

pub(crate) async fn run(
    args: &CheckpointArgs,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let trusted = args.trust.read(client).await?;
    let (note, consistency) = newest(client, trusted.pinned_size()).await?;
    let checkpoint = trusted.accept(&note, &consistency)?;
    let pinned = trusted.keep(&note, &checkpoint)?;
    if output.is_json() {
        output.json(&json!({
            "note": note,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "revision": checkpoint.revision(),
            "root": checkpoint.root.to_base64(),
            "verifier_key": trusted.key.to_string(),
            "continues_revision": match pinned { Pinned::Continues(revision) => Some(revision), _ => None },
        }))?;
    } else {
        output.line(note.trim_end())?;
    }
    match pinned {
        Pinned::Continues(revision) => output.note(&format!(
            "proven: the log as of revision {} continues the pinned one of revision {revision}",
            checkpoint.revision()
        )),
        Pinned::First => output.note(&format!(
            "pinned: the log as of revision {}; from now on it must continue this",
            checkpoint.revision()
        )),
        Pinned::No if trusted.is_known => output.note(&format!(
            "proven: signed by {} as of revision {}",
            trusted.key.name(),
            checkpoint.revision()
        )),
        Pinned::No => output.note(&format!(
            "note: checked against the key that the server itself names, {}\nCompare it over another \
             way and give it with --trust; --pin FILE finds rollback and forks.",
            trusted.key
        )),
    }
    Ok(())
}

/// The newest checkpoint, and the proof that it continues the log of `pinned_size` leaves (0: none).
async fn newest(client: &Client, pinned_size: u64) -> Result<(String, Vec<Bytes>), Failure> {
    let mut history = client.history();
    let answer = client.ask(history.checkpoint(CheckpointRequest {})).await?;
    if pinned_size == 0 {
        return Ok((answer.note, Vec::new()));
    }
    let to_size = chronolith_ledger::SignedNote::parse(answer.note.as_bytes())
        .and_then(|note| chronolith_ledger::Checkpoint::parse(note.text()))?
        .size;
    if to_size < pinned_size {
        // There is no proof to ask for: what is signed here contradicts the pin.
        return Ok((answer.note, Vec::new()));
    }
    let request = ConsistencyRequest { from_size: pinned_size, to_size };
    let proof = client.ask(history.consistency(request)).await?;
    Ok((answer.note, proof.hashes))
}
