//! The language of the transcripts' commands.
//!
//! ```text
//! put KEY VALUE [lease=ID] [prev_kv] [ignore_value] [ignore_lease]
//! get KEY [END] [limit=N] [rev=N] [sort=TARGET] [order=ascend|descend] [serializable] [keys_only]
//!     [count_only] [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del KEY [END] [prev_kv]
//! txn [if COMPARE; …] [then OPERATION; …] [else OPERATION; …]
//!     COMPARE = version|create|mod|value|lease|#NUMBER KEY[..END] =|!=|<|>|#NUMBER VALUE
//!     OPERATION = put … | get … | del … | txn { … } | empty
//!     times N COMPARE and times N OPERATION stand for N of them
//! compact REVISION
//! watch STREAM create KEY [END] [start=N] [noput] [nodelete] [prev_kv] [id=N] [fragment]
//! watch STREAM cancel ID | progress | empty | close | read N | silence
//! grant ID TTL | revoke ID | ttl ID [keys] | keepalive ID… | leases
//! ```
//!
//! A word may stand in quotes and then holds `\0`, `\"`, `\\` and blanks. `@N` as a value is N bytes.
//! Inside `times`, `%` in a word is the number of the round.

use std::collections::VecDeque;

use chronolith_proto::etcdserverpb::compare::TargetUnion;
use chronolith_proto::etcdserverpb::request_op::Request;
use chronolith_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

/// The words of a command that have not been read yet.
pub(crate) struct Words(VecDeque<String>);

impl Words {
    pub(crate) fn new(command: &str) -> Words {
        let mut words = VecDeque::new();
        let mut rest = command.trim_start();
        while !rest.is_empty() {
            let (word, after) = first_word(rest);
            words.push_back(word);
            rest = after.trim_start();
        }
        Words(words)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn next(&mut self) -> String {
        self.0.pop_front().expect("a word is missing in the command")
    }

    pub(crate) fn number(&mut self) -> i64 {
        number(&self.next())
    }

    /// Whether the next word belongs to what stands around a request.
    fn at_end(&self) -> bool {
        self.peek().is_none_or(|word| [";", "then", "else", "{", "}"].contains(&word))
    }

    fn peek(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    fn skip(&mut self, word: &str) -> bool {
        let there = self.peek() == Some(word);
        if there {
            self.0.pop_front();
        }
        there
    }

    /// The words of one element of a list, which may hold no list itself.
    fn element(&mut self) -> Vec<String> {
        let mut element = Vec::new();
        while !self.at_end() {
            element.push(self.next());
        }
        element
    }

    /// A key and, when no option follows, the end of a range.
    fn range(&mut self) -> (String, String) {
        let key = self.next();
        let end = if self.at_end() || self.peek().is_some_and(is_option) {
            String::new()
        } else {
            self.next()
        };
        (key, end)
    }

    fn options(&mut self) -> Vec<(String, String)> {
        let mut options = Vec::new();
        while !self.at_end() {
            let word = self.next();
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            options.push((name.to_owned(), value.to_owned()));
        }
        options
    }
}

/// Quoted words keep what they are: a marker byte hides them from the grammar's own words.
fn first_word(text: &str) -> (String, &str) {
    match text.strip_prefix('"') {
        Some(quoted) => {
            let end = closing_quote(quoted);
            (unescape(&quoted[..end]), &quoted[end + 1..])
        }
        None if text.starts_with([';', '{', '}']) => (text[..1].to_owned(), &text[1..]),
        None => {
            let end = text.find([' ', ';', '{', '}']).unwrap_or(text.len());
            (text[..end].to_owned(), &text[end..])
        }
    }
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    let closing = text.char_indices().find(|&(_, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    closing.expect("a quote is not closed").0
}

fn unescape(text: &str) -> String {
    text.replace("\\0", "\0").replace("\\\"", "\"").replace("\\\\", "\\")
}

const OPTIONS: [&str; 10] = [
    "prev_kv",
    "ignore_value",
    "ignore_lease",
    "serializable",
    "keys_only",
    "count_only",
    "noput",
    "nodelete",
    "fragment",
    "keys",
];

fn is_option(word: &str) -> bool {
    OPTIONS.contains(&word) || word.contains('=')
}

fn number(word: &str) -> i64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn value(word: String) -> String {
    match word.strip_prefix('@') {
        Some(size_bytes) => "x".repeat(size_bytes.parse().unwrap()),
        None => word,
    }
}

pub(crate) fn put(words: &mut Words) -> PutRequest {
    let mut request = PutRequest { key: words.next().into(), ..Default::default() };
    request.value = value(words.next()).into();
    for (name, value) in words.options() {
        match name.as_str() {
            "lease" => request.lease = number(&value),
            "prev_kv" => request.prev_kv = true,
            "ignore_value" => request.ignore_value = true,
            "ignore_lease" => request.ignore_lease = true,
            _ => panic!("put has no option {name}"),
        }
    }
    request
}

pub(crate) fn get(words: &mut Words) -> RangeRequest {
    let (key, end) = words.range();
    let mut request = RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() };
    for (name, value) in words.options() {
        match name.as_str() {
            "limit" => request.limit = number(&value),
            "rev" => request.revision = number(&value),
            "sort" => request.sort_target = name_or_number(&value, &SORT_TARGETS),
            "order" => request.sort_order = name_or_number(&value, &SORT_ORDERS),
            "serializable" => request.serializable = true,
            "keys_only" => request.keys_only = true,
            "count_only" => request.count_only = true,
            "min_mod" => request.min_mod_revision = number(&value),
            "max_mod" => request.max_mod_revision = number(&value),
            "min_create" => request.min_create_revision = number(&value),
            "max_create" => request.max_create_revision = number(&value),
            _ => panic!("get has no option {name}"),
        }
    }
    request
}

const SORT_ORDERS: [&str; 3] = ["none", "ascend", "descend"];
const SORT_TARGETS: [&str; 5] = ["key", "version", "create", "mod", "value"];
const COMPARE_TARGETS: [&str; 5] = ["version", "create", "mod", "value", "lease"];
const COMPARE_RESULTS: [&str; 4] = ["=", ">", "<", "!="];

/// The position of a name in its list, or `#N` for numbers that have no name.
fn name_or_number(word: &str, names: &[&str]) -> i32 {
    if let Some(bare) = word.strip_prefix('#') {
        return bare.parse().unwrap();
    }
    let position = names.iter().position(|&name| name == word);
    position.unwrap_or_else(|| panic!("{word} is none of {names:?}")) as i32
}

pub(crate) fn delete(words: &mut Words) -> DeleteRangeRequest {
    let (key, end) = words.range();
    let prev_kv = words.options().iter().any(|(name, _)| name == "prev_kv");
    DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv }
}

pub(crate) fn txn(words: &mut Words) -> TxnRequest {
    let mut request = TxnRequest::default();
    if words.skip("if") {
        request.compare = list(words, compare);
    }
    if words.skip("then") {
        request.success = list(words, operation);
    }
    if words.skip("else") {
        request.failure = list(words, operation);
    }
    request
}

/// Elements up to the last semicolon; `times N` repeats one.
fn list<T>(words: &mut Words, element: impl Fn(&mut Words) -> T) -> Vec<T> {
    let mut elements = Vec::new();
    loop {
        if words.skip("times") {
            let (count, round) = (words.number(), words.element());
            for number in 0..count {
                let numbered = round.iter().map(|word| word.replace('%', &number.to_string()));
                elements.push(element(&mut Words(numbered.collect())));
            }
        } else {
            elements.push(element(words));
        }
        if !words.skip(";") {
            return elements;
        }
    }
}

fn compare(words: &mut Words) -> Compare {
    let target = words.next();
    let key = words.next();
    let (key, end) = key.split_once("..").unwrap_or((&key, ""));
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    let result = name_or_number(&words.next(), &COMPARE_RESULTS);
    let target_union = target_union(&target, words.next());
    let target = name_or_number(&target, &COMPARE_TARGETS);
    Compare { result, target, key, range_end, target_union }
}

/// `none` leaves the operand out; `version:1` gives an operand of another kind than the target.
fn target_union(target: &str, operand: String) -> Option<TargetUnion> {
    let (kind, operand) = match operand.split_once(':') {
        Some((kind, operand)) => (kind.to_owned(), operand.to_owned()),
        None => (target.to_owned(), operand),
    };
    match kind.as_str() {
        _ if operand == "none" => None,
        "value" => Some(TargetUnion::Value(operand.into())),
        "create" => Some(TargetUnion::CreateRevision(number(&operand))),
        "mod" => Some(TargetUnion::ModRevision(number(&operand))),
        "lease" => Some(TargetUnion::Lease(number(&operand))),
        _ => Some(TargetUnion::Version(number(&operand))),
    }
}

fn operation(words: &mut Words) -> RequestOp {
    let request = match words.next().as_str() {
        "put" => Some(Request::RequestPut(put(words))),
        "get" => Some(Request::RequestRange(get(words))),
        "del" => Some(Request::RequestDeleteRange(delete(words))),
        "txn" => Some(Request::RequestTxn(nested(words))),
        "empty" => None,
        other => panic!("{other} is no operation of a transaction"),
    };
    RequestOp { request }
}

fn nested(words: &mut Words) -> TxnRequest {
    assert!(words.skip("{"), "a nested transaction stands in braces");
    let request = txn(words);
    assert!(words.skip("}"), "a nested transaction ends with a brace");
    request
}

pub(crate) fn watch_create(words: &mut Words) -> WatchCreateRequest {
    let (key, end) = words.range();
    let mut request =
        WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() };
    for (name, value) in words.options() {
        match name.as_str() {
            "start" => request.start_revision = number(&value),
            "noput" => request.filters.push(0),
            "nodelete" => request.filters.push(1),
            "prev_kv" => request.prev_kv = true,
            "id" => request.watch_id = number(&value),
            "fragment" => request.fragment = true,
            _ => panic!("watch has no option {name}"),
        }
    }
    request
}

#[test]
fn a_nested_transaction_is_read_as_it_is_written() {
    let words = &mut Words::new(r#"if version a..c = 0 then put a "x y"; txn { else get a "\0" }"#);
    let request = txn(words);
    assert!(words.is_empty());
    assert_eq!(request.compare[0].range_end, "c");
    let Some(Request::RequestPut(put)) = &request.success[0].request else { panic!() };
    assert_eq!(put.value, "x y");
    let Some(Request::RequestTxn(nested)) = &request.success[1].request else { panic!() };
    let Some(Request::RequestRange(get)) = &nested.failure[0].request else { panic!() };
    assert_eq!(get.range_end, "\0");
}
