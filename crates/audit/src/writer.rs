//! The one thread that writes: numbers, lines, hashes, files.
//!
//! ```text
//! queue ─▶ number, time ─▶ line ─▶ file      fdatasync for who waits, else once an interval
//!                           └────▶ leaf      then a checkpoint is signed over what is on the disk
//! file too large or too old ─▶ sync · tiles · sign its end ─▶ next file ─▶ retention
//! ```
//! Invariants:
//! 1. A number is given once, here; line `n` is leaf `n − 1`.
//! 2. A checkpoint is signed only over lines that are on the disk.
//! 3. A write that fails is made again at the same place until it succeeds; meanwhile the queue fills. A
//!    *sync* that fails ends the log: nobody knows what the disk has, so nothing more is claimed.
//! 4. A file is removed only after the event that says so is on the disk and signed.

use crate::{
    Error, Event, NotDurable, Result, Settings,
    event::{Class, own},
    keys::{Secrets, salt_digest},
    log::{Health, Shared},
    queue::{Batch, Item, Waiter},
    segment::{self, Segment},
    stdout::Echo,
};
use chronolith_ledger::{Checkpoint, Hash, Readers, TileWriter, replace_file, sync_directory};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long events may collect before they are written, where nobody waits for them.
const LINGER: Duration = Duration::from_millis(10);
/// Lines are handed to the system in pieces of this size.
const WRITE_BYTES: usize = 1 << 20;
/// After how many events the tile files are synced: what a start may have to hash again.
const TILES_EVERY_EVENTS: u64 = 1 << 16;
/// Pause before a failed write is made again.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) const SIGNED: &str = "checkpoint";
pub(crate) const TILES: &str = "tlog";

/// What went wrong.
enum Trouble {
    /// Nothing is lost; it will be tried again.
    Passing(Error),
    /// Nobody knows what the disk has.
    Final(Error),
}

/// Where the log stands when it is opened.
pub(crate) struct Position {
    pub(crate) segment: Segment,
    pub(crate) size_bytes: u64,
    pub(crate) tiles: TileWriter,
    pub(crate) last_time_ms: u64,
    /// Leaves under the newest checkpoint.
    pub(crate) signed: u64,
    /// That checkpoint.
    pub(crate) note: String,
}

pub(crate) struct Writer {
    settings: Settings,
    shared: Arc<Shared>,
    secrets: Arc<Secrets>,
    tiles: TileWriter,
    segment: Segment,
    file: File,
    /// Bytes of the file that are written.
    size_bytes: u64,
    /// Lines that are numbered and not written.
    pending: Vec<u8>,
    /// When the file is old enough to be ended.
    ends: SystemTime,
    last_time_ms: u64,
    signed: u64,
    /// The newest checkpoint.
    note: String,
    /// When the next checkpoint is due; none if there is nothing to sign.
    sign_at: Option<Instant>,
    waiters: Vec<Waiter>,
    echo: Option<Echo>,
}

impl Writer {
    pub(crate) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        secrets: Arc<Secrets>,
        position: Position,
    ) -> Result<Self> {
        let Position { segment, size_bytes, tiles, last_time_ms, signed, note } = position;
        let file = open_lines(&segment.path)?;
        let began = segment.first_time_ms()?.unwrap_or_else(now_ms);
        let ends = UNIX_EPOCH + Duration::from_millis(began) + settings.rotate_age;
        let echo = if settings.stdout { Some(Echo::start(Arc::clone(&shared))?) } else { None };
        Ok(Self {
            settings,
            shared,
            secrets,
            tiles,
            segment,
            file,
            size_bytes,
            pending: Vec::new(),
            ends,
            last_time_ms,
            signed,
            note,
            sign_at: None,
            waiters: Vec::new(),
            echo,
        })
    }

    /// Writes until the queue is closed and empty, or until nothing can be claimed any more: then says why.
    pub(crate) fn run(mut self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        loop {
            shared.queue.wait(self.wakes_at());
            shared.queue.linger(LINGER);
            let batch = shared.queue.take();
            let closed = batch.closed;
            if let Err(trouble) = self.work(batch) {
                match trouble {
                    Trouble::Passing(error) => self.pass(&error),
                    Trouble::Final(error) => return Some(self.give_up(&error)),
                }
            }
            if closed {
                let ended = self.sign().and_then(|()| self.sync_tiles());
                return ended.err().map(|trouble| self.give_up(&trouble.into_error()));
            }
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        if !self.pending.is_empty() {
            return Some(Instant::now());
        }
        let age = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
        let rotates = Instant::now().checked_add(age.max(LINGER));
        match (self.sign_at, rotates) {
            (Some(sign), Some(rotate)) => Some(sign.min(rotate)),
            (sign, rotate) => sign.or(rotate),
        }
    }

    fn work(&mut self, batch: Batch) -> Result<(), Trouble> {
        let mut asked = Vec::new();
        let mut items = batch.items;
        let worked = self.take_all(&mut items, &mut asked);
        if let Err(trouble) = worked {
            // What is left waits in front of what comes later.
            self.shared.queue.put_back(items);
            self.answer_all(asked, Err(trouble.text()));
            return Err(trouble);
        }
        self.end_work(asked)
    }

    fn take_all(
        &mut self,
        items: &mut VecDeque<Item>,
        asked: &mut Vec<Item>,
    ) -> Result<(), Trouble> {
        // What could not be written before goes first.
        self.write_out()?;
        while let Some(item) = items.pop_front() {
            match item {
                Item::Event(event, waiter) => {
                    self.waiters.extend(waiter);
                    self.append(*event)?;
                }
                Item::Gap(dropped) => self.append(gap(dropped))?,
                item @ (Item::Sync(_) | Item::Flush(_)) => asked.push(item),
            }
        }
        self.write_out()
    }

    fn end_work(&mut self, asked: Vec<Item>) -> Result<(), Trouble> {
        let must_sign = asked.iter().any(|item| matches!(item, Item::Sync(_)))
            || self.sign_at.is_some_and(|due| due <= Instant::now());
        let done = if must_sign {
            self.sign()
        } else if self.waiters.is_empty() {
            Ok(())
        } else {
            self.sync_lines()
        };
        if let Err(trouble) = done {
            self.answer_all(asked, Err(trouble.text()));
            return Err(trouble);
        }
        self.shared.is_well();
        for waiter in self.waiters.drain(..) {
            // Who has gone away needs no answer.
            let _ = waiter.send(Ok(()));
        }
        self.answer_all(asked, Ok(self.note.clone()));
        self.end_if_old()
    }

    fn end_if_old(&mut self) -> Result<(), Trouble> {
        if SystemTime::now() < self.ends {
            return Ok(());
        }
        // A file that holds its head alone is not worth a successor.
        if self.tiles.frontier().size() <= self.segment.first {
            self.ends = SystemTime::now() + self.settings.rotate_age;
            return Ok(());
        }
        self.rotate()
    }

    fn answer_all(&self, asked: Vec<Item>, answer: Result<String, String>) {
        for item in asked {
            match item {
                Item::Sync(tell) => drop(tell.send(answer.clone())),
                Item::Flush(tell) => drop(tell.send(())),
                Item::Event(..) | Item::Gap(_) => {}
            }
        }
    }

    /// Numbers an event and makes its line.
    fn append(&mut self, event: Event) -> Result<(), Trouble> {
        self.line(event);
        if self.pending.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        if self.size_bytes + self.pending.len() as u64 >= self.settings.rotate_bytes {
            self.write_out()?;
            self.rotate()?;
        }
        Ok(())
    }

    fn line(&mut self, mut event: Event) {
        event.seq = self.tiles.frontier().size() + 1;
        let time_ms = if event.time_ms == 0 { now_ms() } else { event.time_ms };
        self.last_time_ms = self.last_time_ms.max(time_ms);
        event.time_ms = self.last_time_ms;
        event.member.clone_from(&self.settings.member);
        let start = self.pending.len();
        event.write_line(&mut self.pending);
        self.tiles.append_leaf(Hash::of_leaf(&self.pending[start..]));
        self.pending.push(b'\n');
        if let Some(echo) = &self.echo {
            echo.line(&self.pending[start..]);
        }
        self.shared.stats.events.fetch_add(1, Relaxed);
    }

    /// Hands the lines to the system, always at the place where they belong.
    fn write_out(&mut self) -> Result<(), Trouble> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(&self.pending, self.size_bytes);
        written.map_err(Error::io(&self.segment.path)).map_err(Trouble::Passing)?;
        self.size_bytes += self.pending.len() as u64;
        self.pending.clear();
        if self.sign_at.is_none() {
            self.sign_at = Some(Instant::now() + self.settings.sync_interval);
        }
        Ok(())
    }

    fn sync_lines(&mut self) -> Result<(), Trouble> {
        self.write_out()?;
        let synced = self.file.sync_data();
        synced.map_err(Error::io(&self.segment.path)).map_err(Trouble::Final)
    }

    /// Puts everything on the disk and signs it.
    fn sign(&mut self) -> Result<(), Trouble> {
        self.sync_lines()?;
        self.tiles.flush().map_err(|error| Trouble::Final(error.into()))?;
        if self.tiles.frontier().size() - self.tiles.synced() >= TILES_EVERY_EVENTS {
            self.sync_tiles()?;
        }
        if self.tiles.frontier().size() > self.signed {
            self.note = self.sign_into(&self.settings.dir.join(SIGNED))?;
            self.signed = self.tiles.frontier().size();
        }
        self.sign_at = None;
        Ok(())
    }

    fn sync_tiles(&mut self) -> Result<(), Trouble> {
        self.tiles.sync().map_err(|error| Trouble::Final(error.into()))
    }

    fn sign_into(&self, path: &Path) -> Result<String, Trouble> {
        let frontier = self.tiles.frontier();
        let origin = self.secrets.key.verifier().name().to_owned();
        let checkpoint = Checkpoint { origin, size: frontier.size(), root: frontier.root() };
        let note = checkpoint.sign(&self.secrets.key).map_err(Error::from);
        let note = note.map_err(Trouble::Final)?.to_string();
        replace_file(path, &note, Readers::All)
            .map_err(Error::io(path))
            .map_err(Trouble::Passing)?;
        Ok(note)
    }

    /// Ends the file, signs its end, begins the next one and removes what is too old.
    pub(crate) fn begin_next(&mut self) -> Result<()> {
        self.rotate().map_err(Trouble::into_error)
    }

    fn rotate(&mut self) -> Result<(), Trouble> {
        self.sign()?;
        self.sync_tiles()?;
        self.sign_into(&self.segment.checkpoint())?;
        let next = Segment::named(&self.settings.dir, self.tiles.frontier().size() + 1);
        let ended = self.segment.path.clone();
        let file = open_lines(&next.path).map_err(Trouble::Passing)?;
        sync_directory(&self.settings.dir)
            .map_err(Error::io(&next.path))
            .map_err(Trouble::Passing)?;
        (self.segment, self.file, self.size_bytes) = (next, file, 0);
        self.ends = SystemTime::now() + self.settings.rotate_age;
        let name = ended.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.head(&format!("continues {name}"));
        self.write_out()?;
        self.retain()
    }

    /// The first line of a file that has none, signed: there is never a log without one.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let is_first = self.segment.first == 1;
        self.head(if is_first {
            "begins the log"
        } else {
            "goes on after a crash between two files"
        });
        self.sign().and_then(|()| self.sync_tiles()).map_err(Trouble::into_error)
    }

    /// The first line of a file.
    fn head(&mut self, reason: &str) {
        self.line(Event {
            reason: reason.to_owned(),
            salt_digest: salt_digest(&self.secrets.salt),
            ..Event::new(own::SEGMENT, Class::Admin)
        });
    }

    /// Removes the oldest files beyond what is kept, after a signed event that says so.
    fn retain(&mut self) -> Result<(), Trouble> {
        let segments = segment::list(&self.settings.dir).map_err(Trouble::Passing)?;
        let surplus = self.surplus(&segments).map_err(Trouble::Passing)?;
        let Some(next) = segments.get(surplus).filter(|_| surplus > 0) else { return Ok(()) };
        self.line(Event {
            removed_through: Some(next.first - 1),
            reason: format!("the {surplus} oldest files are removed: more than is to be kept"),
            ..Event::new(own::RETENTION, Class::Admin)
        });
        self.sign()?;
        let removed = remove(&segments[..surplus], &self.settings.dir);
        removed.map_err(Trouble::Passing)
    }

    /// How many of the oldest files are too much. The one being written never is.
    fn surplus(&self, segments: &[Segment]) -> Result<usize> {
        let (mut files, mut bytes) = (0, 0);
        for (index, segment) in segments.iter().enumerate().rev() {
            files += 1;
            bytes += segment.size_bytes()?;
            let is_too_much = (self.settings.keep_files > 0 && files > self.settings.keep_files)
                || (self.settings.keep_bytes > 0 && bytes > self.settings.keep_bytes);
            if is_too_much && index + 1 < segments.len() {
                return Ok(index + 1);
            }
        }
        Ok(0)
    }

    /// Something failed that may succeed later: those who wait are told, nothing is dropped.
    fn pass(&mut self, error: &Error) {
        self.shared.is_unwell(Health::Trying(error.to_string()));
        self.tell_waiters(&error.to_string());
        std::thread::sleep(AGAIN.min(self.settings.sync_interval));
    }

    /// Those who wait are told; the cause.
    fn give_up(&mut self, error: &Error) -> String {
        let cause = error.to_string();
        self.tell_waiters(&cause);
        cause
    }

    fn tell_waiters(&mut self, cause: &str) {
        for waiter in self.waiters.drain(..) {
            // Who has gone away needs no answer.
            let _ = waiter.send(Err(NotDurable { cause: cause.to_owned() }));
        }
    }
}

impl Trouble {
    fn text(&self) -> String {
        match self {
            Self::Passing(error) | Self::Final(error) => error.to_string(),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Passing(error) | Self::Final(error) => error,
        }
    }
}

fn gap(dropped: u64) -> Event {
    let reason = "the queue was full or the log could not be written".to_owned();
    Event { dropped: Some(dropped), reason, ..Event::new(own::GAP, Class::Admin) }
}

fn open_lines(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path).map_err(Error::io(path))
}

/// Removes files, oldest first, so that what is left is always everything from some event on.
fn remove(segments: &[Segment], dir: &Path) -> Result<()> {
    let gone = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
        _ => Ok(()),
    };
    for segment in segments {
        gone(segment.path.clone())?;
        gone(segment.checkpoint())?;
    }
    sync_directory(dir).map_err(Error::io(dir))
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
