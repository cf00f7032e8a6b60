//! Files of frames: a magic, then `marker (4) · length (4) · CRC-32 of length and content (4) · content`,
//! little end first. The marker is what a reader looks for to tell a torn end from damage inside.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::faults::{Faults, FileStep};
use crate::error::Error;

const MARKER: [u8; 4] = *b"\xf7Frm";
const HEAD_BYTES: usize = 12;
const MAGIC_BYTES: usize = 8;

/// What a file is, by its first eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Log,
    Segment,
    Catalog,
}

impl Kind {
    fn magic(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Kind::Log => b"CHRSLOG1",
            Kind::Segment => b"CHRSSEG1",
            Kind::Catalog => b"CHRSCAT1",
        }
    }
}

/// A file that frames are appended to.
pub(super) struct FrameFile {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    unsynced: bool,
    faults: Faults,
}

impl FrameFile {
    pub(super) fn create(path: &Path, kind: Kind, faults: &Faults) -> Result<FrameFile, Error> {
        let create = || {
            faults.before(FileStep::Create, path)?;
            let mut file = File::create(path)?;
            file.write_all(kind.magic())?;
            faults.before(FileStep::Sync, path)?;
            file.sync_all().map(|()| file)
        };
        let file = create().map_err(Error::io(format!("create {}", path.display())))?;
        let (size_bytes, faults) = (MAGIC_BYTES as u64, faults.clone());
        Ok(FrameFile { file, path: path.into(), size_bytes, unsynced: false, faults })
    }

    /// Appends one frame. The frame before it is synced first, so that at most one can ever be torn.
    pub(super) fn append(&mut self, content: &[u8]) -> Result<(), Error> {
        self.sync()?;
        let length = (content.len() as u32).to_le_bytes();
        let mut frame = Vec::with_capacity(HEAD_BYTES + content.len());
        frame.extend_from_slice(&MARKER);
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&crc(&length, content).to_le_bytes());
        frame.extend_from_slice(content);
        let before = self.faults.before(FileStep::Write, &self.path);
        let written = before.and_then(|()| self.file.write_all(&frame));
        written.map_err(Error::io(format!("write {}", self.path.display())))?;
        self.size_bytes += frame.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        if self.unsynced {
            let before = self.faults.before(FileStep::Sync, &self.path);
            let synced = before.and_then(|()| self.file.sync_data());
            synced.map_err(Error::io(format!("sync {}", self.path.display())))?;
            self.unsynced = false;
        }
        Ok(())
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

fn crc(length: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(content);
    hasher.finalize()
}

/// A whole file in memory, and where its frames are.
pub(super) struct FrameReader {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    at: usize,
}

/// The end of what can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Exactly after a whole frame.
    Clean,
    /// A frame begins here that is not whole and has no whole one behind it.
    Torn,
}

impl FrameReader {
    pub(super) fn open(path: &Path, kind: Kind) -> Result<FrameReader, Error> {
        let bytes = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
        let reader = FrameReader { path: path.into(), at: MAGIC_BYTES, bytes };
        match reader.bytes.get(..MAGIC_BYTES) {
            Some(magic) if magic == kind.magic() => Ok(reader),
            // Created and never synced: as if it were not there. Only the newest log can be so.
            Some(_) | None if kind == Kind::Log && reader.bytes.len() < MAGIC_BYTES => {
                Ok(FrameReader { at: reader.bytes.len(), ..reader })
            }
            _ => Err(reader.corrupt(0, "its first bytes name no file of this kind")),
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn corrupt(&self, at: usize, what: &str) -> Error {
        Error::Corrupt { file: self.path.clone(), offset: at as u64, what: what.into() }
    }

    /// The content of the next frame, or how the file ends. A damaged frame with a whole one behind it
    /// is no torn tail but damage: an error.
    pub(super) fn next(&mut self) -> Result<Result<&[u8], End>, Error> {
        if self.at == self.bytes.len() {
            return Ok(Err(End::Clean));
        }
        match frame_at(&self.bytes, self.at) {
            Some(end) => {
                let start = self.at + HEAD_BYTES;
                self.at = end;
                Ok(Ok(&self.bytes[start..end]))
            }
            None if self.whole_frame_behind() => {
                Err(self.corrupt(self.at, "a frame does not match its checksum"))
            }
            None => Ok(Err(End::Torn)),
        }
    }

    /// Whether a whole frame starts anywhere behind the damaged one.
    fn whole_frame_behind(&self) -> bool {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let marks = rest.windows(MARKER.len()).enumerate().filter(|(_, bytes)| *bytes == MARKER);
        marks.into_iter().any(|(ahead, _)| frame_at(&self.bytes, self.at + 1 + ahead).is_some())
    }
}

/// Where the frame that starts at `at` ends, if it is whole.
fn frame_at(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at + HEAD_BYTES)?.strip_prefix(&MARKER)?;
    let (length, sum) = head.split_at(4);
    let size = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let end = (at + HEAD_BYTES).checked_add(size)?;
    let content = bytes.get(at + HEAD_BYTES..end)?;
    (crc(length, content) == u32::from_le_bytes(sum.try_into().ok()?)).then_some(end)
}
