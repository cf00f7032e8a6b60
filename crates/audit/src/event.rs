//! One event: who did what, when, and what came of it. A line of JSON.
//!
//! ```text
//! request ──Operations (borrowed bytes)──► Event::describe(level) ──► Event ──► one line, ≤ 64 KiB
//! ```
//! * A field that is unknown is absent. Keys that are UTF-8 are strings, all others `…_base64`.
//! * Who sends a request chooses keys, user agent and request id: each is cut at a stated size, and the
//!   line says so (`truncated`).

use crate::Level;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chronolith_ledger::{SALT_BYTES, value_digest};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt::Write as _};

/// The longest line, without its newline: one entry of a tlog is at most this long.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// A longer key is cut: metadata that is longer than its request helps nobody.
pub const MAX_KEY_BYTES: usize = 4 << 10;
/// Operations listed of one transaction: etcd's own limit on them.
pub const MAX_TARGETS: usize = 128;
/// Keys listed of one transaction, all together.
pub const MAX_TARGET_BYTES: usize = 16 << 10;
/// Values shown of one event at level `request-with-values`, all together.
pub const MAX_VALUE_BYTES: usize = 16 << 10;
/// Texts that a client chooses: user agent, request id, error.
pub const MAX_TEXT_BYTES: usize = 512;

/// What a call is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Looks only.
    #[default]
    Read,
    /// Changes keys.
    Write,
    /// Subscribes.
    Watch,
    /// Grants, keeps or ends a lease.
    Lease,
    /// Runs the server or the cluster.
    Admin,
    /// Users, roles, tokens.
    Auth,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    #[default]
    Ok,
    /// The server said no: rights, limits, an alarm, an invalid request.
    Denied,
    /// It was tried, and went wrong or was broken off. It may have had an effect.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Denied, Self::Failed];
}

/// What one operation of a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Reads keys.
    Get,
    /// Sets a key.
    Put,
    /// Deletes keys.
    Delete,
    /// Watches keys.
    Watch,
}

/// One operation of a request, as the request has it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What it does.
    pub action: Action,
    /// The key, or the first of a range.
    pub key: Bytes,
    /// Empty for one key; else as etcd reads it.
    pub range_end: Bytes,
    /// What is put.
    pub value: Option<Bytes>,
}

impl Operation {
    /// One that concerns all keys that begin with `prefix`.
    pub fn under(action: Action, prefix: &Bytes) -> Self {
        let range_end = prefix_end(prefix).map_or(Bytes::from_static(&[0]), Bytes::from);
        Self { action, key: prefix.clone(), range_end, value: None }
    }

    /// Whether it may touch a key that begins with `prefix`.
    pub fn touches(&self, prefix: &[u8]) -> bool {
        touches(prefix, &self.key, &self.range_end)
    }

    /// Whether everything that it may touch begins with `prefix`.
    pub fn is_within(&self, prefix: &[u8]) -> bool {
        if !self.key.starts_with(prefix) {
            return false;
        }
        match &self.range_end[..] {
            [] => true,
            [0] => prefix.is_empty(),
            end => match prefix_end(prefix) {
                None => true,
                Some(limit) => end <= &limit[..],
            },
        }
    }
}

/// Whether `[key, range_end)`, as etcd reads it, and the keys under `prefix` have one in common.
pub(crate) fn touches(prefix: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    if range_end.is_empty() {
        return key.starts_with(prefix);
    }
    let begins_before_its_end = prefix_end(prefix).is_none_or(|limit| key < &limit[..]);
    begins_before_its_end && (range_end == [0] || (prefix < range_end && key < range_end))
}

/// The first key behind all that begin with `prefix`; none if there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// An operation as an event lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// See [`Event::key`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// See [`Event::key_base64`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_base64: String,
    /// See [`Event::range_end`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_end: String,
    /// See [`Event::range_end_base64`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_end_base64: String,
    /// Length of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// SHA-256 over the audit log's salt and the value, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value_digest: String,
    /// The value, at level `request-with-values` only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The same where it is not UTF-8.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value_base64: String,
}

/// One line of the audit log.
///
/// ```
/// use chronolith_audit::{Class, Event};
/// let event = Event { seq: 7, class: Class::Write, ..Event::new("Put", Class::Write) };
/// let line = serde_json::to_string(&event).unwrap();
/// assert_eq!(line, r#"{"seq":7,"time_ms":0,"call":"Put","class":"write","outcome":"ok"}"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Its number; the log gives it, from 1 on and without gaps.
    pub seq: u64,
    /// When it was recorded, in milliseconds since 1970; never less than in the line before.
    pub time_ms: u64,
    /// The member that recorded it, in hex; the log fills it in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub member: String,
    /// The client's `x-request-id`, or one that the server made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The user's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The user's roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Common name of the client's certificate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_cn: String,
    /// The client's address and port, as the socket has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// How the user was authenticated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// What the client says it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The method's name, or one of the log's own: see [`own`].
    pub call: Cow<'static, str>,
    /// What kind of call.
    pub class: Class,
    /// The key, or the first of a range; of a transaction, that of its first operation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The key in base64 where it is not UTF-8.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_base64: String,
    /// End of a range, not included; `"\u0000"` is the end of all keys.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_end: String,
    /// The same in base64 where it is not UTF-8.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_end_base64: String,
    /// Operations of the request; of a stream, its messages; of an answer, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<u64>,
    /// The operations, where they are more than one or the level asks for their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Something was too long for the line and was cut or left out.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// The lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<i64>,
    /// Bytes of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether the comparisons of a transaction held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<bool>,
    /// The revision that a change was made on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_revision: Option<i64>,
    /// The revision afterwards: that of the change, if it changed something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// What came of it.
    pub outcome: Outcome,
    /// The gRPC code where it is not OK.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub code: Cow<'static, str>,
    /// The text that the client was answered with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// From the request's head to this event, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// The actor reference in the data log's entry, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// How much the policy had recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What a person gave as reason, or what the log says about itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of a gap: events that were dropped here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Of a retention: the last event that was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_through: Option<u64>,
    /// Of a segment: SHA-256 of the salt, in hex. Says whether the salt beside the log is the one it used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub salt_digest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The calls of events that the log and the server make of themselves.
pub mod own {
    /// The server began.
    pub const START: &str = "ServerStart";
    /// The server ended in order.
    pub const STOP: &str = "ServerStop";
    /// Settings that concern the audit trail, at the start and when they change.
    pub const CONFIG: &str = "AuditConfig";
    /// First event of each file.
    pub const SEGMENT: &str = "AuditSegment";
    /// Old files were removed.
    pub const RETENTION: &str = "AuditRetention";
    /// Events were dropped here.
    pub const GAP: &str = "AuditGap";
    /// An unfinished line was removed after a crash.
    pub const REPAIR: &str = "AuditRepair";
    /// All of them.
    pub const ALL: [&str; 7] = [START, STOP, CONFIG, SEGMENT, RETENTION, GAP, REPAIR];
}

impl Event {
    /// An event of `call`, with nothing else known. The log fills in number, time and member.
    pub fn new(call: impl Into<Cow<'static, str>>, class: Class) -> Self {
        Self { call: call.into(), class, ..Self::default() }
    }

    /// Says what was asked for, as far as `level` wants it said.
    pub fn describe(&mut self, operations: &[Operation], level: Level, salt: &[u8; SALT_BYTES]) {
        self.level = Some(level);
        let Some(first) = operations.first() else { return };
        (self.key, self.key_base64) = self.shown(&first.key, MAX_KEY_BYTES);
        (self.range_end, self.range_end_base64) = self.shown(&first.range_end, MAX_KEY_BYTES);
        if operations.len() > 1 {
            self.ops = Some(operations.len() as u64);
        }
        let with_values = level >= Level::Request && operations.iter().any(|op| op.value.is_some());
        if operations.len() > 1 || with_values {
            self.list(operations, level, salt);
        }
    }

    fn list(&mut self, operations: &[Operation], level: Level, salt: &[u8; SALT_BYTES]) {
        let mut keys_left = MAX_TARGET_BYTES;
        let mut values_left = MAX_VALUE_BYTES;
        for operation in operations {
            if self.targets.len() == MAX_TARGETS || keys_left == 0 {
                self.truncated = true;
                return;
            }
            let (key, key_base64) = self.shown(&operation.key, keys_left.min(MAX_KEY_BYTES));
            keys_left = keys_left.saturating_sub(operation.key.len());
            let (range_end, range_end_base64) =
                self.shown(&operation.range_end, keys_left.min(MAX_KEY_BYTES));
            keys_left = keys_left.saturating_sub(operation.range_end.len());
            let action = Some(operation.action);
            let mut target = Target {
                action,
                key,
                key_base64,
                range_end,
                range_end_base64,
                ..Target::default()
            };
            if let (Some(value), true) = (&operation.value, level >= Level::Request) {
                target.value_bytes = Some(value.len() as u64);
                target.value_digest = hex(&value_digest(salt, value));
                if level == Level::RequestWithValues {
                    (target.value, target.value_base64) = self.shown(value, values_left);
                    values_left = values_left.saturating_sub(value.len());
                }
            }
            self.targets.push(target);
        }
    }

    /// Bytes as a string, or in base64 where they are none; cut at `limit`.
    fn shown(&mut self, bytes: &[u8], limit: usize) -> (String, String) {
        let cut = &bytes[..bytes.len().min(limit)];
        self.truncated |= cut.len() < bytes.len();
        match str::from_utf8(cut) {
            Ok(text) => (text.to_owned(), String::new()),
            Err(_) => (String::new(), BASE64_STANDARD.encode(cut)),
        }
    }

    /// Whether it may have touched a key that begins with `prefix`.
    pub fn touches(&self, prefix: &[u8]) -> bool {
        if !self.targets.is_empty() {
            return self.targets.iter().any(|target| {
                let key = bytes_of(&target.key, &target.key_base64);
                touches(prefix, &key, &bytes_of(&target.range_end, &target.range_end_base64))
            });
        }
        let key = bytes_of(&self.key, &self.key_base64);
        let range_end = bytes_of(&self.range_end, &self.range_end_base64);
        // A call that names no key touches none, whatever the prefix.
        !(key.is_empty() && range_end.is_empty()) && touches(prefix, &key, &range_end)
    }

    /// Appends the line, without its newline. What does not fit into a line is left out, and said so.
    pub(crate) fn write_line(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        for shorten in [Self::keep_all, Self::drop_targets, Self::drop_texts] {
            shorten(self);
            out.truncate(start);
            serde_json::to_writer(&mut *out, self).expect("strings and numbers are always JSON");
            if out.len() - start <= MAX_LINE_BYTES {
                return;
            }
        }
        unreachable!("a line of numbers and short texts fits");
    }

    fn keep_all(&mut self) {}

    fn drop_targets(&mut self) {
        self.targets.clear();
        self.truncated = true;
    }

    /// A control character takes six characters in JSON, so that even short texts may not fit together.
    fn drop_texts(&mut self) {
        for text in [
            &mut self.key,
            &mut self.key_base64,
            &mut self.range_end,
            &mut self.range_end_base64,
            &mut self.request_id,
            &mut self.user,
            &mut self.cert_cn,
            &mut self.address,
            &mut self.auth,
            &mut self.user_agent,
            &mut self.error,
            &mut self.actor,
            &mut self.reason,
        ] {
            cut_text(text, MAX_TEXT_BYTES);
        }
        self.roles.clear();
        self.call = cut_owned(&self.call);
        self.code = cut_owned(&self.code);
    }
}

fn cut_owned(text: &str) -> Cow<'static, str> {
    let mut text = text.to_owned();
    cut_text(&mut text, MAX_TEXT_BYTES);
    text.into()
}

/// Cuts a text at a character's end, so that it has at most `limit` bytes.
pub(crate) fn cut_text(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
}

fn bytes_of<'a>(text: &'a str, base64: &str) -> Cow<'a, [u8]> {
    match base64.is_empty() {
        true => Cow::Borrowed(text.as_bytes()),
        // Whoever wrote something else into the file is found by verification, not here.
        false => Cow::Owned(BASE64_STANDARD.decode(base64).unwrap_or_default()),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(key: &[u8], range_end: &[u8]) -> Operation {
        Operation {
            action: Action::Put,
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(range_end),
            value: Some(Bytes::from_static(b"secret")),
        }
    }

    fn described(operations: &[Operation], level: Level) -> Event {
        let mut event = Event::new("Txn", Class::Write);
        event.describe(operations, level, &[7; 16]);
        event
    }

    #[test]
    fn a_range_touches_a_prefix_that_it_reaches_into_and_lies_within_one_that_holds_it() {
        for (key, end, touches, within) in [
            ("a/1", "", true, true),
            ("b", "", false, false),
            ("a/", "a0", true, true),
            ("a/1", "a/2", true, true),
            ("a", "b", true, false),
            ("a/1", "b", true, false),
            ("a0", "b", false, false),
            ("", "\0", true, false),
            ("a/5", "\0", true, false),
            ("b", "\0", false, false),
            ("A", "a/", false, false),
        ] {
            let op = op(key.as_bytes(), end.as_bytes());
            assert_eq!(op.touches(b"a/"), touches, "{key:?} to {end:?}");
            assert_eq!(op.is_within(b"a/"), within, "{key:?} to {end:?}");
            assert!(op.touches(b"") && op.is_within(b""), "{key:?} to {end:?}");
        }
        assert!(op(b"\xff\xff1", b"\0").touches(b"\xff\xff"));
        assert!(!op(b"\xff\xfe", b"\xff\xff").touches(b"\xff\xff"));
    }

    #[test]
    fn values_are_digests_unless_the_level_asks_for_them() {
        assert!(described(&[op(b"k", b"")], Level::Metadata).targets.is_empty());
        let digests = described(&[op(b"k", b"")], Level::Request);
        assert_eq!(digests.targets[0].value_digest, hex(&value_digest(&[7; 16], b"secret")));
        assert!(!serde_json::to_string(&digests).unwrap().contains("secret"));
        let values = described(&[op(b"k", b"")], Level::RequestWithValues);
        assert_eq!(values.targets[0].value, "secret");
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_and_are_found_by_prefix() {
        let event = described(&[op(b"\xff\x01", b"")], Level::Metadata);
        assert_eq!((event.key.as_str(), event.key_base64.as_str()), ("", "/wE="));
        assert!(event.touches(b"\xff") && !event.touches(b"a"));
    }

    #[test]
    fn a_line_fits_whatever_a_client_sends() {
        let nasty = op(&[1; 1 << 20], &[2; 1 << 20]);
        let mut event = described(&vec![nasty; 1000], Level::RequestWithValues);
        event.user_agent = "\u{1}".repeat(MAX_LINE_BYTES);
        let mut line = Vec::new();
        event.write_line(&mut line);
        assert!(line.len() <= MAX_LINE_BYTES);
        let read: Event = serde_json::from_slice(&line).unwrap();
        assert!(read.truncated);
        assert_eq!(read.ops, Some(1000));
    }
}
