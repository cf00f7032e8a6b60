//! `ctl put`: set a key, and see it in the log.

use super::{
    connection::Client,
    failure::Failure,
    get::{just_put, shows},
    moment::rfc3339,
    output::Output,
    trust::Trust,
};
use bytes::Bytes;
use chronolith_proto::{etcdserverpb::PutRequest, history::VerifiedPutRequest};
use clap::Args;
use serde_json::json;
use std::io::Read as _;

/// What to set, and whom to believe.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key.
    key: String,
    /// The value; from standard input where it is not given.
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Attach the key to this lease (hexadecimal, as etcdctl prints it).
    #[arg(long, value_name = "ID", value_parser = lease)]
    lease: Option<i64>,
    /// Check that the log has it; needs --trust or --pin.
    #[arg(long)]
    pub(super) prove: bool,
    #[command(flatten)]
    trust: Trust,
}

fn lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "a lease is a hexadecimal number".to_owned())
}

pub(crate) async fn run(args: &PutArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    if args.prove {
        args.trust.must_be_given()?;
    }
    let (key, value) = (Bytes::from(args.key.clone()), value(args)?);
    let lease = args.lease.unwrap_or_default();
    let put = PutRequest { key, value, lease, ..PutRequest::default() };
    match args.prove {
        true => verified(args, put, client, output).await,
        false => plain(put, client, output).await,
    }
}

fn value(args: &PutArgs) -> Result<Bytes, Failure> {
    if let Some(value) = &args.value {
        return Ok(value.clone().into());
    }
    let mut value = Vec::new();
    let read = std::io::stdin().read_to_end(&mut value);
    read.map_err(|error| Failure::Undecided(format!("cannot read the value: {error}")))?;
    Ok(value.into())
}

async fn plain(put: PutRequest, client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.ask(client.kv().put(put)).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    said(output, revision, None)
}

async fn verified(
    args: &PutArgs,
    put: PutRequest,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let trusted = args.trust.read(client).await?;
    let request = VerifiedPutRequest { put: Some(put.clone()), pinned_size: trusted.pinned_size() };
    let answer = client.ask(client.history().verified_put(request)).await?;
    let checkpoint = trusted.accept(&answer.note, &answer.consistency)?;
    let bundle = trusted.verify(&answer.bundle, &checkpoint)?;
    let missing = || Failure::Tampered("the proof does not show what was put".to_owned());
    let kv = just_put(put.key, put.value, put.lease, &bundle).ok_or_else(missing)?;
    let entry = shows(&bundle, &kv)?;
    let header = answer.put.and_then(|put| put.header).ok_or_else(missing)?;
    if header.revision != kv.mod_revision {
        return Err(missing());
    }
    trusted.keep_and_tell(&answer.note, &checkpoint, output)?;
    output.note(&format!(
        "proven: set at revision {} ({}), in the log as of revision {}",
        entry.revision,
        rfc3339(entry.time_ms),
        checkpoint.revision()
    ));
    said(output, header.revision, Some(checkpoint.revision()))
}

fn said(output: &Output, revision: i64, as_of: Option<u64>) -> Result<(), Failure> {
    match output.is_json() {
        true => output.json(&json!({ "revision": revision, "proven_as_of_revision": as_of })),
        false => output.line("OK"),
    }
}
