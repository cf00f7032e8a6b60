//! `ctl prove`: a proof that outlives the server, checked before it is written.

use super::{
    connection::Client,
    failure::Failure,
    output::{Output, count},
    trust::{Trust, Trusted},
};
use bytes::Bytes;
use chronolith_ledger::{Bundle, Checkpoint, OpRecord, ProofFile, ProvenRevision};
use chronolith_proto::history::{
    ConsistencyRequest, ProveRequest, ProveResponse, RevisionRange, prove_request::What,
};
use clap::Args;
use serde_json::json;
use std::{ops::RangeInclusive, path::PathBuf};

/// What to prove, and where the proof goes.
#[derive(Args, Debug)]
pub(crate) struct ProveArgs {
    /// Prove all versions of this key that are still there: a bundle.
    #[arg(required_unless_present_any = ["revision", "range"])]
    key: Option<String>,
    /// Prove one revision: a C2SP tlog-proof, which names neither keys nor values.
    #[arg(long, conflicts_with = "key", value_parser = clap::value_parser!(i64).range(2..))]
    revision: Option<i64>,
    /// Prove these revisions with all they did: a bundle.
    #[arg(long, value_name = "FROM-TO", value_parser = revisions, conflicts_with_all = ["key", "revision"])]
    range: Option<RangeInclusive<i64>>,
    /// The file to write.
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    trust: Trust,
}

pub(crate) async fn run(args: &ProveArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let trusted = args.trust.read(client).await?;
    let request = ProveRequest { what: Some(what(args)) };
    let answer = client.ask(client.history().prove(request)).await?;
    let Proof { bytes, revisions: shown, note, checkpoint } = match args.revision {
        Some(revision) => proof_file(&answer, revision, &trusted)?,
        None => bundle(args, answer, &trusted)?,
    };
    let consistency = since_the_pin(&trusted, &checkpoint, client).await?;
    trusted.accept(&note, &consistency)?;
    trusted.keep_and_tell(&note, &checkpoint, output)?;
    std::fs::write(&args.output, bytes).map_err(Failure::file(&args.output))?;
    let (file, as_of) = (args.output.display(), checkpoint.revision());
    match output.is_json() {
        true => output.json(&json!({
            "file": args.output, "revisions": shown, "as_of_revision": as_of,
            "verifier_key": trusted.key.to_string(),
        }))?,
        false => output.line(&format!(
            "{file}: {}, in the log as of revision {as_of}",
            count(shown, "revision")
        ))?,
    }
    if !trusted.is_known {
        output.note("note: checked against the key that the server itself names; --trust names one you know");
    }
    let key = args.key.as_ref().map(|key| format!(" --key {key:?}")).unwrap_or_default();
    output
        .note(&format!("Check it anywhere: chronolith verify {file} --trust {}{key}", trusted.key));
    Ok(())
}

fn what(args: &ProveArgs) -> What {
    match (&args.key, args.revision, &args.range) {
        (Some(key), ..) => What::Key(key.clone().into()),
        (None, Some(revision), _) => {
            What::Revisions(RevisionRange { from: revision, to: revision })
        }
        (None, None, Some(range)) => {
            What::Revisions(RevisionRange { from: *range.start(), to: *range.end() })
        }
        (None, None, None) => unreachable!("clap demands one of them"),
    }
}

/// A proof that holds.
struct Proof {
    bytes: Vec<u8>,
    revisions: usize,
    note: String,
    checkpoint: Checkpoint,
}

fn proof_file(answer: &ProveResponse, revision: i64, trusted: &Trusted) -> Result<Proof, Failure> {
    let proof = ProofFile::parse(answer.proof_file.as_bytes())?;
    if proof.entry.revision != revision.unsigned_abs() {
        return Err(Failure::Tampered("the proof is of another revision".to_owned()));
    }
    let checkpoint = proof.verify(&trusted.policy)?;
    let (bytes, note) = (proof.to_string().into_bytes(), proof.checkpoint.to_string());
    Ok(Proof { bytes, revisions: 1, note, checkpoint })
}

fn bundle(args: &ProveArgs, answer: ProveResponse, trusted: &Trusted) -> Result<Proof, Failure> {
    let bundle = Bundle::decode(&answer.bundle)?;
    let checkpoint = match &args.key {
        Some(key) => bundle.verify_history(&trusted.policy, key.as_bytes())?,
        None => bundle.verify(&trusted.policy)?,
    };
    if bundle.revisions.is_empty() {
        return Err(Failure::undecided(
            "there is nothing to prove: no such key or revision is left",
        ));
    }
    if !shows_what_was_asked(args, &bundle)? {
        return Err(Failure::Tampered("the proof leaves out a part of what was asked".to_owned()));
    }
    let (bytes, note) = (answer.bundle.to_vec(), bundle.checkpoint.to_string());
    Ok(Proof { bytes, revisions: bundle.revisions.len(), note, checkpoint })
}

/// Whether each revision says something about the key, or the range is there without a gap and each
/// revision with all that it did.
fn shows_what_was_asked(args: &ProveArgs, bundle: &Bundle) -> Result<bool, Failure> {
    let (Some(range), revisions) = (&args.range, &bundle.revisions) else {
        let key = args.key.as_deref().unwrap_or_default().as_bytes();
        for revision in &bundle.revisions {
            let of_key = |record: Option<OpRecord<'_>>| record.is_none_or(|it| it.key == key);
            let ops = revision.ops.iter().map(|op| op.record().map(of_key));
            let ops: Vec<_> = ops.collect::<Result<_, _>>()?;
            if ops.is_empty() || ops.contains(&false) {
                return Ok(false);
            }
        }
        return Ok(true);
    };
    let is_whole =
        |revision: &ProvenRevision| revision.ops.len() as u64 == u64::from(revision.entry.ops);
    let numbers = revisions.iter().map(|revision| revision.entry.revision.cast_signed());
    Ok(numbers.eq(range.clone()) && revisions.iter().all(is_whole))
}

/// That the log of the proof continues the pinned one; empty where there is nothing to ask for.
async fn since_the_pin(
    trusted: &Trusted,
    checkpoint: &Checkpoint,
    client: &Client,
) -> Result<Vec<Bytes>, Failure> {
    let (from_size, to_size) = (trusted.pinned_size(), checkpoint.size);
    if from_size == 0 || from_size >= to_size {
        return Ok(Vec::new());
    }
    let request = ConsistencyRequest { from_size, to_size };
    Ok(client.ask(client.history().consistency(request)).await?.hashes)
}

fn revisions(text: &str) -> Result<RangeInclusive<i64>, String> {
    let parts = text
        .split_once('-')
        .and_then(|(from, to)| Some((from.parse::<i64>().ok()?, to.parse::<i64>().ok()?)));
    match parts {
        Some((from, to)) if from >= 2 && from <= to => Ok(from..=to),
        _ => Err("FROM-TO, such as 2-100; the first revision that a write makes is 2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_revisions_go_forward_from_the_first_that_a_write_makes() {
        assert_eq!(revisions("2-100"), Ok(2..=100));
        assert_eq!(revisions("7-7"), Ok(7..=7));
        for wrong in ["", "5", "9-3", "1-3", "a-b", "-3-4"] {
            assert!(revisions(wrong).is_err(), "{wrong:?}");
        }
    }
}
