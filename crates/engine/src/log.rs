//! A write-ahead log in files: each record is there whole or not at all.
//!
//! ```text
//! DIR/log-N    magic(8) · number u64 · record*
//! record: length u32 · crc32 of the length u32 · crc32 of the payload u32 · payload (one batch)
//! ```
//! * Checksums are seeded with the log's number, so that an old log's bytes are never taken for new.
//! * Only the newest log may end in a torn record, which is cut off: a batch is there whole or not at
//!   all. A bad checksum before the end is damage and refused, with the file's name.
//! * Before a next log begins, the previous one is synced.
//!
//! What a payload means is each backend's own: operations for memory, RocksDB's batches for RocksDB.

pub(crate) mod sync;

use crate::{Error, Result, disk};
use bytes::Bytes;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"CHRLOG\x00\x01";
pub(crate) const HEADER_BYTES: u64 = 16;
const RECORD_HEADER_BYTES: usize = 12;
/// A larger buffer than this is not kept for the next batch.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
/// Parts up to this size together are copied into one buffer, which costs less than a vector of parts.
#[cfg(feature = "rocksdb")]
const COPIED_BYTES: usize = 16 << 10;

/// The log that is appended to.
pub(crate) struct Log {
    file: Arc<File>,
    path: PathBuf,
    number: u64,
    size_bytes: u64,
    buffer: Vec<u8>,
}

impl Log {
    /// A new, empty log; durable as a name when this returns.
    pub(crate) fn create(dir: &Path, number: u64) -> Result<Self> {
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
    pub(crate) fn resume(path: PathBuf, number: u64, size_bytes: u64) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(size_bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = Arc::new(open().map_err(|source| disk::io(&path, source))?);
        Ok(Self { file, path, number, size_bytes, buffer: Vec::new() })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Appends a record, handed to the operating system; gives its bytes in the log.
    pub(crate) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64> {
        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER_BYTES, 0);
        fill(&mut self.buffer);
        let (header, payload) = self.buffer.split_at_mut(RECORD_HEADER_BYTES);
        header.copy_from_slice(&record_header(self.number, &[payload])?);
        let written = (&*self.file).write_all(&self.buffer);
        self.appended(self.buffer.len(), written)
    }

    /// Appends a record of two parts, of which the second may be large: it is not copied then.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn append_parts(&mut self, first: &[u8], second: &[u8]) -> Result<u64> {
        let header = record_header(self.number, &[first, second])?;
        let mut parts = [&header[..], first, second].map(io::IoSlice::new);
        let size = parts.iter().map(|part| part.len()).sum();
        let written = if size <= COPIED_BYTES {
            self.buffer.clear();
            parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
            (&*self.file).write_all(&self.buffer)
        } else {
            write_all_parts(&self.file, &mut parts)
        };
        self.appended(size, written)
    }

    fn appended(&mut self, size: usize, written: io::Result<()>) -> Result<u64> {
        written.map_err(|source| disk::io(&self.path, source))?;
        self.size_bytes += size as u64;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        Ok(size as u64)
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| disk::io(&self.path, source))
    }
}

#[cfg(feature = "rocksdb")]
fn write_all_parts(mut file: &File, mut parts: &mut [io::IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => io::IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn record_header(number: u64, payload: &[&[u8]]) -> Result<[u8; RECORD_HEADER_BYTES]> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).map_err(|_| too_large(length))?.to_le_bytes();
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&length);
    header[4..8].copy_from_slice(&crc(number, &[&length]).to_le_bytes());
    header[8..].copy_from_slice(&crc(number, payload).to_le_bytes());
    Ok(header)
}

fn too_large(size: usize) -> Error {
    Error::TooLarge { what: "a batch in the log", size_bytes: size, limit_bytes: u32::MAX as usize }
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number}"))
}

const PREFIX: &str = "log-";

/// The numbers of the logs in `dir`, sorted.
pub(crate) fn numbers(dir: &Path) -> Result<Vec<u64>> {
    disk::numbers(dir, PREFIX)
}

/// Removes the logs before `number`.
pub(crate) fn remove_before(dir: &Path, number: u64) -> Result<()> {
    for old in numbers(dir)?.into_iter().filter(|old| *old < number) {
        let path = path(dir, old);
        std::fs::remove_file(&path).map_err(|source| disk::io(&path, source))?;
    }
    Ok(())
}

fn crc(number: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

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
            return Err(Error::Corrupt { path: path(dir, expected), what });
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
    let path = path(dir, number);
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
    /// Nothing, or a record that was being written when the machine stopped.
    End,
}

impl Replay {
    /// Gives every whole record to `each`; tells the end of the last one.
    fn all(
        &mut self,
        newest: bool,
        each: &mut dyn FnMut(&Place<'_>, Bytes) -> Result<()>,
    ) -> Result<u64> {
        self.header()?;
        while let Found::Record(payload) = self.record()? {
            self.at += (RECORD_HEADER_BYTES + payload.len()) as u64;
            each(&Place { path: &self.path, at: self.at }, payload.into())?;
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
        if crc(self.number, &[length]).to_le_bytes() != sums[..4] {
            return self.end_of_zeros(&header);
        }
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if (length as u64) > left - RECORD_HEADER_BYTES as u64 {
            return Ok(Found::End);
        }
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        if crc(self.number, &[&payload]).to_le_bytes() == sums[4..] {
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

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|source| disk::io(&self.path, source))
    }

    fn corrupt(&self, what: &str) -> Error {
        corrupt(&self.path, self.at, what)
    }
}

#[cfg(all(test, feature = "rocksdb"))]
mod tests {
    use super::*;

    /// Small records are copied into one buffer, large ones are not: both are read as they were written.
    #[test]
    fn records_of_any_size_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), 7).unwrap();
        let records = [vec![], vec![1; 100], vec![2; COPIED_BYTES * 3], vec![3; 5]];
        for record in &records {
            let size = log.append_parts(b"head", record).unwrap();
            assert_eq!(size, (RECORD_HEADER_BYTES + 4 + record.len()) as u64);
        }
        log.append(|payload| payload.extend_from_slice(b"headtail")).unwrap();
        let mut found = Vec::new();
        let end = replay_from(dir.path(), 7, &mut |_, payload| {
            assert_eq!(&payload[..4], b"head");
            found.push(payload[4..].to_vec());
            Ok(())
        });
        let end = end.unwrap().unwrap();
        assert_eq!((end.number, end.size_bytes), (7, log.size_bytes()));
        assert_eq!(found[..4], records);
        assert_eq!(found[4], b"tail");
    }
}
