//! Verification of a directory, with nothing but its files and a key that is trusted from elsewhere.
//!
//! ```text
//! removed files ──L0──┐
//! lines ──hash────────┴─▶ tree ─▶ root at each signed size == what was signed?   ends of files, checkpoint, pin
//!          └─▶ == L0, L1 … (tile files)?      the first difference has the line's name
//! ```
//! The root is always computed from the *lines*; tile files are compared, never believed, except for the hashes
//! of events that retention removed, and there the signature covers them. Nothing is skipped: a line that is no
//! event is a finding, and so is a log without any.

use crate::{
    Error, Event, Result,
    event::own,
    keys::{SALT, parse_salt, salt_digest},
    segment::{self, CHECKPOINT, Segment},
    writer::{SIGNED, TILES},
};
use chronolith_ledger::{
    Checkpoint, Frontier, HASH_BYTES, Hash, Policy as KeyPolicy, SIGNING_KEY_FILE, SignedNote,
    SigningKey, VERIFIER_KEY_FILE, Verdict, VerifierKey,
};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// Levels of tile files.
const LEVELS: u32 = 8;

/// What was done to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// The line is another than the one that was written.
    Edited,
    /// The line is missing.
    Dropped,
    /// The line stands at another place.
    Moved,
    /// A line was put in.
    Inserted,
    /// The log ends before what was signed.
    Truncated,
    /// A file is missing, and no retention event speaks of it.
    FileRemoved,
    /// Lines and tile files were changed together, somewhere between two signed sizes.
    Rewritten {
        /// Events up to here are as signed.
        good_through: u64,
    },
    /// A file beside the lines is not as it was written; the lines are.
    Companion {
        /// What is wrong with it.
        why: String,
    },
    /// The log does not continue the checkpoint that was pinned: it was rolled back or forked.
    Pin {
        /// What is wrong.
        why: String,
    },
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub what: Tampering,
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1 on.
    pub line: Option<u64>,
    /// The first event concerned.
    pub sequence: Option<u64>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, ", event {sequence}")?;
        }
        match &self.what {
            Tampering::Edited => write!(f, ": the line was changed"),
            Tampering::Dropped => write!(f, ": the event is missing"),
            Tampering::Moved => write!(f, ": the event stands at another place"),
            Tampering::Inserted => write!(f, ": a line was put in"),
            Tampering::Truncated => write!(f, ": the log ends before what was signed"),
            Tampering::FileRemoved => write!(f, ": the file is missing"),
            Tampering::Rewritten { good_through } => {
                write!(
                    f,
                    ": lines and tile files were changed together, behind event {good_through}"
                )
            }
            Tampering::Companion { why } | Tampering::Pin { why } => write!(f, ": {why}"),
        }
    }
}

/// What a verification found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Events whose lines were checked.
    pub events: u64,
    /// The first of them: those before were removed by retention.
    pub first_sequence: u64,
    /// What the log's own key signed last.
    pub checkpoint: Option<Checkpoint>,
    /// Events behind the checkpoint: a signature does not cover them yet.
    pub unsigned: u64,
    /// The first thing that is wrong; none if all is as it was written.
    pub finding: Option<Finding>,
}

impl Report {
    /// What this says about the log.
    pub fn verdict(&self) -> Verdict {
        if self.finding.is_some() { Verdict::Tampered } else { Verdict::Proven }
    }
}

/// Verifies the log in `dir`: each line, each file, each signature of `trusted`, and that it continues `pin`, a
/// checkpoint of this log that was kept elsewhere.
///
/// An error says that it could not be decided, such as for want of rights or the key of another log. Works on a
/// log that is being written, too.
pub fn verify_directory(
    dir: &Path,
    trusted: &VerifierKey,
    pin: Option<&Checkpoint>,
) -> Result<Report> {
    let policy = KeyPolicy::log_only(trusted.clone())?;
    if !dir.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(Error::io(dir)(source));
    }
    let mut report =
        Report { events: 0, first_sequence: 1, checkpoint: None, unsigned: 0, finding: None };
    match (Check { dir, trusted, policy, pin }).run(&mut report) {
        Ok(()) => Ok(report),
        Err(Stop::Found(finding)) => Ok(Report { finding: Some(*finding), ..report }),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why a verification ends before its end.
enum Stop {
    Found(Box<Finding>),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<chronolith_ledger::Error> for Stop {
    fn from(error: chronolith_ledger::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn found(file: impl Into<PathBuf>, what: Tampering) -> Stop {
    Stop::Found(Box::new(Finding { what, file: file.into(), line: None, sequence: None }))
}

fn companion(file: impl Into<PathBuf>, why: impl Into<String>) -> Stop {
    found(file, Tampering::Companion { why: why.into() })
}

struct Check<'a> {
    dir: &'a Path,
    trusted: &'a VerifierKey,
    policy: KeyPolicy,
    pin: Option<&'a Checkpoint>,
}

/// A size at which the root is known from a signature.
struct Signed {
    root: Hash,
    file: PathBuf,
    kind: Kind,
}

/// Whose word a root is; the strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Checkpoint,
    State,
    Pin,
}

impl Check<'_> {
    fn run(&self, report: &mut Report) -> Result<(), Stop> {
        // In this order: what is written later covers what was written before, also while it goes on.
        let checkpoint = self.newest_checkpoint()?;
        report.checkpoint = Some(checkpoint.clone());
        let state = self.state()?;
        let mut tiles = Tiles::open(&self.dir.join(TILES))?;
        let segments = segment::list(self.dir)?;
        let mut signed = self.signed_sizes(&checkpoint, &segments)?;
        self.keys()?;
        let file = self.dir.join(TILES).join("state");
        let entry = Signed { root: state.1, file, kind: Kind::State };
        signed.entry(state.0).or_default().push(entry);
        let mut walk = Walk::new(&mut tiles, &signed);
        self.walk(&segments, &checkpoint, &mut walk, report)?;
        let size = walk.frontier.size();
        report.unsigned = size.saturating_sub(checkpoint.size);
        if let Some(missing) = signed
            .range(size + 1..)
            .flat_map(|(size, all)| all.iter().map(move |one| (*size, one)))
            .min_by_key(|(_, one)| one.kind)
        {
            return Err(self.ends_early(size, missing, segments.last()));
        }
        tiles.at_end(size, state.0)
    }

    /// The log ends before a size that somebody speaks of.
    fn ends_early(&self, size: u64, missing: (u64, &Signed), last: Option<&Segment>) -> Stop {
        let (spoken_of, signed) = missing;
        let why = format!("it speaks of {spoken_of} events, the log has only {size}");
        let what = match signed.kind {
            Kind::Checkpoint => Tampering::Truncated,
            Kind::State => Tampering::Companion { why },
            Kind::Pin => Tampering::Pin { why: format!("the pinned checkpoint: {why}") },
        };
        let file = match (signed.kind, last) {
            (Kind::Checkpoint, Some(last)) => last.path.clone(),
            _ => signed.file.clone(),
        };
        let sequence = Some(size + 1);
        Stop::Found(Box::new(Finding { what, file, line: None, sequence }))
    }

    fn newest_checkpoint(&self) -> Result<Checkpoint, Stop> {
        let path = self.dir.join(SIGNED);
        let Some(text) = read_if_there(&path)? else {
            return Err(found(path, Tampering::FileRemoved));
        };
        self.opened(&path, &text)
    }

    /// A checkpoint that the trusted key signed.
    fn opened(&self, path: &Path, text: &[u8]) -> Result<Checkpoint, Stop> {
        let note = SignedNote::parse(text).map_err(|error| companion(path, error.to_string()))?;
        match self.policy.open(&note) {
            Ok(checkpoint) => Ok(checkpoint),
            // A key that never signed here decides nothing; ours, of which no signature is left, does.
            Err(error) if self.is_of_another_key()? => Err(error.into()),
            Err(error) => Err(companion(path, error.to_string())),
        }
    }

    /// Whether the directory says, whole and well, that its key is not the trusted one.
    fn is_of_another_key(&self) -> Result<bool, Stop> {
        let Some(text) = read_if_there(&self.dir.join(VERIFIER_KEY_FILE))? else {
            return Ok(false);
        };
        let text = String::from_utf8_lossy(&text);
        Ok(VerifierKey::parse(text.trim_end()).is_ok_and(|key| key != *self.trusted))
    }

    fn keys(&self) -> Result<(), Stop> {
        let path = self.dir.join(VERIFIER_KEY_FILE);
        let expected = format!("{}\n", self.trusted);
        match read_if_there(&path)? {
            None => return Err(found(path, Tampering::FileRemoved)),
            Some(text) if text == expected.as_bytes() => {}
            Some(_) => return Err(companion(path, "it is not the trusted key")),
        }
        // The secret stays at home when a log is copied to be checked.
        let path = self.dir.join(SIGNING_KEY_FILE);
        let Some(text) = read_if_there(&path)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&text);
        match SigningKey::parse(text.trim_end()) {
            Ok(key)
                if key.verifier() == self.trusted
                    && format!("{}\n", key.to_secret_text()) == text =>
            {
                Ok(())
            }
            _ => Err(companion(path, "it is not the secret half of the trusted key")),
        }
    }

    /// What the tile files were synced up to.
    fn state(&self) -> Result<(u64, Hash), Stop> {
        let path = self.dir.join(TILES).join("state");
        let Some(text) = read_if_there(&path)? else {
            return Err(found(path, Tampering::FileRemoved));
        };
        let parsed = str::from_utf8(&text).ok().and_then(|text| {
            let (size, root) = text.strip_suffix('\n')?.split_once('\n')?;
            let number: u64 = size.parse().ok()?;
            (number.to_string() == size).then_some(())?;
            Some((number, Hash::from_base64(root).ok()?))
        });
        parsed.ok_or_else(|| companion(path, "it is not a size and a root"))
    }

    fn signed_sizes(
        &self,
        checkpoint: &Checkpoint,
        segments: &[Segment],
    ) -> Result<BTreeMap<u64, Vec<Signed>>, Stop> {
        let mut signed: BTreeMap<u64, Vec<Signed>> = BTreeMap::new();
        let mut add = |checkpoint: &Checkpoint, file: PathBuf, kind| {
            let entry = Signed { root: checkpoint.root, file, kind };
            signed.entry(checkpoint.size).or_default().push(entry);
        };
        add(checkpoint, self.dir.join(SIGNED), Kind::Checkpoint);
        for first in segment::named(self.dir, CHECKPOINT)? {
            let path = Segment::named(self.dir, first).checkpoint();
            // Gone since it was listed: retention.
            let Some(text) = read_if_there(&path)? else { continue };
            let ended = self.opened(&path, &text)?;
            add(&ended, path, Kind::Checkpoint);
        }
        for pair in segments.windows(2) {
            let path = pair[0].checkpoint();
            // Looked at again: retention may have taken both.
            if !path.exists() && pair[0].path.exists() {
                return Err(found(path, Tampering::FileRemoved));
            }
        }
        if let Some(pin) = self.pin {
            if pin.origin != self.trusted.name() {
                let why = format!("the pinned checkpoint is of {}", pin.origin);
                return Err(Error::Ledger(chronolith_ledger::Error::Unverifiable(why)).into());
            }
            add(pin, self.dir.join(SIGNED), Kind::Pin);
        }
        Ok(signed)
    }

    fn walk(
        &self,
        segments: &[Segment],
        checkpoint: &Checkpoint,
        walk: &mut Walk<'_>,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let first = segments.first().map_or(1, |segment| segment.first);
        if first > 1 {
            walk.skip_removed(first - 1, self.dir)?;
        }
        if segments.is_empty() && checkpoint.size > 0 {
            let path = Segment::named(self.dir, 1).path;
            return Err(found(path, Tampering::FileRemoved));
        }
        if segments.is_empty() {
            let why = "the log holds no events".to_owned();
            return Err(Error::Ledger(chronolith_ledger::Error::Unverifiable(why)).into());
        }
        report.first_sequence = first;
        let mut facts = Facts::default();
        for (index, segment) in segments.iter().enumerate() {
            if segment.first != walk.frontier.size() + 1 {
                // Lines that were dropped or put in leave a hole too: the first of them is the cause.
                walk.blame()?;
                return Err(self.hole(segments, index, walk));
            }
            let is_last = index + 1 == segments.len();
            report.events += walk.segment(segment, is_last, checkpoint.size, &mut facts)?;
        }
        // What no signature speaks of is at least what the tile files say.
        walk.blame()?;
        if first > 1 && facts.removed_through < first - 1 {
            let what = Tampering::FileRemoved;
            let missing = facts.removed_through + 1;
            let (file, sequence) = (Segment::named(self.dir, missing).path, Some(missing));
            return Err(Stop::Found(Box::new(Finding { what, file, line: None, sequence })));
        }
        self.salt(&facts)
    }

    /// The files do not follow each other: one is missing, or its end is.
    fn hole(&self, segments: &[Segment], index: usize, walk: &Walk<'_>) -> Stop {
        let sequence = walk.frontier.size() + 1;
        let ended = index.checked_sub(1).map(|before| &segments[before]);
        let is_cut = ended.is_some_and(|ended| {
            let text = fs::read(ended.checkpoint()).unwrap_or_default();
            self.opened(&ended.checkpoint(), &text).is_ok_and(|signed| signed.size >= sequence)
        });
        let (what, file) = match ended {
            Some(ended) if is_cut => (Tampering::Truncated, ended.path.clone()),
            _ => (Tampering::FileRemoved, Segment::named(self.dir, sequence).path),
        };
        Stop::Found(Box::new(Finding { what, file, line: None, sequence: Some(sequence) }))
    }

    fn salt(&self, facts: &Facts) -> Result<(), Stop> {
        let path = self.dir.join(SALT);
        let Some(text) = read_if_there(&path)? else { return Ok(()) };
        let salt = str::from_utf8(&text).ok().and_then(parse_salt);
        let is_own = |digest: String| facts.salt_digest.as_ref().is_none_or(|own| *own == digest);
        match salt {
            Some(salt) if is_own(salt_digest(&salt)) => Ok(()),
            _ => Err(companion(path, "it is not the salt that the log was written with")),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// What the log says about itself.
#[derive(Default)]
struct Facts {
    removed_through: u64,
    salt_digest: Option<String>,
}

impl Facts {
    fn learn(&mut self, event: Event) {
        match &*event.call {
            own::RETENTION => {
                self.removed_through =
                    self.removed_through.max(event.removed_through.unwrap_or_default());
            }
            own::SEGMENT => self.salt_digest = Some(event.salt_digest),
            _ => {}
        }
    }
}

/// A line that is not what the tile files say.
struct Suspect {
    segment: Segment,
    line: u64,
    sequence: u64,
    bytes: Vec<u8>,
}

/// Grows the tree from the lines, and compares it at each signed size.
struct Walk<'a> {
    frontier: Frontier,
    tiles: &'a mut Tiles,
    signed: &'a BTreeMap<u64, Vec<Signed>>,
    good_through: u64,
    suspect: Option<Suspect>,
}

impl<'a> Walk<'a> {
    fn new(tiles: &'a mut Tiles, signed: &'a BTreeMap<u64, Vec<Signed>>) -> Self {
        Self { frontier: Frontier::default(), tiles, signed, good_through: 0, suspect: None }
    }

    /// Takes the hashes of events that are gone from the tile files.
    fn skip_removed(&mut self, through: u64, dir: &Path) -> Result<(), Stop> {
        for sequence in 1..=through {
            let Some(leaf) = self.tiles.leaf(sequence - 1)? else {
                let what = Tampering::FileRemoved;
                let file = Segment::named(dir, sequence).path;
                let sequence = Some(sequence);
                return Err(Stop::Found(Box::new(Finding { what, file, line: None, sequence })));
            };
            self.append(leaf)?;
            self.compare()?;
        }
        Ok(())
    }

    /// Checks a file's lines; answers how many.
    fn segment(
        &mut self,
        segment: &Segment,
        is_last: bool,
        signed: u64,
        facts: &mut Facts,
    ) -> Result<u64, Stop> {
        let mut lines = segment.lines(0)?;
        let mut count = 0;
        while let Some(line) = lines.next_line()? {
            count += 1;
            let sequence = self.frontier.size() + 1;
            let leaf = Hash::of_leaf(line);
            let known = self.tiles.leaf(sequence - 1)?;
            let event = segment::event_of(line);
            let is_its_own = event.as_ref().is_some_and(|event| event.seq == sequence);
            if self.suspect.is_none() && (!is_its_own || known.is_some_and(|known| known != leaf)) {
                let (segment, bytes) = (segment.clone(), line.to_vec());
                self.suspect = Some(Suspect { segment, line: count, sequence, bytes });
            }
            // What is not signed may have been put there to excuse a removal.
            event.into_iter().filter(|_| sequence <= signed).for_each(|event| facts.learn(event));
            self.append(leaf)?;
            self.compare()?;
        }
        // Only a crash leaves an unfinished line, and only at the end of the log.
        if !is_last && segment.size_bytes()? > lines.offset {
            let (what, sequence) = (Tampering::Inserted, Some(self.frontier.size() + 1));
            let (file, line) = (segment.path.clone(), Some(count + 1));
            return Err(Stop::Found(Box::new(Finding { what, file, line, sequence })));
        }
        Ok(count)
    }

    fn append(&mut self, leaf: Hash) -> Result<(), Stop> {
        let mut completed = Vec::new();
        self.frontier.append_with(leaf, |height, hash| {
            if height % 8 == 0 {
                completed.push((height / 8, hash));
            }
        });
        completed.into_iter().try_for_each(|(level, hash)| self.tiles.compare(level, hash))
    }

    /// At a signed size: the root must be the one that was signed.
    fn compare(&mut self) -> Result<(), Stop> {
        let size = self.frontier.size();
        let Some(signed) = self.signed.get(&size) else { return Ok(()) };
        let root = self.frontier.root();
        for signed in signed {
            if signed.root == root {
                continue;
            }
            self.blame()?;
            let (file, sequence) = (signed.file.clone(), Some(self.good_through + 1));
            let what = match signed.kind {
                Kind::Checkpoint => Tampering::Rewritten { good_through: self.good_through },
                Kind::State => {
                    let why = format!("its root is not that of the first {size} events");
                    Tampering::Companion { why }
                }
                Kind::Pin => {
                    let why = format!("the pinned checkpoint of {size} events has another root");
                    Tampering::Pin { why }
                }
            };
            return Err(Stop::Found(Box::new(Finding { what, file, line: None, sequence })));
        }
        // The lines are what was signed. If a tile file says otherwise, it is the one that was changed.
        if let Some(suspect) = self.suspect.take() {
            let why = format!("its hash of event {} was changed", suspect.sequence);
            return Err(companion(self.tiles.dir.join("L0"), why));
        }
        self.tiles.complain()?;
        self.good_through = size;
        Ok(())
    }

    /// Names the line that does not fit, if there is one.
    fn blame(&mut self) -> Result<(), Stop> {
        let Some(suspect) = self.suspect.take() else { return self.tiles.complain() };
        let Suspect { segment, line, sequence, bytes } = suspect;
        let own = segment::event_of(&bytes).map(|event| event.seq);
        let is_genuine = |index: u64, bytes: &[u8], tiles: &mut Tiles| -> Result<bool, Stop> {
            Ok(tiles.leaf(index)? == Some(Hash::of_leaf(bytes)))
        };
        let what = match own {
            Some(own) if own > sequence && is_genuine(own - 1, &bytes, self.tiles)? => {
                match self.stands_behind(&segment, line, sequence)? {
                    true => Tampering::Moved,
                    false => Tampering::Dropped,
                }
            }
            Some(own) if own < sequence && own > 0 && is_genuine(own - 1, &bytes, self.tiles)? => {
                Tampering::Inserted
            }
            _ => match self.follows(&segment, line, sequence)? {
                true => Tampering::Inserted,
                false => Tampering::Edited,
            },
        };
        let (file, line, sequence) = (segment.path, Some(line), Some(sequence));
        Err(Stop::Found(Box::new(Finding { what, file, line, sequence })))
    }

    /// Whether the true line of an event stands somewhere behind.
    fn stands_behind(&mut self, segment: &Segment, line: u64, sequence: u64) -> Result<bool, Stop> {
        let Some(wanted) = self.tiles.leaf(sequence - 1)? else { return Ok(false) };
        let mut lines = segment.lines(0)?;
        let mut count = 0;
        while let Some(found) = lines.next_line()? {
            count += 1;
            if count > line && Hash::of_leaf(found) == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the true line of an event stands right behind the one in its place.
    fn follows(&mut self, segment: &Segment, line: u64, sequence: u64) -> Result<bool, Stop> {
        let Some(wanted) = self.tiles.leaf(sequence - 1)? else { return Ok(false) };
        let mut lines = segment.lines(0)?;
        for _ in 0..line {
            lines.next_line()?;
        }
        Ok(lines.next_line()?.is_some_and(|next| Hash::of_leaf(next) == wanted))
    }
}

/// Tile files, compared with a tree that grows.
struct Tiles {
    dir: PathBuf,
    levels: Vec<Option<Level>>,
    /// The first entry of a level above the leaves that is not the tree's.
    wrong: Option<(u32, u64)>,
}

struct Level {
    path: PathBuf,
    input: BufReader<File>,
    /// Entries that it had when the verification began.
    entries: u64,
    /// Bytes that are no whole entry.
    spare_bytes: u64,
    next: u64,
    /// The entry before `next`.
    last: Option<Hash>,
}

impl Tiles {
    fn open(dir: &Path) -> Result<Self, Stop> {
        let mut levels = Vec::new();
        for level in 0..LEVELS {
            let path = dir.join(format!("L{level}"));
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    levels.push(None);
                    continue;
                }
                file => file.map_err(Error::io(&path))?,
            };
            let bytes = file.metadata().map_err(Error::io(&path))?.len();
            let entries = bytes / HASH_BYTES as u64;
            let spare_bytes = bytes % HASH_BYTES as u64;
            let input = BufReader::with_capacity(64 << 10, file);
            levels.push(Some(Level { path, input, entries, spare_bytes, next: 0, last: None }));
        }
        Ok(Self { dir: dir.to_owned(), levels, wrong: None })
    }

    /// A leaf's hash as L0 has it; none if it has none.
    fn leaf(&mut self, index: u64) -> Result<Option<Hash>, Stop> {
        let Some(level) = &self.levels[0] else { return Ok(None) };
        if index >= level.entries {
            return Ok(None);
        }
        let mut bytes = [0; HASH_BYTES];
        let read = std::os::unix::fs::FileExt::read_exact_at(
            level.input.get_ref(),
            &mut bytes,
            index * HASH_BYTES as u64,
        );
        read.map_err(Error::io(&level.path))?;
        Ok(Some(Hash(bytes)))
    }

    /// Compares the next entry of a level above the leaves.
    fn compare(&mut self, level: u32, hash: Hash) -> Result<(), Stop> {
        if level == 0 {
            return Ok(());
        }
        let Some(files) = &mut self.levels[level as usize] else { return Ok(()) };
        let index = files.next;
        files.next += 1;
        if index >= files.entries {
            return Ok(());
        }
        let mut bytes = [0; HASH_BYTES];
        files.input.read_exact(&mut bytes).map_err(Error::io(&files.path))?;
        if bytes != hash.0 && self.wrong.is_none() {
            self.wrong = Some((level, index));
        }
        files.last = Some(hash);
        Ok(())
    }

    fn complain(&self) -> Result<(), Stop> {
        match self.wrong {
            None => Ok(()),
            Some((level, index)) => {
                let why = format!("its entry {index} is not the tree's");
                Err(companion(self.dir.join(format!("L{level}")), why))
            }
        }
    }

    /// At the end: nothing is missing that was synced, nothing is there that is not the tree's.
    fn at_end(&self, size: u64, synced: u64) -> Result<(), Stop> {
        self.complain()?;
        for (level, files) in self.levels.iter().enumerate() {
            let path = self.dir.join(format!("L{level}"));
            let (wanted, all) = (synced >> (8 * level), size >> (8 * level));
            match files {
                None if wanted > 0 => return Err(found(path, Tampering::FileRemoved)),
                Some(files) if files.entries < wanted => {
                    let why = format!("it has {} of {wanted} entries", files.entries);
                    return Err(companion(path, why));
                }
                Some(files) if files.entries > all || files.spare_bytes > 0 => {
                    return Err(companion(path, "it has more than the tree"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
