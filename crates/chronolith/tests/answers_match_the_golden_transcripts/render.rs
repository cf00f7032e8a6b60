//! Answers as text: what a client can rely on, without ids and terms that differ from node to node.
//!
//! ```text
//! OK revision 7 count 5 more                 the header's revision, then the rest of the first line
//!   k0="7" create 2 mod 8 version 2          records, one a line
//! ERR NOT_FOUND etcdserver: requested lease not found
//! ```

use chronolith_proto::etcdserverpb::response_op::Response;
use chronolith_proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
    WatchResponse,
};
use chronolith_proto::mvccpb::{Event, KeyValue};
use tonic::{Code, Status};

/// Longer values are shown by their size.
const SHOWN_BYTES: usize = 64;

pub(crate) fn answer(lines: Result<Vec<String>, Status>) -> String {
    match lines {
        Ok(lines) => format!("OK{}\n", lines.join("\n")),
        Err(status) => format!("{}\n", error(&status)),
    }
}

pub(crate) fn error(status: &Status) -> String {
    format!("ERR {} {}", code(status.code()), status.message())
}

fn code(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// ` revision N`, or nothing for an answer without a header.
pub(crate) fn header(header: Option<ResponseHeader>) -> String {
    header.map_or_else(String::new, |header| format!(" revision {}", header.revision))
}

pub(crate) fn put(answer: PutResponse) -> Vec<String> {
    let mut lines = vec![header(answer.header)];
    lines.extend(answer.prev_kv.map(|kv| format!("  before {}", record(&kv))));
    lines
}

pub(crate) fn range(answer: RangeResponse) -> Vec<String> {
    let more = if answer.more { " more" } else { "" };
    let mut lines = vec![format!("{} count {}{more}", header(answer.header), answer.count)];
    lines.extend(answer.kvs.iter().map(|kv| format!("  {}", record(kv))));
    lines
}

pub(crate) fn delete(answer: DeleteRangeResponse) -> Vec<String> {
    let mut lines = vec![format!("{} deleted {}", header(answer.header), answer.deleted)];
    lines.extend(answer.prev_kvs.iter().map(|kv| format!("  before {}", record(kv))));
    lines
}

pub(crate) fn txn(answer: TxnResponse) -> Vec<String> {
    let outcome = if answer.succeeded { "then" } else { "else" };
    let mut lines = vec![format!("{} {outcome}", header(answer.header))];
    for part in answer.responses {
        lines.extend(operation(part).into_iter().map(|line| format!("  {line}")));
    }
    counted(lines)
}

/// Equal lines in a row as one, with their number.
fn counted(lines: Vec<String>) -> Vec<String> {
    let same = lines.chunk_by(|a, b| a == b);
    same.map(|lines| match lines.len() {
        1 => lines[0].clone(),
        count => format!("{} ({count} times)", lines[0]),
    })
    .collect()
}

fn operation(part: ResponseOp) -> Vec<String> {
    let (name, mut lines) = match part.response {
        Some(Response::ResponseRange(answer)) => ("get", range(answer)),
        Some(Response::ResponsePut(answer)) => ("put", put(answer)),
        Some(Response::ResponseDeleteRange(answer)) => ("del", delete(answer)),
        Some(Response::ResponseTxn(answer)) => ("txn", txn(answer)),
        None => ("nothing", vec![String::new()]),
    };
    lines[0].insert_str(0, name);
    lines
}

pub(crate) fn record(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
    format!(
        "{}={} create {} mod {} version {}{lease}",
        bytes(&kv.key),
        value(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

pub(crate) fn watch(answer: &WatchResponse) -> Vec<String> {
    let mut line = format!("watch {}{}", answer.watch_id, header(answer.header));
    let flags =
        [(answer.created, "created"), (answer.canceled, "canceled"), (answer.fragment, "fragment")];
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        line.push_str(&format!(" {name}"));
    }
    if answer.compact_revision != 0 {
        line.push_str(&format!(" compact_revision {}", answer.compact_revision));
    }
    if !answer.cancel_reason.is_empty() {
        line.push_str(&format!(" {:?}", answer.cancel_reason));
    }
    let mut lines = vec![line];
    lines.extend(answer.events.iter().map(event));
    lines
}

fn event(event: &Event) -> String {
    let kind = if event.r#type == 0 { "PUT" } else { "DELETE" };
    let kv = event.kv.as_ref().map_or_else(|| "no record".to_owned(), record);
    let before = event.prev_kv.as_ref().map(|kv| format!(" before {}", record(kv)));
    format!("  {kind} {kv}{}", before.unwrap_or_default())
}

/// Bare where nothing can be misread, in quotes otherwise.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    format!("\"{}\"", bytes.escape_ascii())
}

fn value(value: &[u8]) -> String {
    if value.len() > SHOWN_BYTES {
        return format!("<{} bytes>", value.len());
    }
    format!("\"{}\"", value.escape_ascii())
}
