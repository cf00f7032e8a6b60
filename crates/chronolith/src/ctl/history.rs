//! `ctl history`: the versions of a key, newest first.

use super::{
    connection::Client,
    failure::Failure,
    moment::rfc3339,
    output::{Output, base64, hex},
};
use chronolith_proto::history::{KeyHistoryRequest, KeyVersion, key_version::State};
use clap::Args;
use serde_json::{Value, json};

/// Versions that a server is asked for at once.
const PAGE: usize = 1_000;

/// Which key, and how far back.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// The key.
    key: String,
    /// Only versions from this revision on.
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: i64,
    /// Only versions up to this revision.
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    to: i64,
    /// At most so many versions.
    #[arg(long, value_name = "COUNT")]
    limit: Option<std::num::NonZeroUsize>,
}

pub(crate) async fn run(
    args: &HistoryArgs,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let limit = args.limit.map(std::num::NonZeroUsize::get);
    let versions = pages(client, &args.key, (args.from, args.to), limit).await?;
    if versions.is_empty() {
        return Err(Failure::Undecided(format!(
            "{} has no versions in this range: it never was, or compaction took them",
            output.bytes(args.key.as_bytes())
        )));
    }
    if output.is_json() {
        return versions.iter().try_for_each(|version| output.json(&in_json(version)));
    }
    let columns = [
        ("REVISION", true),
        ("TIME", false),
        ("VERSION", true),
        ("ACTOR", false),
        ("VALUE", false),
    ];
    let rows: Vec<_> = versions.iter().map(|version| row(version, output)).collect();
    output.table(&columns, &rows)
}

/// All versions of a key in a range of revisions (0 is open), newest first, page by page.
pub(super) async fn pages(
    client: &Client,
    key: &str,
    (from_revision, mut to_revision): (i64, i64),
    limit: Option<usize>,
) -> Result<Vec<KeyVersion>, Failure> {
    let mut found: Vec<KeyVersion> = Vec::new();
    loop {
        let left = limit.map_or(PAGE, |limit| PAGE.min(limit - found.len()));
        let request = KeyHistoryRequest {
            key: key.to_owned().into(),
            from_revision,
            to_revision,
            limit: left as i64,
        };
        let page = client.ask(client.history().key_history(request)).await?;
        let oldest = page.versions.last().map(|version| version.revision);
        found.extend(page.versions);
        let is_enough = limit.is_some_and(|limit| found.len() >= limit);
        match oldest {
            Some(oldest) if page.more && oldest > 1 && !is_enough => to_revision = oldest - 1,
            _ => return Ok(found),
        }
    }
}

fn row(version: &KeyVersion, output: &Output) -> Vec<String> {
    let time = match version.time_ms {
        0 => "-".to_owned(),
        time_ms => rfc3339(time_ms),
    };
    let (number, value) = match version.state() {
        State::Value => (version.version.to_string(), output.shortened(&version.value)),
        State::Tombstone => ("-".to_owned(), "(deleted)".to_owned()),
        State::Erased => ("-".to_owned(), "(erased)".to_owned()),
    };
    vec![version.revision.to_string(), time, number, actor(version), value]
}

/// The beginning of the actor reference; nobody where it is all zeros.
fn actor(version: &KeyVersion) -> String {
    match version.actor.iter().all(|byte| *byte == 0) {
        true => "-".to_owned(),
        false => hex(&version.actor[..version.actor.len().min(4)]),
    }
}

fn in_json(version: &KeyVersion) -> Value {
    json!({
        "revision": version.revision,
        "state": version.state().as_str_name().to_lowercase(),
        "value": base64(&version.value),
        "create_revision": version.create_revision,
        "version": version.version,
        "lease": version.lease,
        "time_ms": version.time_ms,
        "actor": hex(&version.actor),
    })
}
