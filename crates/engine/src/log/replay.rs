//! Reading logs from their beginning, and telling a torn end from damage.
//!
//! ```text
//! whole record ─▶ next one     bad record ─┬─ in an older log ────────────────────────────▶ damage
//!                                          ├─ no whole record behind it ──────────────────▶ the end
//!                                          ├─ one behind it says that this was durable ───▶ damage
//!                                          ├─ a sector of it is zero from where it begins ▶ the end
//!                                          └─ otherwise ──────────────────────────────────▶ damage
//! ```
//! A process that is killed leaves a part of one record. A machine that stops may have written later
//! blocks and not earlier ones since the last sync: the missing ones read as zeros, whole sectors at a
//! time, and what stands behind them was never promised to survive it.

use super::{
    COVERED_BYTES, HEADER_BYTES, MAGIC, RECORD_HEADER_BYTES, crc, numbers, path as log_path,
};
use crate::{Error, Result, disk};
use bytes::Bytes;
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// The smallest piece that a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// Where a log stopped.
pub(crate) struct End {
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) size_bytes: u64,
}

/// Where in which log a record lies.
pub(crate) struct Place<'a> {
    path: &'a Path,
    at: u64,
}

impl Place<'_> {
    pub(crate) fn corrupt(&self, what: &str) -> Error {
        corrupt(self.path, self.at, what)
    }
}

fn corrupt(path: &Path, at: u64, what: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), what: format!("{what} (at byte {at})") }
}

/// Gives the records of the logs from `start` on to `each`, without a gap; tells where they end, if
/// there is any log. A number missing between them is damage.
pub(crate) fn replay_from(
    dir: &Path,
    start: u64,
    each: &mut dyn FnMut(&Place<'_>, Bytes) -> Result<()>,
) -> Result<Option<End>> {
    let logs: Vec<u64> = numbers(dir)?.into_iter().filter(|log| *log >= start).collect();
    let mut end = None;
    for (expected, number) in (start..).zip(&logs) {
        if *number != expected {
            let what = "it is missing, but a newer log exists".into();
            return Err(Error::Corrupt { path: log_path(dir, expected), what });
        }
        end = Some(replay(dir, *number, Some(number) == logs.last(), each)?);
    }
    Ok(end)
}

fn replay(
    dir: &Path,
    number: u64,
    newest: bool,
    each: &mut dyn FnMut(&Place<'_>, Bytes) -> Result<()>,
) -> Result<End> {
    let path = log_path(dir, number);
    let file = File::open(&path).map_err(|source| disk::io(&path, source))?;
    let size = file.metadata().map_err(|source| disk::io(&path, source))?.len();
    let mut replay = Replay { input: BufReader::new(file), path, number, size, at: 0 };
    let size_bytes = replay.all(newest, each)?;
    Ok(End { path: replay.path, number, size_bytes })
}

struct Replay {
    input: BufReader<File>,
    path: PathBuf,
    number: u64,
    size: u64,
    at: u64,
}

/// What lies at a place of a log.
enum Found {
    Record(Vec<u8>),
    /// Not a whole record; what was read of it.
    Bad(Vec<u8>, &'static str),
}

/// The part of a record before its payload.
struct RecordHeader {
    length: usize,
    durable: u64,
    payload_crc: u32,
}

impl RecordHeader {
    /// The header at the beginning of `bytes`; none where its checksum differs.
    fn parse(number: u64, bytes: &[u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(COVERED_BYTES)?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (payload_crc, _) = rest.split_first_chunk()?;
        let (length, durable) = covered.split_first_chunk()?;
        (crc(number, &[covered]) == u32::from_le_bytes(*sum)).then(|| Self {
            length: u32::from_le_bytes(*length) as usize,
            durable: u64::from_le_bytes(durable.try_into().expect("eight of twelve bytes")),
            payload_crc: u32::from_le_bytes(*payload_crc),
        })
    }
}

impl Replay {
    /// Gives every whole record to `each`; tells the end of the last one.
    fn all(
        &mut self,
        newest: bool,
        each: &mut dyn FnMut(&Place<'_>, Bytes) -> Result<()>,
    ) -> Result<u64> {
        self.header()?;
        while self.at < self.size {
            match self.record()? {
                Found::Record(payload) => {
                    self.at += (RECORD_HEADER_BYTES + payload.len()) as u64;
                    // A seal has none.
                    if !payload.is_empty() {
                        each(&Place { path: &self.path, at: self.at }, payload.into())?;
                    }
                }
                Found::Bad(..) if !newest => {
                    return Err(self.corrupt("a record is torn or damaged, but a newer log exists"));
                }
                Found::Bad(bytes, what) => {
                    self.check_torn(&bytes, what)?;
                    break;
                }
            }
        }
        Ok(self.at)
    }

    fn header(&mut self) -> Result<()> {
        let mut header = [0; HEADER_BYTES as usize];
        if self.size < HEADER_BYTES {
            return Err(self.corrupt("it is shorter than its header"));
        }
        self.input.read_exact(&mut header).map_err(|source| disk::io(&self.path, source))?;
        self.at = HEADER_BYTES;
        let (magic, number) = header.split_at(MAGIC.len());
        match magic == MAGIC && number == self.number.to_le_bytes() {
            true => Ok(()),
            false => Err(self.corrupt("it does not begin as this log")),
        }
    }

    fn record(&mut self) -> Result<Found> {
        let mut bytes = self.read(RECORD_HEADER_BYTES)?;
        let Some(header) = RecordHeader::parse(self.number, &bytes) else {
            return Ok(Found::Bad(bytes, "a record's header is damaged, and records follow it"));
        };
        let payload = self.read(header.length)?;
        if payload.len() == header.length && crc(self.number, &[&payload]) == header.payload_crc {
            return Ok(Found::Record(payload));
        }
        bytes.extend_from_slice(&payload);
        Ok(Found::Bad(bytes, "a record's checksum differs, and records follow it"))
    }

    /// Passes where the bad record that was met, of which `bytes` were read, may be what a crash left;
    /// see the module.
    fn check_torn(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let mut behind = self.read(left - bytes.len())?;
        if RecordHeader::parse(self.number, bytes).is_none() {
            // It is not known where it ends.
            behind.splice(..0, bytes[1.min(bytes.len())..].iter().copied());
        }
        match self.durable_according_to(&behind) {
            None => Ok(()),
            Some(durable) if durable <= self.at && has_zero_sector(bytes, self.at) => Ok(()),
            Some(_) => Err(self.corrupt(what)),
        }
    }

    /// How much of the log is durable by the whole records anywhere in `behind`; none without any.
    fn durable_according_to(&self, behind: &[u8]) -> Option<u64> {
        // No record begins in the zeros at the end.
        let written = behind.iter().rposition(|byte| *byte != 0)?;
        let record = |from| {
            let bytes = &behind[from..];
            let header = RecordHeader::parse(self.number, bytes)?;
            let payload = bytes[RECORD_HEADER_BYTES..].get(..header.length)?;
            (crc(self.number, &[payload]) == header.payload_crc).then_some(header.durable)
        };
        (0..=written).filter_map(record).max()
    }

    /// Up to `length` bytes, fewer at the end of the file.
    fn read(&mut self, length: usize) -> Result<Vec<u8>> {
        let left = usize::try_from(self.size).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(left));
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut bytes);
        read.map_err(|source| disk::io(&self.path, source))?;
        Ok(bytes)
    }

    fn corrupt(&self, what: &str) -> Error {
        corrupt(&self.path, self.at, what)
    }
}

/// Whether one of the sectors that `bytes`, which lie at `at`, touch is zero as far as they go.
fn has_zero_sector(bytes: &[u8], at: u64) -> bool {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES) as usize;
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    std::iter::once(head)
        .chain(rest.chunks(SECTOR_BYTES as usize))
        .any(|sector| sector.iter().all(|byte| *byte == 0))
}
