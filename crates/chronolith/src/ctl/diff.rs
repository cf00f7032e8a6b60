//! `ctl diff`: what changed under a prefix between two moments.

use super::{connection::Client, failure::Failure, get::key_value, moment::Moment, output::Output};
use bytes::Bytes;
use chronolith_proto::{
    history::{DiffRequest, Difference},
    mvccpb::KeyValue,
};
use clap::Args;
use serde_json::{Value, json};

/// Which keys, and between which moments.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// What the keys begin with; "" is all keys.
    prefix: String,
    /// The earlier moment.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    from: Moment,
    /// The later moment; now, if not given.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    to: Option<Moment>,
}

/// How many keys differ, and how.
#[derive(Default)]
struct Count {
    added: u64,
    removed: u64,
    changed: u64,
}

pub(crate) async fn run(args: &DiffArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut count = Count::default();
    let (mut from, mut to) = (args.from.wire(), args.to.map(Moment::wire));
    let mut after_key = Bytes::new();
    let mut is_first = true;
    loop {
        let request = DiffRequest {
            prefix: args.prefix.clone().into(),
            from: Some(from),
            to,
            limit: 0,
            after_key: after_key.clone(),
        };
        let page = client.ask(client.history().diff(request)).await?;
        if is_first && !output.is_json() {
            let prefix = output.bytes(args.prefix.as_bytes());
            output.line(&format!("--- {prefix} @ revision {}", page.from_revision))?;
            output.line(&format!("+++ {prefix} @ revision {}", page.to_revision))?;
        }
        is_first = false;
        for difference in &page.differences {
            count.add(difference);
            match output.is_json() {
                true => output.json(&in_json(difference))?,
                false => show(difference, output)?,
            }
        }
        match page.differences.last() {
            Some(last) if page.more => after_key = last.key.clone(),
            _ => break,
        }
        // Later pages are of the same two revisions, however long they take.
        from = Moment::Revision(page.from_revision).wire();
        to = Some(Moment::Revision(page.to_revision).wire());
    }
    let Count { added, removed, changed } = count;
    output.note(&format!("{added} added, {removed} removed, {changed} changed"));
    Ok(())
}

impl Count {
    fn add(&mut self, difference: &Difference) {
        match (&difference.before, &difference.after) {
            (None, _) => self.added += 1,
            (_, None) => self.removed += 1,
            _ => self.changed += 1,
        }
    }
}

fn show(difference: &Difference, output: &Output) -> Result<(), Failure> {
    let key = output.bytes(&difference.key);
    let side = |sign: char, kv: &Option<KeyValue>| match kv {
        None => Ok(()),
        Some(kv) => output.line(&format!("{sign}{key}  {}", output.shortened(&kv.value))),
    };
    side('-', &difference.before)?;
    side('+', &difference.after)
}

fn in_json(difference: &Difference) -> Value {
    json!({
        "key": super::output::base64(&difference.key),
        "before": difference.before.as_ref().map(key_value),
        "after": difference.after.as_ref().map(key_value),
    })
}
