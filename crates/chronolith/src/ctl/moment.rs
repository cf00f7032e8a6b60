//! Moments on the command line and on the screen: revisions, RFC 3339, "10m ago".
//!
//! ```text
//! 42                          a revision
//! 1763739268000               milliseconds since 1970: no store gets to so high a revision
//! 2026-11-21T15:34:28+01:00   RFC 3339; a space for the T, no offset (UTC), no time of day will do
//! 10m ago · -1h30m · now      before now, by this machine's clock
//! ```

use chronolith_proto::history::{Moment as Wire, moment};
use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// From here on a number is milliseconds: this is September 2001, and as a revision it takes eleven days
/// of a million writes a second.
const FIRST_MS: u64 = 1_000_000_000_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// A moment of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A revision.
    Revision(i64),
    /// Milliseconds since 1970.
    TimeMs(u64),
}

impl Moment {
    /// As the requests carry it.
    pub(crate) fn wire(self) -> Wire {
        let at = match self {
            Self::Revision(revision) => moment::At::Revision(revision),
            Self::TimeMs(time_ms) => moment::At::TimeMs(time_ms),
        };
        Wire { at: Some(at) }
    }

    fn parse(text: &str, now_ms: u64) -> Result<Self, String> {
        if let Ok(number) = text.parse::<u64>() {
            return match i64::try_from(number) {
                _ if number >= FIRST_MS => Ok(Self::TimeMs(number)),
                Ok(revision) if revision > 0 => Ok(Self::Revision(revision)),
                _ => Err("revisions begin with 1".to_owned()),
            };
        }
        if text == "now" {
            return Ok(Self::TimeMs(now_ms));
        }
        let before = text.strip_prefix('-').or_else(|| text.strip_suffix("ago"));
        let time_ms = match before {
            Some(length) => duration_ms(length.trim()).map(|length| now_ms.saturating_sub(length)),
            None => rfc3339_ms(text),
        };
        time_ms.map(Self::TimeMs).ok_or_else(|| {
            "write a revision (42), a time (2026-11-21T15:34:28Z), milliseconds since 1970, or how \
             long ago (\"10m ago\", -1h30m)"
                .to_owned()
        })
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.trim(), now_ms())
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `1h30m`, `500ms`, `2d`: at least one part, each with its unit.
fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let unit_ms = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            "w" => 7 * 24 * 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

fn rfc3339_ms(text: &str) -> Option<u64> {
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, time) = text.split_at(10);
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let days = days_since_1970(year, month, day);
    // A day that does not exist comes back as another one.
    if parts.next().is_some() || date_of(days) != (year, month, day) {
        return None;
    }
    let in_day = match time.strip_prefix(['T', 't', ' ']) {
        Some(time) => time_of_day_ms(time)?,
        None if time.is_empty() => 0,
        None => return None,
    };
    u64::try_from(days * DAY_MS + in_day).ok()
}

/// `hh:mm[:ss[.fff]]` and an offset, as milliseconds in UTC; negative or past the day's end where the
/// offset leads to a neighbouring day.
fn time_of_day_ms(text: &str) -> Option<i64> {
    let (clock, offset_minutes) = match text.find(['Z', 'z', '+', '-']) {
        None => (text, 0),
        Some(at) if text[at..].eq_ignore_ascii_case("z") => (&text[..at], 0),
        Some(at) => {
            let (hours, minutes) = text[at + 1..].split_once(':')?;
            let minutes = digits(hours, 2)? * 60 + digits(minutes, 2)?;
            (&text[..at], if text[at..].starts_with('-') { -minutes } else { minutes })
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    let in_range = hour < 24 && minute < 60 && second < 61 && offset_minutes.abs() < 24 * 60;
    if parts.next().is_some() || !in_range || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + millis)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant's `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant's `civil_from_days`).
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn rfc3339(time_ms: u64) -> String {
    let days = time_ms / DAY_MS.unsigned_abs();
    let in_day = time_ms % DAY_MS.unsigned_abs();
    let (year, month, day) = date_of(days.cast_signed());
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_763_739_268_123;

    fn parsed(text: &str) -> Option<Moment> {
        Moment::parse(text, NOW).ok()
    }

    #[test]
    fn small_numbers_are_revisions_and_large_ones_milliseconds() {
        assert_eq!(parsed("42"), Some(Moment::Revision(42)));
        assert_eq!(parsed("1763739268123"), Some(Moment::TimeMs(NOW)));
        assert_eq!(parsed("0"), None);
    }

    #[test]
    fn times_are_rfc_3339_or_shorter() {
        for text in [
            "2025-11-21T15:34:28.123Z",
            "2025-11-21 15:34:28.123",
            "2025-11-21T16:34:28.1234+01:00",
            "2025-11-20T23:34:28.123-16:00",
        ] {
            assert_eq!(parsed(text), Some(Moment::TimeMs(NOW)), "{text}");
        }
        assert_eq!(parsed("2025-11-21"), Some(Moment::TimeMs(1_763_683_200_000)));
        assert_eq!(parsed("2025-11-21T15:34Z"), Some(Moment::TimeMs(1_763_739_240_000)));
    }

    #[test]
    fn how_long_ago_counts_back_from_now() {
        assert_eq!(parsed("10m ago"), Some(Moment::TimeMs(NOW - 600_000)));
        assert_eq!(parsed("-1h30m"), Some(Moment::TimeMs(NOW - 5_400_000)));
        assert_eq!(parsed("2d ago"), Some(Moment::TimeMs(NOW - 172_800_000)));
        assert_eq!(parsed("now"), Some(Moment::TimeMs(NOW)));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "-",
            "ago",
            "10",
            "yesterday",
            "10x ago",
            "2025-02-29",
            "2025-13-01",
            "2025-11-21T25:00Z",
            "2025-11-21T10:00+1",
            "2025-11-21X10:00",
            "1969-12-31",
            "2025-11-21T10:00:00.5x",
            "é025-11-21",
        ] {
            let expected = (text == "10").then_some(Moment::Revision(10));
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for days in (0..200_000).step_by(97) {
            let time_ms = days * 86_400_000 + days * 7 % 86_400_000;
            let text = rfc3339(time_ms);
            assert_eq!(parsed(&text).map(|_| rfc3339_ms(&text)), Some(Some(time_ms)), "{text}");
        }
        assert_eq!(rfc3339(NOW), "2025-11-21T15:34:28.123Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
