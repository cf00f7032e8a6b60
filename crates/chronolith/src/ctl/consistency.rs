//! `ctl consistency`: that one checkpoint continues another.

use super::{
    connection::Client,
    failure::Failure,
    output::{Output, base64},
    trust::{Trust, continues, note},
};
use chronolith_ledger::SignedNote;
use chronolith_proto::history::{CheckpointRequest, ConsistencyRequest};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Which checkpoints.
#[derive(Args, Debug)]
pub(crate) struct ConsistencyArgs {
    /// A file with the older checkpoint.
    old: PathBuf,
    /// A file with the newer checkpoint; the server's newest, if not given.
    new: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

pub(crate) async fn run(
    args: &ConsistencyArgs,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let trusted = args.trust.read(client).await?;
    let old = trusted.policy.open(&note(&args.old)?)?;
    let new = trusted.policy.open(&match &args.new {
        Some(path) => note(path)?,
        None => newest(client).await?,
    })?;
    let hashes = match old.size > 0 && old.size < new.size {
        true => {
            let request = ConsistencyRequest { from_size: old.size, to_size: new.size };
            client.ask(client.history().consistency(request)).await?.hashes
        }
        // Nothing lies between them: the checkpoints themselves decide.
        false => Vec::new(),
    };
    continues(&old, &new, &hashes)?;
    let (from, to) = (old.revision(), new.revision());
    match output.is_json() {
        true => output.json(&json!({
            "from_revision": from, "to_revision": to, "from_size": old.size, "to_size": new.size,
            "hashes": hashes.iter().map(|hash| base64(hash)).collect::<Vec<_>>(),
        })),
        false => output.line(&format!(
            "proven: {} as of revision {to} continues what it was as of revision {from}",
            new.origin
        )),
    }
}

async fn newest(client: &Client) -> Result<SignedNote, Failure> {
    let answer = client.ask(client.history().checkpoint(CheckpointRequest {})).await?;
    Ok(SignedNote::parse(answer.note.as_bytes())?)
}
