//! A log's static files over HTTP, as C2SP tlog-tiles names them.
//!
//! One connection, one request after another: nothing but GET, 200 with its length, and 404.

use super::{Refused, unverifiable};
use chronolith_ledger::TILE_WIDTH;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Where a node has its log.
const ROOT: &str = "/tlog/main/";
/// Waiting for longer means that nobody answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest resource: 256 entries of at most 64 KiB by the format.
const ANSWER_BYTES_MAX: usize = 256 * (2 + 65_535);
/// A head is a few hundred bytes.
const HEAD_BYTES_MAX: u64 = 16 << 10;

/// A connection to a server's log.
pub(super) struct Tiles {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Tiles {
    pub(super) fn connect(endpoint: &str) -> Result<Self, Refused> {
        let host = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        let failed = |error: io::Error| unverifiable(&format!("{endpoint}: {error}"));
        let mut addresses = host.to_socket_addrs().map_err(failed)?;
        let address =
            addresses.next().ok_or_else(|| unverifiable(&format!("{endpoint}: no such host")))?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { host: host.to_owned(), stream: BufReader::new(stream) })
    }

    /// A tile or a bundle of entries (`level` 0, 1, … or `entries`) of `width` entries; none where the
    /// server has none.
    pub(super) fn tile(
        &mut self,
        level: &str,
        index: u64,
        width: u64,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let name = chronolith_ledger::tile_path(0, index, width);
        let name = name.strip_prefix("tile/0").expect("every name of level 0 begins with it");
        let path = format!("{ROOT}tile/{level}{name}");
        let answer = self.get(&path);
        answer.map_err(|error| unverifiable(&format!("{}{path}: {error}", self.host)).into())
    }

    fn get(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)?;
        let mut head = self.stream.by_ref().take(HEAD_BYTES_MAX);
        let (mut status, mut length) = (String::new(), None);
        head.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let length = length.filter(|length| *length <= ANSWER_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        match status.split(' ').nth(1) {
            Some("200") => Ok(Some(body)),
            Some("404") => Ok(None),
            _ => Err(io::Error::other(status.trim_end().to_owned())),
        }
    }
}

/// The tiles that a row of `size` entries has: index and width.
pub(super) fn row(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(TILE_WIDTH))
        .map(move |index| (index, TILE_WIDTH.min(size - index * TILE_WIDTH)))
}
