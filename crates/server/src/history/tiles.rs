//! The log as C2SP tlog-tiles: static paths that any tlog client reads, and that caches may keep.
//!
//! ```text
//! /tlog/main/checkpoint                   the newest signed note; never cached
//! /tlog/main/log.vkey                     the public key, name+id+key
//! /tlog/main/tile/<L>/<N>[.p/<W>]         32 bytes an entry
//! /tlog/main/tile/entries/<N>[.p/<W>]     length 2, entry 70, …
//! ```
//! N is in groups of three digits, all but the last behind an x: x001/x234/067. A path in another form
//! names nothing. What a tile holds never changes, so it may be cached for ever.

use super::desk::{ask, covering};
use crate::{
    node::Node,
    plain::{TEXT, page, status_page},
    status::Status,
};
use bytes::Bytes;
use chronolith_ledger::TILE_WIDTH;
use http::{HeaderValue, Response, StatusCode, header::CACHE_CONTROL};

/// Where the log of this node's only history is.
pub(crate) const ROOT: &str = "/tlog/main/";
const OCTETS: &str = "application/octet-stream";
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=604800, immutable");
const NEVER: HeaderValue = HeaderValue::from_static("no-store");

/// One resource of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Checkpoint,
    Key,
    Tile { level: u8, index: u64, width: u16 },
    Entries { index: u64, width: u16 },
}

impl Resource {
    /// The resource that a path below [`ROOT`] names.
    fn of_path(path: &str) -> Option<Self> {
        match path {
            "checkpoint" => return Some(Self::Checkpoint),
            "log.vkey" => return Some(Self::Key),
            _ => {}
        }
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (index, width) = match rest.split_once(".p/") {
            None => (index(rest)?, TILE_WIDTH),
            Some((rest, width)) => {
                (index(rest)?, decimal(width).filter(|width| *width < TILE_WIDTH)?)
            }
        };
        let width = u16::try_from(width).ok().filter(|width| *width > 0)?;
        match level {
            "entries" => Some(Self::Entries { index, width }),
            level => {
                // 256^8 leaves are more than there can be; the format has levels up to 63.
                let level = decimal(level).and_then(|level| u8::try_from(level).ok());
                level.filter(|level| *level < 64).map(|level| Self::Tile { level, index, width })
            }
        }
    }
}

/// A number in plain decimal.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// `x001/x234/067` is 1234067.
fn index(text: &str) -> Option<u64> {
    let mut number = 0u64;
    let mut groups = text.split('/').peekable();
    let is_short = !text.contains('/');
    while let Some(group) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    // A leading group of zeros would be a second name for the same tile.
    (is_short || !text.starts_with("x000")).then_some(number)
}

/// Answers a GET below [`ROOT`].
pub(crate) async fn answer(node: &Node, path: &str) -> Response<Bytes> {
    let resource = path.strip_prefix(ROOT).and_then(Resource::of_path);
    let Some(resource) = resource else { return nothing() };
    match read(node, resource).await {
        Ok(Some(bytes)) => {
            let (kind, cached) = match resource {
                Resource::Checkpoint | Resource::Key => (TEXT, NEVER),
                Resource::Tile { .. } | Resource::Entries { .. } => (OCTETS, FOR_EVER),
            };
            let mut response = page(StatusCode::OK, kind, bytes);
            response.headers_mut().insert(CACHE_CONTROL, cached);
            response
        }
        Ok(None) => nothing(),
        Err(status) => status_page(&status),
    }
}

async fn read(node: &Node, resource: Resource) -> Result<Option<Bytes>, Status> {
    let _admitted = node.admit()?;
    match resource {
        Resource::Checkpoint => newest_checkpoint(node).await.map(Some),
        Resource::Key => {
            ask(node, |history| Ok(Some(format!("{}\n", history.verifier_key()).into()))).await
        }
        Resource::Tile { level, index, width } => {
            ask(node, move |history| history.tile(level, index, width)).await
        }
        Resource::Entries { index, width } => {
            ask(node, move |history| history.entries(index, width)).await
        }
    }
}

/// The newest that is signed already; only of a log that has none is one made.
async fn newest_checkpoint(node: &Node) -> Result<Bytes, Status> {
    let note = match ask(node, |history| history.newest_checkpoint()).await? {
        Some(note) => note,
        None => covering(node, 1).await?.note,
    };
    Ok(note.to_string().into())
}

fn nothing() -> Response<Bytes> {
    page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_ledger_writes_them_and_in_no_other_form() {
        for (index, width) in [(0, 256), (5, 17), (999, 1), (1_000, 256), (1_234_067, 255)] {
            let path = chronolith_ledger::tile_path(3, index, width);
            let expected = Resource::Tile { level: 3, index, width: width as u16 };
            assert_eq!(Resource::of_path(&path), Some(expected), "{path}");
        }
        let entries = Resource::Entries { index: 1_067, width: 256 };
        assert_eq!(Resource::of_path("tile/entries/x001/067"), Some(entries));
        for path in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/5",
            "tile/0/0005",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/00/001",
            "tile/64/001",
            "tile/-1/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/",
            "tile/0/+01",
            "checkpoint/",
            "state",
            "../log.key",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Resource::of_path(path), None, "{path}");
        }
    }
}
