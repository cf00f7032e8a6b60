//! The directory of an audit trail.

use super::{Outcome, Refused, VerifyArgs, key, note, unverifiable};
use chronolith_audit::verify_directory;
use chronolith_ledger::{Policy, Verdict, VerifierKey};
use std::{fs, path::Path};

/// Only a trail has a salt beside its key.
pub(super) fn is_trail(dir: &Path) -> bool {
    dir.join("salt").is_file() && dir.join("log.vkey").is_file()
}

pub(super) fn verify(args: &VerifyArgs, dir: &Path) -> Outcome {
    let path = dir.join("log.vkey");
    let trusted = match &args.trust {
        Some(text) => key(text)?,
        None => own_key(&path)?,
    };
    let pinned = match &args.pin {
        Some(pin) => Some(Policy::log_only(trusted.clone())?.open(&note(pin)?)?),
        None => None,
    };
    let report = verify_directory(dir, &trusted, pinned.as_ref()).map_err(undecided)?;
    if let Some(finding) = report.finding {
        return Err(Refused::tampered(finding.to_string()));
    }
    let Some(checkpoint) = report.checkpoint else {
        return Err(unverifiable("nothing in this audit trail has been signed yet").into());
    };
    Ok(format!(
        "{}: {} audit events from number {} on; signed up to number {}, {} after that",
        dir.display(),
        report.events,
        report.first_sequence,
        checkpoint.size,
        report.unsigned
    ))
}

fn own_key(path: &Path) -> Result<VerifierKey, Refused> {
    eprintln!("note: checked against the key in the directory itself; --trust names one you know");
    let text = fs::read_to_string(path).map_err(super::io(path))?;
    Ok(VerifierKey::parse(text.trim_end())?)
}

fn undecided(error: chronolith_audit::Error) -> Refused {
    Refused { verdict: Verdict::Unverifiable, why: error.to_string(), revision: None }
}
