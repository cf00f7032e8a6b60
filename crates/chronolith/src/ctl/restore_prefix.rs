//! `ctl restore-prefix`: make the keys under a prefix what they were. A dry run, unless told `--yes`.

use super::{
    connection::Client,
    failure::Failure,
    moment::Moment,
    output::{Output, base64},
};
use chronolith_proto::history::{RestorePrefixRequest, RestorePrefixResponse};
use clap::Args;
use serde_json::json;

/// Which keys, and what they become.
#[derive(Args, Debug)]
pub(crate) struct RestorePrefixArgs {
    /// What the keys begin with; "" is all keys.
    prefix: String,
    /// The moment to go back to.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    to: Moment,
    /// Do it; without this it is only said what would be written.
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(
    args: &RestorePrefixArgs,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let request = RestorePrefixRequest {
        prefix: args.prefix.clone().into(),
        to: Some(args.to.wire()),
        dry_run: !args.yes,
    };
    let answer = client.ask(client.history().restore_prefix(request)).await?;
    if output.is_json() {
        return output.json(&json!({
            "to_revision": answer.to_revision,
            "new_revisions": answer.new_revisions,
            "dry_run": !args.yes,
            "puts": answer.puts,
            "deletes": answer.deletes,
            "keys": answer.keys.iter().map(|key| base64(key)).collect::<Vec<_>>(),
        }));
    }
    answer.keys.iter().try_for_each(|key| output.line(&output.bytes(key)))?;
    output.note(&in_words(args, &answer));
    Ok(())
}

fn in_words(args: &RestorePrefixArgs, answer: &RestorePrefixResponse) -> String {
    let RestorePrefixResponse { to_revision, puts, deletes, .. } = answer;
    let new: Vec<_> = answer.new_revisions.iter().map(ToString::to_string).collect();
    let new = format!("revision{} {}", if new.len() == 1 { "" } else { "s" }, new.join(", "));
    let more = (puts + deletes) - answer.keys.len() as i64;
    let more = if more > 0 { format!(" ({more} more keys are not shown)") } else { String::new() };
    match (puts + deletes, args.yes) {
        (0, _) => format!("nothing to do: the keys are what they were at revision {to_revision}"),
        (_, true) => format!(
            "restored to revision {to_revision}: {puts} set, {deletes} deleted, as {new}{more}"
        ),
        (_, false) => format!(
            "dry run, nothing written: going back to revision {to_revision} sets {puts} and deletes \
             {deletes}{more}\nDo it with --yes; the past stays as it is, and this can be taken back the same way."
        ),
    }
}
