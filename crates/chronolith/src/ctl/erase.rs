//! `ctl erase`: remove values for good; their hashes stay in the log. Only says what, unless told `--yes`.

use super::{
    connection::Client,
    failure::Failure,
    output::{Output, count},
};
use chronolith_proto::history::{EraseRequest, RevisionRange, key_version::State};
use clap::Args;
use serde_json::json;
use std::ops::RangeInclusive;

/// Which versions, and why.
#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    /// The key.
    key: String,
    /// The revisions whose values go: FROM-TO, one revision, or "all".
    #[arg(long, value_name = "FROM-TO", value_parser = revisions)]
    revisions: Revisions,
    /// Why: it goes into the audit trail.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    /// Do it; without this it is only said what would go. It cannot be taken back.
    #[arg(long)]
    yes: bool,
}

/// All of them, or those between two.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Revisions {
    All,
    Between(RangeInclusive<i64>),
}

fn revisions(text: &str) -> Result<Revisions, String> {
    if text == "all" {
        return Ok(Revisions::All);
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse::<i64>(), to.parse::<i64>()) {
        (Ok(from), Ok(to)) if from >= 2 && from <= to => Ok(Revisions::Between(from..=to)),
        _ => {
            Err("FROM-TO such as 5-9, one revision, or all; revisions of keys begin with 2".into())
        }
    }
}

pub(crate) async fn run(args: &EraseArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    if !args.yes {
        return only_say(args, client, output).await;
    }
    let revisions = match &args.revisions {
        Revisions::All => None,
        Revisions::Between(range) => Some(RevisionRange { from: *range.start(), to: *range.end() }),
    };
    let key = args.key.clone().into();
    let request = EraseRequest { key, revisions, reason: args.reason.clone() };
    let answer = client.ask(client.history().erase(request)).await?;
    if output.is_json() {
        return output.json(&json!({ "revisions": answer.revisions, "dry_run": false }));
    }
    answer.revisions.iter().try_for_each(|revision| output.line(&revision.to_string()))?;
    output.note(&format!(
        "erased: {} of {}, for good; the hashes stay provable. Older snapshots and backups may still \
         hold what was erased.",
        count(answer.revisions.len(), "value"),
        output.bytes(args.key.as_bytes())
    ));
    Ok(())
}

/// The revisions whose values are there and would go.
async fn only_say(args: &EraseArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let (from, to) = match &args.revisions {
        Revisions::All => (0, 0),
        Revisions::Between(range) => (*range.start(), *range.end()),
    };
    let versions = super::history::pages(client, &args.key, (from, to), None).await?;
    let found: Vec<i64> = versions
        .iter()
        .filter(|version| version.state() == State::Value)
        .map(|version| version.revision)
        .collect();
    if output.is_json() {
        return output.json(&json!({ "revisions": found, "dry_run": true }));
    }
    found.iter().try_for_each(|revision| output.line(&revision.to_string()))?;
    output.note(&format!(
        "nothing erased yet: {} of {} would go for good. Do it with --yes.",
        count(found.len(), "value"),
        output.bytes(args.key.as_bytes())
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_must_be_said() {
        assert_eq!(revisions("all"), Ok(Revisions::All));
        assert_eq!(revisions("5"), Ok(Revisions::Between(5..=5)));
        assert_eq!(revisions("5-9"), Ok(Revisions::Between(5..=9)));
        for wrong in ["", "9-5", "1", "ALL", "-"] {
            assert!(revisions(wrong).is_err(), "{wrong:?}");
        }
    }
}
