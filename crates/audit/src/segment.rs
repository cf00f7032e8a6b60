//! The files that events are in, in order.
//!
//! ```text
//! 00000000000000000001.jsonl        events 1 ‥ 70411, one a line
//! 00000000000000000001.checkpoint   signed over the first 70411 events, when the file was ended
//! 00000000000000070412.jsonl        events 70412 ‥, still growing
//! ```
//! A file is named after its first event, so that the list of names is the index. Numbers and times never
//! decrease from line to line, so a place in a file is found by halving.

use crate::{Error, Event, Result, event::MAX_LINE_BYTES};
use serde::Deserialize;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub(crate) const LINES: &str = "jsonl";
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// A step of halving is not worth less than this: it is read in one go.
const HALVING_ENDS_BYTES: u64 = 64 << 10;

/// One file of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Number of its first event.
    pub(crate) first: u64,
}

impl Segment {
    pub(crate) fn named(dir: &Path, first: u64) -> Self {
        Self { path: dir.join(format!("{first:020}.{LINES}")), first }
    }

    /// The signed checkpoint at its end.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.path.with_extension(CHECKPOINT)
    }

    pub(crate) fn size_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path).map_err(Error::io(&self.path))?.len())
    }

    /// Whole lines from byte `from` on.
    pub(crate) fn lines(&self, from: u64) -> Result<Lines> {
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(from)).map_err(Error::io(&self.path))?;
        let input = BufReader::with_capacity(MAX_LINE_BYTES + 1, file);
        Ok(Lines { path: self.path.clone(), input, line: Vec::new(), offset: from })
    }

    /// Time of its first event; none if it has none yet.
    pub(crate) fn first_time_ms(&self) -> Result<Option<u64>> {
        Ok(self.lines(0)?.next_line()?.and_then(Place::of).map(|place| place.time_ms))
    }

    /// A line's beginning such that all lines before it are `before`; `before` must hold for a
    /// beginning of the file only.
    pub(crate) fn seek(&self, before: impl Fn(&Place) -> bool) -> Result<u64> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let (mut low, mut high) = (0, self.size_bytes()?);
        while high - low > HALVING_ENDS_BYTES {
            let middle = low + (high - low) / 2;
            match place_behind(&file, middle).map_err(Error::io(&self.path))? {
                Some((start, place)) if start < high && before(&place) => low = start,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

/// The first line that begins behind a byte, and its place.
fn place_behind(file: &File, byte: u64) -> io::Result<Option<(u64, Place)>> {
    let mut bytes = vec![0; 2 * (MAX_LINE_BYTES + 1)];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], byte + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    let bytes = &bytes[..length];
    let Some(start) = bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1) else {
        return Ok(None);
    };
    let line = &bytes[start..];
    let line = line.iter().position(|byte| *byte == b'\n').map(|end| &line[..end]);
    Ok(line.and_then(Place::of).map(|place| (byte + start as u64, place)))
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
}

impl Place {
    /// The place of a line that is an event; none if it is not.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Lines of a file, one at a time.
pub(crate) struct Lines {
    path: PathBuf,
    input: BufReader<File>,
    line: Vec<u8>,
    /// Byte behind the last line read.
    pub(crate) offset: u64,
}

impl Lines {
    /// The next whole line, without its newline. An unfinished one at the end is none; one that is
    /// too long is cut, and then is no event.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let mut length = 0;
        loop {
            let buffer = self.input.fill_buf().map_err(Error::io(&self.path))?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let (part, ends) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), false),
            };
            let room = (MAX_LINE_BYTES + 2).saturating_sub(self.line.len());
            self.line.extend_from_slice(&buffer[..part.min(room)]);
            self.input.consume(part);
            length += part as u64;
            if ends {
                self.offset += length;
                if self.line.last() == Some(&b'\n') {
                    self.line.pop();
                }
                return Ok(Some(&self.line));
            }
        }
    }
}

/// The files in a directory, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<Segment>> {
    let mut segments: Vec<_> =
        named(dir, LINES)?.into_iter().map(|first| Segment::named(dir, first)).collect();
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// First events of the files with this ending.
pub(crate) fn named(dir: &Path, ending: &str) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_ours = stem.len() == 20 && path.extension().is_some_and(|found| found == ending);
        if let (true, Ok(first)) = (is_ours, stem.parse()) {
            found.push(first);
        }
    }
    Ok(found)
}

/// Reads one line as an event.
pub(crate) fn event_of(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}
