//! A view as a file, and back.
//!
//! ```text
//! DIR/state:  magic(8)  block*  end
//! block:      length u32 · crc32 u32 · payload         little endian; the CRC covers length and payload
//! payload:    column u32 · (key length u32 · value length u32 · key · value)*
//! first block holds the column names: (length u32 · name)*; the end block holds the count of records.
//! ```
//! The directory appears under its name only when it is complete and synced: it is written beside it
//! and renamed. So a file without its end block is damage, not an interrupted write.

use super::{record::Record, view::View};
use crate::{ColumnId, Error, Result, disk};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"CHRMEM\x00\x01";
const FILE_NAME: &str = "state";
/// Records are gathered into blocks of this size: large enough that CRC and framing cost nothing,
/// small enough that damage is located.
const BLOCK_BYTES: usize = 256 << 10;
/// Marks the end block; no column has this number.
const END: u32 = u32::MAX;
/// Marks the block of column names.
const NAMES: u32 = u32::MAX - 1;

/// Writes `view` into the new directory `dir`, synced.
pub(crate) fn write(view: &View, dir: &Path) -> Result<()> {
    disk::create_dir_whole(dir, |partial| {
        let path = partial.join(FILE_NAME);
        let file = File::create_new(&path).map_err(|source| disk::io(&path, source))?;
        let mut out = Writer { out: BufWriter::with_capacity(BLOCK_BYTES, file), records: 0 };
        out.view(view).and_then(|()| out.finish()).map_err(|source| disk::io(&path, source))
    })
}

/// Whether [`write()`] wrote `dir`, or it is a copy of such a directory.
pub(crate) fn is_one(dir: &Path) -> bool {
    dir.join(FILE_NAME).exists()
}

/// Makes the state in `from` that of the new directory `dir` instead, without copying it.
pub(crate) fn take_over(from: &Path, dir: &Path) -> Result<()> {
    let state = from.join(FILE_NAME);
    if !dir.exists() {
        disk::create_dir_whole(dir, |partial| {
            let linked = std::fs::hard_link(&state, partial.join(FILE_NAME));
            linked.map_err(|source| disk::io(&state, source))
        })?;
    }
    std::fs::remove_file(&state).map_err(|source| disk::io(&state, source))
}

/// Reads what [`write()`] wrote.
pub(crate) fn read(dir: &Path) -> Result<View> {
    let path = dir.join(FILE_NAME);
    let file = File::open(&path).map_err(|source| disk::io(&path, source))?;
    let left = file.metadata().map_err(|source| disk::io(&path, source))?.len();
    let input = BufReader::with_capacity(BLOCK_BYTES, file);
    Reader { input, left, path, view: View::default(), records: 0, block: Vec::new() }.view()
}

struct Writer {
    out: BufWriter<File>,
    records: u64,
}

impl Writer {
    fn view(&mut self, view: &View) -> std::io::Result<()> {
        self.out.write_all(MAGIC)?;
        let mut block = start(NAMES);
        for column in view.columns() {
            push_length(&mut block, column.name.len());
            block.extend_from_slice(column.name.as_bytes());
        }
        self.block(&block)?;
        for (number, column) in view.columns().iter().enumerate() {
            self.column(u32::try_from(number).expect("fewer columns"), &column.records)?;
        }
        let mut end = start(END);
        end.extend_from_slice(&self.records.to_le_bytes());
        self.block(&end)
    }

    fn column(&mut self, number: u32, records: &imbl::OrdSet<Record>) -> std::io::Result<()> {
        let mut block = start(number);
        for record in records {
            push_length(&mut block, record.key().len());
            push_length(&mut block, record.value().len());
            block.extend_from_slice(record.key());
            block.extend_from_slice(record.value());
            self.records += 1;
            if block.len() >= BLOCK_BYTES {
                self.block(&block)?;
                block.truncate(size_of::<u32>());
            }
        }
        if block.len() > size_of::<u32>() { self.block(&block) } else { Ok(()) }
    }

    fn block(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let length =
            u32::try_from(payload.len()).expect("keys and values are limited").to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&crc(&length, payload).to_le_bytes())?;
        self.out.write_all(payload)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()
    }
}

fn start(kind: u32) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES + (BLOCK_BYTES >> 4));
    block.extend_from_slice(&kind.to_le_bytes());
    block
}

fn push_length(block: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("keys and values are limited to 2^30 bytes");
    block.extend_from_slice(&length.to_le_bytes());
}

fn crc(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

struct Reader {
    input: BufReader<File>,
    /// Bytes not read yet: a damaged length must not become an allocation.
    left: u64,
    path: PathBuf,
    view: View,
    records: u64,
    block: Vec<u8>,
}

impl Reader {
    fn view(mut self) -> Result<View> {
        let mut magic = [0; MAGIC.len()];
        self.fill(&mut magic)?;
        if &magic != MAGIC {
            return Err(self.corrupt("it does not begin as a memory engine's checkpoint"));
        }
        while self.block()? {}
        let mut after = [0; 1];
        match self.input.read(&mut after) {
            Ok(0) => Ok(self.view),
            Ok(_) => Err(self.corrupt("something follows its end")),
            Err(source) => Err(disk::io(&self.path, source)),
        }
    }

    /// Reads one block; false after the end block.
    fn block(&mut self) -> Result<bool> {
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let (length, sum) = head.split_at(4);
        let size = read_u32(length) as usize;
        if !(4..=self.left).contains(&(size as u64)) {
            return Err(self.corrupt("a block has an impossible length"));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(size, 0);
        self.fill(&mut block)?;
        if crc(length, &block) != read_u32(sum) {
            return Err(self.corrupt("a block's checksum differs"));
        }
        let more = self.payload(&block);
        self.block = block;
        more
    }

    fn payload(&mut self, block: &[u8]) -> Result<bool> {
        let (kind, body) = block.split_at(4);
        match read_u32(kind) {
            END => self.end(body).map(|()| false),
            NAMES => self.names(body).map(|()| true),
            column => self.column(ColumnId(column), body).map(|()| true),
        }
    }

    fn end(&self, body: &[u8]) -> Result<()> {
        if body != self.records.to_le_bytes() {
            return Err(self.corrupt("its count of records differs"));
        }
        Ok(())
    }

    fn names(&mut self, mut body: &[u8]) -> Result<()> {
        while !body.is_empty() {
            let length = self.length(&mut body)?;
            let name = self.bytes(&mut body, length)?;
            let name =
                std::str::from_utf8(name).map_err(|_| self.corrupt("a name is not UTF-8"))?;
            self.view.add_column(name);
        }
        Ok(())
    }

    fn column(&mut self, column: ColumnId, mut body: &[u8]) -> Result<()> {
        self.view.records(column).map_err(|_| self.corrupt("a block is of an unnamed column"))?;
        while !body.is_empty() {
            let (key, value) = (self.length(&mut body)?, self.length(&mut body)?);
            let (key, value) = (self.bytes(&mut body, key)?, self.bytes(&mut body, value)?);
            self.view.put(column, Record::new(key, value));
            self.records += 1;
        }
        Ok(())
    }

    fn length(&self, body: &mut &[u8]) -> Result<usize> {
        self.bytes(body, 4).map(|bytes| read_u32(bytes) as usize)
    }

    fn bytes<'b>(&self, body: &mut &'b [u8], length: usize) -> Result<&'b [u8]> {
        let taken = body.split_off(..length);
        taken.ok_or_else(|| self.corrupt("a record is cut short"))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.left = self.left.saturating_sub(buffer.len() as u64);
        self.input.read_exact(buffer).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt("it ends too early"),
            _ => disk::io(&self.path, source),
        })
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), what: what.into() }
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes were taken"))
}
