//! What is recorded: rules, the first that matches decides.
//!
//! ```text
//! { "rules": [ { "level": "none", "classes": ["read"], "outcomes": ["ok"] },
//!              { "level": "metadata" } ] }
//! ```
//! * A rule matches when each of its conditions holds; a condition that is not given holds always.
//! * A rule that records matches a call that *touches* one of its prefixes. A rule of level `none`
//!   matches only when *everything* that the call touches lies under its prefixes: a delete of all keys
//!   does not hide behind a quiet prefix.
//! * What no rule matches is not recorded.

use crate::{Class, Error, Operation, Outcome, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A policy file larger than this is a mistake: a rule is a hundred bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// How much of a call is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing.
    None,
    /// Who, when, which keys, what came of it.
    Metadata,
    /// Besides, each operation with length and salted digest of its value.
    Request,
    /// Besides, the values, up to a limit.
    RequestWithValues,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens to calls that it matches.
    pub level: Level,
    /// Names of users; a `*` at the end stands for anything. `""` is nobody known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Names of methods, such as `Put`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// Kinds of calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// Beginnings of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_prefixes: Vec<String>,
    /// What came of the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
}

/// The rules, in order.
///
/// ```
/// use chronolith_audit::{Class, Level, Outcome, Policy, Subject};
/// let policy = Policy::default();
/// let read = Subject { user: "", call: "Range", class: Class::Read, operations: &[] };
/// assert_eq!(policy.level(&read, Outcome::Ok), Level::None);
/// assert_eq!(policy.level(&read, Outcome::Denied), Level::Metadata);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Default for Policy {
    /// Everything that changes something or was refused, as metadata; reads and watches that went well,
    /// not.
    fn default() -> Self {
        let all = Rule {
            level: Level::Metadata,
            users: Vec::new(),
            calls: Vec::new(),
            classes: Vec::new(),
            key_prefixes: Vec::new(),
            outcomes: Vec::new(),
        };
        let quiet = Rule {
            level: Level::None,
            classes: vec![Class::Read, Class::Watch],
            outcomes: vec![Outcome::Ok],
            ..all.clone()
        };
        Self { rules: vec![quiet, all] }
    }
}

/// A call, as far as rules ask about it before it is done.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The user's name; empty for nobody known.
    pub user: &'a str,
    /// The method's name.
    pub call: &'a str,
    /// What kind of call.
    pub class: Class,
    /// What it touches.
    pub operations: &'a [Operation],
}

impl Rule {
    fn matches(&self, subject: &Subject<'_>, outcome: Outcome) -> bool {
        is_any_or(&self.classes, |class| *class == subject.class)
            && is_any_or(&self.outcomes, |wanted| *wanted == outcome)
            && is_any_or(&self.calls, |call| call == subject.call)
            && is_any_or(&self.users, |user| is_user(user, subject.user))
            && (self.key_prefixes.is_empty() || self.matches_keys(subject.operations))
    }

    fn matches_keys(&self, operations: &[Operation]) -> bool {
        let mut prefixes = self.key_prefixes.iter().map(String::as_bytes);
        if self.level != Level::None {
            return prefixes.any(|prefix| operations.iter().any(|op| op.touches(prefix)));
        }
        let is_quiet = |op: &Operation| prefixes.clone().any(|prefix| op.is_within(prefix));
        !operations.is_empty() && operations.iter().all(is_quiet)
    }
}

fn is_any_or<T>(conditions: &[T], holds: impl Fn(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}

fn is_user(pattern: &str, user: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => user.starts_with(beginning),
        None => pattern == user,
    }
}

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Reads a policy file. `calls` are the names that a rule may name.
    pub fn read(path: &Path, calls: &[&str]) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_POLICY_BYTES {
            let why = format!("{size} bytes, more than {MAX_POLICY_BYTES}");
            return Err(Error::Policy { path: path.to_owned(), line: 0, why });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text, calls).map_err(|(line, why)| {
            let path = path.to_owned();
            Error::Policy { path, line, why }
        })
    }

    /// Reads a policy's text; an error is its line and what is wrong there.
    pub fn parse(text: &str, calls: &[&str]) -> Result<Self, (usize, String)> {
        let policy: Self =
            serde_json::from_str(text).map_err(|error| (error.line(), error.to_string()))?;
        let mut named = policy.rules.iter().flat_map(|rule| &rule.calls);
        match named.find(|call| !calls.contains(&call.as_str())) {
            None => Ok(policy),
            Some(call) => {
                let quoted = format!("\"{call}\"");
                let line = text.lines().position(|line| line.contains(&quoted));
                let why = format!("there is no call {quoted}; calls are {}", calls.join(", "));
                Err((line.map_or(0, |before| before + 1), why))
            }
        }
    }

    /// How much of a call with this outcome is recorded.
    pub fn level(&self, subject: &Subject<'_>, outcome: Outcome) -> Level {
        let first = self.rules.iter().find(|rule| rule.matches(subject, outcome));
        first.map_or(Level::None, |rule| rule.level)
    }

    /// The most that is recorded of a call, whatever comes of it.
    pub fn highest_level(&self, subject: &Subject<'_>) -> Level {
        let levels = Outcome::ALL.map(|outcome| self.level(subject, outcome));
        levels.into_iter().max().unwrap_or(Level::None)
    }

    /// Whether a rule asks for values or their digests: otherwise nobody need keep them.
    pub fn wants_values(&self) -> bool {
        self.rules.iter().any(|rule| rule.level >= Level::Request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Action;
    use bytes::Bytes;

    fn op(key: &'static str, range_end: &'static str) -> Operation {
        let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
        Operation { action: Action::Delete, key, range_end, value: None }
    }

    fn level(policy: &Policy, class: Class, operations: &[Operation], outcome: Outcome) -> Level {
        let subject = Subject { user: "ann", call: "DeleteRange", class, operations };
        policy.level(&subject, outcome)
    }

    fn parse(text: &str) -> Result<Policy, (usize, String)> {
        Policy::parse(text, &["Put", "DeleteRange"])
    }

    #[test]
    fn the_default_records_changes_and_refusals_and_no_reads() {
        let policy = Policy::default();
        for (class, outcome, expected) in [
            (Class::Write, Outcome::Ok, Level::Metadata),
            (Class::Admin, Outcome::Failed, Level::Metadata),
            (Class::Lease, Outcome::Ok, Level::Metadata),
            (Class::Read, Outcome::Ok, Level::None),
            (Class::Watch, Outcome::Ok, Level::None),
            (Class::Read, Outcome::Denied, Level::Metadata),
        ] {
            assert_eq!(level(&policy, class, &[], outcome), expected, "{class:?} {outcome:?}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_without_one_nothing_is_recorded() {
        let policy = parse(
            r#"{"rules": [
                {"level": "request", "users": ["a*"], "calls": ["Put"]},
                {"level": "none", "users": ["ann"]},
                {"level": "metadata", "users": ["", "bob"]}]}"#,
        )
        .unwrap();
        let of = |user, call| {
            let subject = Subject { user, call, class: Class::Write, operations: &[] };
            policy.level(&subject, Outcome::Ok)
        };
        assert_eq!(of("ann", "Put"), Level::Request);
        assert_eq!(of("ann", "DeleteRange"), Level::None);
        assert_eq!(of("", "Put"), Level::Metadata);
        assert_eq!(of("bob", "Put"), Level::Metadata);
        assert_eq!(of("carl", "Put"), Level::None);
    }

    #[test]
    fn a_wide_delete_does_not_hide_behind_a_quiet_prefix() {
        let policy = parse(
            r#"{"rules": [{"level": "none", "key_prefixes": ["tmp/", "scratch/"]},
                          {"level": "metadata", "key_prefixes": ["secret/"]},
                          {"level": "request"}]}"#,
        )
        .unwrap();
        let of = |ops: &[Operation]| level(&policy, Class::Write, ops, Outcome::Ok);
        assert_eq!(of(&[op("tmp/a", "")]), Level::None);
        assert_eq!(of(&[op("tmp/a", ""), op("scratch/", "scratch0")]), Level::None);
        assert_eq!(of(&[op("tmp/a", ""), op("b", "")]), Level::Request);
        assert_eq!(of(&[op("", "\0")]), Level::Metadata);
        assert_eq!(of(&[op("tmp/", "\0")]), Level::Request);
        assert_eq!(of(&[]), Level::Request);
    }

    #[test]
    fn a_bad_policy_is_refused_with_its_line_and_the_cause() {
        for (text, line, cause) in [
            ("{\"rules\": [\n{\"level\": \"loud\"}]}", 2, "unknown variant `loud`"),
            ("{\"rules\": [\n\n{\"level\": \"none\", \"user\": []}]}", 3, "unknown field `user`"),
            (
                "{\"rules\": [\n{\"level\": \"none\",\n\"calls\": [\"Putt\"]}]}",
                3,
                "no call \"Putt\"",
            ),
            ("{\"rules\": [\n{}]}", 2, "missing field `level`"),
            ("{\"rules\": 7}", 1, "invalid type"),
            ("", 1, "EOF"),
        ] {
            let (found, why) = parse(text).unwrap_err();
            assert_eq!(found, line, "{text}: {why}");
            assert!(why.contains(cause), "{text}: {why}");
        }
    }
}
