//! Reading events back: by time, user, key, call and outcome, in pages.
//!
//! ```text
//! names of the files + first time of each ─▶ the files that may have some ─▶ halving ─▶ lines ─▶ filter
//! ```
//! A page ends when it is full, or when enough was looked at: a filter that finds nothing in a large log
//! answers in steps, each with the number to go on from, and holds nobody up.

use crate::{
    AuditLog, Error, Event, Outcome, Result,
    segment::{self, Segment},
};
use std::path::Path;

/// Events of a page, unless it asks for fewer.
pub const PAGE_EVENTS: usize = 1_000;
/// The most events of a page.
pub const MAX_PAGE_EVENTS: usize = 10_000;
/// Bytes of a page's events: a gRPC client takes 4 MiB by default.
pub const MAX_PAGE_BYTES: usize = 3 << 20;
/// Bytes that are looked at for one page: less than half a second.
pub const MAX_LOOKED_AT_BYTES: u64 = 64 << 20;

/// Which events are wanted. What is empty or 0 is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Not before this, in milliseconds since 1970.
    pub from_ms: u64,
    /// Not after this; 0 is now.
    pub to_ms: u64,
    /// Of this user.
    pub user: String,
    /// That may have touched a key which begins like this.
    pub key_prefix: Vec<u8>,
    /// Of this call.
    pub call: String,
    /// Only those that were denied or failed.
    pub only_failed: bool,
    /// Events of the page; 0 is [`PAGE_EVENTS`].
    pub limit: usize,
    /// Behind this event: the `last_sequence` of the page before.
    pub after_sequence: u64,
}

/// Some events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Their lines.
    pub events: Vec<String>,
    /// The last event that was looked at, found or not.
    pub last_sequence: u64,
    /// There is more to look at.
    pub more: bool,
}

impl Query {
    /// Whether an event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        event.seq > self.after_sequence
            && event.time_ms >= self.from_ms
            && (self.to_ms == 0 || event.time_ms <= self.to_ms)
            && (self.user.is_empty() || event.user == self.user)
            && (self.call.is_empty() || event.call == self.call)
            && (!self.only_failed || event.outcome != Outcome::Ok)
            && (self.key_prefix.is_empty() || event.touches(&self.key_prefix))
    }

    fn is_behind(&self, time_ms: u64) -> bool {
        self.to_ms != 0 && time_ms > self.to_ms
    }

    fn page_events(&self) -> usize {
        if self.limit == 0 { PAGE_EVENTS } else { self.limit.min(MAX_PAGE_EVENTS) }
    }
}

impl AuditLog {
    /// Events as [`query`] finds them, all that were recorded before the call among them. Blocks.
    pub fn query(&self, wanted: &Query) -> Result<Page> {
        self.flush();
        query(self.dir(), wanted)
    }
}

/// A page of the events in a directory, of a log that is being written or not. Blocks.
pub fn query(dir: &Path, wanted: &Query) -> Result<Page> {
    let segments = segment::list(dir)?;
    let mut page = Page { last_sequence: wanted.after_sequence, ..Page::default() };
    let mut budget = Budget { events: wanted.page_events(), bytes: MAX_PAGE_BYTES, looked_at: 0 };
    for (segment, next) in relevant(&segments, wanted)? {
        match look_at(segment, next, wanted, &mut page, &mut budget) {
            Ok(true) => {}
            Ok(false) => break,
            // Retention took it since it was listed.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// What is left for this page.
struct Budget {
    events: usize,
    bytes: usize,
    looked_at: u64,
}

/// The files that may hold some, each with whether there is one behind it.
fn relevant<'a>(
    segments: &'a [Segment],
    wanted: &Query,
) -> Result<impl Iterator<Item = (&'a Segment, bool)>> {
    let mut from = segments.partition_point(|segment| segment.first <= wanted.after_sequence + 1);
    if wanted.from_ms > 0 {
        let mut late = segments.len();
        let mut early = 0;
        while early < late {
            let middle = early + (late - early) / 2;
            match segments[middle].first_time_ms() {
                Ok(Some(time_ms)) if time_ms < wanted.from_ms => early = middle + 1,
                _ => late = middle,
            }
        }
        from = from.max(early);
    }
    let from = from.saturating_sub(1);
    let last = segments.len();
    Ok(segments[from..]
        .iter()
        .enumerate()
        .map(move |(at, segment)| (segment, from + at + 1 < last)))
}

/// Adds what is wanted of one file; false when the page is complete.
fn look_at(
    segment: &Segment,
    has_next: bool,
    wanted: &Query,
    page: &mut Page,
    budget: &mut Budget,
) -> Result<bool> {
    let start = segment
        .seek(|place| place.seq <= wanted.after_sequence || place.time_ms < wanted.from_ms)?;
    let size_bytes = segment.size_bytes()?;
    let mut lines = segment.lines(start)?;
    loop {
        let Some(line) = lines.next_line()? else { return Ok(true) };
        // A line that is no event is verification's to find; it is not shown as one.
        let Some(event) = segment::event_of(line) else { continue };
        if event.seq <= wanted.after_sequence {
            continue;
        }
        if wanted.is_behind(event.time_ms) {
            return Ok(false);
        }
        if wanted.matches(&event) {
            if budget.events == 0 || line.len() > budget.bytes {
                page.more = true;
                return Ok(false);
            }
            (budget.events, budget.bytes) = (budget.events - 1, budget.bytes - line.len());
            page.events.push(String::from_utf8_lossy(line).into_owned());
        }
        page.last_sequence = event.seq;
        budget.looked_at += line.len() as u64 + 1;
        if budget.looked_at >= MAX_LOOKED_AT_BYTES && (lines.offset < size_bytes || has_next) {
            page.more = true;
            return Ok(false);
        }
    }
}
