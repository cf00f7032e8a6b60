//! `chronolith verify`: is this history what was signed?
//!
//! ```text
//! exit 0  proven: everything that was looked at is what a trusted checkpoint says
//! exit 1  tampered: it is not; the first bad revision is named
//! exit 2  cannot be verified: something is missing (a key, a file, an argument)
//! ```
//! What SUBJECT is decides what is done: the directory of a node, of an embedded database or of an audit
//! trail, or a copy of one (a backup); a directory of several; a proof file; a bundle; or a server, by its
//! address. Proof files and bundles need `--trust`: a key that came with them proves nothing.

mod audit;
mod online;
mod tiles;

use crate::ctl::failure::Failure;
use chronolith_ledger::{
    Bundle, Checkpoint, MAX_BUNDLE_BYTES, Policy, ProofFile, SignedNote, Verdict, VerifierKey,
};
use chronolith_store::{
    embedded::{self, Report},
    offline::{Offline, is_database},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
};

const PROOF_FILE_BEGINS: &[u8] = b"c2sp.org/tlog-proof@";
const BUNDLE_BEGINS: &[u8] = b"chronolith/bundle/";
/// Revisions whose proof is made at once: each costs a path of hashes, and all are in memory.
const PROVEN_AT_ONCE: i64 = 1_000;

/// What to verify, and whom to trust.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A node's, a database's or an audit trail's directory or a copy of it, a proof file, a bundle, or a
    /// server (http://HOST:PORT).
    #[arg(value_name = "SUBJECT")]
    path: PathBuf,
    /// The log's public key (`name+id+key`), or a file that holds it. Without it a directory is checked
    /// against its own key, which does not protect against whoever has that key.
    #[arg(long, value_name = "KEY")]
    trust: Option<String>,
    /// A checkpoint that was kept: the history must continue it. Finds rollback and forks. Of a server, the
    /// file is written at its first use, and moves on with the log.
    #[arg(long, value_name = "FILE")]
    pin: Option<PathBuf>,
    /// The public key of a cosigner, or a file that holds it. For proof files and bundles.
    #[arg(long, value_name = "KEY")]
    cosigner: Vec<String>,
    /// How many of the cosigners must have signed; all of them if not given.
    #[arg(long, requires = "cosigner")]
    quorum: Option<usize>,
    /// Prove the whole history of one key, too. Of a directory (which is only read: what no checkpoint in it
    /// speaks of is refused), a bundle or a server.
    #[arg(long, group = "part")]
    key: Option<String>,
    /// Prove these revisions, FROM-TO, too. Of a directory or a server.
    #[arg(long, value_name = "FROM-TO", value_parser = revisions, group = "part")]
    revisions: Option<RangeInclusive<i64>>,
    /// Write the proof of --key or --revisions into this file, as a bundle: `verify FILE --trust KEY` proves
    /// it anywhere.
    #[arg(long, value_name = "FILE", requires = "part")]
    export: Option<PathBuf>,
}

/// What was proven, in words.
type Outcome = Result<String, Refused>;

/// Why nothing was proven.
struct Refused {
    verdict: Verdict,
    why: String,
    revision: Option<u64>,
}

impl Refused {
    fn tampered(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Tampered, why: why.into(), revision: None }
    }

    fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }
}

impl From<embedded::Error> for Refused {
    fn from(error: embedded::Error) -> Self {
        Self { verdict: error.verdict(), revision: error.revision(), why: error.to_string() }
    }
}

impl From<chronolith_ledger::Error> for Refused {
    fn from(error: chronolith_ledger::Error) -> Self {
        Self { verdict: error.verdict(), revision: error.revision(), why: error.to_string() }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Tampered(why) => Self::tampered(why),
            other => {
                Self { verdict: Verdict::Unverifiable, why: other.to_string(), revision: None }
            }
        }
    }
}

/// Verifies, says what was found, and turns it into the exit code.
pub(crate) fn run(args: &VerifyArgs) -> ExitCode {
    let (verdict, text) = match verify(args) {
        Ok(what) => (Verdict::Proven, format!("proven: {what}")),
        Err(Refused { verdict, why, revision }) => {
            // What cannot be verified says so itself, or is a plain failure to read something.
            let word = if verdict == Verdict::Tampered { "tampered: " } else { "" };
            let first = revision.map(|revision| format!("\nfirst bad revision: {revision}"));
            (verdict, format!("{word}{why}{}", first.unwrap_or_default()))
        }
    };
    match verdict {
        Verdict::Proven => println!("{text}"),
        _ => eprintln!("{text}"),
    }
    ExitCode::from(verdict.exit_code())
}

fn verify(args: &VerifyArgs) -> Outcome {
    if let Some(endpoint) = args.path.to_str().filter(|path| path.contains("://")) {
        return online::verify(args, endpoint);
    }
    if args.path.is_dir() {
        return directories(args);
    }
    let bytes = read(&args.path)?;
    let policy = policy(args)?;
    if bytes.starts_with(PROOF_FILE_BEGINS) {
        proof_file(args, &bytes, &policy)
    } else if bytes.starts_with(BUNDLE_BEGINS) {
        bundle(args, &bytes, &policy)
    } else {
        Err(unverifiable("this is neither a database's directory, nor a proof file, nor a bundle")
            .into())
    }
}

fn proof_file(args: &VerifyArgs, bytes: &[u8], policy: &Policy) -> Outcome {
    let proof = ProofFile::parse(bytes)?;
    let checkpoint = proof.verify(policy)?;
    pinned_by(args, policy, &checkpoint)?;
    let revision = proof.entry.revision;
    Ok(format!(
        "revision {revision} is in {} as of revision {}",
        checkpoint.origin,
        checkpoint.revision()
    ))
}

fn bundle(args: &VerifyArgs, bytes: &[u8], policy: &Policy) -> Outcome {
    let bundle = Bundle::decode(bytes)?;
    let checkpoint = match &args.key {
        Some(key) => history(&bundle, policy, key)?,
        None => bundle.verify(policy)?,
    };
    pinned_by(args, policy, &checkpoint)?;
    let (count, origin) = (bundle.revisions.len(), checkpoint.origin.clone());
    Ok(format!("{count} revisions are in {origin} as of revision {}", checkpoint.revision()))
}

/// A bundle of other keys says nothing about this one. What is a hash only may be one of its versions.
fn history(bundle: &Bundle, policy: &Policy, key: &str) -> Result<Checkpoint, embedded::Error> {
    let checkpoint = bundle.verify_history(policy, key.as_bytes())?;
    for op in bundle.revisions.iter().flat_map(|revision| &revision.ops) {
        if op.record()?.is_none_or(|record| record.key == key.as_bytes()) {
            return Ok(checkpoint);
        }
    }
    Err(unverifiable(&format!("this bundle shows no version of {key:?}")))
}

/// A file carries no proof of consistency: it can only be compared with a pin of its own size.
fn pinned_by(
    args: &VerifyArgs,
    policy: &Policy,
    checkpoint: &Checkpoint,
) -> Result<(), embedded::Error> {
    let Some(pin) = &args.pin else { return Ok(()) };
    let pinned = policy.open(&note(pin)?)?;
    match pinned.size == checkpoint.size {
        true if pinned.root == checkpoint.root => Ok(()),
        true => Err(chronolith_ledger::Error::Mismatch {
            what: "checkpoint (the log was forked): the pinned checkpoint",
            revision: None,
        }
        .into()),
        false => Err(unverifiable(
            "the pinned checkpoint is of another size: verify the directory with it",
        )),
    }
}

fn directories(args: &VerifyArgs) -> Outcome {
    let mut found = subjects(&args.path)?;
    let trail = args.path.join("audit");
    // A trail has a key of its own, which --trust and --pin do not mean.
    if args.trust.is_none()
        && args.pin.is_none()
        && audit::is_trail(&trail)
        && !found.contains(&trail)
    {
        found.push(trail);
    }
    if found.is_empty() {
        return Err(unverifiable("there is no database in this directory").into());
    }
    let databases = found.iter().filter(|dir| !audit::is_trail(dir)).count();
    if (args.key.is_some() || args.revisions.is_some()) && databases != 1 {
        return Err(unverifiable(&format!(
            "--key and --revisions are of one database, and there are {databases} in here: name one"
        ))
        .into());
    }
    let proven: Vec<_> = found
        .iter()
        .map(|dir| match audit::is_trail(dir) {
            true => audit::verify(args, dir),
            false => directory(args, dir),
        })
        .collect::<Result<_, _>>()?;
    Ok(proven.join("\nproven: "))
}

/// What there is to verify: the directory itself, or the directories in it.
fn subjects(dir: &Path) -> Result<Vec<PathBuf>, embedded::Error> {
    let is_subject = |dir: &Path| audit::is_trail(dir) || is_database(dir);
    if is_subject(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        found.extend(is_subject(&path).then_some(path));
    }
    found.sort();
    Ok(found)
}

fn directory(args: &VerifyArgs, dir: &Path) -> Outcome {
    let trusted = args.trust.as_deref().map(key).transpose()?;
    let pinned = args.pin.as_deref().map(note).transpose()?;
    if trusted.is_none() {
        eprintln!(
            "note: checked against the key in the directory itself; --trust names one you know"
        );
    }
    let offline = Offline::open(dir)?;
    let policy = Policy::log_only(trusted.map_or_else(|| offline.verifier_key(), Ok)?)?;
    let bar = progress_bar("revisions");
    let mut progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let report = offline.verify(&policy, pinned.as_ref(), &mut progress);
    bar.finish_and_clear();
    let report = report?;
    if report.checkpoint.is_none() {
        // Records and tiles that agree with each other could be anybody's.
        return Err(unverifiable("nothing in this database has been signed yet").into());
    }
    let part = part(args, &offline, &policy)?;
    Ok(format!("{}: {}{part}", dir.display(), in_words(&report)))
}

fn in_words(report: &Report) -> String {
    let Report { checkpoint, revisions, hashes_only, reduced, erased, versions, unsigned } = report;
    let signed = match checkpoint {
        Some(checkpoint) => format!("signed up to revision {}", checkpoint.revision()),
        None => "nothing is signed yet".to_owned(),
    };
    format!(
        "{revisions} revisions hashed again ({reduced} operations in them without their value, {erased} erased), \
         {hashes_only} compacted to their hashes, {versions} stored versions; {signed}, {unsigned} revisions after that"
    )
}

/// One key or some revisions of a database, by a proof that is checked like anybody's.
fn part(args: &VerifyArgs, offline: &Offline, policy: &Policy) -> Result<String, embedded::Error> {
    if let Some(key) = &args.key {
        let bundle = offline.prove_key(key.as_bytes())?;
        bundle.verify_history(policy, key.as_bytes())?;
        export(args, &bundle)?;
        let versions = bundle.revisions.len();
        return Ok(format!("\n{key}: {versions} revisions, none left out in between"));
    }
    let Some(range) = &args.revisions else { return Ok(String::new()) };
    let (from, to) = (*range.start(), *range.end());
    // A proof that nobody keeps need not be in one piece.
    let at_once = if args.export.is_some() { i64::MAX } else { PROVEN_AT_ONCE };
    let mut next = from;
    while next <= to {
        let end = to.min(next.saturating_add(at_once - 1));
        let bundle = offline.prove_range(next, end)?;
        bundle.verify(policy)?;
        export(args, &bundle)?;
        next = end + 1;
    }
    Ok(format!("\nrevisions {from} to {to}"))
}

fn export(args: &VerifyArgs, bundle: &Bundle) -> Result<(), embedded::Error> {
    let Some(path) = &args.export else { return Ok(()) };
    let bytes = bundle.encode();
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(unverifiable(&format!(
            "the proof would be larger than {MAX_BUNDLE_BYTES} bytes: export fewer revisions"
        )));
    }
    fs::write(path, bytes).map_err(io(path))
}

/// A bar on a terminal, and nothing anywhere else.
fn progress_bar(of: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}}/{{len}} {of}, {{per_sec}}, {{eta}} left"
    ));
    let bar = ProgressBar::new(0);
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

fn policy(args: &VerifyArgs) -> Result<Policy, embedded::Error> {
    let trust = args.trust.as_deref();
    let trust = trust.ok_or_else(|| unverifiable("name the log's public key with --trust"))?;
    let cosigners: Vec<_> = args.cosigner.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
    let quorum = args.quorum.unwrap_or(cosigners.len());
    Ok(Policy::with_cosigners(key(trust)?, cosigners, quorum)?)
}

/// A key, or the file that holds it. A key that cannot be read decides nothing.
fn key(text: &str) -> Result<VerifierKey, embedded::Error> {
    let text = match Path::new(text).is_file() {
        true => fs::read_to_string(text).map_err(io(Path::new(text)))?,
        false => text.to_owned(),
    };
    VerifierKey::parse(text.trim_end()).map_err(|error| unverifiable(&error.to_string()))
}

fn note(path: &Path) -> Result<SignedNote, embedded::Error> {
    SignedNote::parse(&read(path)?)
        .map_err(|error| unverifiable(&format!("{}: {error}", path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, embedded::Error> {
    fs::read(path).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> embedded::Error + '_ {
    move |source| embedded::Error::Io { path: path.to_owned(), source }
}

fn unverifiable(why: &str) -> embedded::Error {
    chronolith_ledger::Error::Unverifiable(why.to_owned()).into()
}

fn revisions(text: &str) -> Result<RangeInclusive<i64>, String> {
    let parts =
        text.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) = parts.ok_or("FROM-TO, such as 2-100")?;
    if from > to { Err("the first revision is behind the last".to_owned()) } else { Ok(from..=to) }
}
