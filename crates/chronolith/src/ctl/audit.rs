//! `ctl audit`: who did what, asked of a running server; and the check of a log's directory, offline.
//!
//! ```text
//! query, follow   pages of events, oldest first       checkpoint   the trail's signature, against a pin
//! verify DIR      every line, file and signature, with no server
//! ```

use super::{
    connection::{Client, Connection},
    failure::Failure,
    moment::{Moment, now_ms, rfc3339},
    output::Output,
    trust::continues,
};
use chronolith_audit::{Event, Outcome, verify_directory};
use chronolith_ledger::{Checkpoint, Policy, Readers, SignedNote, VerifierKey, replace_file};
use chronolith_proto::history::{AuditCheckpointRequest, AuditQueryRequest, AuditQueryResponse};
use clap::{Args, Subcommand};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often a trail that is followed is asked for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Events asked for at once; the server's own page may end earlier.
const PAGE: u64 = 1_000;

/// What to do with the audit trail.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show events, oldest first.
    Query(QueryArgs),
    /// Show events as they come, until interrupted.
    Follow(Filter),
    /// Show the trail's newest signed checkpoint; with --pin, check that it continues the kept one.
    Checkpoint(TrustArgs),
    /// Check a trail's directory, offline: each line, file and signature.
    Verify(VerifyArgs),
}

/// Which events.
#[derive(Args, Clone, Debug)]
struct Filter {
    /// Only of this user.
    #[arg(long, default_value = "")]
    user: String,
    /// Only those that may have touched a key that begins like this.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// Only of this call, such as Put.
    #[arg(long, value_name = "METHOD", default_value = "")]
    call: String,
    /// Only those that were denied or failed.
    #[arg(long)]
    failed: bool,
}

/// Which events, and of when.
#[derive(Args, Debug)]
struct QueryArgs {
    #[command(flatten)]
    filter: Filter,
    /// Not before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// Not after this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// At most so many events.
    #[arg(long, value_name = "COUNT")]
    limit: Option<std::num::NonZeroU64>,
}

/// Whom to believe.
#[derive(Args, Clone, Debug)]
struct TrustArgs {
    /// The trail's public key (`name+id+key`), or a file that holds it.
    #[arg(long, value_name = "KEY")]
    trust: Option<String>,
    /// A file with a checkpoint of this trail that is kept: written at its first use, later the trail must
    /// continue it. Finds rollback and forks.
    #[arg(long, value_name = "FILE")]
    pin: Option<PathBuf>,
}

/// Which directory, and whom to believe.
#[derive(Args, Debug)]
struct VerifyArgs {
    /// The trail's directory (DATA/audit) or a copy of it.
    dir: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
}

impl AuditArgs {
    /// Whether the exit code is a verdict.
    pub(crate) fn verifies(&self) -> bool {
        matches!(self.verb, Verb::Checkpoint(_) | Verb::Verify(_))
    }
}

pub(crate) async fn run(
    args: &AuditArgs,
    connection: &Connection,
    output: &Output,
) -> Result<(), Failure> {
    match &args.verb {
        Verb::Query(args) => query(args, &connection.open().await?, output).await,
        Verb::Follow(filter) => follow(filter, &connection.open().await?, output).await,
        Verb::Checkpoint(args) => checkpoint(args, &connection.open().await?, output).await,
        Verb::Verify(args) => verify(args, output),
    }
}

impl Filter {
    fn request(&self) -> AuditQueryRequest {
        AuditQueryRequest {
            user: self.user.clone(),
            key_prefix: self.prefix.clone().into(),
            call: self.call.clone(),
            only_failed: self.failed,
            ..AuditQueryRequest::default()
        }
    }
}

fn time_ms(moment: Option<Moment>) -> Result<u64, Failure> {
    match moment {
        None => Ok(0),
        Some(Moment::TimeMs(time_ms)) => Ok(time_ms),
        Some(Moment::Revision(_)) => {
            Err(Failure::undecided("the audit trail is asked by time, not by revision"))
        }
    }
}

async fn query(args: &QueryArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut request = args.filter.request();
    (request.from_ms, request.to_ms) = (time_ms(args.from)?, time_ms(args.to)?);
    let limit = args.limit.map(std::num::NonZeroU64::get);
    let mut shown = 0;
    loop {
        let wanted = limit.map_or(PAGE, |limit| PAGE.min(limit - shown));
        request.limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let page = ask(client, &request).await?;
        show(&page, output)?;
        shown += page.events.len() as u64;
        request.after_sequence = page.last_sequence;
        if !page.more || limit == Some(shown) {
            break;
        }
    }
    output.note(&format!("{shown} events"));
    Ok(())
}

async fn follow(filter: &Filter, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut request = filter.request();
    request.from_ms = now_ms();
    loop {
        let page = ask(client, &request).await?;
        show(&page, output)?;
        request.after_sequence = request.after_sequence.max(page.last_sequence);
        if !page.more {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

async fn ask(client: &Client, request: &AuditQueryRequest) -> Result<AuditQueryResponse, Failure> {
    client.ask(client.audit().query(request.clone())).await
}

fn show(page: &AuditQueryResponse, output: &Output) -> Result<(), Failure> {
    for line in &page.events {
        match output.is_json() {
            true => output.line(line)?,
            false => {
                let event = serde_json::from_str(line)
                    .map_err(|error| Failure::Undecided(format!("{error}: {line}")))?;
                output.line(&in_words(&event, output))?;
            }
        }
    }
    Ok(())
}

/// One line for people: number, time, who, what, what came of it.
fn in_words(event: &Event, output: &Output) -> String {
    let shown = |text: &str| output.bytes(text.as_bytes());
    let who = if event.user.is_empty() { shown(&event.address) } else { shown(&event.user) };
    let mut words = vec![event.seq.to_string(), rfc3339(event.time_ms), shown(&event.call)];
    if !who.is_empty() {
        words.push(format!("by {who}"));
    }
    let key = if event.key_base64.is_empty() {
        shown(&event.key)
    } else {
        format!("base64:{}", event.key_base64)
    };
    let end = if event.range_end_base64.is_empty() {
        shown(&event.range_end)
    } else {
        format!("base64:{}", event.range_end_base64)
    };
    match (key.is_empty(), end.is_empty()) {
        (true, true) => {}
        (_, true) => words.push(key),
        (_, false) => words.push(format!("[{key}, {end})")),
    }
    words.extend(event.ops.map(|ops| format!("({ops} operations)")));
    words.extend(event.lease.map(|lease| format!("lease {lease:x}")));
    words.push(match event.outcome {
        Outcome::Ok => "ok".to_owned(),
        Outcome::Denied => format!("DENIED {}: {}", event.code, shown(&event.error)),
        Outcome::Failed => format!("FAILED {}: {}", event.code, shown(&event.error)),
    });
    words.extend(event.revision.map(|revision| format!("revision {revision}")));
    words.extend(event.dropped.map(|dropped| format!("{dropped} events DROPPED")));
    words.extend(event.removed_through.map(|through| format!("removed up to event {through}")));
    if !event.reason.is_empty() {
        words.push(format!("({})", shown(&event.reason)));
    }
    words.join("  ")
}

async fn checkpoint(args: &TrustArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let pin = args.pin.as_deref().filter(|path| path.exists()).map(kept).transpose()?;
    let pinned_size = pin.as_ref().map_or(0, |(_, kept)| kept.size);
    let request = AuditCheckpointRequest { pinned_size };
    let answer = client.ask(client.audit().audit_checkpoint(request)).await?;
    let key = match &args.trust {
        Some(text) => key(text)?,
        None => parse_key(&answer.verifier_key)?,
    };
    let policy = Policy::log_only(key.clone())?;
    let newest = policy.open(&SignedNote::parse(answer.note.as_bytes())?)?;
    output.line(answer.note.trim_end())?;
    if let Some((note, pinned)) = &pin {
        policy.open(note).map_err(|error| {
            Failure::Tampered(format!(
                "the pinned checkpoint is not of the key that signs now: {error}"
            ))
        })?;
        continues(pinned, &newest, &answer.consistency)?;
    }
    if let Some(path) = &args.pin {
        replace_file(path, &answer.note, Readers::All).map_err(Failure::file(path))?;
    }
    let told = match (&pin, &args.pin, &args.trust) {
        (Some((_, pinned)), ..) => {
            format!(
                "proven: the trail of {} events continues the pinned one of {}",
                newest.size, pinned.size
            )
        }
        (None, Some(_), _) => {
            format!("pinned: {} events; from now on it must continue this", newest.size)
        }
        (None, None, Some(_)) => {
            format!("proven: {} events, signed by {}", newest.size, key.name())
        }
        (None, None, None) => format!(
            "note: checked against the key that the server itself names, {key}\nCompare it over another \
             way and give it with --trust; --pin FILE finds rollback and forks."
        ),
    };
    output.note(&told);
    Ok(())
}

fn kept(path: &Path) -> Result<(SignedNote, Checkpoint), Failure> {
    let note = super::trust::note(path)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    Ok((note, checkpoint))
}

fn key(text: &str) -> Result<VerifierKey, Failure> {
    match Path::new(text).is_file() {
        true => parse_key(&fs::read_to_string(text).map_err(Failure::file(Path::new(text)))?),
        false => parse_key(text),
    }
}

fn parse_key(text: &str) -> Result<VerifierKey, Failure> {
    VerifierKey::parse(text.trim_end()).map_err(|error| Failure::Undecided(error.to_string()))
}

fn verify(args: &VerifyArgs, output: &Output) -> Result<(), Failure> {
    let trusted = if let Some(text) = &args.trust.trust {
        key(text)?
    } else {
        output.note(
            "note: checked against the key in the directory itself; --trust names one you know",
        );
        let path = args.dir.join("log.vkey");
        parse_key(&fs::read_to_string(&path).map_err(Failure::file(&path))?)?
    };
    let pin = args.trust.pin.as_deref().map(kept).transpose()?;
    if let Some((note, _)) = &pin {
        Policy::log_only(trusted.clone())?.open(note).map_err(|error| {
            Failure::Undecided(format!("the pinned checkpoint: {error}: of another trail?"))
        })?;
    }
    let pinned = pin.as_ref().map(|(_, checkpoint)| checkpoint);
    let report = verify_directory(&args.dir, &trusted, pinned)
        .map_err(|error| Failure::Undecided(error.to_string()))?;
    if let Some(finding) = report.finding {
        return Err(Failure::Tampered(finding.to_string()));
    }
    let last = report.first_sequence + report.events - 1;
    output.line(&format!(
        "proven: events {} to {last} are what {} signed{}",
        report.first_sequence,
        trusted.name(),
        match report.unsigned {
            0 => String::new(),
            unsigned => format!(", but for the last {unsigned}, which no signature covers yet"),
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_audit::Class;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        output: Output,
    }

    #[test]
    fn an_event_is_one_line_that_a_terminal_obeys_nothing_of() {
        let output = Line::parse_from(["ctl"]).output;
        let event = Event {
            seq: 7,
            address: "10.0.0.1:5".into(),
            key: "a\u{1b}[31m".into(),
            outcome: Outcome::Denied,
            code: "InvalidArgument".into(),
            error: "no\nkey".into(),
            ..Event::new("Put", Class::Write)
        };
        assert_eq!(
            in_words(&event, &output),
            "7  1970-01-01T00:00:00.000Z  Put  by 10.0.0.1:5  a\\u{1b}[31m  \
             DENIED InvalidArgument: no\\nkey"
        );
    }

    #[test]
    fn the_trail_is_not_asked_by_revision() {
        assert!(time_ms(Some(Moment::Revision(7))).is_err());
        assert_eq!(time_ms(Some(Moment::TimeMs(7))).unwrap(), 7);
    }
}
