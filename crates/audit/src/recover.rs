//! Opening: takes the directory, finds the end of the log, and repairs what a crash tore.
//!
//! ```text
//! tile files, as of their last sync ──► leaves 1 ‥ T
//! lines behind event T, hashed again ──► leaves T+1 ‥ n         an unfinished line at the end is cut
//! checkpoint, signed over s ≤ n events: its root must be theirs
//! ```
//! Only what no checkpoint speaks of can be torn by a crash. If anything else is missing or different, the
//! log was changed, and it is not continued.

use crate::{
    Error, Event, Recovered, Result, Settings,
    event::own,
    keys::Secrets,
    segment::{self, Place, Segment},
    writer::{Position, SIGNED, TILES},
};
use chronolith_ledger::{
    Checkpoint, Hash, Policy as KeyPolicy, Readers, SignedNote, TileWriter, replace_file,
    sync_directory,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

const LOCK: &str = "LOCK";

/// A log that was found or made.
pub(crate) struct Opened {
    pub(crate) position: Position,
    pub(crate) secrets: Secrets,
    pub(crate) recovered: Recovered,
    /// The last file was ended, and a crash came before the next was begun.
    pub(crate) begins_new_file: bool,
    pub(crate) lock: File,
}

pub(crate) fn open(settings: &Settings) -> Result<Opened> {
    let dir = &settings.dir;
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(Error::io(dir))?;
    let lock = lock(dir)?;
    let segments = segment::list(dir)?;
    let signed_path = dir.join(SIGNED);
    let is_new = segments.is_empty() && !signed_path.exists();
    let secrets = Secrets::open(dir, &settings.origin(), is_new)?;
    if is_new {
        let origin = settings.origin();
        let nothing = Checkpoint { origin, size: 0, root: Hash::of_empty_tree() };
        let note = nothing.sign(&secrets.key)?.to_string();
        replace_file(&signed_path, &note, Readers::All).map_err(Error::io(&signed_path))?;
    }
    let note = fs::read_to_string(&signed_path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => changed(dir, "its checkpoint is gone"),
        _ => Error::io(&signed_path)(source),
    })?;
    let signed = KeyPolicy::log_only(secrets.key.verifier().clone())?
        .open(&SignedNote::parse(note.as_bytes())?)
        .map_err(|error| changed(dir, &format!("its checkpoint: {error}")))?;
    let tiles = TileWriter::open_without_entries(&dir.join(TILES))
        .map_err(|error| changed(dir, &format!("its tile files: {error}")))?;
    let end = Tail { dir, segments: &segments, signed: &signed, tiles, ended: false }.replay()?;
    let begins_new_file = end.segment.checkpoint().exists();
    let recovered = Recovered {
        events: end.tiles.frontier().size(),
        after_crash: end.last_call.as_deref().is_some_and(|call| call != own::STOP),
        repaired_bytes: end.repaired_bytes,
    };
    let position = Position {
        segment: end.segment,
        size_bytes: end.size_bytes,
        tiles: end.tiles,
        last_time_ms: end.last_time_ms,
        signed: signed.size,
        note,
    };
    Ok(Opened { position, secrets, recovered, begins_new_file, lock })
}

fn changed(dir: &Path, why: &str) -> Error {
    Error::Changed { dir: dir.to_owned(), why: why.to_owned() }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(TryLockError::Error(source)) => Err(Error::io(&path)(source)),
    }
}

/// What is hashed again at a start.
struct Tail<'a> {
    dir: &'a Path,
    segments: &'a [Segment],
    signed: &'a Checkpoint,
    tiles: TileWriter,
    /// The last event that is signed says that its process ended in order.
    ended: bool,
}

/// Where the log ends.
struct End {
    segment: Segment,
    size_bytes: u64,
    tiles: TileWriter,
    last_time_ms: u64,
    last_call: Option<String>,
    repaired_bytes: u64,
}

impl Tail<'_> {
    fn replay(mut self) -> Result<End> {
        let in_tiles = self.tiles.frontier().size();
        if self.signed.size <= in_tiles {
            let frontier = self.tiles.files().frontier_at(self.signed.size)?;
            self.check_root(frontier.root())?;
        }
        let from = self.segments.partition_point(|segment| segment.first <= in_tiles + 1);
        if self.segments.is_empty() {
            return self.begin();
        }
        let Some(from) = from.checked_sub(1) else {
            return Err(changed(self.dir, &format!("event {} is gone", in_tiles + 1)));
        };
        // A file without a line says nothing of when the log ended.
        let is_empty = self.segments[from].size_bytes()? == 0;
        let (mut end, mut last_line) = (None, None);
        for index in from.saturating_sub(usize::from(is_empty))..self.segments.len() {
            let (segment, size_bytes, repaired_bytes, line) = self.segment(index)?;
            end = Some((segment, size_bytes, repaired_bytes));
            last_line = line.or(last_line);
        }
        let last = self.tiles.frontier().size();
        let (segment, size_bytes, repaired_bytes) =
            end.ok_or_else(|| changed(self.dir, "it has no files"))?;
        if last < self.signed.size {
            return Err(changed(self.dir, &format!("event {} is gone or different", last + 1)));
        }
        let last_event: Option<Event> = last_line.as_deref().and_then(segment::event_of);
        Ok(End {
            segment,
            size_bytes,
            tiles: self.tiles,
            last_time_ms: last_event.as_ref().map_or(0, |event| event.time_ms),
            last_call: last_event.map(|event| event.call.into_owned()),
            repaired_bytes,
        })
    }

    fn begin(self) -> Result<End> {
        if self.signed.size > 0 || self.tiles.frontier().size() > 0 {
            return Err(changed(self.dir, "all files of events are gone"));
        }
        let segment = Segment::named(self.dir, 1);
        File::create(&segment.path).map_err(Error::io(&segment.path))?;
        sync_directory(self.dir).map_err(Error::io(self.dir))?;
        let (tiles, last_call) = (self.tiles, None);
        Ok(End { segment, size_bytes: 0, tiles, last_time_ms: 0, last_call, repaired_bytes: 0 })
    }

    /// Hashes the lines of one file that the tile files do not have; cuts the last file behind them.
    fn segment(&mut self, index: usize) -> Result<(Segment, u64, u64, Option<Vec<u8>>)> {
        let segment = self.segments[index].clone();
        let in_tiles = self.tiles.frontier().size();
        let start = segment.seek(|place| place.seq <= in_tiles)?;
        let mut lines = segment.lines(start)?;
        let (mut good_bytes, mut last_line, mut expected) = (start, None, None);
        while let Some(line) = lines.next_line()? {
            let Some(Place { seq, .. }) = Place::of(line) else { break };
            if *expected.get_or_insert(seq) != seq || seq > self.tiles.frontier().size() + 1 {
                break;
            }
            if seq == self.tiles.frontier().size() + 1 {
                self.tiles.append_leaf(Hash::of_leaf(line));
            }
            if seq == self.signed.size {
                self.ended = segment::event_of(line).is_some_and(|event| event.call == own::STOP);
            } else if self.ended {
                let why = format!("event {seq} stands behind the end of its process");
                return Err(changed(self.dir, &why));
            }
            expected = Some(seq + 1);
            last_line = Some(line.to_vec());
            good_bytes = lines.offset;
            if self.tiles.frontier().size() == self.signed.size && seq == self.signed.size {
                self.check_root(self.tiles.frontier().root())?;
            }
        }
        let reached = expected.unwrap_or(segment.first);
        if reached != self.tiles.frontier().size() + 1 {
            return Err(changed(self.dir, &format!("event {reached} is gone or different")));
        }
        let torn_bytes = segment.size_bytes()? - good_bytes;
        if let Some(next) = self.segments.get(index + 1) {
            if torn_bytes > 0 || next.first != reached {
                return Err(changed(self.dir, &format!("event {reached} is gone or different")));
            }
        } else if torn_bytes > 0 && reached > self.signed.size {
            let file = OpenOptions::new().write(true).open(&segment.path);
            let file = file.map_err(Error::io(&segment.path))?;
            file.set_len(good_bytes)
                .and_then(|()| file.sync_all())
                .map_err(Error::io(&segment.path))?;
        }
        Ok((segment, good_bytes, torn_bytes, last_line))
    }

    fn check_root(&self, root: Hash) -> Result<()> {
        match root == self.signed.root {
            true => Ok(()),
            false => Err(changed(self.dir, "it is not what its checkpoint says")),
        }
    }
}
