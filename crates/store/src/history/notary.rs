//! Who signs checkpoints, and where they are kept.
//!
//! ```text
//! DIR/  log.key (secret)  log.vkey        tlog/checkpoint (the newest)
//!                                         tlog/checkpoints (note ==== note ==== …)
//! ```
//! * The key is made with the log. Whoever can read it can sign checkpoints: cosigners and pinned
//!   checkpoints are what protects against that.
//! * A checkpoint is signed over durable revisions only, and kept on the disk before it is given out.
//! * With a cadence, a checkpoint is signed every second, or every 10,000 revisions, if anything
//!   changed; one of these a minute goes into `checkpoints`. One that was asked for always does.

use super::{Error, Result, follow::MakeDurable};
use chronolith_ledger::{
    Checkpoint, Frontier, Hash, Readers, SIGNING_KEY_FILE, SignedNote, SigningKey, replace_file,
};
use parking_lot::Mutex;
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Stands between the notes of `checkpoints`; no line of a note is like it.
const BETWEEN: &str = "====\n";
/// The last note of `checkpoints` is in its last bytes: a note has some hundred.
const LAST_NOTE_BYTES: u64 = 16 << 10;

/// When checkpoints are signed unasked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cadence {
    /// After this long, if anything changed.
    pub(crate) every: Duration,
    /// After this many revisions.
    pub(crate) every_revisions: u64,
    /// How far apart those that stay are.
    pub(crate) keep_every: Duration,
}

impl Cadence {
    /// A served node's: a client that asks for the newest checkpoint gets one that is hardly older
    /// than a second, and a year of steady writes leaves about 100 MB of them.
    pub(crate) const SERVED: Self = Self {
        every: Duration::from_secs(1),
        every_revisions: 10_000,
        keep_every: Duration::from_mins(1),
    };
}

/// See the module.
pub(super) struct Notary {
    dir: PathBuf,
    key: SigningKey,
    cadence: Option<Cadence>,
    signed: Mutex<Signed>,
}

/// What was signed last.
struct Signed {
    size: Option<u64>,
    at: Instant,
    kept_size: Option<u64>,
    kept_at: Instant,
    /// Leaves were appended that no checkpoint speaks of.
    changed: bool,
}

impl Notary {
    /// `dir` holds the key; the notes are in its `tlog`, which is there already.
    pub(super) fn open(dir: &Path, key: SigningKey, cadence: Option<Cadence>) -> Result<Self> {
        let kept = repair(dir)?;
        let size = |note: Option<SignedNote>| match note {
            Some(note) => Checkpoint::parse(note.text()).map(|checkpoint| Some(checkpoint.size)),
            None => Ok(None),
        };
        let (size, kept_size) = (size(newest_note(dir)?)?, size(kept)?);
        let now = Instant::now();
        let signed = Signed { size, at: now, kept_size, kept_at: now, changed: true };
        Ok(Self { dir: dir.to_owned(), key, cadence, signed: Mutex::new(signed) })
    }

    /// Time since the newest checkpoint was signed, as far as this process knows.
    pub(super) fn age(&self) -> Option<Duration> {
        let signed = self.signed.lock();
        signed.size.map(|_| signed.at.elapsed())
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(super) fn signs_unasked(&self) -> bool {
        self.cadence.is_some()
    }

    /// When to look whether a checkpoint is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let signed = self.signed.lock();
        self.cadence.filter(|_| signed.changed).map(|cadence| signed.at + cadence.every)
    }

    /// Signs what the log holds, if it is time to.
    pub(super) fn sign_if_due(
        &self,
        frontier: &Frontier,
        make_durable: &MakeDurable,
    ) -> Result<()> {
        let Some(cadence) = self.cadence else { return Ok(()) };
        let mut signed = self.signed.lock();
        let grown = frontier.size().saturating_sub(signed.size.unwrap_or(0));
        signed.changed = grown > 0;
        let due = signed.at.elapsed() >= cadence.every || grown >= cadence.every_revisions;
        if grown == 0 || !due {
            return Ok(());
        }
        make_durable()?;
        let keep = signed.kept_at.elapsed() >= cadence.keep_every || signed.kept_size.is_none();
        self.sign(&mut signed, (frontier.size(), frontier.root()), keep).map(drop)
    }

    /// Signs a size and its root that are durable, and keeps the checkpoint.
    pub(super) fn checkpoint(&self, size_and_root: (u64, Hash)) -> Result<SignedNote> {
        let mut signed = self.signed.lock();
        self.sign(&mut signed, size_and_root, true)
    }

    fn sign(
        &self,
        signed: &mut Signed,
        (size, root): (u64, Hash),
        keep: bool,
    ) -> Result<SignedNote> {
        let origin = self.key.verifier().name().to_owned();
        let note = Checkpoint { origin, size, root }.sign(&self.key)?;
        let now = Instant::now();
        if keep && signed.kept_size != Some(size) {
            append_note(&self.dir, &note)?;
            (signed.kept_size, signed.kept_at) = (Some(size), now);
        }
        // The newest one never goes back, whatever order the callers came in.
        if signed.size.is_none_or(|signed| size > signed) {
            let path = self.dir.join("tlog/checkpoint");
            replace_file(&path, &note.to_string(), Readers::All).map_err(Error::io(&path))?;
            (signed.size, signed.at, signed.changed) = (Some(size), now, false);
        }
        Ok(note)
    }
}

/// The log's own key, made at its birth under this origin.
pub(crate) fn signing_key(dir: &Path, origin: impl FnOnce() -> String) -> Result<SigningKey> {
    match dir.join(SIGNING_KEY_FILE).exists() {
        true => Ok(SigningKey::read_from(dir)?),
        false => Ok(SigningKey::make_in(dir, &origin())?),
    }
}

/// The newest signed checkpoint.
pub(super) fn newest_note(dir: &Path) -> Result<Option<SignedNote>> {
    let path = dir.join("tlog/checkpoint");
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    Ok(Some(SignedNote::parse(&bytes)?))
}

/// The newest of all checkpoints in the directory. One that was asked for is kept before it becomes the
/// newest, so a crash can leave it among the kept ones only.
pub(crate) fn newest_signed(dir: &Path) -> Result<Option<SignedNote>> {
    let mut newest: Option<(u64, SignedNote)> = None;
    for note in newest_note(dir)?.into_iter().chain(all_notes(dir)?.pop()) {
        let size = Checkpoint::parse(note.text())?.size;
        if newest.as_ref().is_none_or(|(largest, _)| size > *largest) {
            newest = Some((size, note));
        }
    }
    Ok(newest.map(|(_, note)| note))
}

/// All signed checkpoints that were kept; what a crash cut off at the end is left out.
pub(super) fn all_notes(dir: &Path) -> Result<Vec<SignedNote>> {
    let path = kept_path(dir);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let text = String::from_utf8(text).map_err(|_| chronolith_ledger::Error::Malformed {
        what: "checkpoints",
        why: "not UTF-8",
    })?;
    let mut notes: Vec<_> = text.split(BETWEEN).collect();
    notes.pop();
    Ok(notes
        .into_iter()
        .map(|note| SignedNote::parse(note.as_bytes()))
        .collect::<Result<_, _>>()?)
}

fn kept_path(dir: &Path) -> PathBuf {
    dir.join("tlog/checkpoints")
}

/// Cuts off the note that a crash left unfinished, or the next one would be joined to it; the last one
/// that is whole.
fn repair(dir: &Path) -> Result<Option<SignedNote>> {
    let path = kept_path(dir);
    if !path.exists() {
        return Ok(None);
    }
    let io = || Error::io(&path);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io())?;
    let length = file.metadata().map_err(io())?.len();
    let from = length.saturating_sub(LAST_NOTE_BYTES);
    let mut end = vec![0; usize::try_from(length - from).unwrap_or(0)];
    file.read_exact_at(&mut end, from).map_err(io())?;
    let is_between = |at: &usize| end[*at..].starts_with(BETWEEN.as_bytes());
    let mut marks = (0..end.len()).rev().filter(is_between);
    let Some(last) = marks.next() else {
        if from > 0 {
            let what = "no note ends in its last bytes".to_owned();
            return Err(Error::Damaged { path, what, revision: None });
        }
        file.set_len(0).map_err(io())?;
        return Ok(None);
    };
    let begin = marks.next().map_or(0, |before| before + BETWEEN.len());
    let whole = from + (last + BETWEEN.len()) as u64;
    if whole < length {
        file.set_len(whole).map_err(io())?;
    }
    Ok(SignedNote::parse(&end[begin..last]).ok())
}

fn append_note(dir: &Path, note: &SignedNote) -> Result<()> {
    let path = kept_path(dir);
    let append = || {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(format!("{note}{BETWEEN}").as_bytes())?;
        file.sync_data()
    };
    append().map_err(Error::io(&path))
}
