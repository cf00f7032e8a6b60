//! The memory engine's own write-ahead log, for callers that have none.
//!
//! ```text
//! DIR/LOCK
//! DIR/checkpoint-N/state     everything before log N
//! DIR/log-N                  magic(8) · number u64 · record*
//! record: length u32 · crc32 of the length u32 · crc32 of the payload u32 · payload (one batch)
//! ```
//! * Checksums are seeded with the log's number, so that an old log's bytes are never taken for new.
//! * Only the newest log may end in a torn record, which is cut off: a batch is there whole or not at
//!   all. A bad checksum before the end is damage and refused, with the file's name.
//! * Before a next log begins, the previous one is synced.

use super::view::View;
use crate::{ColumnId, Error, Operation, Result, disk};
use bytes::{Buf, Bytes};
use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"CHRLOG\x00\x01";
const HEADER_BYTES: u64 = 16;
const RECORD_HEADER_BYTES: usize = 12;
/// A larger buffer than this is not kept for the next batch.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;
const COLUMN: u8 = 3;

/// The log that is appended to.
pub(super) struct Log {
    file: Arc<File>,
    path: PathBuf,
    number: u64,
    size_bytes: u64,
    buffer: Vec<u8>,
}

impl Log {
    /// A new, empty log; durable as a name when this returns.
    pub(super) fn create(dir: &Path, number: u64) -> Result<Self> {
        let path = path(dir, number);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|source| disk::io(&path, source))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&number.to_le_bytes());
        let written = file.write_all(&header).and_then(|()| file.sync_all());
        written.map_err(|source| disk::io(&path, source))?;
        disk::sync_dir(dir)?;
        let file = Arc::new(file);
        Ok(Self { file, path, number, size_bytes: HEADER_BYTES, buffer: Vec::new() })
    }

    /// An existing log, to be continued at `size_bytes`; what follows there is cut off.
    fn resume(path: PathBuf, number: u64, size_bytes: u64) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(size_bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = Arc::new(open().map_err(|source| disk::io(&path, source))?);
        Ok(Self { file, path, number, size_bytes, buffer: Vec::new() })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Appends one batch, handed to the operating system; gives its bytes in the log.
    pub(super) fn append(&mut self, operations: &[Operation]) -> Result<u64> {
        self.record(|payload| operations.iter().for_each(|operation| encode(payload, operation)))
    }

    /// Appends the creation of a column.
    pub(super) fn append_column(&mut self, name: &str) -> Result<u64> {
        self.record(|payload| {
            payload.push(COLUMN);
            push_bytes(payload, name.as_bytes());
        })
    }

    fn record(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64> {
        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER_BYTES, 0);
        fill(&mut self.buffer);
        let (header, payload) = self.buffer.split_at_mut(RECORD_HEADER_BYTES);
        let length =
            u32::try_from(payload.len()).map_err(|_| too_large(payload.len()))?.to_le_bytes();
        header[..4].copy_from_slice(&length);
        header[4..8].copy_from_slice(&crc(self.number, &length).to_le_bytes());
        header[8..].copy_from_slice(&crc(self.number, payload).to_le_bytes());
        (&*self.file).write_all(&self.buffer).map_err(|source| disk::io(&self.path, source))?;
        let size = self.buffer.len() as u64;
        self.size_bytes += size;
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        Ok(size)
    }

    /// Makes everything appended durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| disk::io(&self.path, source))
    }
}

fn too_large(size: usize) -> Error {
    Error::TooLarge { what: "a batch in the log", size_bytes: size, limit_bytes: u32::MAX as usize }
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log-{number}"))
}

fn crc(number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn encode(out: &mut Vec<u8>, operation: &Operation) {
    let (kind, column, parts): (u8, ColumnId, [Option<&[u8]>; 2]) = match operation {
        Operation::Put(column, key, value) => (PUT, *column, [Some(key), Some(value)]),
        Operation::Delete(column, key) => (DELETE, *column, [Some(key), None]),
        Operation::DeleteRange(column, from, to) => (DELETE_RANGE, *column, [Some(from), Some(to)]),
    };
    out.push(kind);
    out.extend_from_slice(&column.0.to_le_bytes());
    parts.into_iter().flatten().for_each(|part| push_bytes(out, part));
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and values are limited");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Applies the log to `view`; where it is the newest one, gives it back to be continued.
pub(super) fn replay(
    dir: &Path,
    number: u64,
    newest: bool,
    view: &mut View,
) -> Result<Option<Log>> {
    let path = path(dir, number);
    let file = File::open(&path).map_err(|source| disk::io(&path, source))?;
    let size = file.metadata().map_err(|source| disk::io(&path, source))?.len();
    let input = BufReader::new(file);
    let mut replay = Replay { input, path, number, size, at: 0, view };
    let end = replay.all(newest)?;
    let Replay { path, .. } = replay;
    newest.then(|| Log::resume(path, number, end)).transpose()
}

struct Replay<'a> {
    input: BufReader<File>,
    path: PathBuf,
    number: u64,
    size: u64,
    at: u64,
    view: &'a mut View,
}

/// What lies at a place of a log.
enum Found {
    Record(Vec<u8>),
    /// Nothing, or a record that was being written when the machine stopped.
    End,
}

impl Replay<'_> {
    /// Applies every whole record; gives the end of the last one.
    fn all(&mut self, newest: bool) -> Result<u64> {
        self.header()?;
        while let Found::Record(payload) = self.record()? {
            self.at += (RECORD_HEADER_BYTES + payload.len()) as u64;
            self.apply(payload.into())?;
        }
        match newest || self.at == self.size {
            true => Ok(self.at),
            false => Err(self.corrupt("it ends in a torn record, but a newer log exists")),
        }
    }

    fn header(&mut self) -> Result<()> {
        let mut header = [0; HEADER_BYTES as usize];
        if self.size < HEADER_BYTES {
            return Err(self.corrupt("it is shorter than its header"));
        }
        self.read(&mut header)?;
        self.at = HEADER_BYTES;
        let (magic, number) = header.split_at(MAGIC.len());
        match magic == MAGIC && number == self.number.to_le_bytes() {
            true => Ok(()),
            false => Err(self.corrupt("it does not begin as this log")),
        }
    }

    fn record(&mut self) -> Result<Found> {
        let left = self.size - self.at;
        if left < RECORD_HEADER_BYTES as u64 {
            return Ok(Found::End);
        }
        let mut header = [0; RECORD_HEADER_BYTES];
        self.read(&mut header)?;
        let (length, sums) = header.split_at(4);
        if crc(self.number, length).to_le_bytes() != sums[..4] {
            return self.end_of_zeros(&header);
        }
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if (length as u64) > left - RECORD_HEADER_BYTES as u64 {
            return Ok(Found::End);
        }
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        if crc(self.number, &payload).to_le_bytes() == sums[4..] {
            return Ok(Found::Record(payload));
        }
        match length as u64 == left - RECORD_HEADER_BYTES as u64 {
            true => Ok(Found::End),
            false => Err(self.corrupt("a record's checksum differs, and more records follow it")),
        }
    }

    /// A file system may lengthen a file before its bytes arrive: zeros to the end are a torn tail.
    fn end_of_zeros(&mut self, header: &[u8]) -> Result<Found> {
        let mut rest = Vec::new();
        self.input.read_to_end(&mut rest).map_err(|source| disk::io(&self.path, source))?;
        match header.iter().chain(&rest).all(|byte| *byte == 0) {
            true => Ok(Found::End),
            false => Err(self.corrupt("a record's header is damaged")),
        }
    }

    fn apply(&mut self, mut payload: Bytes) -> Result<()> {
        let mut operations = Vec::new();
        while payload.has_remaining() {
            if payload[0] == COLUMN {
                payload.advance(1);
                let name = self.part(&mut payload)?;
                let name = String::from_utf8_lossy(&name).into_owned();
                self.view.add_column(&name);
            } else {
                operations.push(self.operation(&mut payload)?);
            }
        }
        self.view.check(&operations).map_err(|error| self.corrupt(&error.to_string()))?;
        self.view.apply(&operations);
        Ok(())
    }

    fn operation(&self, payload: &mut Bytes) -> Result<Operation> {
        let kind = payload.get_u8();
        let column = payload.try_get_u32_le().map_err(|_| self.corrupt("a change is cut short"))?;
        let (column, first) = (ColumnId(column), self.part(payload)?);
        match kind {
            PUT => Ok(Operation::Put(column, first, self.part(payload)?)),
            DELETE => Ok(Operation::Delete(column, first)),
            DELETE_RANGE => Ok(Operation::DeleteRange(column, first, self.part(payload)?)),
            _ => Err(self.corrupt("a change of an unknown kind")),
        }
    }

    fn part(&self, payload: &mut Bytes) -> Result<Bytes> {
        let length = payload.try_get_u32_le().ok().map(|length| length as usize);
        match length.filter(|length| *length <= payload.len()) {
            Some(length) => Ok(payload.split_to(length)),
            None => Err(self.corrupt("a change is cut short")),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|source| disk::io(&self.path, source))
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), what: format!("{what} (at byte {})", self.at) }
    }
}
